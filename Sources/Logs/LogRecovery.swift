import CLinux
import Glibc
import Linux

/// What a writer does before its first byte, and with an index that speaks mostly of what is gone.
extension LogWriter {
    /// Opens the index and takes the log up where its last writer left it. Nothing of the writer changes when it throws.
    mutating func load() throws(SysError) {
        let opened = try Linux.open(LogEntry.indexName, O_RDWR | O_CREAT | O_NOFOLLOW, mode: 0o600, at: directory.raw)
        let file = SegmentFile(owning: opened.release())
        var out = Stream()
        var err = Stream()
        var shorter: UInt64 = 0
        var first = true
        var known = try forEachEntry(in: file.raw, from: 0) { entry in
            if first && entry.flags.contains(.removed) { shorter = UInt64(entry.length) * UInt64(LogEntry.length) }
            first = false
            switch entry.stream {
            case .stdout: Self.account(entry, to: &out)
            case .stderr: Self.account(entry, to: &err)
            }
            return true
        }
        let length = UInt64(try checkErrno("measure log index", "", lseek(file.raw, 0, SEEK_END)))
        // With entries cut off nobody knows which segments there were: they are looked for.
        let damaged = length >= known + UInt64(LogEntry.length)
        if length > known { try checkErrno("cut log index", "", ftruncate(file.raw, off_t(clamping: known))) }
        let names = damaged ? try RootFS.entries(of: directory.raw) : []
        // What this writer, or a predecessor, had to drop.
        Self.carry(.stdout, stdout, to: &out, index: file.raw, shorter: shorter)
        Self.carry(.stderr, stderr, to: &err, index: file.raw, shorter: shorter)
        try recover(.stdout, &out, among: names, index: file.raw, shorter: shorter, &known)
        try recover(.stderr, &err, among: names, index: file.raw, shorter: shorter, &known)
        Self.place(stdout, &out)
        Self.place(stderr, &err)
        stdout = out
        stderr = err
        indexLength = known
        indexShorter = shorter
        index = file
        doubtful = nil
    }

    private static func carry(_ stream: LogStream, _ old: Stream, to state: inout Stream, index: Int32, shorter: UInt64) {
        state.isLoud = old.isLoud
        state.counter = old.counter
        state.dropped = old.dropped
        state.owes = old.owes
        guard let counter = state.counter else { return }
        counter.settle { position, length in
            guard position >= shorter else { return false }
            var found = false
            _ = try? forEachEntry(in: index, from: position - shorter) { entry in
                found = entry.stream == stream && entry.flags == .gap && entry.length == length
                return false
            }
            return found
        }
        state.dropped = counter.pending
        state.owes = counter.owes
    }

    /// What is missing and not said yet is missing behind all that there is.
    private static func place(_ old: Stream, _ state: inout Stream) {
        state.droppedAt = state.size
        if state.isMissing { state.counter?.begin(DropCounter.Place(segment: state.segment, offset: state.size)) }
        if old.ended { state.ended = true }
    }

    private static func account(_ entry: LogEntry, to stream: inout Stream) {
        if entry.flags.contains(.removed) {
            stream.removed = entry.segment
            stream.removedWritten = entry.segment
            stream.removedBytes = entry.offset
            if stream.segment <= entry.segment {
                stream.segment = entry.segment + 1
                stream.indexed = 0
            }
            return
        }
        if entry.flags.contains(.end) {
            stream.ended = true
            stream.endWritten = true
        }
        stream.segment = entry.segment
        stream.indexed = entry.endOffset
    }

    /// Adds an entry for what each segment holds beyond the index, from the last segment that the index knows to the last that exists.
    private func recover(
        _ stream: LogStream, _ state: inout Stream, among names: [String], index: Int32, shorter: UInt64, _ length: inout UInt64
    ) throws(SysError) {
        removeLeftovers(stream, state)
        if state.ended { return }
        let found = names.compactMap(stream.segmentNumber).sorted()
        while true {
            let name = stream.segmentName(state.segment)
            let opened = ctr_openat(directory.raw, name, O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0)
            if opened == -ENOENT {
                if let next = found.first(where: { $0 > state.segment }) {
                    Self.begin(next, &state)
                    continue
                }
                // It was there: what the index says of it stays said, and no other byte gets its places.
                if state.indexed > 0 { Self.begin(state.segment + 1, &state) }
                return
            }
            let file = SegmentFile(owning: try check("open log segment", name, opened))
            state.size = UInt64(try checkErrno("measure log segment", name, lseek(file.raw, 0, SEEK_END)))
            state.file = file
            if state.isMissing, let place = state.counter?.place, place.segment == state.segment,
                place.offset >= state.indexed && place.offset < state.size
            {
                // A predecessor went on behind the hole before it could say that there is one.
                try Self.recover(stream, &state, upTo: place.offset, index: index, &length)
                while let gap = Self.nextGap(stream, state, at: place.offset) {
                    state.counter?.begin(telling: gap.length, at: shorter + length)
                    do throws(SysError) { try Self.append(gap, to: index, at: &length) } catch {
                        state.counter?.end(telling: 0)
                        throw error
                    }
                    Self.told(gap, &state)
                }
            }
            try Self.recover(stream, &state, upTo: state.size, index: index, &length)
            // A segment shorter than its entries cannot take bytes at their offset any more.
            let next = ctr_openat(directory.raw, stream.segmentName(state.segment + 1), CTR_O_PATH | O_NOFOLLOW | O_CLOEXEC, 0)
            if next >= 0 { close(next) }
            if next < 0 && state.size >= state.indexed && !found.contains(where: { $0 > state.segment }) { return }
            Self.begin(state.segment + 1, &state)
        }
    }

