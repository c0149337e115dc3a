import Linux

/// Why content was refused or could not be stored: what was done, with what, and the cause, in one line.
public struct ContentError: Error, Equatable, Sendable, CustomStringConvertible {
    public enum Kind: Equatable, Sendable {
        /// The bytes are not what their digest, size or format says.
        case corrupt
        /// Well-formed, and more than this engine takes.
        case tooLarge
        /// Nothing has that digest.
        case notFound
        /// The host refused.
        case system(Int32)
    }

    public let kind: Kind
    public let operation: String
    public let object: String
    public let cause: String

    public init(_ kind: Kind, _ operation: String, _ object: String, _ cause: String) {
        self.kind = kind
        self.operation = operation
        self.object = object
        self.cause = cause
    }

    public init(_ error: SysError) {
        self.init(.system(error.code), error.operation, error.object, error.cause)
    }

    public var description: String { (object.isEmpty ? operation : operation + " " + object) + ": " + cause }
}
