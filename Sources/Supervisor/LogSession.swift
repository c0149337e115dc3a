import CtrProto
import Glibc
import Linux
import Logs
import NIOCore
import SwiftProtobuf
import TTRPC

/// One reading of one log for one client: looks for where to begin, then gives one message after another. Used by one call at a time.
final class LogSession: @unchecked Sendable {
    enum Step: Sendable {
        /// A message, with room for a frame's header before it.
        case message(ByteBuffer)
        /// There is more to look at before the first.
        case searching
        /// Nothing more at this moment; the index was read up to here.
        case idle(UInt64)
        /// Nothing follows.
        case ended
    }

    /// Bytes of output in one message.
    private static let chunkLimit = 256 << 10
    /// Room before the output for the frame's header and the message's other fields.
    private static let room = 128
    /// Output that arrived within this time travels together, with the time of the first of it.
    private static let merge: Int64 = 1_000_000
    /// Bytes that are looked at in one step of a search.
    private static let searchBudget = 4 << 20

    private let directory: String
    private let request: Ctr_V1_ReadLogsRequest
    private let incarnation: UInt32
    private var search: LogSearch?
    private var reader: LogReader?
    private var places: [Ctr_V1_ReadLogsResponse] = []
    private let allocator = ByteBufferAllocator()

    init(directory: String, request: Ctr_V1_ReadLogsRequest, incarnation: UInt32) {
        self.directory = directory
        self.request = request
        self.incarnation = incarnation
    }

    /// The last message.
    func end() -> ByteBuffer {
        var last = Ctr_V1_ReadLogsResponse()
        last.ended = true
        last.incarnation = incarnation
        return encoded(last)
    }

    /// Blocking, for as long as it takes to read about 256 KiB.
    func step() throws -> Step {
        if reader == nil {
            if !(try prepare()) { return reader == nil && search == nil ? .idle(0) : .searching }
        }
        if !places.isEmpty { return .message(encoded(places.removeFirst())) }
        var next = try read()
        // The end of one stream is no message of its own: `ended` tells of both.
        while let (piece, _) = next, case .end = piece.kind { next = try read() }
        guard let (piece, buffer) = next else {
            return reader?.ended == true ? .ended : .idle(reader?.indexPosition ?? 0)
        }
        return .message(message(piece, buffer))
    }

    // MARK: where to begin

    private var streams: LogStreams {
        var streams: LogStreams = []
        for stream in request.streams {
            switch stream {
            case .stdout: streams.insert(.stdout)
            case .stderr: streams.insert(.stderr)
            default: break
            }
        }
        return streams.isEmpty ? .both : streams
    }

    private var wanted: LogSearch.Request {
        // Who comes back with cursors has had its last lines.
        let tail = request.hasTailLines && request.from.isEmpty ? request.tailLines : nil
        return LogSearch.Request(since: request.sinceNs, until: request.untilNs, tail: tail, streams: streams)
    }

    private func opened() throws(SysError) -> Descriptor? {
        do throws(SysError) { return try Linux.open(directory, O_RDONLY | O_DIRECTORY) } catch {
            if error.code == ENOENT { return nil }
            throw error
        }
    }

    /// Whether the reader is there; without one, either the search goes on or there is no log yet.
    private func prepare() throws -> Bool {
        var range = LogReader.Range()
        range.streams = streams
        if search == nil && !wanted.isEverything {
            guard let directory = try opened() else { return false }
            search = try LogSearch(directory: directory, request: wanted)
        }
        if search != nil {
            if try search?.step(budget: Self.searchBudget) == false { return false }
            range = search?.result ?? range
            search = nil
            if request.follow { places = places(range) }
        }
        for cursor in request.from {
            let from = LogCursor(segment: cursor.segment, offset: cursor.offset)
            switch cursor.stream {
            case .stdout: range.cursors.stdout = max(range.cursors.stdout, from)
            case .stderr: range.cursors.stderr = max(range.cursors.stderr, from)
            default: break
            }
        }
        guard let directory = try opened() else { return false }
        reader = LogReader(directory: directory, range: range)
        return true
    }

    /// Tells a client that follows where it began, so that it can come back there though nothing came yet. Who asked for the last lines is
    /// told of every stream: what comes after this answer is behind them.
    private func places(_ range: LogReader.Range) -> [Ctr_V1_ReadLogsResponse] {
        let tells = wanted.tail != nil
        return LogStream.allCases.filter { range.streams.contains($0) && (tells || range.cursors[$0] != .start) }.map { stream in
            var place = Ctr_V1_ReadLogsResponse()
            place.stream = stream.message
            place.segment = range.cursors[stream].segment
            place.offset = range.cursors[stream].offset
            place.incarnation = incarnation
            return place
        }
    }

    // MARK: messages

    /// The next piece, its bytes in the buffer from ``room`` on.
    private func read() throws(SysError) -> (LogPiece, ByteBuffer)? {
        var buffer = allocator.buffer(capacity: Self.room + Self.chunkLimit)
        buffer.moveWriterIndex(to: Self.room)
        var piece: LogPiece?
        var failure: SysError?
        _ = buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: Self.chunkLimit) { bytes in
            let limited = UnsafeMutableRawBufferPointer(rebasing: bytes[..<min(bytes.count, Self.chunkLimit)])
            do throws(SysError) { piece = try reader?.next(into: limited, merge: Self.merge) } catch { failure = error }
            if case .bytes(let count) = piece?.kind { return count }
            return 0
        }
        if let failure { throw failure }
        return piece.map { ($0, buffer) }
    }

    private func message(_ piece: LogPiece, _ buffer: ByteBuffer) -> ByteBuffer {
        var message = Ctr_V1_ReadLogsResponse()
        message.stream = piece.stream.message
        message.segment = piece.segment
        message.offset = piece.offset
        message.time = piece.time.timestamp
        message.incarnation = incarnation
        if case .gap(let count) = piece.kind {
            message.gap = true
            message.gapBytes = count
        }
        guard case .bytes(let count) = piece.kind else { return encoded(message) }
        // The output is where it was read to: the other fields and the tag of `data` are put before it.
        var head = (try? message.serializedBytes() as [UInt8]) ?? []
        head.append(UInt8(4 << 3 | 2))
        var rest = count
        while rest >= 0x80 {
            head.append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        head.append(UInt8(rest))
        var buffer = buffer
        buffer.setBytes(head, at: Self.room - head.count)
        buffer.moveReaderIndex(to: Self.room - head.count - Frame.headerLength)
        return buffer
    }

    private func encoded(_ message: Ctr_V1_ReadLogsResponse) -> ByteBuffer {
        let bytes = (try? message.serializedBytes() as [UInt8]) ?? []
        var buffer = allocator.buffer(capacity: Frame.headerLength + bytes.count)
        buffer.moveWriterIndex(to: Frame.headerLength)
        buffer.writeBytes(bytes)
        return buffer
    }
}

extension LogStream {
    fileprivate var message: Ctr_V1_LogStream { self == .stdout ? .stdout : .stderr }
}
