import CLinux
import CtrProto
import Glibc
import Linux

/// Takes the output of a container from the manager to this program's own descriptors, and knows the place behind the last byte
/// that was written: what was received and not written is asked for again after a lost connection, so no byte is torn off or doubled.
struct LogSink {
    enum Step: Equatable {
        /// Nothing is left to write.
        case drained
        /// The descriptor takes no more now: poll it for output.
        case blocked(descriptor: Int32)
        /// The reader is gone.
        case closed
    }

    /// The run of the container that is read; 0 until the first answer names it.
    private(set) var incarnation: UInt32 = 0
    /// Set once the output has ended and all of it was written.
    var isFinished: Bool { ended && pending.isEmpty }
    var isDrained: Bool { pending.isEmpty }

    private var ended = false
    private var cursors: [Ctr_V1_LogStream: Ctr_V1_LogCursor] = [:]
    private var pending: ArraySlice<UInt8> = []
    private var pendingCursor = Ctr_V1_LogCursor()
    private var regular: [Int32: Bool] = [:]
    private let outputs: (stdout: Int32, stderr: Int32)

    init(stdout: Int32 = 1, stderr: Int32 = 2) { outputs = (stdout, stderr) }

    /// The request that goes on behind what was written. What was received and not written is forgotten.
    mutating func request(namespace: String, container: String, follow: Bool) -> Ctr_V1_ReadLogsRequest {
        pending = []
        var request = Ctr_V1_ReadLogsRequest()
        request.namespace = namespace
        request.container = container
        request.incarnation = incarnation
        request.follow = follow
        request.from = cursors.values.sorted { $0.stream.rawValue < $1.stream.rawValue }
        return request
    }

    /// Takes one message; only when ``isDrained``.
    mutating func accept(_ response: Ctr_V1_ReadLogsResponse) {
        if response.incarnation != 0 { incarnation = response.incarnation }
        if response.ended { ended = true }
        if response.data.isEmpty { return }
        var data = ArraySlice([UInt8](response.data))
        var offset = response.offset
        if let known = cursors[response.stream] {
            if response.segment < known.segment { return }
            if response.segment == known.segment && offset < known.offset {
                let overlap = min(known.offset - offset, UInt64(data.count))
                data = data.dropFirst(Int(overlap))
                offset += overlap
            }
        }
        pendingCursor = Ctr_V1_LogCursor()
        pendingCursor.stream = response.stream
        pendingCursor.segment = response.segment
        pendingCursor.offset = offset
        pending = data
    }

    private mutating func isRegular(_ descriptor: Int32) -> Bool {
        if let known = regular[descriptor] { return known }
        var status = stat()
        let isRegular = fstat(descriptor, &status) == 0 && ctr_s_isreg(status.st_mode)
        regular[descriptor] = isRegular
        return isRegular
    }

    /// Notes that nothing more will come.
    mutating func end() { ended = true }

    /// Writes until nothing is left or the descriptor takes no more. The descriptors are others' too, so their flags stay as they
    /// are: a pipe or terminal is polled, then given no more than what it takes without blocking.
    mutating func write(blocking: Bool = false) throws(SysError) -> Step {
        let descriptor = pendingCursor.stream == .stderr ? outputs.stderr : outputs.stdout
        while !pending.isEmpty {
            var set = [pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)]
            if !blocking {
                let ready = Glibc.poll(&set, 1, 0)
                if ready == 0 || (ready < 0 && errno == EINTR) { return .blocked(descriptor: descriptor) }
            }
            let count = blocking || isRegular(descriptor) ? pending.count : min(pending.count, 4096)
            let written = pending.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, count) }
            if written < 0 {
                switch errno {
                case EINTR: continue
                case EAGAIN where blocking: waitFor([(descriptor, Int16(POLLOUT))])
                case EAGAIN: return .blocked(descriptor: descriptor)
                case EPIPE: return .closed
                default: throw SysError("write", descriptor == outputs.stderr ? "standard error" : "standard output", code: errno)
                }
                continue
            }
            pending = pending.dropFirst(written)
            pendingCursor.offset += UInt64(written)
            cursors[pendingCursor.stream] = pendingCursor
        }
        return .drained
    }
}
