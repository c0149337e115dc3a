import Glibc
import Linux
import Testing

@testable import Logs

/// A pipe whose two ends close with it.
private final class Pipe {
    private(set) var ends: [Int32] = [-1, -1]
    init() { ends.withUnsafeMutableBufferPointer { _ = Glibc.pipe($0.baseAddress) } }
    var reader: Int32 { ends[0] }
    func write(_ bytes: [UInt8]) throws { try writeAll(ends[1], bytes, name: "pipe") }
    func closeWriter() {
        if ends[1] >= 0 { close(ends[1]) }
        ends[1] = -1
    }
    deinit {
        closeWriter()
        close(ends[0])
    }
}

extension TemporaryDirectory {
    fileprivate func writer(segmentBytes: UInt64 = 1 << 24) throws -> LogWriter {
        try LogWriter(directory: Linux.open(path, O_RDONLY | O_DIRECTORY), segmentBytes: segmentBytes)
    }

    fileprivate func reader(_ out: LogCursor = .start, _ err: LogCursor = .start) throws -> LogReader {
        try LogReader(directory: Linux.open(path, O_RDONLY | O_DIRECTORY), stdout: out, stderr: err)
    }
}

/// Everything that a reader yields at this moment.
private struct Collected {
    var stdout: [UInt8] = []
    var stderr: [UInt8] = []
    var gaps: UInt64 = 0
    var chunks: [LogChunk] = []
    var ended = false

    init(_ reader: inout LogReader, limit: Int = 1000) throws {
        while let chunk = try reader.next(limit: limit) {
            chunks.append(chunk)
            switch chunk.content {
            case .bytes(let bytes):
                #expect(bytes.count <= limit && !bytes.isEmpty)
                if chunk.stream == .stdout { stdout += bytes } else { stderr += bytes }
            case .gap(let count): gaps += count
            case .end: break
            }
        }
        ended = reader.ended
    }
}

private func numbered(_ count: Int, _ prefix: String) -> [UInt8] { (0..<count).flatMap { Array("\(prefix) line \($0)\n".utf8) } }

@Suite struct LogTests {
    /// Two streams in pieces of random size over several segments; returns what was written.
    private func write(_ directory: TemporaryDirectory, end: Bool = true, seed: UInt64 = 3) throws -> (out: [UInt8], err: [UInt8]) {
        var random = Random(state: seed)
        let out = numbered(400, "out")
        let err = numbered(300, "err")
        let pipes = [Pipe(), Pipe()]
        var rest = [out[...], err[...]]
        var writer = try directory.writer(segmentBytes: 1000)
        while !rest[0].isEmpty || !rest[1].isEmpty {
            let which = Int.random(in: 0...1, using: &random)
            let piece = rest[which].prefix(Int.random(in: 1...700, using: &random))
            rest[which] = rest[which].dropFirst(piece.count)
            if piece.isEmpty { continue }
            try pipes[which].write(Array(piece))
            let drained = writer.drain(which == 0 ? .stdout : .stderr, from: pipes[which].reader)
            #expect(drained == .moved(piece.count))
        }
        if end {
            for (which, stream) in LogStream.allCases.enumerated() {
                let drained = writer.drain(stream, from: pipes[which].reader)
                #expect(drained == .empty)
                pipes[which].closeWriter()
                let last = writer.drain(stream, from: pipes[which].reader)
                #expect(last == .ended)
                writer.end(stream)
            }
            let ended = writer.ended
            #expect(ended)
        }
        return (out, err)
    }

    @Test func readersGetWhatWasWrittenOverRotations() throws {
        let directory = try TemporaryDirectory()
        let (out, err) = try write(directory)
        var reader = try directory.reader()
        let all = try Collected(&reader, limit: 64)
        #expect(all.stdout == out && all.stderr == err && all.gaps == 0 && all.ended)
        #expect(all.chunks.contains { $0.segment >= 3 })
        let position = reader.indexPosition
        #expect(position == UInt64(try directory.read("index").count))
    }

    @Test func readersAtRandomCursorsGetEachByteOnce() throws {
        let directory = try TemporaryDirectory()
        let (out, err) = try write(directory)
        var random = Random(state: 11)
        for _ in 0..<100 {
            var got: (out: [UInt8], err: [UInt8]) = ([], [])
            var cursors: (LogCursor, LogCursor) = (.start, .start)
            var ended = false
            while !ended {
                var reader = try directory.reader(cursors.0, cursors.1)
                let chunks = Int.random(in: 1...60, using: &random)
                let limit = Int.random(in: 1...500, using: &random)
                for _ in 0..<chunks {
                    guard let chunk = try reader.next(limit: limit) else { break }
                    guard case .bytes(let bytes) = chunk.content else { continue }
                    if chunk.stream == .stdout { got.out += bytes } else { got.err += bytes }
                    if chunk.stream == .stdout { cursors.0 = chunk.cursor } else { cursors.1 = chunk.cursor }
                }
                let kept = (reader.cursor(of: .stdout), reader.cursor(of: .stderr))
                #expect(cursors == kept)
                ended = reader.ended
            }
            #expect(got.out == out && got.err == err)
        }
    }

