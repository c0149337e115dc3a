import Linux
import Records

/// Why the shim, or one of its helpers, could not do what was asked; one line for the user.
public struct ShimError: Error, Equatable, Sendable, CustomStringConvertible {
    /// What was tried, such as "start guards".
    public let operation: String
    /// The container's id, a path or a flag; may be empty.
    public let object: String
    public let cause: String

    public init(_ operation: String, _ object: String = "", _ cause: String) {
        self.operation = operation
        self.object = object
        self.cause = cause
    }

    init(_ error: SysError) { self.init(error.operation, error.object, error.cause) }

    init(_ error: RecordError) {
        let text = error.description
        self.init("use records", "", text)
    }

    public var description: String { object.isEmpty ? "\(operation): \(cause)" : "\(operation) \(object): \(cause)" }
}

/// Runs `body` and turns its system errors into the module's own.
func shimErrors<Value: ~Copyable>(_ body: () throws(SysError) -> Value) throws(ShimError) -> Value {
    do throws(SysError) { return try body() } catch { throw ShimError(error) }
}

func recordErrors<Value: ~Copyable>(_ body: () throws(RecordError) -> Value) throws(ShimError) -> Value {
    do throws(RecordError) { return try body() } catch { throw ShimError(error) }
}
