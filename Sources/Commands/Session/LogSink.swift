import CLinux
import CtrProto
import Glibc
import Linux

/// Which output is asked for, beside where it is.
struct LogSelection: Equatable {
    var execID = ""
    /// None: both.
    var streams: [Ctr_V1_LogStream] = []
    var sinceNs: Int64 = 0
    var untilNs: Int64 = 0
    var tail: UInt64?
    /// Where to begin; nil: as the rest says.
    var position: LogPosition?
    /// Each line behind the time of its first byte.
    var timestamps = false
}

/// Takes the output of a process from the manager to this program's own descriptors, and knows the place behind the last byte
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
    var incarnation: UInt32
    /// Set once the output has ended and all of it was written.
    var isFinished: Bool { ended && pending.isEmpty }
    var isDrained: Bool { pending.isEmpty }
    /// What is missing, to be told before ``write(blocking:)`` goes on; each gap is told once.
    private(set) var notice: String?

    private let selection: LogSelection
    private var ended = false
    /// Whether the manager has said where the reading begins: what the process writes from now on is seen.
    var isPlaced: Bool { wasAnswered || ended || selection.tail == nil }

    private var wasAnswered = false
    private var cursors: [Ctr_V1_LogStream: Ctr_V1_LogCursor] = [:]
    private var pending: ArraySlice<UInt8> = []
    /// The place of the first byte that is pending.
    private var pendingCursor = Ctr_V1_LogCursor()
    /// With times in between: how many bytes of output are pending, all of which count once all is written.
    private var pendingOutput = 0
    private var isInLine: Set<Ctr_V1_LogStream> = []
    private var toldGaps: Set<[UInt64]> = []
    private var regular: [Int32: Bool] = [:]
    private let outputs: (stdout: Int32, stderr: Int32)

    init(_ selection: LogSelection = LogSelection(), stdout: Int32 = 1, stderr: Int32 = 2) {
        self.selection = selection
        outputs = (stdout, stderr)
        incarnation = selection.position?.incarnation ?? 0
        for cursor in selection.position?.cursors ?? [] { cursors[cursor.stream] = cursor }
    }

    /// The request that goes on behind what was written. What was received and not written is forgotten.
    mutating func request(namespace: String, container: String, follow: Bool) -> Ctr_V1_ReadLogsRequest {
        pending = []
        pendingOutput = 0
        var request = Ctr_V1_ReadLogsRequest()
        request.namespace = namespace
        request.container = container
        request.execID = selection.execID
        request.incarnation = incarnation
        request.follow = follow
        request.streams = selection.streams
        request.sinceNs = selection.sinceNs
        request.untilNs = selection.untilNs
        // The tail is behind once its beginning is known: from there it goes on at the cursors.
        if let tail = selection.tail, !wasAnswered { request.tailLines = tail }
        request.from = position.cursors
        return request
    }

    /// Behind the last byte that was written.
    var position: LogPosition { LogPosition(incarnation: incarnation, cursors: Array(cursors.values)) }

    /// Takes one message; only when ``isDrained``.
    mutating func accept(_ response: Ctr_V1_ReadLogsResponse) {
        wasAnswered = true
        if response.incarnation != 0 { incarnation = response.incarnation }
        if response.ended { ended = true }
        if response.gap { noteGap(response) }
        guard !response.data.isEmpty else {
            // A reading that begins in the middle says where.
            if response.stream != .unspecified, cursors[response.stream] == nil, !response.gap {
                cursors[response.stream] = Self.cursor(response.stream, response.segment, response.offset)
            }
            return
        }
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
        pendingCursor = Self.cursor(response.stream, response.segment, offset)
        pendingOutput = data.count
        pending = selection.timestamps ? stamped(data, response) : data
    }

    private static func cursor(_ stream: Ctr_V1_LogStream, _ segment: UInt32, _ offset: UInt64) -> Ctr_V1_LogCursor {
        var cursor = Ctr_V1_LogCursor()
        cursor.stream = stream
        cursor.segment = segment
        cursor.offset = offset
        return cursor
    }

    /// A gap that is read again after a lost connection is the same one.
    private mutating func noteGap(_ response: Ctr_V1_ReadLogsResponse) {
        let key = [UInt64(response.stream.rawValue), UInt64(response.segment), response.offset, response.gapBytes]
        guard toldGaps.count < 1024, toldGaps.insert(key).inserted else { return }
        let stream = response.stream == .stderr ? "standard error" : "standard output"
        notice = response.gapBytes == 0 ? "bytes of \(stream) may be missing here" : "\(response.gapBytes) bytes of \(stream) missing here"
    }

    /// The notice, to be told now.
    mutating func takeNotice() -> String? {
        defer { notice = nil }
        return notice
    }

    private mutating func stamped(_ data: ArraySlice<UInt8>, _ response: Ctr_V1_ReadLogsResponse) -> ArraySlice<UInt8> {
        let prefix = Array((rfc3339(response.time, fixedFraction: true) + " ").utf8)
        var result: [UInt8] = []
        var rest = data
        while !rest.isEmpty {
            if !isInLine.contains(response.stream) { result += prefix }
            let line = rest.firstIndex(of: 0x0a).map { rest[...$0] } ?? rest
            result += line
            rest = rest[line.endIndex...]
            if line.last == 0x0a { isInLine.remove(response.stream) } else { isInLine.insert(response.stream) }
        }
        return result[...]
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
            if !selection.timestamps {
                advance(written)
            } else if pending.isEmpty {
                advance(pendingOutput)
            }
        }
        return .drained
    }

    private mutating func advance(_ count: Int) {
        pendingCursor.offset += UInt64(count)
        cursors[pendingCursor.stream] = pendingCursor
    }
}
