import Glibc
import Linux
import TTRPC

/// How a call to the manager can fail.
enum ClientError: Error, Equatable, Sendable, CustomStringConvertible {
    /// Nobody answers at the socket; `code` is the errno of connect(2).
    case cannotConnect(path: String, code: Int32)
    /// The connection ended before the answer came: whether the call had an effect is not known.
    case lost(path: String)
    /// No answer within the time that the command allows.
    case timedOut(path: String, seconds: Int64)
    /// The manager answered with a failure.
    case status(Status)
    /// The answer makes no sense.
    case malformed(String)

    var description: String {
        switch self {
        case .cannotConnect(let path, let code):
            let hint = code == ENOENT || code == ECONNREFUSED ? " (is ctrd running?)" : ""
            return "cannot connect to ctrd at \(path): \(String(cString: strerror(code)))\(hint)"
        case .lost(let path): return "connection to ctrd at \(path) lost before it answered"
        case .timedOut(let path, let seconds): return "ctrd at \(path) did not answer within \(seconds) s"
        case .status(let status): return status.message.isEmpty ? "ctrd failed: status \(status.code)" : status.message
        case .malformed(let what): return "ctrd sent a malformed answer: \(what)"
        }
    }

    /// Whether the same call may succeed once a manager is back.
    var isOutage: Bool {
        switch self {
        case .cannotConnect, .lost: true
        case .status, .timedOut, .malformed: false
        }
    }
}

extension Status {
    /// What a manager that shuts down answers to those who wait: the wait is over, not what they wait for.
    var endsOnlyTheWait: Bool { code == .unavailable || code == .cancelled }
}
