import Linux

/// A record that could not be written or read.
public struct RecordError: Error, Equatable, Sendable, CustomStringConvertible {
    public enum Cause: Equatable, Sendable {
        /// A failed system call, as errno.
        case system(Int32)
        /// The bytes are no record: cut, changed, or never one.
        case damaged(String)
        /// A record, but not the one that was asked for.
        case wrong(String)
    }

    /// What was tried, such as "read record".
    public let operation: String
    /// The file's name in its directory, or the record's kind.
    public let object: String
    public let cause: Cause

    public init(_ operation: String, _ object: String, _ cause: Cause) {
        self.operation = operation
        self.object = object
        self.cause = cause
    }

    init(_ object: String, _ error: SysError) {
        self.init(error.operation, object, .system(error.code))
    }

    public var description: String {
        switch cause {
        case .system(let code): SysError(operation, object, code: code).description
        case .damaged(let reason): "\(operation) \(object): damaged: \(reason)"
        case .wrong(let reason): "\(operation) \(object): \(reason)"
        }
    }
}
