import CLinux
import Glibc
import Linux

/// Moves a container's output from its pipes into segments and keeps the index. Only the holder of the container's lock has one:
/// a byte is either still in the pipe or in the segment, whatever is killed when, and each byte has at most one entry.
///
/// No disk holds up a container: what cannot be kept is dropped and counted, and the count is written as a gap once the disk works again.
public struct LogWriter: ~Copyable {
    /// Bytes that one call of ``drain(_:from:)`` moves at most: a call beside a dirty disk stays short.
    public static let step = 256 << 10
    /// What a pipe of a loud container may hold; the memory counts as the container's.
    static let loudPipe = 256 << 10
    /// How long a disk that failed is left alone, nanoseconds.
    static let pause: Int64 = 100_000_000

    public enum Drained: Equatable, Sendable {
        /// So many bytes have left the pipe.
        case moved(Int)
        /// Nothing is in the pipe now.
        case empty
        /// The last writer has closed the pipe and it is drained; ``end(_:)`` is next.
        case ended
    }

    struct Stream {
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
        /// The same for a successor, since the first byte was dropped.
        var counter: DropCounter?
        /// Something is missing there besides, and nobody knows how much.
        var owes = false
        var isMissing: Bool { dropped > 0 || owes }
        /// The last segment that rotation removed, the bytes of all that it did, and what the index says of that.
        var removed: UInt32 = 0
        var removedBytes: UInt64 = 0
        var removedWritten: UInt32 = 0
        var ended = false
        var endWritten = false
        /// Its pipe was given more room.
        var isLoud = false
    }

    let directory: Descriptor
    /// nil as long as the disk gives none: everything is dropped until then.
    var index: SegmentFile?
    private let segmentBytes: UInt64
    private let segmentCount: UInt32
    var stdout = Stream()
    var stderr = Stream()
    /// Bytes of the index file, and by how much it is shorter than all that was ever written to it.
    var indexLength: UInt64 = 0
    var indexShorter: UInt64 = 0
    /// The newest entry, when the device's error came behind a write that readers see already: another one at its place would not be what they
    /// have read. So it stands, nothing follows it before it is written, and it is written again until the device takes it.
    var doubtful: (entry: LogEntry, offset: UInt64)?
    /// When an index that could not be opened is tried again (CLOCK_MONOTONIC, nanoseconds).
    private var nextTry: Int64 = 0
    /// Told of a file that counts what is dropped of a stream, before anything is: who has it open too and gives it to the next writer saves
    /// the count from this one's death. Returns whether it is kept; else it is offered again. The writer's state is not to be asked meanwhile.
    public var onDropping: ((LogStream, Int32) -> Bool)?

    /// Bytes of all entries ever written, those that compaction dropped included: the position that readers wait on. It never shrinks.
    public var indexSize: UInt64 { indexShorter + indexLength }

    /// Opens or begins the log in `directory` and puts right what a killed predecessor left: a torn index tail is cut, bytes without an
    /// entry get a `recovered` one, segments that were about to be removed are. `segmentBytes`: at this size a segment is followed by the
    /// next. `segmentCount`: so many segments of a stream are kept, 0 for all. `dropFiles`: where a killed predecessor counted what it dropped
    /// (``onDropping``), -1 for none; they are the writer's from now on.
    /// - Throws: what waiting does not cure. A disk that is full, read-only or broken is no error: output is dropped and counted until it
    ///   works.
    public init(
        directory: consuming Descriptor, segmentBytes: UInt64, segmentCount: UInt32 = 0,
        dropFiles: (stdout: Int32, stderr: Int32) = (-1, -1)
    ) throws(SysError) {
        self.directory = directory
        self.segmentBytes = max(segmentBytes, 1)
        self.segmentCount = segmentCount
        Self.adopt(dropFiles.stdout, &stdout)
        Self.adopt(dropFiles.stderr, &stderr)
        do throws(SysError) { try load() } catch {
            if !Self.mayPass(error.code) { throw error }
            nextTry = now(CLOCK_MONOTONIC) + Self.pause
        }
        if stdout.isMissing || stderr.isMissing { retry() }
    }

