import Linux

/// For a log whose reader makes room: what was read is removed.
extension LogWriter {
    /// Calls `body` with the entries from `position` of the index on and returns the position behind the last. Entries that compaction has
    /// moved are seen at their new place, which is never before the old one.
    public func entries(from position: UInt64, _ body: (LogEntry) -> Void) throws(SysError) -> UInt64 {
        guard let index else { return position }
        let start = max(position, indexShorter) - indexShorter
        return try forEachEntry(in: index.raw, from: start) { entry in
            body(entry)
            return true
        } + indexShorter
    }

    /// Removes the segments of `stream` before `segment`, which is its current one at most.
    public mutating func discard(_ stream: LogStream, before segment: UInt32) {
        var state = stream == .stdout ? stdout : stderr
        let last = min(segment, state.segment)
        if last < 2 { return }
        remove(stream, &state, upTo: last - 1)
        if stream == .stdout { stdout = state } else { stderr = state }
    }
}
