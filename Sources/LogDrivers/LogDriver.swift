import Glibc
import Linux
import Logs
import Records

/// The container that a driver writes for.
public struct DrivenContainer: Sendable {
    public var id: String
    public var name: String
    public var image: String
    /// ROOT/containers/NS/ID, where the driver's record is.
    public var directory: String

    public init(id: String, name: String, image: String, directory: String) {
        self.id = id
        self.name = name
        self.image = image
        self.directory = directory
    }

    func logDirectory(_ incarnation: UInt32) -> String { "\(directory)/\(incarnation)/log" }
}

/// Follows a container's segments and writes what its driver makes of them. How far it is lies in a record: a file is first brought back to the
/// length that the record knows, so whatever is killed when, each line is in it once. A journal cannot take anything back: there a line may
/// come twice after a kill, with the same CONTAINER_LOG_POSITION.
///
/// Used by one call at a time. Nothing here waits for more than a disk.
public final class LogDriver: @unchecked Sendable {
    public enum Outcome: Equatable, Sendable {
        /// There may be more at once.
        case more
        /// All that the index holds is written; the index was read up to here.
        case idle(UInt64)
        /// The log has ended and all of it is written.
        case ended
        /// The output took nothing: once more after a while.
        case retry(String)
    }

    /// Bytes of the log that one step takes at most.
    static let budget = 256 << 10
    private static let block = 64 << 10

    public let options: LogOptions
    private let container: DrivenContainer
    private let journal: Journal?
    private var file: DriverFile?
    private var record: LogDriverRecord?
    private var reader: LogReader?
    private var lines: LogPair<LineAssembler>
    /// Behind the last byte that is in the output, or in `text`.
    private var written = LogPair(both: LogCursor.start)
    private var position: UInt64 = 0
    private var lastTime = LogPair<Int64>(both: 0)
    /// Lines for the file that are not in it yet.
    private var text: [UInt8] = []
    private var size: UInt64 = 0
    private let block = UnsafeMutableRawBufferPointer.allocate(byteCount: LogDriver.block, alignment: 16)

    public init(options: LogOptions, container: DrivenContainer) {
        self.options = options
        self.container = container
        let path = options.file(directory: container.directory, id: container.id)
        file = path.isEmpty ? nil : DriverFile(path: path, numbered: options.driver == .jsonFile, maxFile: options.maxFile)
        journal = options.driver == .journald ? Journal(path: options.socket) : nil
        let limit = options.driver == .journald ? 256 << 10 : 16 << 10
        lines = LogPair(
            stdout: LineAssembler(stream: .stdout, limit: limit, cutsFullParts: options.driver == .jsonFile),
            stderr: LineAssembler(stream: .stderr, limit: limit, cutsFullParts: options.driver == .jsonFile))
    }

    deinit { block.deallocate() }

    // MARK: steps

    /// Which task's log is being written, and whether all of that is. Blocking.
    public func place() throws -> (incarnation: UInt32, done: Bool) {
        let record = try loaded()
        return (record.incarnation, record.done)
    }

    /// Goes on to the log of a later task. Blocking.
    public func begin(incarnation: UInt32) throws {
        var record = try loaded()
        let (inode, size) = (record.inode, record.size)
        record = LogDriverRecord(incarnation: incarnation)
        (record.inode, record.size) = (inode, size)
        try save(record)
        reset()
    }

    /// Writes about 256 KiB of the log. After a failure it begins again where the record says. Blocking.
    public func step() -> Outcome {
        let before = written
        do {
            _ = try loaded()
            try openFile()
            if reader == nil, try !openLog() { return .idle(0) }
            var left = Self.budget
            while left > 0 {
                guard let piece = try reader?.next(into: block) else { break }
                left -= try take(piece)
            }
            try flush()
            if left <= 0 { return .more }
            if reader?.ended == true {
                try finish()
                return .ended
            }
            return .idle(reader?.indexPosition ?? 0)
        } catch {
            // What a journal took it does not give back.
            let progress = journal != nil && reader != nil && written != before
            if journal != nil { _ = try? flushed() }
            reset()
            if progress { return .more }
            return .retry("\(error)")
        }
    }

    /// Nothing will be added to this log: what has no end is written as it is. Blocking.
    public func finish() throws {
        for stream in LogStream.allCases {
            guard let line = lines[stream].finish(.output, time: lastTime[stream]) else { continue }
            try write(line)
            if let cursor = reader?.cursor(of: stream) { written[stream] = cursor }
        }
        position = reader?.position ?? position
        guard var record = try flushed() else { return }
        record.done = true
        try save(record)
    }

    // MARK: record

    private func loaded() throws -> LogDriverRecord {
        if let record { return record }
        let directory = try Linux.open(container.directory, O_RDONLY | O_DIRECTORY)
        let found = try LogDriverRecord.read(in: directory.raw)
        let record = found ?? LogDriverRecord(incarnation: 1)
        self.record = record
        return record
    }

    private func save(_ record: LogDriverRecord) throws {
        let directory = try Linux.open(container.directory, O_RDONLY | O_DIRECTORY)
        try record.write(in: directory.raw)
        self.record = record
    }

    /// Forgets what is not in the record.
    private func reset() {
        record = nil
        reader = nil
        text = []
        for stream in LogStream.allCases { _ = lines[stream].finish(.partial, time: 0) }
        // Opened again, the file is brought to its recorded length.
        if let file { self.file = DriverFile(path: file.path, numbered: options.driver == .jsonFile, maxFile: options.maxFile) }
    }

