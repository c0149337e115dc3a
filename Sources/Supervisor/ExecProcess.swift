import CtrProto
import Linux
import NIOCore
import Store

/// One exec of one container, as its ``Instance`` knows it; what is true of it lies with the shim and in BUNDLE/exec.
final class ExecProcess {
    let id: String
    /// As it was asked for. Not known in full when a manager died before it could write it down.
    let config: Ctr_V1_ExecConfig
    let configIsKnown: Bool
    /// CLOCK_REALTIME, nanoseconds.
    var created: Int64
    /// 0 until it runs.
    var pid: UInt32 = 0
    var exit: ExitRow?
    /// Under way until the process runs; whoever asks for the same exec waits for it.
    var launch: Task<Void, any Error>?
    var watch: Task<Void, Never>?
    var exitWaiters: [UInt64: Waiter] = [:]
    /// Calls of clients that read its output or wait for its end.
    var clients = 0
    /// Those of them that read its output.
    var readers = 0
    /// Runs while nobody reads what an attached client was to read.
    var farewell: Scheduled<Void>?
    /// What an attached client came for: both, and it is gone, and nobody will ask again.
    var exitWasTold = false
    var outputWasRead = false
    var isBeingForgotten = false

    init(id: String, config: Ctr_V1_ExecConfig, configIsKnown: Bool = true, created: Int64) {
        self.id = id
        self.config = config
        self.configIsKnown = configIsKnown
        self.created = created
    }

    var hasEnded: Bool { exit != nil }

    /// `shimAnswers`: otherwise nobody can say whether a process that ran still does.
    func message(container: String, shimAnswers: Bool) -> Ctr_V1_Exec {
        var message = Ctr_V1_Exec()
        message.id = id
        message.containerID = container
        message.config = config
        message.createdAt = created.timestamp
        if let exit {
            message.status = .stopped
            message.exit = exit.message
        } else if pid == 0 {
            message.status = .created
        } else {
            message.status = shimAnswers ? .running : .unknown
            message.pid = pid
        }
        return message
    }

    /// Where its streams go: what an attached client reads is kept for it, what nobody reads is kept like a log.
    static func streams(_ config: Ctr_V1_ExecConfig) -> ShimStreams {
        let output = config.attached ? "log:attached" : "log:"
        return ShimStreams(
            terminal: config.terminal, stdin: config.openStdin ? "spool:" : "", stdout: output, stderr: config.terminal ? "" : output)
    }
}
