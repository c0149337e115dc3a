import Glibc
import Linux

extension Record {
    /// Replaces `name` in `directory` as a whole: a reader sees the old record or this one, whatever dies when.
    /// With `durable` it survives a power loss once this returns (fsync(2) of the file, and of the directory after the rename).
    /// The directory stays the caller's; its failure leaves the old record in place.
    public func write(to name: String, in directory: Int32, durable: Bool) throws(RecordError) {
        let bytes = encoded()
        if bytes.count > Self.limit { throw RecordError("write record", name, .system(EFBIG)) }
        let temporary = name + ".tmp"
        do throws(SysError) {
            let file = try Linux.open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, mode: 0o600, at: directory)
            try writeAll(file.raw, bytes, name: temporary)
            if durable { try checkErrno("sync", temporary, fsync(file.raw)) }
        } catch { throw RecordError(name, error) }
        do throws(SysError) {
            try checkErrno("rename", temporary, renameat(directory, temporary, directory, name))
            if durable { try checkErrno("sync directory of", name, fsync(directory)) }
        } catch { throw RecordError(name, error) }
    }

    /// The record `name` in `directory`; nil when there is no such file. A file that is no record is `.damaged`.
    public static func read(_ name: String, in directory: Int32) throws(RecordError) -> Record? {
        let bytes: [UInt8]
        do throws(SysError) {
            bytes = try readFile(name, limit: limit, at: directory)
        } catch {
            switch error.code {
            case ENOENT: return nil
            case EFBIG: throw RecordError("read record", name, .damaged("longer than \(limit) bytes"))
            default: throw RecordError(name, error)
            }
        }
        return try Record(decoding: bytes, name: name)
    }
}

/// What each typed record can do. A key that this version does not know is passed over: guards outlive an upgrade of the manager.
public protocol TypedRecord: Equatable, Sendable {
    /// The word in the header line.
    static var kind: String { get }
    /// The file's usual name.
    static var fileName: String { get }
    /// Whether a power loss must not undo it.
    static var durable: Bool { get }
    /// Reads the fields of a record whose kind is right; missing keys and malformed values are errors, never defaults.
    init(fields: borrowing RecordFields) throws(RecordError)
    func fill(_ record: inout Record)
}

extension TypedRecord {
    @inlinable
    public var record: Record {
        var record = Record(kind: Self.kind)
        fill(&record)
        return record
    }

    /// Replaces the record in `directory`, durably where its kind is durable.
    @inlinable
    public func write(in directory: Int32) throws(RecordError) {
        try record.write(to: Self.fileName, in: directory, durable: Self.durable)
    }

    @inlinable
    public init(_ record: Record) throws(RecordError) {
        guard record.kind == Self.kind else {
            throw RecordError("read record", Self.fileName, .wrong("kind is \(record.kind), not \(Self.kind)"))
        }
        try self.init(fields: RecordFields(record: record, name: Self.fileName))
    }

    /// nil when `directory` has no such file.
    @inlinable
    public static func read(in directory: Int32) throws(RecordError) -> Self? {
        guard let record = try Record.read(fileName, in: directory) else { return nil }
        return try Self(record)
    }
}

/// Typed access to the fields of one record; errors name the file and the key.
public struct RecordFields {
    let record: Record
    let name: String

    public init(record: Record, name: String) {
        self.record = record
        self.name = name
    }

    func text(_ key: String) throws(RecordError) -> String {
        guard let value = record[key] else { throw RecordError("read record", name, .wrong("no \(key)")) }
        return value
    }

    func optionalText(_ key: String) -> String? { record[key] }

    func number<Value: FixedWidthInteger>(_ key: String) throws(RecordError) -> Value {
        guard let value = try optionalNumber(key) as Value? else { throw RecordError("read record", name, .wrong("no \(key)")) }
        return value
    }

    /// nil when the key is absent; digits with an optional minus sign, as Swift prints them, else an error.
    func optionalNumber<Value: FixedWidthInteger>(_ key: String) throws(RecordError) -> Value? {
        guard let text = record[key] else { return nil }
        guard let value = Value(text), String(value) == text else { throw RecordError("read record", name, .wrong("bad \(key)")) }
        return value
    }

    func flag(_ key: String) throws(RecordError) -> Bool {
        switch try text(key) {
        case "0": false
        case "1": true
        default: throw RecordError("read record", name, .wrong("bad \(key)"))
        }
    }
}

extension Record {
    mutating func set(_ key: String, _ value: some FixedWidthInteger) { set(key, String(value)) }
    mutating func set(_ key: String, _ value: Bool) { set(key, value ? "1" : "0") }
    mutating func set(_ key: String, ifPresent value: (some FixedWidthInteger)?) {
        if let value { set(key, String(value)) }
    }
}
