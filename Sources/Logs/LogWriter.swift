import CLinux
import Glibc
import Linux

/// Moves a container's output from its pipes into segments and keeps the index. Only the holder of the container's lock has one:
/// a byte is either still in the pipe or in the segment, whatever is killed when, and each byte has at most one entry.
public struct LogWriter: ~Copyable {
    /// Bytes that one call of ``drain(_:from:)`` moves at most: a call beside a dirty disk stays short.
    public static let step = 256 << 10

    public enum Drained: Equatable, Sendable {
        /// So many bytes have left the pipe.
        case moved(Int)
        /// Nothing is in the pipe now.
        case empty
        /// The last writer has closed the pipe and it is drained; ``end(_:)`` is next.
        case ended
    }

    private struct Stream {
        /// The current segment, while one is open.
        var file: SegmentFile?
        var segment: UInt32 = 1
        /// Bytes of the segment.
        var size: UInt64 = 0
        /// Bytes of the segment that the index speaks of.
        var indexed: UInt64 = 0
        /// Dropped bytes that the index does not speak of yet, and where in the segment they are missing.
        var dropped: UInt64 = 0
        var droppedAt: UInt64 = 0
        var ended = false
        var endWritten = false
    }

    private let directory: Descriptor
    private let index: Descriptor
    private let segmentBytes: UInt64
    private var stdout = Stream()
    private var stderr = Stream()
    /// Bytes of the index: the position that readers wait on.
    public private(set) var indexSize: UInt64 = 0

    /// Opens or begins the log in `directory` and puts right what a killed predecessor left: a torn index tail is cut, bytes without an
    /// entry get a `recovered` one. `segmentBytes`: past this size a segment is followed by the next.
    public init(directory: consuming Descriptor, segmentBytes: UInt64) throws(SysError) {
        let index = try Linux.open(LogEntry.indexName, O_RDWR | O_CREAT | O_NOFOLLOW, mode: 0o600, at: directory.raw)
        var out = Stream()
        var err = Stream()
        var known = try forEachEntry(in: index.raw, from: 0) { entry in
            switch entry.stream {
            case .stdout: Self.account(entry, to: &out)
            case .stderr: Self.account(entry, to: &err)
            }
            return true
        }
        let length = try checkErrno("measure log index", "", lseek(index.raw, 0, SEEK_END))
        if UInt64(length) > known {
            try checkErrno("cut log index", "", ftruncate(index.raw, off_t(clamping: known)))
        }
        try Self.recover(.stdout, &out, in: directory.raw, index: index.raw, &known)
        try Self.recover(.stderr, &err, in: directory.raw, index: index.raw, &known)
        self.directory = directory
        self.index = index
        self.segmentBytes = max(segmentBytes, 1)
        stdout = out
        stderr = err
        indexSize = known
    }

    private static func account(_ entry: LogEntry, to stream: inout Stream) {
        if entry.flags.contains(.end) {
            stream.ended = true
            stream.endWritten = true
        }
        stream.segment = entry.segment
        stream.indexed = entry.endOffset
    }

    private func state(_ stream: LogStream) -> Stream { stream == .stdout ? stdout : stderr }

    private mutating func update(_ stream: LogStream, _ state: Stream) {
        switch stream {
        case .stdout: stdout = state
        case .stderr: stderr = state
        }
    }

    /// Adds an entry for what each segment holds beyond the index, from the last segment that the index knows to the last that exists.
    private static func recover(
        _ stream: LogStream, _ state: inout Stream, in directory: Int32, index: Int32, _ indexSize: inout UInt64
    ) throws(SysError) {
        if state.ended { return }
        while true {
            let opened = ctr_openat(directory, stream.segmentName(state.segment), O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0)
            if opened == -ENOENT { break }
            let file = SegmentFile(owning: try check("open log segment", stream.segmentName(state.segment), opened))
            state.size = UInt64(try checkErrno("measure log segment", "", lseek(file.raw, 0, SEEK_END)))
            state.file = file
            while state.indexed < state.size {
                let length = UInt32(min(state.size - state.indexed, UInt64(UInt32.max)))
                let entry = LogEntry(
                    stream: stream, flags: .recovered, segment: state.segment, length: length, offset: state.indexed)
                try append(entry, to: index, at: &indexSize)
                state.indexed += UInt64(length)
            }
            // A segment shorter than its entries cannot take bytes at their offset any more.
            let next = ctr_openat(directory, stream.segmentName(state.segment + 1), CTR_O_PATH | O_NOFOLLOW | O_CLOEXEC, 0)
            if next >= 0 { close(next) } else if state.size >= state.indexed { break }
            state.file = nil
            state.segment += 1
            state.size = 0
            state.indexed = 0
        }
    }

    /// Whether both streams are closed and drained: the index grows no more.
    public var ended: Bool { stdout.ended && stderr.ended }

    /// Whether `stream` is closed and drained.
    public func hasEnded(_ stream: LogStream) -> Bool { stream == .stdout ? stdout.ended : stderr.ended }

