import Linux
import OCI

/// Why the runtime could not do what it was asked to: one line for the user.
public struct RuntimeError: Error, Equatable, Sendable, CustomStringConvertible {
    public let message: String

    public init(_ message: String) { self.message = message }
    public init(_ error: SysError) { message = "\(error)" }
    public init(_ error: SpecError) { message = "\(error)" }

    public var description: String { message }

    /// The same with what was being done in front.
    func during(_ what: String) -> RuntimeError { RuntimeError("\(what): \(message)") }

    static let noContainer = RuntimeError("container does not exist")
    static let containerExists = RuntimeError("container with given ID already exists")
    static let notRunning = RuntimeError("container not running")
}

/// Runs `body` and turns its failure into an error of this module, after "`what`: ".
@discardableResult
func attempt<Value: ~Copyable>(
    _ what: @autoclosure () -> String, _ body: () throws(SysError) -> Value
) throws(RuntimeError) -> Value {
    do throws(SysError) { return try body() } catch {
        throw RuntimeError(error).during(what())
    }
}

/// The same without anything in front.
@discardableResult
func attempt<Value: ~Copyable>(_ body: () throws(SysError) -> Value) throws(RuntimeError) -> Value {
    do throws(SysError) { return try body() } catch { throw RuntimeError(error) }
}
