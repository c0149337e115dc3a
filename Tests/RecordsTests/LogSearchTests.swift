import Glibc
import Linux
import Testing

@testable import Logs

/// The last lines, and what arrived in some time.
@Suite struct LogSearchTests {
    private struct Written {
        var stream: LogStream
        var bytes: [UInt8]
        var time: Int64
    }

    /// A log of the caller's making: one entry each, segments of at most `segmentBytes`.
    private func make(_ pieces: [Written], segmentBytes: Int = 1 << 20) throws -> TemporaryDirectory {
        let directory = try TemporaryDirectory()
        var entries: [LogEntry] = []
        var segments = LogPair(both: (number: UInt32(1), bytes: [UInt8]()))
        for piece in pieces {
            var segment = segments[piece.stream]
            if segment.bytes.count + piece.bytes.count > segmentBytes && !segment.bytes.isEmpty {
                try directory.write(piece.stream.segmentName(segment.number), segment.bytes)
                segment = (segment.number + 1, [])
            }
            entries.append(
                LogEntry(
                    stream: piece.stream, flags: [], segment: segment.number, length: UInt32(piece.bytes.count),
                    offset: UInt64(segment.bytes.count), time: piece.time, boot: 0))
            segment.bytes += piece.bytes
            segments[piece.stream] = segment
        }
        for stream in LogStream.allCases { try directory.write(stream.segmentName(segments[stream].number), segments[stream].bytes) }
        try directory.write("index", index(entries))
        return directory
    }

    /// The last `count` lines by a method that shares nothing with the search: every line with the place of its end, sorted.
    private func lastLines(_ pieces: [Written], _ count: Int, _ streams: LogStreams) -> LogPair<[UInt8]> {
        var lines: [(end: Int, stream: LogStream, bytes: [UInt8])] = []
        var open = LogPair(both: (end: 0, bytes: [UInt8]()))
        var at = 0
        for piece in pieces where streams.contains(piece.stream) {
            for byte in piece.bytes {
                open[piece.stream].bytes.append(byte)
                open[piece.stream].end = at
                if byte == 10 {
                    lines.append((at, piece.stream, open[piece.stream].bytes))
                    open[piece.stream] = (0, [])
                }
                at += 1
            }
        }
        for stream in LogStream.allCases where !open[stream].bytes.isEmpty { lines.append((open[stream].end, stream, open[stream].bytes)) }
        lines.sort { $0.end < $1.end }
        var result = LogPair(both: [UInt8]())
        for line in lines.suffix(count) { result[line.stream] += line.bytes }
        return result
    }

    private func random(_ random: inout Random, pieces: Int) -> [Written] {
        (0..<pieces).map { number in
            let stream: LogStream = Bool.random(using: &random) ? .stdout : .stderr
            // Lines of any length, empty ones too, that end anywhere or nowhere in their entry.
            let bytes = (0..<Int.random(in: 1...40, using: &random)).map { _ -> UInt8 in
                Int.random(in: 0...6, using: &random) == 0 ? 10 : UInt8.random(in: 97...122, using: &random)
            }
            return Written(stream: stream, bytes: bytes, time: Int64(number) * 1000)
        }
    }

    @Test func theLastLinesAreThoseThatEndedLast() throws {
        var random = Random(state: 7)
        for round in 0..<120 {
            let pieces = self.random(&random, pieces: Int.random(in: 1...60, using: &random))
            let directory = try make(pieces, segmentBytes: Int.random(in: 10...400, using: &random))
            let streams: LogStreams = [.both, .stdout, .stderr][round % 3]
            for count in [0, 1, 2, 5, 17, 1000] {
                var reader = try directory.reader(LogSearch.Request(tail: UInt64(count), streams: streams))
                let all = try Collected(&reader, limit: 13)
                let expected = lastLines(pieces, count, streams)
                #expect(all.stdout == expected.stdout && all.stderr == expected.stderr, "\(count) lines of round \(round)")
            }
        }
    }

    @Test func blocksDoNotCutLines() throws {
        // Lines longer than a block, entries longer than a block, and a line that ends exactly where a block does.
        let long = [UInt8](repeating: 120, count: LogSearch.block * 2 + 5) + [10]
        let exact = [UInt8](repeating: 121, count: LogSearch.block - 1) + [10]
        let pieces = [
            Written(stream: .stdout, bytes: Array("first\n".utf8), time: 1), Written(stream: .stdout, bytes: long, time: 2),
            Written(stream: .stdout, bytes: exact + exact, time: 3),
            Written(stream: .stdout, bytes: Array("a\n".utf8), time: 4),
        ]
        let directory = try make(pieces, segmentBytes: 1 << 24)
        for count in 0...5 {
            var reader = try directory.reader(LogSearch.Request(tail: UInt64(count)))
            #expect(try Collected(&reader).stdout == lastLines(pieces, count, .both).stdout, "\(count)")
        }
    }