    private static func recover(
        _ stream: LogStream, _ state: inout Stream, upTo end: UInt64, index: Int32, _ length: inout UInt64
    ) throws(SysError) {
        while state.indexed < end {
            let bytes = UInt32(min(end - state.indexed, UInt64(UInt32.max)))
            let entry = LogEntry(stream: stream, flags: .recovered, segment: state.segment, length: bytes, offset: state.indexed)
            try append(entry, to: index, at: &length)
            state.indexed += UInt64(bytes)
        }
    }

    private static func begin(_ segment: UInt32, _ state: inout Stream) {
        state.file = nil
        state.segment = segment
        state.size = 0
        state.indexed = 0
    }

    /// A killed writer had said that they go, and some had not gone: the newest of them, because the oldest go first.
    private func removeLeftovers(_ stream: LogStream, _ state: Stream) {
        var number = state.removed
        while number > 0 && unlinkat(directory.raw, stream.segmentName(number), 0) == 0 { number -= 1 }
    }

    // MARK: compaction

    /// When more than half of the index speaks of segments that are gone: writes one without those entries beside it, and renames. Readers
    /// that have the old file open read it to its end, then find the new one under the name.
    mutating func compact(stdout: Stream, stderr: Stream) {
        guard let index, doubtful == nil else { return }
        func isLive(_ entry: LogEntry) -> Bool {
            if entry.flags.contains(.removed) { return false }
            return entry.flags.contains(.end) || entry.segment > (entry.stream == .stdout ? stdout : stderr).removed
        }
        var live: UInt64 = 0
        var heads: [LogEntry] = []
        do throws(SysError) {
            let end = try forEachEntry(in: index.raw, from: 0) { entry in
                if isLive(entry) { live += 1 }
                return true
            }
            guard end == indexLength, stdout.removed == stdout.removedWritten, stderr.removed == stderr.removedWritten else { return }
            let streams = (stdout.removed > 0 ? 1 : 0) + (stderr.removed > 0 ? 1 : 0)
            let compacted = (live + UInt64(streams)) * UInt64(LogEntry.length)
            guard compacted * 2 < indexLength else { return }
            let shorter = indexSize - compacted
            if stdout.removed > 0 { heads.append(removal(of: .stdout, stdout, shorter: shorter)) }
            if stderr.removed > 0 { heads.append(removal(of: .stderr, stderr, shorter: shorter)) }
            let opened = try Linux.open(
                LogEntry.newIndexName, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW, mode: 0o600, at: directory.raw)
            let file = SegmentFile(owning: opened.release())
            var length: UInt64 = 0
            for head in heads { try Self.append(head, to: file.raw, at: &length) }
            var failure: SysError?
            _ = try forEachEntry(in: index.raw, from: 0) { entry in
                if !isLive(entry) { return true }
                do throws(SysError) { try Self.append(entry, to: file.raw, at: &length) } catch { failure = error }
                return failure == nil
            }
            if let failure { throw failure }
            try check(
                "replace log index", "",
                ctr_rename(directory.raw, LogEntry.newIndexName, directory.raw, LogEntry.indexName, true))
            self.index = file
            indexLength = length
            indexShorter = shorter
        } catch { unlinkat(directory.raw, LogEntry.newIndexName, 0) }
    }
}

extension LogStream {
    /// The number of one of its segments, nil when `name` is none.
    func segmentNumber(_ name: String) -> UInt32? {
        let prefix = self == .stdout ? "stdout." : "stderr."
        guard name.utf8.count >= prefix.utf8.count + 6, name.hasPrefix(prefix), let number = UInt32(name.dropFirst(prefix.utf8.count)),
            segmentName(number) == name
        else { return nil }
        return number
    }
}
