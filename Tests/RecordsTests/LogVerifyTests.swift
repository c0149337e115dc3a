import Glibc
import Linux
import Testing

@testable import Logs

/// Every kind of damage is found, and nothing else is called damage.
@Suite struct LogVerifyTests {
    /// Ten lines in three segments, ended.
    private func log(end: Bool = true) throws -> TemporaryDirectory {
        let directory = try TemporaryDirectory()
        let pipe = Pipe()
        var writer = try directory.writer(segmentBytes: 40)
        for number in 0..<10 {
            try pipe.write(Array("line \(number) ...\n".utf8))
            _ = writer.drain(.stdout, from: pipe.reader)
        }
        if end {
            writer.end(.stdout)
            writer.end(.stderr)
        }
        return directory
    }

    private func entries(_ directory: TemporaryDirectory) throws -> [LogEntry] {
        let bytes = try directory.read("index")
        return stride(from: 0, to: bytes.count, by: 40).compactMap { at in
            bytes[at..<at + 40].withUnsafeBytes { LogEntry($0) }
        }
    }

    @Test func aWholeLogHasNoProblem() throws {
        let report = try log().verify()
        #expect(report.problems == [] && report.ended && report.bytes == 110 && report.gaps == 0)
        #expect(try log(end: false).verify().problems == [])
        #expect(try TemporaryDirectory().verify().problems == [])
    }

    @Test func aCutIndexIsFound() throws {
        let directory = try log()
        let whole = try directory.read("index")
        try directory.write("index", Array(whole[..<(whole.count - 81)]))
        let report = try directory.verify()
        #expect(report.problems.contains { $0.contains("the index ends in 39 bytes of an entry") }, "\(report.problems)")
        try directory.write("index", Array(whole[..<(40 * 5)]))
        let cut = try directory.verify()
        #expect(cut.problems.contains { $0.contains("the index does not speak of stdout.000003") }, "\(cut.problems)")
        #expect(!cut.ended)
    }

    @Test func everyFlippedByteOfTheIndexIsFound() throws {
        let directory = try log()
        let whole = try directory.read("index")
        for at in stride(from: 0, to: whole.count, by: 3) {
            var damaged = whole
            damaged[at] ^= 0x10
            try directory.write("index", damaged)
            let report = try directory.verify()
            #expect(report.problems.contains("entry \(at / 40) of the index is damaged"), "byte \(at): \(report.problems)")
        }
    }

    @Test func aMissingSegmentIsFound() throws {
        for name in ["stdout.000001", "stdout.000002", "stdout.000003"] {
            let directory = try log()
            unlinkat(directory.descriptor, name, 0)
            let report = try directory.verify()
            #expect(report.problems.contains { $0.hasPrefix("\(name) is missing, with ") }, "\(report.problems)")
        }
    }

    @Test func aLongerOrShorterSegmentIsFound() throws {
        for name in ["stdout.000001", "stdout.000003"] {
            let directory = try log()
            let bytes = try directory.read(name)
            try directory.write(name, bytes + [1, 2, 3])
            #expect(try directory.verify().problems == ["\(name) has 3 bytes that the index does not speak of"])
            try directory.write(name, Array(bytes.dropLast(2)))
            #expect(try directory.verify().problems == ["\(name) is 2 bytes shorter than the index says"])
        }
    }

    @Test func overlapsHolesAndDisorderAreFound() throws {
        func problems(_ change: (inout [LogEntry]) -> Void) throws -> [String] {
            let directory = try log()
            var entries = try entries(directory)
            change(&entries)
            try directory.write("index", index(entries))
            return try directory.verify().problems
        }
        #expect(try problems { $0[1].offset -= 4 }.contains { $0.contains("overlaps the entry before it by 4 bytes") })
        #expect(try problems { $0[1].length -= 4 }.contains { $0.contains("no entry speaks of 4 bytes before entry 2") })
        #expect(try problems { $0.insert($0[1], at: 1) }.contains { $0.contains("overlaps") })
        #expect(try problems { $0.swapAt(1, 7) }.contains { $0.contains("is of a segment before that of the entry before it") })
        #expect(try problems { $0.removeFirst() }.contains { $0.contains("is not the beginning of stdout") })
        #expect(try problems { $0.append($0[3]) }.contains { $0.contains("comes after the end of stdout") })
        let disorder = try problems {
            $0[2].time -= 1_000_000_000_000
            $0[2].boot &-= 65536 * 1000
        }
        #expect(disorder.count == 1 && disorder[0].contains("is older than the entry before it"))
        // A clock that somebody set back is not disorder.
        #expect(try problems { $0[2].time -= 1_000_000_000_000 } == [])
    }

    @Test func whatALivingWriterHasNotWrittenYetIsNoProblem() throws {
        let directory = try log(end: false)
        let last = try directory.segments(.stdout).last ?? ""
        try directory.write(last, try directory.read(last) + [1, 2, 3])
        #expect(try directory.verify(isLive: true).problems == [])
        #expect(try directory.verify().problems == ["\(last) has 3 bytes that the index does not speak of"])
        // The next writer puts it right and says so.
        _ = try directory.writer()
        let report = try directory.verify()
        #expect(report.problems == [] && report.recoveredBytes == 3)
    }

    @Test func manyProblemsAreCounted() throws {
        let directory = try TemporaryDirectory()
        try directory.write("index", [UInt8](repeating: 7, count: 40 * 300))
        let report = try directory.verify()
        #expect(report.problems.count == LogVerifier.problemLimit + 1 && report.problems.last == "and 200 more")
    }
}
