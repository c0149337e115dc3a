import Linux

/// Why a layer or a container's directory could not be made or removed, in one line.
public struct SnapshotError: Error, Equatable, Sendable, CustomStringConvertible {
    public enum Kind: Equatable, Sendable {
        /// The layer asks for something that no layer may.
        case malformed
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

    public init(_ operation: String, _ object: String, code: Int32) {
        self.init(SysError(operation, object, code: code))
    }

    public var description: String { (object.isEmpty ? operation : operation + " " + object) + ": " + cause }
}

/// Runs `body` and hands its SysError on as a ``SnapshotError``.
@discardableResult
func checked<Result: ~Copyable>(_ body: () throws -> Result) throws -> Result {
    do { return try body() } catch let error as SysError { throw SnapshotError(error) }
}
