import CLinux
import Glibc
import Linux

/// Finds where a reader begins that wants only the last lines, or only what arrived in some time. It walks the index from its end, and the
/// segments only as far as lines are counted; it holds one block of each.
///
/// Times are those of the entries. Where the clock was set back, what was stamped before that counts as arrived no later than the first
/// stamp after it: so what is asked for is always one piece of the log.
public struct LogSearch: ~Copyable {
    public struct Request: Equatable, Sendable {
        /// CLOCK_REALTIME, nanoseconds: only what arrived then or later; 0: all.
        public var since: Int64
        /// Only what arrived before; 0: all.
        public var until: Int64
        /// So many lines of all wanted streams together, in the order of their ends; nil: all. A last line without its end is one.
        public var tail: UInt64?
        public var streams: LogStreams

        public init(since: Int64 = 0, until: Int64 = 0, tail: UInt64? = nil, streams: LogStreams = .both) {
            self.since = since
            self.until = until
            self.tail = tail
            self.streams = streams
        }

        /// Whether there is anything to look for.
        public var isEverything: Bool { since == 0 && until == 0 && tail == nil }
    }

    static let block = 64 << 10

    private let directory: Descriptor
    private let request: Request
    private var index: SegmentFile?
    private var shorter: UInt64 = 0
    /// Offset in the index file behind the entry that is looked at next.
    private var at: UInt64 = 0
    private var block: [LogEntry] = []
    private var segment: (stream: LogStream, number: UInt32, file: SegmentFile?)?

    private var horizon: UInt64?
    private var start: UInt64?
    private var remaining: UInt64
    private var lines = LogPair(both: Lines())

    private struct Lines {
        /// The last byte was seen.
        var begun = false
        /// A line is counted whose beginning is further ahead.
        var open = false
        /// Where what is wanted begins, as far as it is known.
        var start: LogCursor?
    }

    /// Searches in `directory`, whose log need not exist yet.
    public init(directory: consuming Descriptor, request: Request) throws(SysError) {
        self.directory = directory
        self.request = request
        remaining = request.tail ?? 0
        let opened = ctr_openat(self.directory.raw, LogEntry.indexName, O_RDONLY | O_NOFOLLOW | O_CLOEXEC, 0)
        if opened == -ENOENT { return }
        let file = SegmentFile(owning: try check("open log index", "", opened))
        at = UInt64(try checkErrno("measure log index", "", lseek(file.raw, 0, SEEK_END)))
        at -= at % UInt64(LogEntry.length)
        _ = try forEachEntry(in: file.raw, from: 0) { entry in
            if entry.flags.contains(.removed) { shorter = UInt64(entry.length) * UInt64(LogEntry.length) }
            return false
        }
        index = file
        if request.until == 0 { horizon = shorter + at }
        if request.since == 0 && request.tail == 0 { start = horizon }
    }

    /// What the search found, once ``step(budget:)`` is done.
    public var result: LogReader.Range {
        var range = LogReader.Range()
        range.streams = request.streams
        range.position = start ?? shorter
        range.until = request.until
        range.horizon = horizon ?? shorter
        for stream in LogStream.allCases { range.cursors[stream] = lines[stream].start ?? .start }
        return range
    }

    /// Goes on for about `budget` bytes; true when all is found.
    public mutating func step(budget: Int) throws(SysError) -> Bool {
        var left = budget
        while left > 0 {
            if isDone { return true }
            guard let entry = try previous() else {
                if start == nil { start = shorter }
                return true
            }
            left -= LogEntry.length
            if start != nil {
                place(entry)
                continue
            }
            if horizon == nil {
                if entry.time >= request.until { continue }
                horizon = shorter + at + UInt64(LogEntry.length)
                if request.since == 0 && request.tail == 0 { start = horizon }
            }
            if start == nil && entry.time < request.since { start = shorter + at + UInt64(LogEntry.length) }
            if start != nil {
                place(entry)
                continue
            }
            guard entry.hasBytes, request.streams.contains(entry.stream) else { continue }
            if request.tail == nil {
                lines[entry.stream].start = LogCursor(segment: entry.segment, offset: entry.offset)
            } else {
                left -= try count(entry)
                if remaining == 0 && !lines.stdout.open && !lines.stderr.open { start = shorter + at }
            }
        }
        return false
    }

    /// The beginning is found, and of each wanted stream a place.
    private var isDone: Bool {
        if index == nil { return true }
        return start != nil && LogStream.allCases.allSatisfy { !request.streams.contains($0) || lines[$0].start != nil }
    }

