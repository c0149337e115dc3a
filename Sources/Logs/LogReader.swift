import CLinux
import Glibc
import Linux

/// Reads a container's log in the order of its index, beside the writer or long after it. Bytes before a stream's cursor are passed over;
/// so a reader that resumes at the cursors of its last pieces gets each byte exactly once. What rotation took from under a reader is told
/// as a gap, and the reader goes on behind it.
public struct LogReader: ~Copyable {
    /// Where to begin and where to stop.
    public struct Range: Equatable, Sendable {
        /// Behind what the caller has.
        public var cursors = LogPair(both: LogCursor.start)
        public var streams = LogStreams.both
        /// Index position (as ``LogReader/indexPosition``) from which on anything is wanted.
        public var position: UInt64 = 0
        /// From index position `horizon` on the first entry of this time or later ends the reading; 0: none does.
        public var until: Int64 = 0
        public var horizon: UInt64 = 0

        public init() {}
    }

    let directory: Descriptor
    private let range: Range
    var index: OpenIndex?
    private var cursors: LogPair<LogCursor>
    private var endSeen = LogPair(both: false)
    /// The entry that is being yielded, already trimmed to its stream's cursor.
    private var current: LogEntry?
    private var queue: [LogEntry] = []
    private var segment: (stream: LogStream, number: UInt32, file: SegmentFile?)?
    /// What is missing of a stream and not told yet; it is told before the next bytes.
    private var missing: LogPair<LogPiece?> = LogPair(both: nil)
    /// Bytes of a stream before its cursor, removed segments included; nil when that is not known.
    private var seen: LogPair<UInt64?>
    /// Index position behind the last entry that was read.
    public private(set) var indexPosition: UInt64
    /// Index position behind the last entry of which anything was yielded: where a later reader with the same cursors may begin.
    public var position: UInt64 {
        let ahead = queue.count + (current == nil ? 0 : 1)
        return indexPosition - UInt64(ahead * LogEntry.length)
    }
    /// Set once `until` was reached.
    public private(set) var untilReached = false

    /// The index file that is open, and by how much it is shorter than all that was ever written.
    struct OpenIndex {
        var file: SegmentFile
        var inode: UInt64
        var shorter: UInt64
        /// Segments up to these were removed, as far as this file tells; nil: not looked for yet.
        var removed: LogPair<UInt32>?
    }

    /// Reads the log in `directory`. An index that does not exist yet is an empty one.
    public init(directory: consuming Descriptor, range: Range = Range()) {
        self.directory = directory
        self.range = range
        cursors = range.cursors
        indexPosition = range.position
        seen = LogPair(both: range.position == 0 ? 0 : nil)
    }

    /// Whether the end of every wanted stream was yielded: nothing follows, now or later.
    public var ended: Bool {
        untilReached || LogStream.allCases.allSatisfy { !range.streams.contains($0) || endSeen[$0] }
    }

    /// Where a new reader would go on in `stream`.
    public func cursor(of stream: LogStream) -> LogCursor { cursors[stream] }

    /// The next piece: its bytes, as many as `buffer` has room for (at least 1), are in it. Pieces that follow each other in their stream
    /// and arrived within `merge` nanoseconds are one. nil when the index holds nothing more at this moment.
    public mutating func next(into buffer: UnsafeMutableRawBufferPointer, merge: Int64 = 0) throws(SysError) -> LogPiece? {
        while true {
            guard let entry = try entry() else { return tellMissing(.stdout) ?? tellMissing(.stderr) }
            if entry.flags.contains(.end) {
                if let piece = tellMissing(entry.stream) {
                    queue.append(entry)
                    return piece
                }
                endSeen[entry.stream] = true
                return piece(entry, .end)
            }
            if entry.flags.contains(.gap) {
                note(missing: UInt64(entry.length), entry)
                continue
            }
            let available = try self.available(entry)
            if available == 0 {
                try lose(entry)
                continue
            }
            if let piece = tellMissing(entry.stream) {
                current = entry
                return piece
            }
            return try read(entry, available, into: buffer, merge)
        }
    }

    // MARK: entries

