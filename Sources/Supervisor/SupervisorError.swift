import CtrProto
import Linux
import Store
import SwiftProtobuf
import TTRPC

/// A request that failed: what was tried, on what, and why, in one line that a user can act on.
public struct SupervisorError: Error, Equatable, Sendable, CustomStringConvertible {
    public var code: StatusCode
    /// "create container", "start task", …
    public var operation: String
    /// The id, name, path or reference that it failed on.
    public var object: String
    public var message: String
    /// What a command line client exits with: 125, 126, 127 or 1.
    public var exitCode: UInt32

    public init(_ code: StatusCode, _ operation: String, _ object: String, _ message: String, exitCode: UInt32 = 1) {
        self.code = code
        self.operation = operation
        self.object = object
        self.message = message
        self.exitCode = exitCode
    }

    public var description: String { message }

    /// As it goes over the wire, with ctr.v1.ErrorInfo in its details.
    public var status: Status {
        var info = Ctr_V1_ErrorInfo()
        info.operation = operation
        info.object = object
        info.exitCode = exitCode
        let bytes: [UInt8] = (try? info.serializedBytes()) ?? []
        return Status(code, message, details: [AnyMessage(typeURL: "ctr.v1.ErrorInfo", value: bytes)])
    }

    /// Any error as one of ours, in the words of `operation`.
    static func wrapping(_ error: any Error, _ operation: String, _ object: String, exitCode: UInt32 = 1) -> SupervisorError {
        switch error {
        case let error as SupervisorError: return error
        case let error as Status:
            return SupervisorError(
                error.code, operation, object, "cannot \(operation) \(object): \(oneLine(error.message))", exitCode: exitCode)
        case let error as SysError:
            let code: StatusCode = error.code == 28 /* ENOSPC */ || error.code == 122 /* EDQUOT */ ? .resourceExhausted : .internal
            return SupervisorError(code, operation, object, "cannot \(operation) \(object): \(error)", exitCode: exitCode)
        case is CancellationError:
            return SupervisorError(.cancelled, operation, object, "\(operation) \(object): cancelled", exitCode: exitCode)
        default:
            return SupervisorError(
                .internal, operation, object, "cannot \(operation) \(object): \(oneLine("\(error)"))", exitCode: exitCode)
        }
    }

    /// How the runtime's failure reaches the command line: 127 when there is no such program, 126 when it cannot be executed, else 125.
    static func exitCode(ofRuntimeMessage message: String) -> UInt32 {
        if message.contains("executable file not found") { return 127 }
        if message.contains("no such file or directory") && message.contains("exec") { return 127 }
        if message.contains("permission denied") && message.contains("exec") { return 126 }
        if message.contains("exec format error") { return 126 }
        return 125
    }

    /// The message of a container that could not be started, from what shim or runtime said.
    static func startFailure(container name: String, _ error: any Error) -> SupervisorError {
        let cause = cause(of: error)
        let known = (error as? SupervisorError)?.exitCode ?? 1
        let exitCode = known > 1 ? known : Self.exitCode(ofRuntimeMessage: cause.text)
        return SupervisorError(cause.code, "start container", name, "cannot start container \(name): \(cause.text)", exitCode: exitCode)
    }

    /// What shim or runtime said, without the steps in which they wrap it.
    static func cause(of error: any Error) -> (code: StatusCode, text: String) {
        let (code, text): (StatusCode, String) =
            switch error {
            case let error as SupervisorError: (error.code, error.message)
            case let error as Status: (error.code, error.message)
            case let error as SysError: (.internal, "\(error)")
            default: (.internal, "\(error)")
            }
        return (code, runtimeCause(oneLine(text)))
    }

    /// Runtimes wrap their message in the names of their own steps ("container_linux.go:…: starting container process caused: …").
    private static func runtimeCause(_ message: String) -> String {
        for marker in ["caused: ", "OCI runtime create failed: ", "OCI runtime start failed: ", "OCI runtime exec failed: "] {
            if let range = message.range(ofLast: marker) { return String(message[range...]) }
        }
        return message
    }

    private static func oneLine(_ text: String) -> String {
        text.split(whereSeparator: \.isNewline).joined(separator: "; ")
    }
}

extension String {
    /// The index just behind the last occurrence of `marker`.
    fileprivate func range(ofLast marker: String) -> String.Index? {
        var found: String.Index?
        var at = startIndex
        while at < endIndex {
            if self[at...].hasPrefix(marker) { found = index(at, offsetBy: marker.count) }
            at = index(after: at)
        }
        return found
    }
}

extension Int64 {
    /// Nanoseconds since 1970 as a protobuf timestamp.
    var timestamp: Google_Protobuf_Timestamp {
        var value = Google_Protobuf_Timestamp()
        let (seconds, rest) = quotientAndRemainder(dividingBy: 1_000_000_000)
        value.seconds = rest < 0 ? seconds - 1 : seconds
        value.nanos = Int32(rest < 0 ? rest + 1_000_000_000 : rest)
        return value
    }
}

extension Google_Protobuf_Timestamp {
    var nanoseconds: Int64 { seconds &* 1_000_000_000 &+ Int64(nanos) }
}