    /// Whether a disk that gave this error may work later.
    private static func mayPass(_ code: Int32) -> Bool {
        [ENOSPC, EDQUOT, EROFS, EIO, EFBIG, ENOMEM, ENFILE, EMFILE, EAGAIN, EPERM, EACCES].contains(code)
    }

    func state(_ stream: LogStream) -> Stream { stream == .stdout ? stdout : stderr }

    mutating func update(_ stream: LogStream, _ state: Stream) {
        switch stream {
        case .stdout: stdout = state
        case .stderr: stderr = state
        }
    }

    /// Whether both streams are closed and drained: the index grows no more.
    public var ended: Bool { stdout.ended && stderr.ended }

    /// Whether `stream` is closed and drained.
    public func hasEnded(_ stream: LogStream) -> Bool { stream == .stdout ? stdout.ended : stderr.ended }

    // MARK: output

    /// Moves at most `limit` bytes from `pipe` to the segment of `stream` and writes their entry. Never waits for the pipe. When the disk
    /// takes nothing the bytes are dropped and counted, so that the container goes on; the count is written once the disk works again.
    public mutating func drain(_ stream: LogStream, from pipe: Int32, limit: Int = step) -> Drained {
        if hasEnded(stream) { return .ended }
        reopen()
        var state = state(stream)
        var total = 0
        var result = Drained.empty
        // Several small pieces, as they come, get one entry.
        while total < limit {
            let moved = move(stream, from: pipe, limit: limit - total, &state)
            if case .moved(let count) = moved {
                total += count
                if count >= 32 << 10 && !state.isLoud { Self.widen(pipe, &state) }
                continue
            }
            result = moved
            break
        }
        flush(stream, &state, quiet: result == .empty)
        update(stream, state)
        return total > 0 ? .moved(total) : result
    }

    /// One piece from the pipe into the segment, or past it.
    private mutating func move(_ stream: LogStream, from pipe: Int32, limit: Int, _ state: inout Stream) -> Drained {
        guard index != nil else { return drop(stream, from: pipe, limit: limit, &state) }
        if state.size >= segmentBytes && Self.holdsBytes(pipe) {
            flush(stream, &state, quiet: false)
            rotate(stream, &state)
        }
        if state.file == nil { state.file = openSegment(stream, state.segment) }
        guard let file = state.file else { return drop(stream, from: pipe, limit: limit, &state) }
        // A full segment that finds no successor grows.
        let room = state.size < segmentBytes ? Int(clamping: segmentBytes - state.size) : limit
        var offset = Int64(clamping: state.size)
        let moved = ctr_splice_to_offset(pipe, file.raw, &offset, min(limit, room), spliceFlags)
        switch moved {
        case 1...:
            state.size += UInt64(moved)
            return .moved(moved)
        case 0: return .ended
        case -Int(EAGAIN), -Int(EINTR): return .empty
        default:
            // A device's error can come behind a write that the file shows already: what is dropped is not to be found there.
            var status = stat()
            if fstat(file.raw, &status) == 0 && UInt64(clamping: status.st_size) > state.size {
                ftruncate(file.raw, off_t(clamping: state.size))
            }
            return drop(stream, from: pipe, limit: limit, &state)
        }
    }

    private static func holdsBytes(_ pipe: Int32) -> Bool {
        var waiting = pollfd(fd: pipe, events: Int16(POLLIN), revents: 0)
        return poll(&waiting, 1, 0) > 0 && waiting.revents & Int16(POLLIN) != 0
    }

    /// A container that fills its pipe gets a larger one: it waits less often. A pipe that cannot be changed stays as it is.
    private static func widen(_ pipe: Int32, _ state: inout Stream) {
        state.isLoud = true
        if ctr_fcntl_int(pipe, getPipeSize, 0) < loudPipe { _ = ctr_fcntl_int(pipe, setPipeSize, Int32(loudPipe)) }
    }

