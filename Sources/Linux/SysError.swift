import Glibc

/// A failed system call: what was tried, on what, and why.
public struct SysError: Error, Equatable, Sendable, CustomStringConvertible {
    /// The operation in the user's words or the call's name, such as "open" or "mount overlay".
    public let operation: String
    /// The path, id or descriptor that it failed on; may be empty.
    public let object: String
    /// The errno value, always positive.
    public let code: Int32

    public init(_ operation: String, _ object: String = "", code: Int32) {
        self.operation = operation
        self.object = object
        self.code = code
    }

    public var cause: String { String(cString: strerror(code)) }

    public var description: String {
        object.isEmpty ? "\(operation): \(cause)" : "\(operation) \(object): \(cause)"
    }
}

/// Turns the `-errno` convention of CLinux into a value or a thrown ``SysError``.
@discardableResult
@inlinable
public func check<Value: SignedInteger & FixedWidthInteger>(
    _ operation: @autoclosure () -> String, _ object: @autoclosure () -> String = "", _ result: Value
) throws(SysError) -> Value {
    guard result < 0 else { return result }
    throw SysError(operation(), object(), code: Int32(truncatingIfNeeded: 0 - result))
}

/// The same for C library calls that return -1 and set errno.
@discardableResult
@inlinable
public func checkErrno<Value: SignedInteger & FixedWidthInteger>(
    _ operation: @autoclosure () -> String, _ object: @autoclosure () -> String = "", _ result: Value
) throws(SysError) -> Value {
    guard result < 0 else { return result }
    throw SysError(operation(), object(), code: errno)
}
