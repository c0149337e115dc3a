import CtrProto
import Glibc
import Linux
import NIOCore
import Store
import TTRPC

/// Signals, stop, pause and resume.
extension Instance {
    private static let callDeadline = TimeAmount.seconds(5)

    /// The running task, or why it takes no signal.
    func requireRunning(_ operation: String) throws(SupervisorError) -> TaskState {
        guard let task = state.task, !task.row.phase.hasEnded, task.row.phase != .starting || !task.proved else {
            throw fail(.failedPrecondition, operation, "container \(name) is not running")
        }
        return task
    }

    // MARK: kill

    /// Sends `signal` through the shim; past a shim that is gone or silent, directly.
    func kill(signal: UInt32, all: Bool) async throws {
        guard (1...64).contains(signal) else { throw fail(.invalidArgument, "kill task", "no such signal: \(signal)") }
        let task = try requireRunning("kill task")
        // What is frozen dies only when it thaws, which the kill by cgroup sees to; the shim sees the end all the same.
        if task.row.phase == .paused && signal == UInt32(SIGKILL) { return try await killDirectly(signal: signal, all: true) }
        if let connection, task.guards != .unresponsive {
            do {
                return try await Shim(connection: connection, id: id).kill(signal: signal, all: all, timeout: Self.callDeadline)
            } catch let status as Status where status.code == .notFound || status.code == .failedPrecondition {
                // It ended between two looks; its Wait tells how.
                throw fail(.failedPrecondition, "kill task", "container \(name) is not running")
            } catch let error as ShimError {
                logger.warning("signal sent past the shim", metadata: logContext.merging(["cause": "\(error)"]) { $1 })
                if error == .deadline { note { $0.guards = .unresponsive } }
            } catch { throw SupervisorError.wrapping(error, "kill task", name) }
        }
        try await killDirectly(signal: signal, all: all)
    }

    private func killDirectly(signal: UInt32, all: Bool) async throws {
        watchInit()
        defer { guardedSoon() }
        if signal == UInt32(SIGKILL) || all {
            let cgroup = try ContainerCgroup(configuration.cgroupPath(namespace, id), in: supervisor.host.cgroups)
            if signal == UInt32(SIGKILL) {
                try await executor.blocking { try cgroup.kill() }
            } else {
                let processes = try await executor.blocking { try cgroup.processes() }
                for pid in processes {
                    guard let identity = try? ProcessIdentity(current: pid), let handle = try? ProcessHandle(identity) else { continue }
                    try? handle.signal(Int32(signal))
                }
                return
            }
        }
        guard let process = initProcess else {
            if signal == UInt32(SIGKILL) { return }
            throw fail(.unavailable, "kill task", "cannot signal container \(name): its shim does not answer and its process is not known")
        }
        do throws(SysError) { try process.signal(Int32(signal)) } catch {
            if error.code == ESRCH { return }
            throw SupervisorError.wrapping(error, "kill task", name)
        }
    }

    // MARK: stop

    /// The stop signal, then after `milliseconds` (never when negative) SIGKILL. Returns when the task has ended.
    func stop(signal: UInt32, milliseconds: Int64) async throws {
        if state.task?.row.phase.hasEnded == true, state.task?.row.exit != nil { return try await waitForEnd() }
        let wanted = signal != 0 ? signal : UInt32(try stopSignal())
        if state.task?.row.phase == .paused { try? await resume() }
        do { try await kill(signal: wanted, all: false) } catch {
            if state.task?.row.phase.hasEnded != true { throw error }
        }
        let timer =
            milliseconds < 0
            ? nil
            : executor.loop.scheduleTask(in: .milliseconds(milliseconds)) { [self] in
                _ = executor.spawn {
                    if await self.state.task?.row.phase.hasEnded == false { try? await self.kill(signal: UInt32(SIGKILL), all: true) }
                }
            }
        defer { timer?.cancel() }
        try await waitForEnd()
    }

    private func stopSignal() throws(SupervisorError) -> Int32 {
        let text = state.container.config.stopSignal
        if text.isEmpty { return SIGTERM }
        guard let number = Signals.number(text) else {
            throw fail(.invalidArgument, "stop task", "container \(name) has an unknown stop signal: \(text.shown)")
        }
        return number
    }

    // MARK: pause and resume

    func pause() async throws {
        await guarded()
        try await perform(.pause) { instance in
            try await instance.change(to: .paused, topic: .taskPaused, "pause task") { try await $0.pause(timeout: .seconds(15)) }
        }
    }

    func resume() async throws {
        await guarded()
        try await perform(.resume) { instance in
            try await instance.change(to: .running, topic: .taskResumed, "resume task") { try await $0.resume(timeout: Self.callDeadline) }
        }
    }

    private func change(
        to phase: TaskPhase, topic: Event.Topic, _ operation: String, _ call: (Shim) async throws -> Void
    ) async throws {
        let task = try requireRunning(operation)
        if task.row.phase == phase { return }
        guard let connection else {
            throw fail(.unavailable, operation, "cannot \(operation) \(name): its shim does not answer")
        }
        do { try await call(Shim(connection: connection, id: id)) } catch {
            if error as? ShimError == .deadline { note { $0.guards = .unresponsive } }
            throw SupervisorError.wrapping(error, operation, name)
        }
        await move(to: phase, topic: topic) { _ in }
    }
}

/// Signals by name.
enum Signals {
    private static let names: [String: Int32] = [
        "HUP": 1, "INT": 2, "QUIT": 3, "ILL": 4, "TRAP": 5, "ABRT": 6, "IOT": 6, "BUS": 7, "FPE": 8, "KILL": 9, "USR1": 10, "SEGV": 11,
        "USR2": 12, "PIPE": 13, "ALRM": 14, "TERM": 15, "STKFLT": 16, "CHLD": 17, "CONT": 18, "STOP": 19, "TSTP": 20, "TTIN": 21,
        "TTOU": 22, "URG": 23, "XCPU": 24, "XFSZ": 25, "VTALRM": 26, "PROF": 27, "WINCH": 28, "IO": 29, "POLL": 29, "PWR": 30, "SYS": 31,
        "RTMIN": 34, "RTMAX": 64,
    ]

    /// "TERM", "SIGTERM", "sigterm", "15", "RTMIN+3", "RTMAX-1"; nil for anything else.
    static func number(_ text: String) -> Int32? {
        var name = text.uppercased()
        if name.hasPrefix("SIG") { name.removeFirst(3) }
        if let number = Int32(name) { return (1...64).contains(number) ? number : nil }
        if let number = names[name] { return number }
        for (base, sign, start) in [("RTMIN+", 1, 34), ("RTMAX-", -1, 64)] as [(String, Int32, Int32)] where name.hasPrefix(base) {
            guard let offset = Int32(name.dropFirst(base.count)), offset >= 0, offset <= 30 else { return nil }
            return start + sign * offset
        }
        return nil
    }
}
