import CLinux
import CtrProto
import Glibc
import NIOCore
import NIOPosix
import SwiftProtobuf
import TTRPC

/// Why a call to a shim has no answer. What the shim itself refuses is a `Status`.
enum ShimError: Error, Equatable {
    /// Nobody listens: both guards are gone.
    case refused
    /// The connection ended, perhaps in the middle of the work: the keeper starts another shim.
    case connectionLost
    /// The shim did not answer in time; what was asked of it may still happen.
    case deadline
    case cannotConnect(errno: Int32)
}

extension ShimError: CustomStringConvertible {
    var description: String {
        switch self {
        case .refused: "shim and keeper are gone"
        case .connectionLost: "the shim ended while it was asked"
        case .deadline: "the shim does not answer"
        case .cannotConnect(let code): "cannot connect to the shim: \(String(cString: strerror(code)))"
        }
    }
}

/// One ttrpc connection to one shim. Calls run side by side and are answered in any order.
final class ShimConnection: Sendable {
    private let channel: any Channel
    private let handler: NIOLoopBound<ShimHandler>

    /// Takes the calls for a shim that is not ours.
    private let foreign: ForeignShim?

    private init(channel: any Channel, handler: NIOLoopBound<ShimHandler>, foreign: ForeignShim?) {
        self.channel = channel
        self.handler = handler
        self.foreign = foreign
    }

    /// Connects to the socket at `path`. On a Unix socket this never waits: the keeper's queue takes the connection though no shim may
    /// live.
    static func dial(_ path: String, executor: Executor, foreign: ForeignShim? = nil) async throws -> ShimConnection {
        let socket = ctr_unix_connect(path, true)
        guard socket >= 0 else {
            throw socket == -ECONNREFUSED || socket == -ENOENT ? ShimError.refused : ShimError.cannotConnect(errno: -socket)
        }
        let loop = executor.loop
        return try await loop.flatSubmit { () -> EventLoopFuture<ShimConnection> in
            let handler = NIOLoopBound(ShimHandler(), eventLoop: loop)
            return ClientBootstrap(group: loop)
                .channelInitializer { channel in
                    channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(handler.value) }
                }
                .withConnectedSocket(socket)
                .map { ShimConnection(channel: $0, handler: handler, foreign: foreign) }
        }.get()
    }

    /// Calls `method` and waits for its answer, at most `timeout` when there is one.
    /// - Throws: `Status` as the shim answered, ``ShimError``, or CancellationError when the caller's task was cancelled.
    func call<Response: Message>(
        _ service: String, _ method: String, _ request: some Message, timeout: TimeAmount? = nil
    ) async throws -> Response {
        if let foreign { return try await foreign.call(self, service, method, request, timeout: timeout) }
        return try await send(service, method, request, timeout: timeout)
    }

    /// The same, to the shim itself whatever it is.
    func send<Response: Message>(
        _ service: String, _ method: String, _ request: some Message, timeout: TimeAmount? = nil
    ) async throws -> Response {
        let envelope = RequestEnvelope(
            service: service, method: method, payload: try request.serializedBytes(), timeout: timeout?.nanoseconds ?? 0)
        let ticket = ShimHandler.Ticket()
        let promise = channel.eventLoop.makePromise(of: [UInt8].self)
        let (channel, handler) = (channel, handler)
        let bytes = try await withTaskCancellationHandler {
            channel.eventLoop.execute { handler.value.send(envelope, ticket, promise, timeout, on: channel) }
            return try await promise.futureResult.get()
        } onCancel: {
            channel.eventLoop.execute { handler.value.forget(ticket) }
        }
        // What nobody can read is no answer: as if the shim had no such method.
        do { return try Response(serializedBytes: bytes) } catch {
            throw Status(.unimplemented, "the shim's answer to \(method) is malformed")
        }
    }

    /// Completes when the connection has ended, for whatever reason.
    var closed: EventLoopFuture<Void> { channel.closeFuture }

    var isOpen: Bool { channel.isActive }

    func close() { channel.close(promise: nil) }
}

/// Matches answers with calls; lives on the event loop.
final class ShimHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    /// Names a call before it has a stream id. Touched only on the event loop.
    final class Ticket: @unchecked Sendable {
        fileprivate var stream: UInt32 = 0
    }

    private struct Call {
        let promise: EventLoopPromise<[UInt8]>
        let deadline: Scheduled<Void>?
    }

    private var decoder = FrameDecoder()
    private var calls: [UInt32: Call] = [:]
    private var nextStream: UInt32 = 1

    fileprivate func send(
        _ envelope: RequestEnvelope, _ ticket: Ticket, _ promise: EventLoopPromise<[UInt8]>, _ timeout: TimeAmount?, on channel: any Channel
    ) {
        guard channel.isActive, nextStream < .max - 2 else { return promise.fail(ShimError.connectionLost) }
        let data = envelope.encoded()
        guard data.count <= Frame.limit else { return promise.fail(Status(.resourceExhausted, "the request exceeds the message limit")) }
        let stream = nextStream
        nextStream += 2
        ticket.stream = stream
        let bound = NIOLoopBound(self, eventLoop: channel.eventLoop)
        let deadline = timeout.map { timeout in
            channel.eventLoop.scheduleTask(in: timeout) { bound.value.finish(stream, .failure(ShimError.deadline)) }
        }
        calls[stream] = Call(promise: promise, deadline: deadline)
        let frame = Frame(stream: stream, kind: .request, data: data)
        channel.writeAndFlush(channel.allocator.buffer(bytes: frame.encoded()), promise: nil)
    }

    /// A late answer to a forgotten call finds nobody and is dropped.
    fileprivate func forget(_ ticket: Ticket) { finish(ticket.stream, .failure(CancellationError())) }

    private func finish(_ stream: UInt32, _ result: Result<[UInt8], any Error>) {
        guard let call = calls.removeValue(forKey: stream) else { return }
        call.deadline?.cancel()
        call.promise.completeWith(result)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        decoder.feed(unwrapInboundIn(data).readableBytesView)
        while let event = decoder.next() {
            switch event {
            case .frame(let frame):
                guard frame.kind == .response else { continue }
                guard let response = ResponseEnvelope(decoding: frame.data) else {
                    finish(frame.stream, .failure(Status(.unimplemented, "the shim's answer is malformed")))
                    continue
                }
                finish(frame.stream, response.result.mapError { $0 as any Error })
            case .oversize(let stream, let length):
                finish(stream, .failure(Status(.resourceExhausted, "the shim's answer of \(length) bytes is too long")))
            }
        }
    }

    func channelInactive(context: ChannelHandlerContext) {
        let lost = calls
        calls = [:]
        for call in lost.values {
            call.deadline?.cancel()
            call.promise.fail(ShimError.connectionLost)
        }
        context.fireChannelInactive()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}