    /// Before the beginning: a stream that has nothing behind it goes on behind its last byte.
    private mutating func place(_ entry: LogEntry) {
        guard entry.hasBytes, lines[entry.stream].start == nil else { return }
        lines[entry.stream].start = LogCursor(segment: entry.segment, offset: entry.endOffset)
    }

    // MARK: index

    /// The entry before the last one, nil at the beginning of the index. What is damaged is passed over.
    private mutating func previous() throws(SysError) -> LogEntry? {
        while block.isEmpty {
            guard let index, at > 0 else { return nil }
            let most = Self.block / LogEntry.length * LogEntry.length
            let length = Int(min(at, UInt64(most)))
            let bytes = try Self.read(index.raw, at: at - UInt64(length), count: length)
            // Last first, as far as they are whole.
            var found: [LogEntry] = []
            bytes.withUnsafeBytes { buffer in
                var end = buffer.count
                while end >= LogEntry.length {
                    guard let entry = LogEntry(UnsafeRawBufferPointer(rebasing: buffer[(end - LogEntry.length)..<end])) else { break }
                    found.append(entry)
                    end -= LogEntry.length
                }
            }
            if found.isEmpty { at -= UInt64(LogEntry.length) }
            found.reverse()
            block = found
        }
        at -= UInt64(LogEntry.length)
        return block.popLast()
    }

    private static func read(_ file: Int32, at offset: UInt64, count: Int) throws(SysError) -> [UInt8] {
        var failure: Int32 = 0
        let bytes = [UInt8](unsafeUninitializedCapacity: count) { buffer, filled in
            while filled < count {
                let got = pread(file, buffer.baseAddress.map { $0 + filled }, count - filled, off_t(clamping: offset) + filled)
                if got < 0 && errno == EINTR { continue }
                if got < 0 { failure = errno }
                if got <= 0 { break }
                filled += got
            }
        }
        if bytes.isEmpty && failure != 0 { throw SysError("read log", "", code: failure) }
        return bytes
    }

    // MARK: lines

    /// Counts the lines that end in `entry`, the last first. Returns the bytes that it read.
    private mutating func count(_ entry: LogEntry) throws(SysError) -> Int {
        var state = lines[entry.stream]
        defer { lines[entry.stream] = state }
        // Nothing more of this stream is wanted.
        if remaining == 0 && !state.open {
            if state.start == nil { state.start = LogCursor(segment: entry.segment, offset: entry.endOffset) }
            return 0
        }
        if segment?.stream != entry.stream || segment?.number != entry.segment {
            let opened = ctr_openat(
                directory.raw, entry.stream.segmentName(entry.segment), O_RDONLY | O_NOFOLLOW | O_CLOEXEC, 0)
            segment = (entry.stream, entry.segment, opened < 0 ? nil : SegmentFile(owning: opened))
        }
        guard let file = segment?.file else { return 0 }
        var end = entry.endOffset
        var used = 0
        while end > entry.offset {
            let length = Int(min(end - entry.offset, UInt64(Self.block)))
            let begin = end - UInt64(length)
            let bytes = try Self.read(file.raw, at: begin, count: length)
            used += length
            end = begin
            if bytes.isEmpty { continue }
            let remaining = remaining
            let left = bytes.withUnsafeBytes { Self.scan($0, LogCursor(segment: entry.segment, offset: begin), remaining, &state) }
            self.remaining = left
            if left == 0 && !state.open { break }
            state.start = LogCursor(segment: entry.segment, offset: begin)
        }
        return used
    }

    /// Counts in `bytes`, which begin at `place`, from the end. Returns how many lines are still wanted.
    private static func scan(_ bytes: UnsafeRawBufferPointer, _ place: LogCursor, _ wanted: UInt64, _ state: inout Lines) -> UInt64 {
        var wanted = wanted
        var at = bytes.count
        if !state.begun {
            state.begun = true
            if bytes[at - 1] != newline {
                wanted -= 1
                state.open = true
            } else {
                state.start = LogCursor(segment: place.segment, offset: place.offset + UInt64(at))
            }
        }
        while at > 0 {
            at -= 1
            if bytes[at] != newline { continue }
            if state.open || state.start == nil {
                state.start = LogCursor(segment: place.segment, offset: place.offset + UInt64(at + 1))
                state.open = false
            }
            if wanted == 0 { return 0 }
            wanted -= 1
            state.open = true
        }
        return wanted
    }
}

private let newline = UInt8(ascii: "\n")
