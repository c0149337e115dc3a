import CtrProto
import Glibc
import Linux
import NIOCore
import Records
import Store
import SwiftProtobuf
import TTRPC

/// What clients do with execs: wait, list, signal, read, forget.
extension Instance {
    private static let signalDeadline = TimeAmount.seconds(5)
    private static let forgetDeadline = TimeAmount.seconds(10)
    private static let killDeadline = TimeAmount.seconds(10)
    /// How long the output of an attached exec waits for a client that does not read yet, or that comes back after a restart of the manager.
    private static let readerGrace = TimeAmount.seconds(10)
    /// Ended execs that are kept for lists and late waits.
    static let keptExecs = 32

    /// The exec that `text` names: its id, or the start of exactly one id.
    func findExec(_ text: String, _ operation: String) throws(SupervisorError) -> ExecProcess {
        if let exec = execs[text] { return exec }
        let matches = text.isEmpty ? [] : execs.values.filter { $0.id.hasPrefix(text) }
        if let only = matches.first, matches.count == 1 { return only }
        if matches.isEmpty { throw fail(.notFound, operation, "no such exec in container \(name): \(text.shown)") }
        throw fail(.invalidArgument, operation, "exec id prefix \"\(text.shown)\" is ambiguous: matches \(matches.count) execs")
    }

    func listExecs() -> [Ctr_V1_Exec] {
        execs.values.sorted { ($0.created, $0.id) < ($1.created, $1.id) }.map { execMessage($0) }
    }

    // MARK: wait

    /// How the exec ended; waits for that. One that was forgotten answers by its event.
    func waitForExec(_ text: String) async throws -> Ctr_V1_Exit {
        let exec: ExecProcess
        do throws(SupervisorError) { exec = try findExec(text, "wait for exec") } catch {
            guard error.code == .notFound, let ended = try await endedExec(text) else { throw error }
            return ended.exit
        }
        try await exec.launch?.value
        exec.clients += 1
        defer { clientLeft(exec) }
        while !exec.hasEnded {
            guard execs[exec.id] === exec else {
                guard let ended = try await endedExec(exec.id) else {
                    throw fail(.notFound, "wait for exec", "exec \(exec.id.prefix(12)) is gone with the task of container \(name)")
                }
                return ended.exit
            }
            let execID = exec.id
            let (key, waiter) = newWaiter()
            exec.exitWaiters[key] = waiter
            try await waiter.wait { [self] in executor.spawn { await self.cancelExecWaiter(execID, key) } }
        }
        exec.exitWasTold = true
        return exec.exit?.message ?? Ctr_V1_Exit()
    }

    private func cancelExecWaiter(_ execID: String, _ key: UInt64) {
        execs[execID]?.exitWaiters.removeValue(forKey: key)?.cancel()
    }

    // MARK: readers

    /// A client reads the exec's output.
    func execReaderCame(_ text: String) throws(SupervisorError) -> String {
        let exec = try findExec(text, "read logs")
        exec.clients += 1
        exec.readers += 1
        exec.farewell?.cancel()
        exec.farewell = nil
        return exec.id
    }

    func execReaderLeft(_ execID: String, atEnd: Bool) {
        guard let exec = execs[execID] else { return }
        exec.readers -= 1
        if atEnd { exec.outputWasRead = true } else if exec.readers == 0 { sayFarewell(execID) }
        clientLeft(exec)
    }

    /// An attached client reads soon, or the process is not kept waiting for it.
    func expectReader(_ exec: ExecProcess) {
        guard exec.config.attached, !exec.hasEnded, exec.readers == 0 else { return }
        let execID = exec.id
        exec.farewell?.cancel()
        exec.farewell = executor.loop.scheduleTask(in: Self.readerGrace) { [self] in
            _ = executor.spawn { await self.sayFarewell(execID) }
        }
    }

    /// Tells the shim that nobody reads the exec's output: from now on the process is not kept waiting for a reader.
    private func sayFarewell(_ execID: String) {
        guard let exec = execs[execID], exec.config.attached, exec.readers == 0, !exec.hasEnded, let connection else { return }
        let shim = Shim(connection: connection, id: id)
        executor.spawn { [logger, logContext] in
            do { _ = try await shim.waitLog(exec: execID, indexSize: .max) } catch {
                logger.debug("farewell not said", metadata: logContext.merging(["error": "\(error)"]) { $1 })
            }
        }
    }

    private func clientLeft(_ exec: ExecProcess) {
        exec.clients -= 1
        executor.spawn { await self.pruneExecs() }
    }

    // MARK: forgetting

    /// Forgets what its client has all of, and of the other ended ones the oldest beyond a number.
    func pruneExecs() async {
        let ended = execs.values.filter { $0.hasEnded && $0.clients == 0 && !$0.isBeingForgotten }
        let done = ended.filter { $0.config.attached && $0.exitWasTold && $0.outputWasRead }
        let kept = ended.filter { !($0.config.attached && $0.exitWasTold && $0.outputWasRead) }
            .sorted { ($0.exit?.exited ?? 0, $0.created) < ($1.exit?.exited ?? 0, $1.created) }
        for exec in done + kept.dropLast(Self.keptExecs) { try? await deleteExecNow(exec) }
    }