    @Test func aLogCutAtAnyByteOfItsIndexLosesNothing() throws {
        let directory = try TemporaryDirectory()
        let (out, err) = try write(directory, end: false)
        let index = try directory.read("index")
        for length in stride(from: 0, through: index.count, by: 1) where length % 40 < 2 || length % 7 == 0 || length > index.count - 90 {
            try directory.write("index", Array(index[..<length]))
            var writer = try directory.writer(segmentBytes: 1000)
            let ended = writer.ended
            #expect(!ended)
            writer.end(.stdout)
            writer.end(.stderr)
            var reader = try directory.reader()
            let all = try Collected(&reader)
            #expect(all.stdout == out && all.stderr == err && all.gaps == 0 && all.ended, "cut at \(length)")
            if length % 40 == 0 && length == index.count { #expect(!all.chunks.contains { $0.recovered }) }
        }
    }

    @Test func aChangedEntryEndsWhatIsTrusted() throws {
        let directory = try TemporaryDirectory()
        let (out, err) = try write(directory, end: false)
        let index = try directory.read("index")
        var random = Random(state: 5)
        for _ in 0..<200 {
            var changed = index
            changed[Int.random(in: 0..<index.count, using: &random)] ^= UInt8.random(in: 1...255, using: &random)
            try directory.write("index", changed)
            _ = try directory.writer()
            var reader = try directory.reader()
            let all = try Collected(&reader)
            #expect(all.stdout == out && all.stderr == err && all.gaps == 0)
        }
    }

    @Test func aReaderBesideTheWriterSeesMoreWhenThereIsMore() throws {
        let directory = try TemporaryDirectory()
        var reader = try directory.reader()
        let following = try reader.next(limit: 10)
        #expect(following == nil)
        let pipe = Pipe()
        var writer = try directory.writer()
        let still = try reader.next(limit: 10)
        #expect(still == nil)
        for number in 0..<600 {
            try pipe.write(Array("\(number)".utf8))
            _ = writer.drain(.stderr, from: pipe.reader)
            let chunk = try reader.next(limit: 10)
            #expect(chunk?.content == .bytes(Array("\(number)".utf8)) && chunk?.stream == .stderr)
            let following = try reader.next(limit: 10)
            #expect(following == nil)
            let (read, written) = (reader.indexPosition, writer.indexSize)
            #expect(read == written)
        }
        writer.end(.stderr)
        let final = try reader.next(limit: 10)
        #expect(final?.content == .end)
        let ended = reader.ended
        #expect(!ended)
    }

    @Test(.enabled(if: geteuid() == 0, "mounting a small file system needs root"))
    func whatAFullDiskDroppedIsCountedAndTheContainerGoesOn() throws {
        let outer = try TemporaryDirectory()
        try #require(mount("tmpfs", outer.path, "tmpfs", 0, "size=64k") == 0)
        defer { umount2(outer.path, 2) }
        let pipe = Pipe()
        var writer = try LogWriter(directory: Linux.open(outer.path, O_RDONLY | O_DIRECTORY), segmentBytes: 1 << 24)
        try pipe.write(numbered(10, "a"))
        _ = writer.drain(.stdout, from: pipe.reader)

        let filler = try Linux.open(outer.path + "/filler", O_WRONLY | O_CREAT, mode: 0o600)
        let page = [UInt8](repeating: 1, count: 4096)
        while Glibc.write(filler.raw, page, page.count) > 0 {}
        let lost = numbered(2000, "b")
        try pipe.write(lost)
        var moved = 0
        while case .moved(let count) = writer.drain(.stdout, from: pipe.reader) { moved += count }
        #expect(moved == lost.count)
        ftruncate(filler.raw, 0)

        try pipe.write(numbered(10, "c"))
        _ = writer.drain(.stdout, from: pipe.reader)
        pipe.closeWriter()
        let drained = writer.drain(.stdout, from: pipe.reader)
        #expect(drained == .ended)
        writer.end(.stdout)
        var reader = try LogReader(directory: Linux.open(outer.path, O_RDONLY | O_DIRECTORY))
        let all = try Collected(&reader)
        let kept = all.stdout.count - numbered(10, "a").count - numbered(10, "c").count
        try #require(kept >= 0)
        #expect(all.stdout == numbered(10, "a") + lost[..<kept] + numbered(10, "c"))
        #expect(all.gaps == UInt64(lost.count - kept) && all.gaps > 0)
    }

    @Test func aShortSegmentIsAGap() throws {
        let directory = try TemporaryDirectory()
        let pipe = Pipe()
        do {
            var writer = try directory.writer()
            try pipe.write(numbered(20, "a"))
            _ = writer.drain(.stdout, from: pipe.reader)
        }
        let bytes = try directory.read("stdout.000001")
        try directory.write("stdout.000001", Array(bytes[..<50]))
        var writer = try directory.writer()
        try pipe.write(numbered(5, "b"))
        _ = writer.drain(.stdout, from: pipe.reader)
        var reader = try directory.reader()
        let all = try Collected(&reader)
        #expect(all.stdout == bytes[..<50] + numbered(5, "b") && all.gaps == UInt64(bytes.count - 50))
    }

    @Test func segmentNamesHaveSixDigits() {
        #expect(LogStream.stdout.segmentName(1) == "stdout.000001")
        #expect(LogStream.stderr.segmentName(1_234_567) == "stderr.1234567")
    }
}