    private func openLog() throws -> Bool {
        guard let record else { return false }
        let directory: Descriptor
        do throws(SysError) { directory = try Linux.open(container.logDirectory(record.incarnation), O_RDONLY | O_DIRECTORY) } catch {
            if error.code == ENOENT { return false }
            throw error
        }
        var range = LogReader.Range()
        range.cursors.stdout = LogCursor(segment: record.stdoutSegment, offset: record.stdoutOffset)
        range.cursors.stderr = LogCursor(segment: record.stderrSegment, offset: record.stderrOffset)
        range.position = record.position
        reader = LogReader(directory: directory, range: range)
        written = range.cursors
        position = range.position
        return true
    }

    // MARK: output

    private func openFile() throws {
        guard let file, var record, file.wasMoved else { return }
        // What was moved away keeps its lines; its successor begins where they end.
        if file.inode != 0, text.isEmpty == false { try flush() }
        size = try file.open(known: record.inode, size: record.size)
        if record.inode != file.inode || record.size != size {
            (record.inode, record.size) = (file.inode, size)
            try save(record)
        }
    }

    /// Returns how many bytes of the log it took.
    private func take(_ piece: LogPiece) throws -> Int {
        lastTime[piece.stream] = piece.time
        switch piece.kind {
        case .bytes(let count):
            let bytes = [UInt8](UnsafeRawBufferPointer(rebasing: block[..<count]))
            try lines[piece.stream].feed(bytes[...], time: piece.time) { line, end in
                try write(line)
                written[piece.stream] = LogCursor(segment: piece.segment, offset: piece.offset + UInt64(end))
            }
            if !lines.stdout.isInsideLine && !lines.stderr.isInsideLine { position = reader?.position ?? position }
            return count
        case .gap:
            if let line = lines[piece.stream].finish(.partial, time: piece.time) { try write(line) }
            written[piece.stream] = max(written[piece.stream], piece.cursor)
            return LogEntry.length
        case .end:
            if let line = lines[piece.stream].finish(.output, time: piece.time) { try write(line) }
            written[piece.stream] = max(written[piece.stream], piece.cursor)
            return LogEntry.length
        }
    }

    private func write(_ line: LogLine) throws {
        if let journal { return try journal.send(entry(line)) }
        guard let file else { return }
        if options.maxSize > 0 && size + UInt64(text.count) >= options.maxSize { try rotate(file) }
        if options.driver == .cri { LineFormat.cri(line, to: &text) } else { LineFormat.json(line, to: &text) }
        if text.count >= Self.budget { try flush() }
    }

    private func rotate(_ file: DriverFile) throws {
        guard var record = try flushed() else { return }
        if file.keepsOld {
            try file.rotate()
            size = try file.open(known: 0, size: 0)
        } else {
            // The record first: whoever finds a longer file cuts it.
            record.size = 0
            try save(record)
            try file.truncate()
            size = 0
        }
        (record.inode, record.size) = (file.inode, size)
        try save(record)
    }

    private func flush() throws { _ = try flushed() }

    /// Writes the lines that wait, then the record that knows of them.
    private func flushed() throws -> LogDriverRecord? {
        guard var record else { return nil }
        let old = record
        if let file, !text.isEmpty {
            size = try file.append(text)
            text.removeAll(keepingCapacity: text.capacity <= 2 * Self.budget)
            (record.inode, record.size) = (file.inode, size)
        }
        (record.stdoutSegment, record.stdoutOffset) = (written.stdout.segment, written.stdout.offset)
        (record.stderrSegment, record.stderrOffset) = (written.stderr.segment, written.stderr.offset)
        record.position = position
        if record != old { try save(record) }
        return record
    }

    // MARK: journal

    private func entry(_ line: LogLine) -> [UInt8] {
        let short = String(container.id.prefix(12))
        let tag =
            options.tag.isEmpty
            ? short
            : [("{{.ID}}", short), ("{{.FullID}}", container.id), ("{{.Name}}", container.name), ("{{.ImageName}}", container.image)]
                .reduce(options.tag) { Self.replace($1.0, with: $1.1, in: $0) }
        var entry: [UInt8] = []
        entry.reserveCapacity(line.bytes.count + 512)
        Journal.field("MESSAGE", line.bytes, to: &entry)
        Journal.field("PRIORITY", (line.stream == .stdout ? "6" : "3").utf8, to: &entry)
        Journal.field("CONTAINER_ID", short.utf8, to: &entry)
        Journal.field("CONTAINER_ID_FULL", container.id.utf8, to: &entry)
        Journal.field("CONTAINER_NAME", container.name.utf8, to: &entry)
        Journal.field("CONTAINER_TAG", tag.utf8, to: &entry)
        Journal.field("SYSLOG_IDENTIFIER", tag.utf8, to: &entry)
        Journal.field("IMAGE_NAME", container.image.utf8, to: &entry)
        if line.end == .partial { Journal.field("CONTAINER_PARTIAL_MESSAGE", "true".utf8, to: &entry) }
        var time: [UInt8] = []
        LineFormat.time(line.time, to: &time)
        Journal.field("SYSLOG_TIMESTAMP", time, to: &entry)
        // Where the line before it ended: the same whoever sends it.
        let before = written[line.stream]
        let place = "\(record?.incarnation ?? 0):\(LineFormat.name(line.stream)):\(before.segment):\(before.offset)"
        Journal.field("CONTAINER_LOG_POSITION", place.utf8, to: &entry)
        return entry
    }

    private static func replace(_ what: String, with value: String, in text: String) -> String {
        var result = ""
        var rest = text[...]
        while let start = rest.indices.first(where: { rest[$0...].hasPrefix(what) }) {
            result += rest[..<start] + value
            rest = rest[start...].dropFirst(what.count)
        }
        return result + rest
    }
}
