import CLinux
import Glibc
import Linux

/// What a writer does with output that the disk does not take.
extension LogWriter {
    static func adopt(_ file: Int32, _ state: inout Stream) {
        if file < 0 { return }
        state.counter = DropCounter(adopting: file)
        state.dropped = state.counter?.pending ?? 0
        // A file that cannot be understood was kept for a reason.
        state.owes = state.counter?.owes ?? true
    }

    /// One piece out of the pipe and into nothing, counted.
    mutating func drop(_ stream: LogStream, from pipe: Int32, limit: Int, _ state: inout Stream) -> Drained {
        var waiting = pollfd(fd: pipe, events: Int16(POLLIN), revents: 0)
        if poll(&waiting, 1, 0) <= 0 { return .empty }
        if waiting.revents & Int16(POLLIN) == 0 { return .ended }
        // Bytes behind an earlier gap that the index could not take yet count as its place: what follows is in order all the same.
        if !state.isMissing { state.droppedAt = state.size }
        let counter = counter(of: stream, &state)
        let got = counter?.take(from: pipe, limit: limit) ?? Self.discard(from: pipe, limit: limit)
        if got == 0 { return .ended }
        if got < 0 { return .empty }
        state.dropped += UInt64(got)
        return .moved(got)
    }

    /// Takes bytes out of a pipe that holds some: read(2) would wait for more, because the pipe's open file description is shared with the
    /// keeper and stays blocking.
    static func discard(from pipe: Int32, limit: Int) -> Int {
        withUnsafeTemporaryAllocation(byteCount: 4096, alignment: 8) { buffer in
            let got = read(pipe, buffer.baseAddress, min(buffer.count, limit))
            return got < 0 ? Int(-errno) : got
        }
    }

    /// What counts the bytes that `stream` is about to lose; nil where the kernel has no memory for it, and they are counted here alone.
    private mutating func counter(of stream: LogStream, _ state: inout Stream) -> DropCounter? {
        let isNew = state.counter == nil
        if isNew {
            state.counter = DropCounter(dropped: state.dropped)
            state.counter?.owes = state.owes
        }
        guard let counter = state.counter else { return nil }
        if isNew || !state.isMissing {
            counter.begin(DropCounter.Place(segment: index == nil ? 0 : state.segment, offset: state.droppedAt))
        }
        if !counter.isKept { counter.isKept = onDropping?(stream, counter.file.raw) ?? true }
        return counter
    }

    /// The file that counts what is dropped of `stream`; -1 when nothing was, or all of it is said and the stream has ended.
    public func dropFile(_ stream: LogStream) -> Int32 { state(stream).counter?.file.raw ?? -1 }

    // MARK: saying so

    /// As ``gap(_:)``, but what the disk does not take now is said later: by this writer, or by one that is given the ``dropFile(_:)``.
    public mutating func oweGap(_ stream: LogStream) throws(SysError) {
        do throws(SysError) { try gap(stream) } catch {
            var state = state(stream)
            if !state.isMissing { state.droppedAt = state.size }
            guard let counter = counter(of: stream, &state) else { throw error }
            state.owes = true
            counter.owes = true
            update(stream, state)
        }
    }

    /// The entry that says what is missing, or the next part of it.
    static func nextGap(_ stream: LogStream, _ state: Stream, at offset: UInt64) -> LogEntry? {
        if !state.isMissing { return nil }
        let length = UInt32(min(state.dropped, UInt64(UInt32.max)))
        return LogEntry(stream: stream, flags: .gap, segment: state.segment, length: length, offset: offset)
    }

    /// The index has an entry of ``nextGap(_:_:at:)``; the one of an unknown number comes last.
    static func told(_ gap: LogEntry, _ state: inout Stream) {
        state.dropped -= UInt64(gap.length)
        state.counter?.end(telling: gap.length)
        if gap.length == 0 {
            state.owes = false
            state.counter?.owes = false
        }
    }
}
