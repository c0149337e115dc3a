import CLinux
import Glibc
import Linux

/// Compares a log's index with its segments: whether every byte has exactly one entry, in order, and every entry its bytes.
public struct LogVerifier {
    /// More problems than these are only counted.
    static let problemLimit = 100

    public struct Report: Equatable, Sendable {
        public var entries: UInt64 = 0
        /// In segments, that the index speaks of.
        public var bytes: UInt64 = 0
        public var gapBytes: UInt64 = 0
        public var gaps: UInt32 = 0
        /// Found after a crash of the writer.
        public var recoveredBytes: UInt64 = 0
        /// Of segments that rotation removed.
        public var rotatedBytes: UInt64 = 0
        public var ended = false
        public var problems: [String] = []
    }

    private struct Stream {
        var segment: UInt32 = 0
        var end: UInt64 = 0
        var removed: UInt32 = 0
        var ended = false
    }

    private let directory: Int32
    private let isLive: Bool
    private var report = Report()
    private var streams = LogPair(both: Stream())
    private var rotated = LogPair<UInt64>(both: 0)
    private var more = 0

    /// Checks the log in `directory`. With `isLive` a writer may be at work, and what it has not written to the index yet is no problem.
    /// - Throws: what keeps it from reading at all.
    public static func verify(directory: borrowing Descriptor, isLive: Bool) throws(SysError) -> Report {
        var verifier = LogVerifier(directory: directory.raw, isLive: isLive)
        try verifier.run()
        return verifier.report
    }

    private init(directory: Int32, isLive: Bool) {
        self.directory = directory
        self.isLive = isLive
    }

    private mutating func problem(_ text: String) {
        if report.problems.count < Self.problemLimit { report.problems.append(text) } else { more += 1 }
    }

    private mutating func run() throws(SysError) {
        let opened = ctr_openat(directory, LogEntry.indexName, O_RDONLY | O_NOFOLLOW | O_CLOEXEC, 0)
        if opened == -ENOENT {
            let names = try RootFS.entries(of: directory)
            if !isLive, let name = names.first(where: isSegment) { problem("there is no index, and a segment \(name)") }
            return
        }
        let index = SegmentFile(owning: try check("open log index", "", opened))
        let length = UInt64(try checkErrno("measure log index", "", lseek(index.raw, 0, SEEK_END)))
        try learnRemoved(index.raw, length)
        var last: LogEntry?
        try walk(index.raw, length) { verifier, number, entry in
            guard let entry else { return verifier.problem("entry \(number) of the index is damaged") }
            verifier.take(entry, number, after: last)
            last = entry
        }
        if length % UInt64(LogEntry.length) != 0 && !isLive {
            problem("the index ends in \(length % UInt64(LogEntry.length)) bytes of an entry")
        }
        // Only now: a living writer has made no entry longer than its segment in the meantime.
        for stream in LogStream.allCases { finish(stream) }
        if !isLive { try lookForUnknown() }
        if more > 0 { report.problems.append("and \(more) more") }
        report.ended = streams.stdout.ended && streams.stderr.ended
    }

    private func isSegment(_ name: String) -> Bool { LogStream.allCases.contains { $0.segmentNumber(name) != nil } }

    /// Each entry of the index, nil for one that is none.
    private mutating func walk(
        _ index: Int32, _ length: UInt64, _ body: (inout LogVerifier, UInt64, LogEntry?) -> Void
    ) throws(SysError) {
        let whole = length - length % UInt64(LogEntry.length)
        var at: UInt64 = 0
        while at < whole {
            at = try forEachEntry(in: index, from: at) { entry in
                body(&self, at / UInt64(LogEntry.length), entry)
                at += UInt64(LogEntry.length)
                return at < whole
            }
            if at >= whole { break }
            body(&self, at / UInt64(LogEntry.length), nil)
            at += UInt64(LogEntry.length)
        }
    }

    /// What rotation removed is said behind the entries of what it removed.
    private mutating func learnRemoved(_ index: Int32, _ length: UInt64) throws(SysError) {
        try walk(index, length) { verifier, _, entry in
            guard let entry, entry.flags.contains(.removed) else { return }
            verifier.streams[entry.stream].removed = max(verifier.streams[entry.stream].removed, entry.segment)
        }
    }

