import TTRPC

/// An operation that runs the OCI runtime.
struct Operation {
    enum Kind: Equatable {
        case create([MountRequest], StreamNames)
        case start, delete, pause, resume
        /// Limits as the JSON of LinuxResources.
        case update([UInt8])
        /// To become the program at this path.
        case upgrade(String)
        /// After a predecessor died: what of it may be left is removed.
        case clean
        /// After a predecessor died: the runtime is asked whether the container is created, running or paused.
        case inquire

        /// Whether no exec may start meanwhile.
        var isExclusive: Bool {
            switch self {
            case .create, .start, .delete, .clean, .upgrade: true
            case .pause, .resume, .update, .inquire: false
            }
        }

        var isUpgrade: Bool {
            if case .upgrade = self { return true }
            return false
        }

        /// Whether a second call joins the first instead of following it.
        func joins(_ other: Kind) -> Bool {
            if case .create = self, case .create = other { return true }
            if case .update = self { return false }
            return self == other
        }

        var word: String {
            switch self {
            case .create: "create"
            case .start: "start"
            case .delete, .clean: "delete"
            case .pause: "pause"
            case .resume: "resume"
            case .update: "update"
            case .upgrade: "check-state"
            case .inquire: "state"
            }
        }
    }

    /// Which run of the runtime this is: a failed Create is followed by a delete, a failed Start by a look at the state.
    enum Step { case main, cleanup, look }

    let kind: Kind
    var callers: [Call]
    var step = Step.main
    /// The runtime's pid, 0 while none runs.
    var child: Int32 = 0
    /// What the runtime prints, where that is read.
    var output: SharedDescriptor?
    var failure: Status?
    /// What the program of an upgrade is to say, and until when (CLOCK_MONOTONIC, nanoseconds).
    var expected: String?
    var limit = Int64.max
    /// Where the runtime leaves the first process's terminal.
    var console: Console?
    /// Delete of a created container: the runtime is done and init's end is awaited.
    var awaitsExit = false

    mutating func takeLate(_ time: Int64, into late: inout [Call]) {
        late += callers.filter { $0.deadline <= time }
        callers.removeAll { $0.deadline <= time }
    }
}
