import CtrProto

/// What a session is to do with a process: how it comes to be, and which of its streams are led here.
struct SessionPlan {
    enum Opening {
        /// A new container, which is started.
        case create(Ctr_V1_CreateContainerRequest)
        /// A container that was made before; its latest run then was `after`.
        case start(after: UInt32)
        /// A new process in a running container.
        case exec(Ctr_V1_ExecRequest)
        /// What runs already.
        case attach
    }

    var opening: Opening
    /// As the user named it; the full id once that is known.
    var container: String
    var execID = ""
    /// Which output; nil: none.
    var output: LogSelection?
    var input: Input?
    /// The process's streams are a terminal.
    var terminal = false
    var detachKeys = DetachKeys.standard
    /// Signals to this program go to the process.
    var proxiesSignals = true
    /// The container is deleted when all is done.
    var removes = false
    /// A terminal program is made to draw its screen anew.
    var redraws = false
    /// The size that the process's terminal was made with.
    var initialSize: TerminalSize?

    struct Input {
        var addressing: InputPump.Addressing
        var closesAtEnd: Bool
    }
}

/// How a session ended.
enum SessionEnd: Equatable {
    case exited(Ctr_V1_Exit)
    /// The detach keys, or the end of the terminal: the process goes on.
    case detached
    /// The user insisted on being let go.
    case letGo
    /// A signal that is not for the process.
    case signalled(Int32)
    /// The reader of standard output is gone.
    case outputClosed
}
