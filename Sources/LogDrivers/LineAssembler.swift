import Glibc
import Logs

/// A line, or a part of one, of a container's output.
struct LogLine: Equatable {
    /// How a line ends.
    enum End: Equatable {
        case newline
        /// The line goes on: it is longer than a part may be, or bytes are missing behind it.
        case partial
        /// The output ends without a newline.
        case output
    }

    var stream: LogStream
    /// Without the newline.
    var bytes: ArraySlice<UInt8>
    var end: End
    /// CLOCK_REALTIME, nanoseconds: when its last byte arrived.
    var time: Int64
}

/// Cuts a stream of pieces into lines, and long lines into parts. It holds at most one part.
struct LineAssembler {
    /// Bytes of a part.
    let limit: Int
    /// Docker calls what fills a part unfinished, though the next byte may be a newline.
    let cutsFullParts: Bool
    let stream: LogStream
    private var pending: [UInt8] = []

    init(stream: LogStream, limit: Int, cutsFullParts: Bool) {
        self.stream = stream
        self.limit = limit
        self.cutsFullParts = cutsFullParts
    }

    /// Whether a line has begun and not ended.
    var isInsideLine: Bool { !pending.isEmpty }

    /// Gives every line that ends in `bytes` to `body`, with the number of bytes up to its end.
    mutating func feed(_ bytes: ArraySlice<UInt8>, time: Int64, _ body: (LogLine, Int) throws -> Void) rethrows {
        var at = bytes.startIndex
        while at < bytes.endIndex {
            let rest = bytes[at...]
            let room = limit - pending.count
            // One byte more than a part: whether that is the newline decides.
            let window = rest.prefix(room + 1)
            if let newline = window.firstIndex(of: 0x0a), !(cutsFullParts && newline - at == room) {
                try give(bytes[at..<newline], .newline, time, newline + 1 - bytes.startIndex, body)
                at = newline + 1
            } else if window.count > room || (cutsFullParts && window.count == room) {
                try give(bytes[at..<(at + room)], .partial, time, at + room - bytes.startIndex, body)
                at += room
            } else {
                pending += rest
                return
            }
        }
    }

    private mutating func give(
        _ bytes: ArraySlice<UInt8>, _ end: LogLine.End, _ time: Int64, _ count: Int, _ body: (LogLine, Int) throws -> Void
    ) rethrows {
        if pending.isEmpty { return try body(LogLine(stream: stream, bytes: bytes, end: end, time: time), count) }
        pending += bytes
        let line = pending[...]
        pending = []
        try body(LogLine(stream: stream, bytes: line, end: end, time: time), count)
    }

    /// What is left when no more comes.
    mutating func finish(_ end: LogLine.End, time: Int64) -> LogLine? {
        if pending.isEmpty { return nil }
        defer { pending = [] }
        return LogLine(stream: stream, bytes: pending[...], end: end, time: time)
    }
}