    @Test func theIndexIsReadInBlocks() throws {
        let pieces = (0..<5000).map { Written(stream: $0 % 3 == 0 ? .stderr : .stdout, bytes: Array("\($0)\n".utf8), time: Int64($0)) }
        let directory = try make(pieces)
        for count in [1, 1638, 1639, 3277, 4999, 5000, 6000] {
            var reader = try directory.reader(LogSearch.Request(tail: UInt64(count)))
            #expect(try Collected(&reader).all == pieces.suffix(count).flatMap(\.bytes))
        }
        var reader = try directory.reader(LogSearch.Request(since: 100, until: 4000))
        #expect(try Collected(&reader).all == pieces[100..<4000].flatMap(\.bytes))
        var both = try directory.reader(LogSearch.Request(since: 3990, until: 4000, tail: 3))
        #expect(try Collected(&both).all == pieces[3997..<4000].flatMap(\.bytes))
        var cut = try directory.reader(LogSearch.Request(since: 3998, until: 4000, tail: 30))
        #expect(try Collected(&cut).all == pieces[3998..<4000].flatMap(\.bytes))
        var nothing = try directory.reader(LogSearch.Request(since: 9000))
        #expect(try Collected(&nothing).all == [])
    }

    @Test func untilEndsAReaderThatFollows() throws {
        let directory = try make([Written(stream: .stdout, bytes: [97, 10], time: 10)])
        var reader = try directory.reader(LogSearch.Request(until: 100))
        #expect(try Collected(&reader).stdout == [97, 10])
        let ended = reader.ended
        #expect(!ended)
        let more = [
            LogEntry(stream: .stdout, flags: [], segment: 1, length: 2, offset: 2, time: 99, boot: 0),
            LogEntry(stream: .stdout, flags: [], segment: 1, length: 2, offset: 4, time: 100, boot: 0),
        ]
        try directory.write("stdout.000001", [97, 10, 98, 10, 99, 10])
        try directory.write("index", try directory.read("index") + index(more))
        let rest = try Collected(&reader)
        #expect(rest.stdout == [98, 10] && rest.ended)
    }

    @Test func aClockThatWasSetBackHidesNothing() throws {
        // Stamped in another year, then corrected, then on.
        let times: [Int64] = [9000, 9001, 50, 60, 70, 65, 80]
        let pieces = times.enumerated().map { Written(stream: .stdout, bytes: Array("\($0.offset)\n".utf8), time: $0.element) }
        let directory = try make(pieces)
        func text(_ since: Int64, _ until: Int64) throws -> String {
            var reader = try directory.reader(LogSearch.Request(since: since, until: until))
            return String(decoding: try Collected(&reader).stdout, as: UTF8.self).split(separator: "\n").joined()
        }
        #expect(try text(0, 0) == "0123456")
        #expect(try text(55, 0) == "3456")
        #expect(try text(66, 0) == "6")
        #expect(try text(50, 0) == "0123456")
        #expect(try text(0, 66) == "012345")
        #expect(try text(9000, 0) == "")
    }

    @Test func nothingNewIsNothingOld() throws {
        let directory = try TemporaryDirectory()
        let pipe = Pipe()
        var writer = try directory.writer(segmentBytes: 100, segmentCount: 2)
        for number in 0..<200 {
            try pipe.write(Array("\(number)\n".utf8))
            _ = writer.drain(.stdout, from: pipe.reader)
        }
        var reader = try directory.reader(LogSearch.Request(tail: 0))
        #expect(try reader.next(limit: 10) == nil)
        try pipe.write(Array("new\n".utf8))
        _ = writer.drain(.stdout, from: pipe.reader)
        #expect(try reader.next(limit: 10)?.content == .bytes(Array("new\n".utf8)))
        var last = try directory.reader(LogSearch.Request(tail: 2))
        #expect(try Collected(&last).stdout == Array("199\nnew\n".utf8))
        // The places at which readers begin are whole ones, also of a stream that is silent.
        var search = try LogSearch(directory: directory.opened(), request: LogSearch.Request(tail: 0))
        while try !search.step(budget: 100) {}
        let cursors = search.result.cursors
        #expect(cursors.stdout > .start && cursors.stderr == .start)
    }

    @Test func aSearchBesideATornEntryFindsTheRest() throws {
        let directory = try make((0..<100).map { Written(stream: .stdout, bytes: Array("\($0)\n".utf8), time: Int64($0)) })
        try directory.write("index", try directory.read("index") + [1, 2, 3])
        var reader = try directory.reader(LogSearch.Request(tail: 3))
        #expect(try Collected(&reader).stdout == Array("97\n98\n99\n".utf8))
    }
}