    /// Moves at most `limit` bytes from `pipe` to the segment of `stream` and writes their entry. Never waits for the pipe. When the disk
    /// takes nothing the bytes are dropped and counted, so that the container goes on; the count is written once the disk works again.
    public mutating func drain(_ stream: LogStream, from pipe: Int32, limit: Int = step) -> Drained {
        var state = state(stream)
        if state.ended { return .ended }
        rotateIfFull(stream, &state)
        if state.file == nil { state.file = openSegment(stream, state.segment) }
        var moved = -Int(ENOSPC)
        if let file = state.file {
            var offset = Int64(clamping: state.size)
            moved = ctr_splice_to_offset(pipe, file.raw, &offset, limit, UInt32(spliceFlags))
        }
        let result: Drained
        switch moved {
        case 1...:
            state.size += UInt64(moved)
            result = .moved(moved)
        case 0: result = .ended
        case -Int(EAGAIN), -Int(EINTR): result = .empty
        default: result = Self.drop(from: pipe, limit: limit, &state)
        }
        flush(stream, &state)
        update(stream, state)
        return result
    }

    /// Marks `stream` as closed and drained. Idempotent; the entry is tried again by ``retry()`` when the disk is full.
    public mutating func end(_ stream: LogStream) {
        var state = state(stream)
        state.ended = true
        flush(stream, &state)
        if state.endWritten { state.file = nil }
        update(stream, state)
    }

    /// Says that of `stream` something may be missing here and that nobody knows how much. Nothing on a stream that has ended.
    public mutating func gap(_ stream: LogStream) throws(SysError) {
        var state = state(stream)
        if state.ended { return }
        try appendBytes(stream, &state, upTo: state.size)
        try append(LogEntry(stream: stream, flags: .gap, segment: state.segment, length: 0, offset: state.size))
        update(stream, state)
    }

    /// Writes entries that a full disk had kept out of the index, if there are any.
    public mutating func retry() {
        for stream in LogStream.allCases {
            let state = state(stream)
            if state.ended && !state.endWritten { end(stream) }
        }
    }

    private func openSegment(_ stream: LogStream, _ number: UInt32) -> SegmentFile? {
        let opened = ctr_openat(directory.raw, stream.segmentName(number), O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0o600)
        return opened < 0 ? nil : SegmentFile(owning: opened)
    }

    /// The next segment is begun once the index knows all of the full one; a disk that gives no new file lets the old one grow.
    private func rotateIfFull(_ stream: LogStream, _ state: inout Stream) {
        guard state.size >= segmentBytes, state.indexed == state.size, state.dropped == 0 else { return }
        guard let next = openSegment(stream, state.segment + 1) else { return }
        state.file = next
        state.segment += 1
        state.size = 0
        state.indexed = 0
    }

    private static func drop(from pipe: Int32, limit: Int, _ state: inout Stream) -> Drained {
        // Asked first, because read(2) would wait: the pipe's open file description is shared with the keeper and stays blocking.
        var waiting = pollfd(fd: pipe, events: Int16(POLLIN), revents: 0)
        if poll(&waiting, 1, 0) <= 0 { return .empty }
        let got = withUnsafeTemporaryAllocation(byteCount: 4096, alignment: 8) { buffer in
            read(pipe, buffer.baseAddress, min(buffer.count, limit))
        }
        if got == 0 { return .ended }
        if got < 0 { return .empty }
        if state.dropped == 0 { state.droppedAt = state.size }
        state.dropped += UInt64(got)
        return .moved(got)
    }

    /// Brings the index up to the segment, in order: bytes before a gap, the gap, bytes behind it, the end. What fails is kept for later.
    private mutating func flush(_ stream: LogStream, _ state: inout Stream) {
        do throws(SysError) {
            if state.dropped > 0 {
                // While bytes are still being dropped the gap is not over, except at the end of the stream.
                guard state.size > state.droppedAt || state.ended else { return }
                try appendBytes(stream, &state, upTo: state.droppedAt)
                while state.dropped > 0 {
                    let length = UInt32(min(state.dropped, UInt64(UInt32.max)))
                    try append(
                        LogEntry(stream: stream, flags: .gap, segment: state.segment, length: length, offset: state.droppedAt))
                    state.dropped -= UInt64(length)
                }
            }
            try appendBytes(stream, &state, upTo: state.size)
            if state.ended && !state.endWritten {
                try append(LogEntry(stream: stream, flags: .end, segment: state.segment, length: 0, offset: state.size))
                state.endWritten = true
            }
        } catch {}
    }

    private mutating func appendBytes(_ stream: LogStream, _ state: inout Stream, upTo end: UInt64) throws(SysError) {
        while state.indexed < end {
            let length = UInt32(min(end - state.indexed, UInt64(UInt32.max)))
            try append(LogEntry(stream: stream, flags: [], segment: state.segment, length: length, offset: state.indexed))
            state.indexed += UInt64(length)
        }
    }

    private mutating func append(_ entry: LogEntry) throws(SysError) {
        try Self.append(entry, to: index.raw, at: &indexSize)
    }

    /// At an explicit offset: what a short write left is written over by the next try.
    private static func append(_ entry: LogEntry, to index: Int32, at indexSize: inout UInt64) throws(SysError) {
        let written = withUnsafeTemporaryAllocation(byteCount: LogEntry.length, alignment: 8) { buffer in
            entry.encode(to: buffer)
            return pwrite(index, buffer.baseAddress, buffer.count, off_t(clamping: indexSize))
        }
        if written != LogEntry.length { throw SysError("write log index", "", code: written < 0 ? errno : ENOSPC) }
        indexSize += UInt64(LogEntry.length)
    }
}

/// SPLICE_F_MOVE | SPLICE_F_NONBLOCK of splice(2), which the C library's header shows only with _GNU_SOURCE.
private let spliceFlags = 0x01 | 0x02