    /// Marks `stream` as closed and drained. Idempotent; the entry is tried again by ``retry()`` when the disk is full.
    public mutating func end(_ stream: LogStream) {
        reopen()
        var state = state(stream)
        state.ended = true
        flush(stream, &state, quiet: true)
        if state.endWritten { (state.file, state.counter) = (nil, nil) }
        update(stream, state)
    }

    /// Says that of `stream` something may be missing here and that nobody knows how much. Nothing on a stream that has ended.
    public mutating func gap(_ stream: LogStream) throws(SysError) {
        var state = state(stream)
        if state.ended { return }
        if index == nil { throw SysError("write log index", "", code: ENOSPC) }
        try appendBytes(stream, &state, upTo: state.size)
        try append(LogEntry(stream: stream, flags: .gap, segment: state.segment, length: 0, offset: state.size))
        update(stream, state)
    }

    /// Writes entries that a full disk had kept out of the index, if there are any. `atOnce`: though an index that could not be opened was
    /// tried a moment ago.
    public mutating func retry(atOnce: Bool = false) {
        if atOnce { nextTry = 0 }
        reopen()
        do throws(SysError) { try settle() } catch {}
        for stream in LogStream.allCases {
            var state = state(stream)
            if state.ended {
                if !state.endWritten { end(stream) }
            } else if state.isMissing || state.removed > state.removedWritten {
                flush(stream, &state, quiet: true)
                update(stream, state)
            }
        }
    }

    /// Tries again to open an index that the disk had not given.
    private mutating func reopen() {
        guard index == nil else { return }
        let time = now(CLOCK_MONOTONIC)
        if time < nextTry { return }
        nextTry = time + Self.pause
        do throws(SysError) { try load() } catch {}
    }

    // MARK: segments

    private func openSegment(_ stream: LogStream, _ number: UInt32, new: Bool = false) -> SegmentFile? {
        let flags = O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC | (new ? O_EXCL : 0)
        let opened = ctr_openat(directory.raw, stream.segmentName(number), flags, 0o600)
        return opened < 0 ? nil : SegmentFile(owning: opened)
    }

    /// The next segment is begun once the index knows all of the full one; a disk that gives no new file lets the old one grow.
    private mutating func rotate(_ stream: LogStream, _ state: inout Stream) {
        guard state.indexed == state.size, !state.isMissing else { return }
        guard let next = openSegment(stream, state.segment + 1, new: true) else { return }
        state.file = next
        state.segment += 1
        state.size = 0
        state.indexed = 0
        if segmentCount > 0 && state.segment > segmentCount { remove(stream, &state, upTo: state.segment - segmentCount) }
    }

    /// Removes the oldest segments: first the index says so, then they go. What a crash leaves is removed by ``load()``.
    mutating func remove(_ stream: LogStream, _ state: inout Stream, upTo last: UInt32) {
        if last <= state.removed { return }
        let first = state.removed + 1
        for number in first...last {
            var status = stat()
            if fstatat(directory.raw, stream.segmentName(number), &status, AT_SYMLINK_NOFOLLOW) == 0 {
                state.removedBytes += UInt64(clamping: status.st_size)
            }
        }
        state.removed = last
        // An index that a full disk does not let grow may again once the segments are gone.
        flush(stream, &state, quiet: false)
        for number in first...last { unlinkat(directory.raw, stream.segmentName(number), 0) }
        flush(stream, &state, quiet: false)
        let other = stream == .stdout ? stderr : stdout
        let removed = stream == .stdout ? (state, other) : (other, state)
        compact(stdout: removed.0, stderr: removed.1)
    }

    // MARK: index

