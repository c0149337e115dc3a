import Glibc
import Linux
import Testing

@testable import Logs

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

    @Test(arguments: [1 as UInt64, 2, 3])
    func bytesOfAnyKindAreKeptAsTheyAre(seed: UInt64) throws {
        var random = Random(state: seed)
        let directory = try TemporaryDirectory()
        let pipes = LogPair(stdout: Pipe(), stderr: Pipe())
        var sent = LogPair(both: [UInt8]())
        var writer = try directory.writer(segmentBytes: UInt64.random(in: 1...200_000, using: &random))
        for _ in 0..<60 {
            let stream: LogStream = Bool.random(using: &random) ? .stdout : .stderr
            let kind = Int.random(in: 0...2, using: &random)
            let bytes = (0..<Int.random(in: 1...60_000, using: &random)).map { _ -> UInt8 in
                kind == 0 ? 0 : kind == 1 ? UInt8.random(in: 0...255, using: &random) : 0xff
            }
            sent[stream] += bytes
            try pipes[stream].write(bytes)
            while case .moved = writer.drain(stream, from: pipes[stream].reader) {}
        }
        var reader = try directory.reader()
        let all = try Collected(&reader, limit: 77_777)
        #expect(all.stdout == sent.stdout && all.stderr == sent.stderr && all.gaps == 0)
        // Pieces that arrived together may travel together.
        var merging = try directory.reader()
        var got = LogPair(both: [UInt8]())
        var count = 0
        while let chunk = try merging.next(limit: 1 << 20, merge: 10_000_000_000) {
            if case .bytes(let bytes) = chunk.content { got[chunk.stream] += bytes }
            count += 1
        }
        #expect(got.stdout == sent.stdout && got.stderr == sent.stderr && count <= all.chunks.count)
        #expect(try directory.verify(isLive: true).problems == [])
    }

    @Test func severalPiecesInOneCallHaveOneEntry() throws {
        let directory = try TemporaryDirectory()
        let pipe = Pipe()
        var writer = try directory.writer()
        try pipe.write([UInt8](repeating: 97, count: 60_000))
        #expect(writer.drain(.stdout, from: pipe.reader) == .moved(60_000))
        #expect(try directory.read("index").count == 40)
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