    /// The next entry of a wanted stream, without what is behind its cursor.
    private mutating func entry() throws(SysError) -> LogEntry? {
        while true {
            if let entry = current {
                current = nil
                return entry
            }
            if untilReached { return nil }
            if queue.isEmpty { try fill() }
            guard let entry = queue.popLast() else { return nil }
            let position = indexPosition - UInt64((queue.count + 1) * LogEntry.length)
            if range.until != 0 && position >= range.horizon && entry.time >= range.until && !entry.flags.contains(.removed) {
                untilReached = true
                return nil
            }
            if !range.streams.contains(entry.stream) { continue }
            if entry.flags.contains(.removed) {
                passRemoved(entry)
                continue
            }
            if entry.flags.contains(.end) { return entry }
            if let rest = behindCursor(entry) { return rest }
        }
    }

    /// Reads up to 256 entries into the queue, last first.
    private mutating func fill() throws(SysError) {
        for _ in 0..<2 {
            if index == nil { index = try openIndex() }
            guard let index else { return }
            if indexPosition < index.shorter { indexPosition = index.shorter }
            var entries: [LogEntry] = []
            indexPosition =
                index.shorter
                + (try forEachEntry(in: index.file.raw, from: indexPosition - index.shorter) { entry in
                    entries.append(entry)
                    return entries.count < 256
                })
            if !entries.isEmpty {
                entries.reverse()
                return queue = entries
            }
            if try !renew() { return }
        }
    }

    private func openIndex() throws(SysError) -> OpenIndex? {
        let opened = ctr_openat(directory.raw, LogEntry.indexName, O_RDONLY | O_NOFOLLOW | O_CLOEXEC, 0)
        if opened == -ENOENT { return nil }
        let file = SegmentFile(owning: try check("open log index", "", opened))
        var status = stat()
        try checkErrno("measure log index", "", fstat(file.raw, &status))
        var shorter: UInt64 = 0
        _ = try forEachEntry(in: file.raw, from: 0) { entry in
            if entry.flags.contains(.removed) { shorter = UInt64(entry.length) * UInt64(LogEntry.length) }
            return false
        }
        return OpenIndex(file: file, inode: UInt64(status.st_ino), shorter: shorter)
    }

    /// At the end of the index: whether there is another one under its name, or the file became shorter than what was read of it.
    private mutating func renew() throws(SysError) -> Bool {
        guard let index else { return false }
        var status = stat()
        if fstatat(directory.raw, LogEntry.indexName, &status, AT_SYMLINK_NOFOLLOW) < 0 { return false }
        if UInt64(status.st_ino) != index.inode {
            self.index = try openIndex()
            return self.index != nil
        }
        guard UInt64(clamping: status.st_size) < indexPosition - index.shorter else { return false }
        // A damaged index was cut and is being written again; the cursors pass over what is known.
        indexPosition = index.shorter
        return true
    }

    /// What of `entry` the reader does not have yet, nil when it has all of it.
    private mutating func behindCursor(_ entry: LogEntry) -> LogEntry? {
        let cursor = cursors[entry.stream]
        if entry.flags.contains(.gap) {
            return LogCursor(segment: entry.segment, offset: entry.offset) >= cursor ? entry : nil
        }
        guard entry.length > 0, LogCursor(segment: entry.segment, offset: entry.endOffset) > cursor else {
            count(entry.stream, UInt64(entry.length))
            return nil
        }
        guard entry.segment == cursor.segment, entry.offset < cursor.offset else { return entry }
        var rest = entry
        rest.length = UInt32(entry.endOffset - cursor.offset)
        rest.offset = cursor.offset
        count(entry.stream, UInt64(entry.length - rest.length))
        return rest
    }

    // MARK: bytes

    /// Reads from `entry`, and from those behind it that continue it, into `buffer`.
    private mutating func read(
        _ entry: LogEntry, _ available: Int, into buffer: UnsafeMutableRawBufferPointer, _ merge: Int64
    ) throws(SysError) -> LogPiece {
        var rest = entry
        var available = available
        var count = 0
        while true {
            let got = try pread(rest, into: UnsafeMutableRawBufferPointer(rebasing: buffer[count...]), limit: available)
            count += got
            cursors[rest.stream] = LogCursor(segment: rest.segment, offset: rest.offset + UInt64(got))
            self.count(rest.stream, UInt64(got))
            if got < rest.length {
                rest.offset += UInt64(got)
                rest.length -= UInt32(got)
                current = rest
                break
            }
            guard count < buffer.count, let next = queue.last, next.hasBytes, next.stream == entry.stream, next.segment == rest.segment,
                next.offset == rest.offset + UInt64(got), next.time &- entry.time <= merge, next.time >= entry.time, range.until == 0
            else { break }
            available = try self.available(next)
            if available == 0 { break }
            queue.removeLast()
            rest = next
        }
        return piece(entry, .bytes(count))
    }

