import Linux

/// The shim of others that guards one incarnation; in the bundle, written by the manager before Create and again when the version of its task service
/// is known.
public struct ForeignRecord: TypedRecord {
    public static let kind = "foreign"
    public static let fileName = "foreign"
    public static let durable = false

    /// Absolute path of the shim's program.
    public var program: String
    /// As it printed it: "unix:///run/containerd/s/…".
    public var address: String
    /// Of its task service: 2 or 3.
    public var version: UInt32
    public var incarnation: UInt32
    public var bootID: String

    public init(program: String, address: String, version: UInt32, incarnation: UInt32, bootID: String) {
        self.program = program
        self.address = address
        self.version = version
        self.incarnation = incarnation
        self.bootID = bootID
    }

    /// The path of its socket; nil when the address is of another kind.
    public var socket: String? {
        let prefix = "unix://"
        guard address.hasPrefix(prefix + "/"), address.utf8.count <= 107 + prefix.utf8.count else { return nil }
        return String(address.dropFirst(prefix.count))
    }

    public init(fields: borrowing RecordFields) throws(RecordError) {
        program = try fields.text("program")
        address = try fields.text("address")
        version = try fields.number("version")
        incarnation = try fields.number("incarnation")
        bootID = try fields.text("boot_id")
    }

    public func fill(_ record: inout Record) {
        record.set("program", program)
        record.set("address", address)
        record.set("version", version)
        record.set("incarnation", incarnation)
        record.set("boot_id", bootID)
    }
}

/// How far a process's standard input is under a shim of others; beside its FIFO, written by the manager.
public struct InputRecord: TypedRecord {
    public static let kind = "input"
    public static let fileName = "input"
    public static let durable = false

    /// Bytes that the FIFO has taken.
    public var taken: UInt64
    public var closed: Bool

    public init(taken: UInt64, closed: Bool) {
        self.taken = taken
        self.closed = closed
    }

    public init(fields: borrowing RecordFields) throws(RecordError) {
        taken = try fields.number("taken")
        closed = try fields.flag("closed")
    }

    public func fill(_ record: inout Record) {
        record.set("taken", taken)
        record.set("closed", closed)
    }
}