    /// Removes an ended exec, its output and its records.
    private func deleteExecNow(_ exec: ExecProcess) async throws {
        guard !exec.isBeingForgotten else { return }
        exec.isBeingForgotten = true
        defer { exec.isBeingForgotten = false }
        guard let connection, connection.isOpen else {
            throw fail(
                .unavailable, "delete exec", "cannot delete exec \(exec.id.prefix(12)) of container \(name): its shim does not answer")
        }
        do { try await Shim(connection: connection, id: id).delete(exec: exec.id, timeout: Self.forgetDeadline) } catch let status as Status
            where status.code == .notFound
        {} catch { throw SupervisorError.wrapping(error, "delete exec", String(exec.id.prefix(12))) }
        forget(exec)
    }

    func deleteExec(_ text: String, force: Bool) async throws {
        let exec = try findExec(text, "delete exec")
        try await exec.launch?.value
        if !exec.hasEnded {
            guard force else {
                throw fail(
                    .failedPrecondition, "delete exec",
                    "exec \(exec.id.prefix(12)) of container \(name) is running: kill it first or use --force")
            }
            try await killExec(exec.id, signal: UInt32(SIGKILL), all: true)
            let execID = exec.id
            let alarm = executor.loop.scheduleTask(in: Self.killDeadline) { [self] in
                _ = executor.spawn { await self.newsOfLink() }
            }
            defer { alarm.cancel() }
            let deadline = NIODeadline.now() + Self.killDeadline
            while !exec.hasEnded && execs[execID] === exec {
                guard NIODeadline.now() < deadline else {
                    throw fail(.deadlineExceeded, "delete exec", "exec \(execID.prefix(12)) of container \(name) does not end")
                }
                await linkChange()
            }
        }
        try await deleteExecNow(exec)
    }

    // MARK: signals

    /// Signals the exec's process, with SIGKILL everything that it started; past a shim that is gone or silent, directly.
    func killExec(_ text: String, signal: UInt32, all: Bool) async throws {
        guard (1...64).contains(signal) else { throw fail(.invalidArgument, "kill exec", "no such signal: \(signal)") }
        let exec = try findExec(text, "kill exec")
        try await exec.launch?.value
        let ended = fail(.failedPrecondition, "kill exec", "exec \(exec.id.prefix(12)) of container \(name) is not running")
        if exec.hasEnded { throw ended }
        if let connection, connection.isOpen, state.task?.guards != .unresponsive {
            do {
                return try await Shim(connection: connection, id: id)
                    .kill(exec: exec.id, signal: signal, all: all, timeout: Self.signalDeadline)
            } catch let status as Status where status.code == .notFound || status.code == .failedPrecondition {
                throw ended
            } catch let error as ShimError {
                logger.warning("signal sent past the shim", metadata: logContext.merging(["cause": "\(error)"]) { $1 })
                if error == .deadline { note { $0.guards = .unresponsive } }
            } catch { throw SupervisorError.wrapping(error, "kill exec", String(exec.id.prefix(12))) }
        }
        try await killExecDirectly(exec.id, signal: signal, all: all)
    }

    /// By the control group of the exec where there is one, and the process that its record names.
    private func killExecDirectly(_ execID: String, signal: UInt32, all: Bool) async throws {
        let records = "\(bundle)/exec/\(execID)"
        let group = configuration.cgroupPath(namespace, id) + "/exec-" + execID.prefix(32)
        let (hierarchies, boot) = (supervisor.host.cgroups, supervisor.host.bootID)
        let reached = try await executor.blocking { () -> Bool in
            var reached = false
            // The exec's own group is made in version 2 alone.
            let cgroup = try ContainerCgroup(group, in: CgroupHierarchies(v1: [], unified: hierarchies.unified))
            if signal == UInt32(SIGKILL), cgroup.exists {
                try cgroup.kill()
                reached = true
            } else if all {
                for pid in try cgroup.processes() {
                    guard let identity = try? ProcessIdentity(current: pid), let handle = try? ProcessHandle(identity) else { continue }
                    try? handle.signal(Int32(signal))
                    reached = true
                }
            }
            let directory = try? Linux.open(records, O_RDONLY | O_DIRECTORY)
            guard !reached, let directory, let record = try PidRecord.read(in: directory.raw), record.bootID == boot,
                let handle = try? ProcessHandle(record.process)
            else { return reached }
            try handle.signal(Int32(signal))
            return true
        }
        if !reached {
            throw fail(
                .unavailable, "kill exec",
                "cannot signal exec \(execID.prefix(12)) of container \(name): its shim does not answer and its process is not known")
        }
    }
}
