import Glibc
import Linux
import Logs

extension LogEntry {
    /// What it takes on the disk with the bytes that it speaks of.
    fileprivate var cost: Int { (hasBytes ? Int(length) : 0) + Self.length }
}

/// A log that a client reads while it is written: what the reader says it has is removed, and a process that is further ahead than
/// ``limit`` waits for it. Where nobody reads, the newest is kept and the process goes on (decision 0018).
final class AttachedLog: LogSink {
    /// Unread bytes, with 40 for each entry of the index, at which the pipe is left to fill.
    static let limit = 8 << 20
    /// What is kept at least where nobody reads.
    static let kept = 1 << 20
    static let segmentBytes: UInt64 = 256 << 10

    private struct Segment {
        let number: UInt32
        var cost = 0
        var read = 0
    }

    private struct Stream {
        var segments: [Segment] = []
        /// Behind the last entry that the reader has.
        var cursor = LogCursor.start
    }

    private var stdout = Stream()
    private var stderr = Stream()
    /// Behind the last entry that is counted, and the last that was read (positions of the index).
    private var counted: UInt64 = 0
    private var readTo: UInt64 = 0
    /// Until a farewell: who asked for the log is about to read, or to come back.
    private var isAwaited: Bool
    private var isClosed = false
    /// A pipe waits.
    private var isFull = false

    /// `isAwaited`: a process whose log it is waits for its first reader too.
    init(in directory: Int32, isAwaited: Bool, dropped: ParkedDrops) throws(SysError) {
        self.isAwaited = isAwaited
        try super.init(in: directory, segmentBytes: Self.segmentBytes, dropped: dropped)
        count()
    }

    private subscript(_ stream: LogStream) -> Stream {
        get { stream == .stdout ? stdout : stderr }
        set { if stream == .stdout { stdout = newValue } else { stderr = newValue } }
    }

    private func sum(_ value: (Segment) -> Int) -> Int {
        stdout.segments.reduce(0) { $0 + value($1) } + stderr.segments.reduce(0) { $0 + value($1) }
    }

    private var unread: Int { sum { $0.cost - $0.read } }

    override func drain(_ stream: LogStream, from pipe: Int32) -> Drained {
        if isAwaited && !isClosed && unread >= Self.limit {
            isFull = true
            return .full
        }
        let drained = super.drain(stream, from: pipe)
        if case .moved = drained {
            count()
            if !isAwaited { trim() }
        }
        return drained
    }

    /// Adds what is new in the index.
    private func count() {
        counted =
            (try? entries(from: counted) { entry in
                if entry.flags.contains(.removed) { return }
                let cost = entry.cost
                let last = self[entry.stream].segments.count - 1
                if last >= 0 && self[entry.stream].segments[last].number == entry.segment {
                    self[entry.stream].segments[last].cost += cost
                } else {
                    self[entry.stream].segments.append(Segment(number: entry.segment, cost: cost))
                }
            }) ?? counted
    }

    /// Nobody reads: the oldest goes.
    private func trim() {
        while true {
            let stream: LogStream = stdout.segments.count >= stderr.segments.count ? .stdout : .stderr
            guard self[stream].segments.count > 1, sum({ $0.cost }) - self[stream].segments[0].cost >= Self.kept else { return }
            discard(stream, before: self[stream].segments[1].number)
            self[stream].segments.removeFirst()
        }
    }

    // MARK: the reader

    override var acknowledged: UInt64? { isAwaited ? readTo : .max }

    override func acknowledge(_ indexSize: UInt64) -> Bool {
        isAwaited = indexSize != .max
        if !isAwaited {
            trim()
            return hasRoom()
        }
        if indexSize <= readTo { return false }
        var at = readTo
        readTo = indexSize
        // Every entry has the same length: so many of them were read.
        _ = try? entries(from: at) { entry in
            if at >= indexSize { return }
            at += UInt64(LogEntry.length)
            read(entry)
        }
        for stream in LogStream.allCases {
            let number = self[stream].cursor.segment
            guard let first = self[stream].segments.first, first.number < number else { continue }
            discard(stream, before: number)
            self[stream].segments.removeAll { $0.number < number }
        }
        return hasRoom()
    }

    private func read(_ entry: LogEntry) {
        let end = LogCursor(segment: entry.segment, offset: entry.endOffset)
        if entry.flags.contains(.removed) || end <= self[entry.stream].cursor { return }
        self[entry.stream].cursor = end
        guard let index = self[entry.stream].segments.firstIndex(where: { $0.number == entry.segment }) else { return }
        self[entry.stream].segments[index].read += entry.cost
    }

    private func hasRoom() -> Bool {
        guard isFull, !isAwaited || isClosed || unread < Self.limit else { return false }
        isFull = false
        return true
    }

    override func close() { isClosed = true }
}
