import Glibc
import Linux
import Testing

@testable import Logs

/// Rotation by size and count: what goes, in which order, and what readers get meanwhile.
@Suite struct LogRotationTests {
    /// One line of 10 bytes a drain, so that each has an entry.
    private func line(_ number: Int) -> [UInt8] {
        let digits = String(number)
        return Array((String(repeating: "0", count: 9 - digits.utf8.count) + digits + "\n").utf8)
    }

    private func write(_ numbers: Range<Int>, to writer: inout LogWriter, _ pipe: Pipe, _ stream: LogStream = .stdout) throws {
        for number in numbers {
            try pipe.write(line(number))
            guard case .moved(10) = writer.drain(stream, from: pipe.reader) else { return #expect(Bool(false), "nothing moved") }
        }
    }

    @Test func segmentsHaveExactlyTheirSizeAndTheOldestGo() throws {
        let directory = try TemporaryDirectory()
        let pipe = Pipe()
        var writer = try directory.writer(segmentBytes: 25, segmentCount: 3)
        try write(0..<20, to: &writer, pipe)
        #expect(try directory.segments(.stdout) == ["stdout.000006", "stdout.000007", "stdout.000008"])
        #expect(try directory.read("stdout.000006").count == 25)
        var reader = try directory.reader()
        let all = try Collected(&reader)
        // A new reader misses nothing: it never had what is gone.
        #expect(all.gaps == 0 && all.stdout == Array((0..<20).flatMap(line)[125...]))
        let report = try directory.verify(isLive: true)
        #expect(report.problems == [] && report.rotatedBytes == 125 && report.bytes == 75)
    }

    @Test func theIndexIsCompactedAndItsPositionNeverShrinks() throws {
        let directory = try TemporaryDirectory()
        let pipe = Pipe()
        var writer = try directory.writer(segmentBytes: 100, segmentCount: 2)
        var last: UInt64 = 0
        for number in 0..<500 {
            try write(number..<(number + 1), to: &writer, pipe)
            let size = writer.indexSize
            #expect(size >= last + 40)
            last = size
            #expect(try directory.read("index").count < 100 * 40)
        }
        #expect(last > 500 * 40)
        // The next writer knows all of that from the files.
        let again = try directory.writer(segmentBytes: 100, segmentCount: 2)
        let size = again.indexSize
        #expect(size == last)
        #expect(try directory.verify(isLive: true).problems == [])
        #expect(try directory.verify(isLive: true).rotatedBytes == 4900 - 100)
    }

    @Test(arguments: [1, 3, 7, 40, 1000])
    func aReaderThatKeepsUpGetsEveryByteOverCompactions(every: Int) throws {
        let directory = try TemporaryDirectory()
        let pipe = Pipe()
        var writer = try directory.writer(segmentBytes: 95, segmentCount: 2)
        var reader = try directory.reader()
        var got: [UInt8] = []
        var gaps: UInt64 = 0
        for number in 0..<1000 {
            try write(number..<(number + 1), to: &writer, pipe)
            if number % every != 0 && number != 999 { continue }
            let all = try Collected(&reader)
            got += all.stdout
            gaps += all.gaps
        }
        // What the reader did not get it was told, to the byte.
        #expect(UInt64(got.count) + gaps == 10_000)
        if every < 8 { #expect(gaps == 0 && got == (0..<1000).flatMap(line)) }
        if every == 40 { #expect(gaps > 0) }
        #expect((0..<1000).flatMap(line).suffix(95) == got.suffix(95))
        let (position, size) = (reader.indexPosition, writer.indexSize)
        #expect(position == size)
    }

    @Test func aReaderThatComesBackToARemovedSegmentIsToldOfAGap() throws {
        let directory = try TemporaryDirectory()
        let pipe = Pipe()
        var writer = try directory.writer(segmentBytes: 100, segmentCount: 2)
        try write(0..<5, to: &writer, pipe)
        let cursor = LogCursor(segment: 1, offset: 50)
        try write(5..<25, to: &writer, pipe)
        var reader = try directory.reader(cursor)
        let all = try Collected(&reader)
        #expect(all.chunks.contains { if case .gap = $0.content { true } else { false } })
        #expect(all.stdout == (10..<25).flatMap(line))
        // One whose segment is still there misses nothing.
        var other = try directory.reader(LogCursor(segment: 2, offset: 50))
        let rest = try Collected(&other)
        #expect(rest.stdout == (15..<25).flatMap(line) && !rest.chunks.contains { if case .gap = $0.content { true } else { false } })
    }

    @Test func whatACrashLeftOfARotationIsFinished() throws {
        let directory = try TemporaryDirectory()
        let pipe = Pipe()
        do {
            var writer = try directory.writer(segmentBytes: 100)
            try write(0..<45, to: &writer, pipe)
        }
        // The index said so, and nothing was done.
        let removal = LogEntry(
            stream: .stdout, flags: .removed, segment: 3, length: 0, offset: 300, time: 1, boot: 0)
        try directory.write("index", try directory.read("index") + index([removal]))
        try directory.write("index.new", [1, 2, 3])
        unlinkat(directory.descriptor, "stdout.000001", 0)
        var writer = try directory.writer(segmentBytes: 100, segmentCount: 2)
        #expect(try directory.segments(.stdout) == ["stdout.000004", "stdout.000005"])
        try write(45..<60, to: &writer, pipe)
        #expect(try directory.segments(.stdout) == ["stdout.000005", "stdout.000006"])
        #expect(try directory.verify(isLive: true).problems == [])
        #expect(try directory.verify(isLive: true).rotatedBytes == 400)
        var reader = try directory.reader()
        #expect(try Collected(&reader).stdout == (40..<60).flatMap(line))
    }

    @Test func aDamagedFirstEntryOverwritesNothing() throws {
        let directory = try TemporaryDirectory()
        let pipe = Pipe()
        do {
            var writer = try directory.writer(segmentBytes: 100, segmentCount: 3)
            try write(0..<100, to: &writer, pipe)
        }
        var damaged = try directory.read("index")
        damaged[5] ^= 0xff
        try directory.write("index", damaged)
        var writer = try directory.writer(segmentBytes: 100, segmentCount: 3)
        try write(100..<150, to: &writer, pipe)
        var reader = try directory.reader()
        let all = try Collected(&reader)
        #expect(all.stdout == (120..<150).flatMap(line))
        #expect(try directory.segments(.stdout).last == "stdout.000015")
    }

    @Test func twoStreamsRotateEachByItself() throws {
        let directory = try TemporaryDirectory()
        let (out, err) = (Pipe(), Pipe())
        var writer = try directory.writer(segmentBytes: 100, segmentCount: 2)
        try write(0..<3, to: &writer, err, .stderr)
        try write(0..<300, to: &writer, out)
        writer.end(.stderr)
        try write(300..<400, to: &writer, out)
        writer.end(.stdout)
        var reader = try directory.reader()
        let all = try Collected(&reader)
        #expect(all.stderr == (0..<3).flatMap(line) && all.stdout == (380..<400).flatMap(line) && all.ended)
        let report = try directory.verify()
        #expect(report.problems == [] && report.ended && report.rotatedBytes == 3800)
    }

    @Test func aSegmentThatIsGoneIsNotWrittenAgain() throws {
        let directory = try TemporaryDirectory()
        let pipe = Pipe()
        do {
            var writer = try directory.writer()
            try write(0..<5, to: &writer, pipe)
        }
        unlinkat(directory.descriptor, "stdout.000001", 0)
        var writer = try directory.writer()
        try write(5..<10, to: &writer, pipe)
        var reader = try directory.reader()
        let all = try Collected(&reader)
        #expect(all.gaps == 50 && all.stdout == (5..<10).flatMap(line))
        #expect(try directory.segments(.stdout) == ["stdout.000002"])
    }
}