    private mutating func take(_ entry: LogEntry, _ number: UInt64, after last: LogEntry?) {
        report.entries += 1
        let name = entry.stream == .stdout ? "stdout" : "stderr"
        let place = "entry \(number) (\(entry.stream.segmentName(entry.segment)), offset \(entry.offset))"
        // Both clocks back: not the work of somebody who set one.
        if let last, entry.time < last.time, Int32(bitPattern: entry.boot &- last.boot) < 0, !entry.flags.contains(.removed),
            !last.flags.contains(.removed)
        {
            problem("\(place) is older than the entry before it")
        }
        if entry.flags.contains(.removed) {
            let removed = entry.stream == .stdout ? rotated.stdout : rotated.stderr
            if entry.offset < removed { problem("\(place) counts fewer removed bytes than an earlier one") }
            rotated[entry.stream] = entry.offset
            report.rotatedBytes = rotated.stdout + rotated.stderr
            return
        }
        var state = streams[entry.stream]
        defer { streams[entry.stream] = state }
        if state.ended { problem("\(place) comes after the end of \(name)") }
        if state.segment == 0 {
            // The first of all: at the beginning, or behind what was removed.
            let expected = entry.segment <= state.removed ? entry.segment : state.removed + 1
            let isFirst = entry.offset == 0 && (entry.segment == expected || entry.segment == 1)
            if !isFirst && !entry.flags.contains(.end) { problem("\(place) is not the beginning of \(name)") }
        } else if entry.segment == state.segment {
            if entry.offset < state.end { problem("\(place) overlaps the entry before it by \(state.end - entry.offset) bytes") }
            if entry.offset > state.end { problem("no entry speaks of \(entry.offset - state.end) bytes before \(place)") }
        } else if entry.segment < state.segment {
            problem("\(place) is of a segment before that of the entry before it")
        } else {
            close(entry.stream, state)
            if entry.segment > state.segment + 1 && entry.segment > state.removed + 1 {
                problem("no entry speaks of segments \(state.segment + 1) to \(entry.segment - 1) of \(name)")
            }
            if entry.offset > 0 { problem("no entry speaks of \(entry.offset) bytes before \(place)") }
            state.end = 0
        }
        state.segment = entry.segment
        if entry.flags.contains(.end) { state.ended = true }
        if entry.flags.contains(.gap) {
            report.gaps += 1
            report.gapBytes += UInt64(entry.length)
        }
        state.end = entry.hasBytes ? max(entry.endOffset, entry.segment == state.segment ? state.end : 0) : max(state.end, entry.offset)
        if entry.hasBytes && entry.segment > state.removed {
            report.bytes += UInt64(entry.length)
            if entry.flags.contains(.recovered) { report.recoveredBytes += UInt64(entry.length) }
        }
    }

    private func size(_ stream: LogStream, _ segment: UInt32) -> UInt64? {
        var status = stat()
        guard fstatat(directory, stream.segmentName(segment), &status, AT_SYMLINK_NOFOLLOW) == 0 else { return nil }
        return UInt64(clamping: status.st_size)
    }

    /// A segment whose entries have all been seen.
    private mutating func close(_ stream: LogStream, _ state: Stream, isLast: Bool = false) {
        if state.segment == 0 || state.segment <= state.removed { return }
        let name = stream.segmentName(state.segment)
        guard let size = size(stream, state.segment) else {
            if state.end > 0 { problem("\(name) is missing, with \(state.end) bytes") }
            return
        }
        if size < state.end { problem("\(name) is \(state.end - size) bytes shorter than the index says") }
        if size > state.end && !(isLast && isLive && !state.ended) {
            problem("\(name) has \(size - state.end) bytes that the index does not speak of")
        }
    }

    private mutating func finish(_ stream: LogStream) { close(stream, streams[stream], isLast: true) }

    private mutating func lookForUnknown() throws(SysError) {
        for name in try RootFS.entries(of: directory).sorted() {
            for stream in LogStream.allCases {
                guard let number = stream.segmentNumber(name), number > streams[stream].segment else { continue }
                if size(stream, number) ?? 0 > 0 { problem("the index does not speak of \(name)") }
            }
        }
    }
}