    /// Brings the index up to the segment, in order: bytes before a gap, the gap, bytes behind it, the end. What fails is kept for later.
    private mutating func flush(_ stream: LogStream, _ state: inout Stream, quiet: Bool) {
        guard index != nil else { return }
        do throws(SysError) {
            if state.removed > state.removedWritten {
                try append(removal(of: stream, state))
                state.removedWritten = state.removed
            }
            if state.isMissing {
                // While bytes are still being dropped the gap is not over.
                guard state.size > state.droppedAt || state.ended || quiet else { return }
                try appendBytes(stream, &state, upTo: state.droppedAt)
                while let gap = Self.nextGap(stream, state, at: state.droppedAt) {
                    let position = indexSize
                    state.counter?.begin(telling: gap.length, at: position)
                    do throws(SysError) { try append(gap) } catch {
                        state.counter?.end(telling: 0)
                        throw error
                    }
                    Self.told(gap, &state)
                }
            }
            try appendBytes(stream, &state, upTo: state.size)
            if state.ended && !state.endWritten {
                try append(LogEntry(stream: stream, flags: .end, segment: state.segment, length: 0, offset: state.size))
                state.endWritten = true
            }
        } catch {}
    }

    func removal(of stream: LogStream, _ state: Stream, shorter: UInt64? = nil) -> LogEntry {
        LogEntry(
            stream: stream, flags: .removed, segment: state.removed,
            length: UInt32(clamping: (shorter ?? indexShorter) / UInt64(LogEntry.length)), offset: state.removedBytes)
    }

    private mutating func appendBytes(_ stream: LogStream, _ state: inout Stream, upTo end: UInt64) throws(SysError) {
        while state.indexed < end {
            let length = UInt32(min(end - state.indexed, UInt64(UInt32.max)))
            try append(LogEntry(stream: stream, flags: [], segment: state.segment, length: length, offset: state.indexed))
            state.indexed += UInt64(length)
        }
    }

    private mutating func append(_ entry: LogEntry) throws(SysError) {
        guard let index else { return }
        try settle()
        do throws(SysError) { try Self.append(entry, to: index.raw, at: &indexLength) } catch {
            if !Self.holds(index.raw, entry, at: indexLength) { throw error }
            doubtful = (entry, indexLength)
            indexLength += UInt64(LogEntry.length)
        }
    }

    /// Writes an entry once more that readers may have seen and the device did not take.
    private mutating func settle() throws(SysError) {
        guard let index, let doubtful else { return }
        var offset = doubtful.offset
        try Self.append(doubtful.entry, to: index.raw, at: &offset)
        self.doubtful = nil
    }

    /// At an explicit offset: what a short write left is written over by the next try.
    static func append(_ entry: LogEntry, to index: Int32, at length: inout UInt64) throws(SysError) {
        let written = withUnsafeTemporaryAllocation(byteCount: LogEntry.length, alignment: 8) { buffer in
            entry.encode(to: buffer)
            return pwrite(index, buffer.baseAddress, buffer.count, off_t(clamping: length))
        }
        if written != LogEntry.length { throw SysError("write log index", "", code: written < 0 ? errno : ENOSPC) }
        length += UInt64(LogEntry.length)
    }

    /// Whether readers of `index` find `entry` at `offset`.
    private static func holds(_ index: Int32, _ entry: LogEntry, at offset: UInt64) -> Bool {
        withUnsafeTemporaryAllocation(byteCount: 2 * LogEntry.length, alignment: 8) { buffer in
            let wanted = UnsafeMutableRawBufferPointer(rebasing: buffer[..<LogEntry.length])
            let there = UnsafeMutableRawBufferPointer(rebasing: buffer[LogEntry.length...])
            entry.encode(to: wanted)
            return pread(index, there.baseAddress, there.count, off_t(clamping: offset)) == wanted.count && wanted.elementsEqual(there)
        }
    }
}

/// SPLICE_F_MOVE | SPLICE_F_NONBLOCK of splice(2), F_GETPIPE_SZ and F_SETPIPE_SZ of fcntl(2), which the C library's headers show only
/// with _GNU_SOURCE.
let spliceFlags: UInt32 = 0x01 | 0x02
private let getPipeSize: Int32 = 1032
private let setPipeSize: Int32 = 1031
