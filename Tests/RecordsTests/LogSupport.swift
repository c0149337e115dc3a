import Glibc
import Linux

@testable import Logs

/// A pipe whose two ends close with it.
final class Pipe {
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

/// A piece with its bytes.
struct LogChunk: Equatable {
    enum Content: Equatable {
        case bytes([UInt8])
        case gap(UInt64)
        case end
    }

    var stream: LogStream
    var segment: UInt32
    var content: Content
    var time: Int64
    var recovered: Bool
    var cursor: LogCursor
}

extension LogReader {
    /// The next piece of at most `limit` bytes.
    mutating func next(limit: Int, merge: Int64 = 0) throws(SysError) -> LogChunk? {
        var piece: LogPiece?
        var failure: SysError?
        let bytes = [UInt8](unsafeUninitializedCapacity: limit) { buffer, count in
            do throws(SysError) { piece = try next(into: UnsafeMutableRawBufferPointer(buffer), merge: merge) } catch { failure = error }
            if case .bytes(let got) = piece?.kind { count = got }
        }
        if let failure { throw failure }
        guard let piece else { return nil }
        let content: LogChunk.Content =
            switch piece.kind {
            case .bytes: .bytes(bytes)
            case .gap(let count): .gap(count)
            case .end: .end
            }
        return LogChunk(
            stream: piece.stream, segment: piece.segment, content: content, time: piece.time, recovered: piece.recovered,
            cursor: piece.cursor)
    }
}

extension TemporaryDirectory {
    func opened() throws -> Descriptor { try Linux.open(path, O_RDONLY | O_DIRECTORY) }

    func writer(segmentBytes: UInt64 = 1 << 24, segmentCount: UInt32 = 0) throws -> LogWriter {
        try LogWriter(directory: opened(), segmentBytes: segmentBytes, segmentCount: segmentCount)
    }

    func reader(_ out: LogCursor = .start, _ err: LogCursor = .start) throws -> LogReader {
        var range = LogReader.Range()
        range.cursors = LogPair(stdout: out, stderr: err)
        return try LogReader(directory: opened(), range: range)
    }

    /// A reader of what the search finds.
    func reader(_ request: LogSearch.Request) throws -> LogReader {
        var search = try LogSearch(directory: opened(), request: request)
        while try !search.step(budget: 1000) {}
        return try LogReader(directory: opened(), range: search.result)
    }

    func verify(isLive: Bool = false) throws -> LogVerifier.Report {
        let directory = try opened()
        return try LogVerifier.verify(directory: directory, isLive: isLive)
    }

    /// Names of the segments of a stream.
    func segments(_ stream: LogStream) throws -> [String] {
        try RootFS.entries(of: descriptor).filter { stream.segmentNumber($0) != nil }.sorted()
    }
}

/// Everything that a reader yields at this moment.
struct Collected {
    var stdout: [UInt8] = []
    var stderr: [UInt8] = []
    var gaps: UInt64 = 0
    var chunks: [LogChunk] = []
    var ended = false

    /// Both streams in the order in which they came.
    var all: [UInt8] { chunks.flatMap { if case .bytes(let bytes) = $0.content { bytes } else { [UInt8]() } } }

    init(_ reader: inout LogReader, limit: Int = 1000) throws {
        while let chunk = try reader.next(limit: limit) {
            chunks.append(chunk)
            switch chunk.content {
            case .bytes(let bytes):
                if chunk.stream == .stdout { stdout += bytes } else { stderr += bytes }
            case .gap(let count): gaps += count
            case .end: break
            }
        }
        ended = reader.ended
    }
}

func numbered(_ count: Int, _ prefix: String) -> [UInt8] { (0..<count).flatMap { Array("\(prefix) line \($0)\n".utf8) } }

/// Writes an index of the caller's own making.
func index(_ entries: [LogEntry]) -> [UInt8] {
    entries.flatMap { entry in
        [UInt8](unsafeUninitializedCapacity: LogEntry.length) { buffer, count in
            entry.encode(to: UnsafeMutableRawBufferPointer(buffer))
            count = LogEntry.length
        }
    }
}
