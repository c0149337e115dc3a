import NIOCore
import Supervisor
import TTRPC

/// One client's connection: frames in, calls made, frames out. Bounded in every direction: calls in flight, and bytes that the
/// client does not read.
final class ConnectionHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    /// Calls of one connection that may run at a time.
    static let callLimit = 128
    /// Bytes of answers that may wait for a client; one that reads slower is cut off. Streams wait instead.
    static let outboundLimit = 16 << 20

    private struct Call {
        var task: Task<Void, Never>?
        var deadline: Scheduled<Void>?
    }

    private let methods: MethodTable
    private let executor: Executor
    private var decoder = FrameDecoder()
    private var lastStream: UInt32 = 0
    private var calls: [UInt32: Call] = [:]
    private var outbound = 0
    private var needsFlush = false

    init(methods: MethodTable, executor: Executor) {
        self.methods = methods
        self.executor = executor
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        decoder.feed(unwrapInboundIn(data).readableBytesView)
        while let event = decoder.next() {
            switch event {
            case .frame(let frame): handle(frame, context)
            case .oversize(let stream, let length):
                let status = Status(.resourceExhausted, "message length \(length) exceed maximum message size of \(Frame.limit)")
                if accept(stream, context) { answer(stream, .failure(status), context) }
            }
        }
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        if needsFlush { context.flush() }
        needsFlush = false
    }

    func channelInactive(context: ChannelHandlerContext) {
        for call in calls.values {
            call.task?.cancel()
            call.deadline?.cancel()
        }
        calls = [:]
        context.fireChannelInactive()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

    /// Whether `stream` may begin: odd, and greater than all before it.
    private func accept(_ stream: UInt32, _ context: ChannelHandlerContext) -> Bool {
        guard stream % 2 == 1, stream > lastStream else {
            answer(stream, .failure(Status(.invalidArgument, "stream id \(stream) is not odd and increasing")), context)
            return false
        }
        lastStream = stream
        return true
    }

    private func handle(_ frame: Frame, _ context: ChannelHandlerContext) {
        // No method takes a stream from the client, so data after the request is no message of any call.
        guard frame.kind == .request, accept(frame.stream, context) else { return }
        guard let request = RequestEnvelope(decoding: frame.data) else {
            return answer(frame.stream, .failure(Status(.invalidArgument, "malformed request")), context)
        }
        guard calls.count < Self.callLimit else {
            let status = Status(.resourceExhausted, "more than \(Self.callLimit) calls in flight on this connection")
            return answer(frame.stream, .failure(status), context)
        }
        do throws(Status) {
            let method = try methods.find(request.service, request.method)
            if frame.flags.contains(.remoteOpen) { throw Status(.invalidArgument, "method \(request.method) takes one message") }
            start(method, request, frame.stream, context)
        } catch { answer(frame.stream, .failure(error), context) }
    }

    private func start(_ method: Method, _ request: RequestEnvelope, _ stream: UInt32, _ context: ChannelHandlerContext) {
        let bound = NIOLoopBound((handler: self, context: context), eventLoop: context.eventLoop)
        let payload = request.payload
        switch method {
        case .immediate(let body):
            return answer(stream, Result { try body(payload) }.mapError(Method.status(of:)), context)
        case .unary(let body):
            calls[stream] = Call()
            calls[stream]?.task = executor.spawn {
                let result: Result<[UInt8], Status>
                do { result = .success(try await body(payload)) } catch { result = .failure(Method.status(of: error)) }
                bound.value.handler.finish(stream, result, bound.value.context)
            }
        case .stream(let body):
            calls[stream] = Call()
            let writer = StreamWriter(channel: context.channel, stream: stream)
            calls[stream]?.task = executor.spawn {
                var failure: Status?
                do { try await body(payload, writer) } catch { failure = Method.status(of: error) }
                bound.value.handler.finishStream(stream, failure, bound.value.context)
            }
        }
        if request.timeout > 0 {
            // The deadline ends the wait of the client. What it asked for goes on, and asking again joins it.
            calls[stream]?.deadline = context.eventLoop.scheduleTask(in: .nanoseconds(request.timeout)) {
                let status = Status(.deadlineExceeded, "\(request.method) takes longer than the client waits; it goes on")
                bound.value.handler.finish(stream, .failure(status), bound.value.context)
            }
        }
    }

    private func finish(_ stream: UInt32, _ result: Result<[UInt8], Status>, _ context: ChannelHandlerContext) {
        guard let call = calls.removeValue(forKey: stream) else { return }
        call.deadline?.cancel()
        // Only a wait looks at cancellation; work goes on to its end.
        call.task?.cancel()
        answer(stream, result, context)
        context.flush()
    }

    private func finishStream(_ stream: UInt32, _ failure: Status?, _ context: ChannelHandlerContext) {
        if let failure { return finish(stream, .failure(failure), context) }
        guard let call = calls.removeValue(forKey: stream) else { return }
        call.deadline?.cancel()
        write(Frame(stream: stream, kind: .data, flags: [.remoteClosed, .noData]), context)
        context.flush()
    }

    private func answer(_ stream: UInt32, _ result: Result<[UInt8], Status>, _ context: ChannelHandlerContext) {
        var data = ResponseEnvelope(result).encoded()
        if data.count > Frame.limit {
            let status = Status(.resourceExhausted, "the answer of \(data.count) bytes exceeds the message limit of \(Frame.limit)")
            data = ResponseEnvelope(.failure(status)).encoded()
        }
        write(Frame(stream: stream, kind: .response, data: data), context)
    }

    private func write(_ frame: Frame, _ context: ChannelHandlerContext) {
        let bytes = frame.encoded()
        outbound += bytes.count
        if outbound > Self.outboundLimit { return context.close(promise: nil) }
        let bound = NIOLoopBound(self, eventLoop: context.eventLoop)
        let count = bytes.count
        context.write(wrapOutboundOut(context.channel.allocator.buffer(bytes: bytes))).whenComplete { _ in bound.value.outbound -= count }
        needsFlush = true
    }
}

/// Sends the messages of a streaming call, each when the one before it has left.
struct StreamWriter: Sendable {
    let channel: any Channel
    let stream: UInt32

    /// The same of a message that has room for the frame's header before it: nothing is copied. Completes when the kernel has taken it.
    func send(framed message: ByteBuffer) -> EventLoopFuture<Void> {
        var frame = message
        let start = frame.readerIndex
        frame.setInteger(UInt32(frame.readableBytes - Frame.headerLength), at: start)
        frame.setInteger(stream, at: start + 4)
        frame.setInteger(Frame.Kind.data.rawValue, at: start + 8)
        frame.setInteger(UInt8(0), at: start + 9)
        return channel.writeAndFlush(frame)
    }

    /// Returns when the kernel has taken the message: a client that reads slowly slows this call down, and nothing else.
    func send(_ message: [UInt8]) async throws {
        let frame = Frame(stream: stream, kind: .data, data: message)
        try await channel.writeAndFlush(channel.allocator.buffer(bytes: frame.encoded())).get()
    }
}