    private func piece(_ entry: LogEntry, _ kind: LogPiece.Kind) -> LogPiece {
        LogPiece(
            stream: entry.stream, segment: entry.segment, offset: entry.offset, kind: kind, time: entry.time,
            recovered: entry.flags.contains(.recovered))
    }

    private mutating func count(_ stream: LogStream, _ bytes: UInt64) {
        if let known = seen[stream] { seen[stream] = known + bytes }
    }

    private func pread(_ entry: LogEntry, into buffer: UnsafeMutableRawBufferPointer, limit: Int) throws(SysError) -> Int {
        guard let file = segment?.file else { return 0 }
        let wanted = min(buffer.count, Int(entry.length), limit)
        var count = 0
        while count < wanted {
            let got = Glibc.pread(file.raw, buffer.baseAddress.map { $0 + count }, wanted - count, off_t(clamping: entry.offset) + count)
            if got < 0 && errno == EINTR { continue }
            if got < 0 && count == 0 { throw SysError("read log segment", entry.stream.segmentName(entry.segment), code: errno) }
            if got <= 0 { break }
            count += got
        }
        return count
    }

    /// How many bytes of `entry` its segment holds. Opens the segment; 0 also when that is gone.
    private mutating func available(_ entry: LogEntry) throws(SysError) -> Int {
        if segment?.stream != entry.stream || segment?.number != entry.segment {
            let name = entry.stream.segmentName(entry.segment)
            let opened = ctr_openat(directory.raw, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC, 0)
            segment = (entry.stream, entry.segment, nil)
            if opened != -ENOENT { segment?.file = SegmentFile(owning: try check("open log segment", name, opened)) }
        }
        guard let file = segment?.file else { return 0 }
        var status = stat()
        try checkErrno("measure log segment", "", fstat(file.raw, &status))
        let size = UInt64(clamping: status.st_size)
        return size <= entry.offset ? 0 : Int(min(size - entry.offset, UInt64(entry.length)))
    }

    // MARK: what is missing

    /// Bytes that no segment holds (any more). A reader that never had anything of the stream does not miss what rotation removed.
    private mutating func lose(_ entry: LogEntry) throws(SysError) {
        count(entry.stream, UInt64(entry.length))
        if cursors[entry.stream] == .start, try removed(entry.stream) >= entry.segment { return }
        note(missing: UInt64(entry.length), entry)
        cursors[entry.stream] = LogCursor(segment: entry.segment, offset: entry.endOffset)
    }

    private mutating func note(missing bytes: UInt64, _ entry: LogEntry) {
        guard var known = missing[entry.stream], case .gap(let before) = known.kind else {
            return missing[entry.stream] = piece(entry, .gap(bytes))
        }
        known.kind = .gap(before == 0 || bytes == 0 ? 0 : before + bytes)
        missing[entry.stream] = known
    }

    private mutating func tellMissing(_ stream: LogStream) -> LogPiece? {
        let piece = missing[stream]
        missing[stream] = nil
        return piece
    }

    /// Up to which segment of `stream` the open index says that they were removed.
    private mutating func removed(_ stream: LogStream) throws(SysError) -> UInt32 {
        guard let index else { return 0 }
        if let known = index.removed { return known[stream] }
        var found: LogPair<UInt32> = LogPair(both: 0)
        _ = try forEachEntry(in: index.file.raw, from: 0) { entry in
            if entry.flags.contains(.removed) { found[entry.stream] = max(found[entry.stream], entry.segment) }
            return true
        }
        self.index?.removed = found
        return found[stream]
    }

    /// The index tells how many bytes removed segments had. Entries that went with them before this reader saw them are bytes that it
    /// does not get.
    private mutating func passRemoved(_ entry: LogEntry) {
        let stream = entry.stream
        let cursor = cursors[stream]
        let known = seen[stream]
        if let known, entry.offset <= known { return }
        if known != nil { seen[stream] = entry.offset }
        // A new reader misses nothing, and one whose cursor lies behind has what it missed.
        if cursor == .start || cursor.segment > entry.segment { return }
        var place = entry
        place.segment = entry.segment + 1
        place.offset = 0
        note(missing: known.map { $0 > 0 ? entry.offset - $0 : 0 } ?? 0, place)
        cursors[stream] = LogCursor(segment: place.segment, offset: 0)
    }
}
