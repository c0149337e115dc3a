import CtrProto
import TTRPC

/// Why a command ends without success: one line for the user, and the status that the program exits with.
struct Failure: Error, Equatable, Sendable {
    let message: String
    let code: Int32
    /// Whether the status is this one, whatever a command otherwise ends with when it fails.
    let isExact: Bool

    /// Exit statuses that Docker's users know. Signals are 128 + n.
    static let general: Int32 = 1
    static let usage: Int32 = 125
    /// What Docker's programs end with that have no terminal to hand over; not 125, since nothing was asked of the manager.
    static let noTerminal: Int32 = 1

    init(_ message: String, code: Int32 = Failure.general, isExact: Bool = false) {
        self.message = message
        self.code = code
        self.isExact = isExact
    }

    /// The status is the one that the manager asks for, if `statuses` heeds it, else that of the command.
    init(_ error: ClientError, _ statuses: Statuses = .plain) {
        self.init(error.description, code: statuses.heedsManager ? error.exitCode ?? statuses.failure : statuses.failure)
    }
}

/// What a command exits with when it fails.
struct Statuses: Equatable, Sendable {
    /// When the error brings no status of its own.
    let failure: Int32
    /// Whether 125, 126 and 127 of ErrorInfo count: the command is about the start of a container.
    let heedsManager: Bool

    static let plain = Statuses(failure: Failure.general, heedsManager: false)
    static let start = Statuses(failure: Failure.general, heedsManager: true)
    static let run = Statuses(failure: Failure.usage, heedsManager: true)
}

extension ClientError {
    /// What the manager asks a command line to exit with: ErrorInfo.exit_code in the details of the status.
    var exitCode: Int32? {
        guard case .status(let status) = self, let info = status.errorInfo, (1...255).contains(info.exitCode) else { return nil }
        return Int32(info.exitCode)
    }

    var isNotFound: Bool { if case .status(let status) = self { status.code == .notFound } else { false } }
}

extension Status {
    /// The details of a failed call; absent when the answer comes from the frame layer.
    var errorInfo: Ctr_V1_ErrorInfo? {
        // Clients of Any accept a host in front of the type's name.
        guard let detail = details.first(where: { $0.typeURL == "ctr.v1.ErrorInfo" || $0.typeURL.hasSuffix("/ctr.v1.ErrorInfo") }) else {
            return nil
        }
        return try? Ctr_V1_ErrorInfo(serializedBytes: detail.value)
    }
}
