import CLinux
import Glibc
import Linux
import SwiftProtobuf
import TTRPC

/// One connection to the manager: requests go out under odd, rising stream ids, answers come back in any order.
/// It never blocks except in ``call(_:_:within:)``; whoever waits for several things polls ``descriptor``.
final class Connection {
    enum Answer: Equatable {
        /// The one answer of a unary call, or the failure of a streaming one.
        case response(stream: UInt32, Result<[UInt8], Status>)
        /// One message of a streaming call.
        case message(stream: UInt32, [UInt8])
        /// A streaming call has ended well.
        case end(stream: UInt32)
    }

    let path: String
    private let socket: Descriptor
    private var decoder = FrameDecoder()
    private var outgoing: [UInt8] = []
    private var nextStream: UInt32 = 1
    private var queued: [Answer] = []
    private let room: UnsafeMutableRawBufferPointer
    /// Whether anything ever came back on this connection.
    private(set) var wasAnswered = false

    /// Connects to the Unix socket at `path`. `bufferSize` is how much is read at once.
    init(path: String, bufferSize: Int = 16 << 10) throws(ClientError) {
        let raw = ctr_unix_connect(path, true)
        if raw < 0 { throw .cannotConnect(path: path, code: -raw) }
        socket = Descriptor(owning: raw)
        self.path = path
        room = UnsafeMutableRawBufferPointer.allocate(byteCount: bufferSize, alignment: 16)
    }

    deinit { room.deallocate() }

    /// For poll(2); stays this connection's.
    var descriptor: Int32 { socket.raw }

    /// What poll(2) should wait for: always input, and room for output while some is left over.
    var pollEvents: Int16 { Int16(POLLIN) | (outgoing.isEmpty ? 0 : Int16(POLLOUT)) }

    /// Takes a request and returns the id under which the answer will come. It is sent by the next ``flush()``, with others.
    func start<Request, Response>(
        _ method: Method<Request, Response>, _ request: Request, timeout nanoseconds: Int64 = 0, streaming: Bool = false
    ) throws(ClientError) -> UInt32 {
        let payload: [UInt8]
        do { payload = try request.serializedBytes() } catch { throw .malformed("request: \(error)") }
        let envelope = RequestEnvelope(
            service: "\(method.service)", method: "\(method.name)", payload: payload, timeout: nanoseconds
        ).encoded()
        if envelope.count > Frame.limit {
            throw .status(Status(.resourceExhausted, "request of \(envelope.count) bytes exceeds the limit of \(Frame.limit)"))
        }
        let stream = nextStream
        nextStream += 2
        outgoing += Frame(stream: stream, kind: .request, flags: streaming ? .remoteClosed : [], data: envelope).encoded()
        return stream
    }

    /// Sends as much as the socket takes now.
    func flush() throws(ClientError) {
        while !outgoing.isEmpty {
            let sent = outgoing.withUnsafeBytes { Glibc.send(socket.raw, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
            if sent < 0 {
                if errno == EINTR { continue }
                if errno == EAGAIN { return }
                throw .lost(path: path)
            }
            outgoing.removeFirst(sent)
        }
    }

    /// Takes what has arrived, one read; ``next()`` hands it out. Throws ``ClientError/lost(path:)`` at the end of the connection.
    func receive() throws(ClientError) {
        while true {
            let got = Glibc.recv(socket.raw, room.baseAddress, room.count, 0)
            if got > 0 {
                decoder.feed(UnsafeRawBufferPointer(rebasing: room[..<got]))
                return
            }
            if got < 0 && errno == EINTR { continue }
            if got < 0 && errno == EAGAIN { return }
            throw .lost(path: path)
        }
    }

    /// The next answer that is complete, nil until more is received.
    func next() throws(ClientError) -> Answer? {
        if !queued.isEmpty { return queued.removeFirst() }
        while let event = decoder.next() {
            wasAnswered = true
            switch event {
            case .oversize(let stream, let length):
                throw .malformed("frame of \(length) bytes on stream \(stream)")
            case .frame(let frame):
                switch frame.kind {
                case .request: throw .malformed("a request on stream \(frame.stream)")
                case .response:
                    guard let envelope = ResponseEnvelope(decoding: frame.data) else {
                        throw .malformed("response on stream \(frame.stream)")
                    }
                    return .response(stream: frame.stream, envelope.result)
                case .data:
                    let ends = frame.flags.contains(.remoteClosed)
                    if frame.flags.contains(.noData) {
                        if ends { return .end(stream: frame.stream) }
                        continue
                    }
                    if ends { queued.append(.end(stream: frame.stream)) }
                    return .message(stream: frame.stream, frame.data)
                }
            }
        }
        return nil
    }

    /// A unary call that waits for its answer, at most `seconds`. A deadline ends the wait, never the work of the manager.
    func call<Request, Response>(
        _ method: Method<Request, Response>, _ request: Request, within seconds: Int64? = nil
    ) throws(ClientError) -> Response {
        let limit = seconds.map { $0 * 1_000_000_000 }
        let deadline = limit.map { now(CLOCK_MONOTONIC) + $0 }
        let stream = try start(method, request, timeout: limit ?? 0)
        try flush()
        while true {
            while let answer = try next() {
                if case .response(stream, let result) = answer { return try decode(result) }
            }
            if !waitFor([(descriptor, pollEvents)], until: deadline) {
                throw .timedOut(path: path, seconds: seconds ?? 0)
            }
            try flush()
            try receive()
        }
    }
}

/// The message in a unary answer.
func decode<Response: Message>(_ result: Result<[UInt8], Status>) throws(ClientError) -> Response {
    switch result {
    case .failure(let status): throw .status(status)
    case .success(let payload):
        do { return try Response(serializedBytes: payload) } catch { throw .malformed("\(Response.protoMessageName)") }
    }
}

/// poll(2) until one of the descriptors has news; false when `deadline` (CLOCK_MONOTONIC, ns) passes first.
@discardableResult
func waitFor(_ descriptors: [(descriptor: Int32, events: Int16)], until deadline: Int64? = nil) -> Bool {
    var set = descriptors.map { pollfd(fd: $0.descriptor, events: $0.events, revents: 0) }
    return poll(&set, until: deadline)
}

/// The same over a set that the caller looks at afterwards.
@discardableResult
func poll(_ set: inout [pollfd], until deadline: Int64?) -> Bool {
    while true {
        var milliseconds: Int32 = -1
        if let deadline {
            // Rounded up: to wake before the time would only mean to ask again.
            let left = max(0, deadline - now(CLOCK_MONOTONIC) + 999_999) / 1_000_000
            milliseconds = Int32(clamping: left)
        }
        let ready = Glibc.poll(&set, nfds_t(set.count), milliseconds)
        if ready > 0 { return true }
        if ready == 0 && milliseconds < Int32.max { return false }
        if ready < 0 && errno != EINTR { return true }
    }
}
