import CtrProto
import Glibc
import Linux

extension Session {
    /// Runs the session and tells the user how it ended. Returns the exit status of this program. `name`: how the user calls the
    /// container; `unknown` is the status when nobody saw how the process ended.
    func finish(name: String, unknown: Int32 = Failure.usage) throws -> Int32 {
        switch try run() {
        case .exited(let exit):
            if exit.isKnown { return Int32(min(exit.code, 255)) }
            Console.error("exit status unknown: \(exit.reason.isEmpty ? "ctrd gives no reason" : exit.reason)")
            return unknown
        case .detached:
            Console.error("detached; \(comeBack(name))")
            return 0
        case .letGo:
            Console.error("detached; \(comeBack(name)), \(endIt(name))")
            return 128 + SIGINT
        case .signalled(let signal):
            Console.error("ended by a signal; \(comeBack(name))")
            return 128 + signal
        case .outputClosed: return Failure.brokenPipe
        }
    }

    private var target: String { plan.execID.isEmpty ? "" : "--exec \(shortID(plan.execID)) " }

    private func comeBack(_ name: String) -> String {
        if !isOpen { return "container \(name) may be started all the same" }
        if plan.output == nil || sink.incarnation == 0 { return "it goes on (ctrctl attach \(target)\(name))" }
        return "it goes on (ctrctl attach --since \(sink.position.description) \(target)\(name))"
    }

    private func endIt(_ name: String) -> String {
        plan.execID.isEmpty ? "ctrctl stop \(name) ends it" : "ctrctl execs kill \(name) \(shortID(plan.execID)) ends it"
    }

    /// Refuses what Docker refuses: a process's terminal whose keys cannot come from one.
    static func checkTerminal(_ isTerminal: Bool, input: Bool) throws(Failure) {
        if isTerminal && input && isatty(STDIN_FILENO) != 1 {
            throw Failure("the input device is not a TTY", code: Failure.noTerminal, isExact: true)
        }
    }

    /// Whether the terminal here will be raw.
    static func isRaw(_ isTerminal: Bool, input: Bool) -> Bool { isTerminal && input && isatty(STDIN_FILENO) == 1 }
}
