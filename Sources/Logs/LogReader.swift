import CLinux
import Glibc
import Linux

/// The place just behind the last byte that a reader has of a stream.
public struct LogCursor: Equatable, Comparable, Sendable {
    public var segment: UInt32
    public var offset: UInt64

    public init(segment: UInt32, offset: UInt64) {
        self.segment = segment
        self.offset = offset
    }

    /// Before everything.
    public static let start = LogCursor(segment: 0, offset: 0)

    public static func < (left: Self, right: Self) -> Bool {
        (left.segment, left.offset) < (right.segment, right.offset)
    }
}

/// A piece of a container's output, or a fact about it.
public struct LogChunk: Equatable, Sendable {
    public enum Content: Equatable, Sendable {
        case bytes([UInt8])
        /// So many bytes of the stream are lost: dropped while the disk was full, or gone from a segment.
        case gap(UInt64)
        /// The stream is closed and drained.
        case end
    }

    public var stream: LogStream
    /// Where it begins.
    public var segment: UInt32
    public var offset: UInt64
    public var content: Content
    /// CLOCK_REALTIME, nanoseconds: when it arrived, or with `recovered` when it was found.
    public var time: Int64
    public var recovered: Bool

    /// A reader that has this chunk resumes here.
    public var cursor: LogCursor {
        guard case .bytes(let bytes) = content else { return LogCursor(segment: segment, offset: offset) }
        return LogCursor(segment: segment, offset: offset + UInt64(bytes.count))
    }
}

/// Reads a container's log in the order of its index, beside the writer or long after it. Bytes before a stream's cursor are passed over;
/// so a reader that resumes at the cursors of its last chunks gets each byte exactly once.
public struct LogReader: ~Copyable {
    private let directory: Descriptor
    private var index: SegmentFile?
    private var cursors: (stdout: LogCursor, stderr: LogCursor)
    private var endSeen: (stdout: Bool, stderr: Bool) = (false, false)
    /// The entry that is being yielded, already trimmed to its stream's cursor.
    private var current: LogEntry?
    private var queue: [LogEntry] = []
    private var segment: (stream: LogStream, number: UInt32, file: SegmentFile)?
    /// Bytes of the index that were read: what Guard.WaitLog takes.
    public private(set) var indexPosition: UInt64 = 0

    /// Reads the log in `directory`. The cursors say what the caller has already; an index that does not exist yet is an empty one.
    public init(directory: consuming Descriptor, stdout: LogCursor = .start, stderr: LogCursor = .start) {
        self.directory = directory
        cursors = (stdout, stderr)
    }

    /// Whether the end of both streams was yielded: nothing follows, now or later.
    public var ended: Bool { endSeen.stdout && endSeen.stderr }

    /// Where a new reader would go on in `stream`.
    public func cursor(of stream: LogStream) -> LogCursor { stream == .stdout ? cursors.stdout : cursors.stderr }

    /// The next piece of at most `limit` bytes (at least 1), nil when the index holds nothing more at this moment.
    public mutating func next(limit: Int) throws(SysError) -> LogChunk? {
        while true {
            if let entry = current { return try chunk(of: entry, limit: max(limit, 1)) }
            if queue.isEmpty { try fill() }
            guard let entry = queue.popLast() else { return nil }
            if entry.flags.contains(.end) {
                switch entry.stream {
                case .stdout: endSeen.stdout = true
                case .stderr: endSeen.stderr = true
                }
                return LogChunk(
                    stream: entry.stream, segment: entry.segment, offset: entry.offset, content: .end, time: entry.time, recovered: false)
            }
            current = behindCursor(entry)
        }
    }

    /// Reads up to 256 entries into the queue, last first.
    private mutating func fill() throws(SysError) {
        if index == nil {
            let opened = ctr_openat(directory.raw, LogEntry.indexName, O_RDONLY | O_NOFOLLOW | O_CLOEXEC, 0)
            if opened == -ENOENT { return }
            index = SegmentFile(owning: try check("open log index", "", opened))
        }
        guard let index else { return }
        var entries: [LogEntry] = []
        indexPosition = try forEachEntry(in: index.raw, from: indexPosition) { entry in
            entries.append(entry)
            return entries.count < 256
        }
        entries.reverse()
        queue = entries
    }

    /// What of `entry` the reader does not have yet, nil when it has all of it.
    private func behindCursor(_ entry: LogEntry) -> LogEntry? {
        let cursor = cursor(of: entry.stream)
        if entry.flags.contains(.gap) {
            return LogCursor(segment: entry.segment, offset: entry.offset) >= cursor ? entry : nil
        }
        guard entry.length > 0, LogCursor(segment: entry.segment, offset: entry.endOffset) > cursor else { return nil }
        guard entry.segment == cursor.segment, entry.offset < cursor.offset else { return entry }
        var rest = entry
        rest.length = UInt32(entry.endOffset - cursor.offset)
        rest.offset = cursor.offset
        return rest
    }

    private mutating func chunk(of entry: LogEntry, limit: Int) throws(SysError) -> LogChunk {
        var chunk = LogChunk(
            stream: entry.stream, segment: entry.segment, offset: entry.offset, content: .gap(UInt64(entry.length)), time: entry.time,
            recovered: entry.flags.contains(.recovered))
        current = nil
        if entry.flags.contains(.gap) { return chunk }
        let bytes = try read(entry, limit: limit)
        var used = entry.length
        // A segment that is shorter than its entries (power loss, a file removed by hand): the rest is lost, and said so.
        if !bytes.isEmpty {
            used = UInt32(bytes.count)
            chunk.content = .bytes(bytes)
        }
        if used < entry.length {
            var rest = entry
            rest.offset += UInt64(used)
            rest.length -= used
            current = rest
        }
        let cursor = LogCursor(segment: entry.segment, offset: entry.offset + UInt64(used))
        switch entry.stream {
        case .stdout: cursors.stdout = cursor
        case .stderr: cursors.stderr = cursor
        }
        return chunk
    }

    private mutating func read(_ entry: LogEntry, limit: Int) throws(SysError) -> [UInt8] {
        if segment?.stream != entry.stream || segment?.number != entry.segment {
            segment = nil
            let opened = ctr_openat(directory.raw, entry.stream.segmentName(entry.segment), O_RDONLY | O_NOFOLLOW | O_CLOEXEC, 0)
            if opened == -ENOENT { return [] }
            let file = SegmentFile(owning: try check("open log segment", entry.stream.segmentName(entry.segment), opened))
            segment = (entry.stream, entry.segment, file)
        }
        guard let segment else { return [] }
        let wanted = min(limit, Int(entry.length))
        var failure: Int32 = 0
        let bytes = [UInt8](unsafeUninitializedCapacity: wanted) { buffer, count in
            while count < wanted {
                let at = off_t(clamping: entry.offset) + count
                let got = pread(segment.file.raw, buffer.baseAddress.map { $0 + count }, wanted - count, at)
                if got < 0 && errno == EINTR { continue }
                if got < 0 { failure = errno }
                if got <= 0 { break }
                count += got
            }
        }
        if bytes.isEmpty && failure != 0 { throw SysError("read log segment", entry.stream.segmentName(entry.segment), code: failure) }
        return bytes
    }
}
