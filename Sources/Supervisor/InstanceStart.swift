import CtrProto
import Glibc
import Linux
import NIOCore
import Store
import SwiftProtobuf
import TTRPC

/// From rows to a running process.
extension Instance {
    private static let createDeadline = TimeAmount.seconds(60)
    private static let startDeadline = TimeAmount.seconds(30)
    /// How often a shim may die in the middle of a start before the start fails.
    private static let shimDeaths = 3

    // MARK: create

    /// Writes the container's row, with `start_now` the task's too, and starts it. Undone as a whole when that fails.
    func create() async throws {
        try await perform(.create) { instance in
            do { try await instance.insert() } catch {
                instance.supervisor.registry.remove(instance.id)
                throw error
            }
            if instance.state.row.startNow { try await instance.startNow() }
        }
    }

    private func insert() async throws {
        var changes = [Change.insertContainer(state.row)]
        if let task = state.task { changes.append(.putTask(task.row)) }
        try await commit(changes, .containerCreate)
    }

    /// The start that belongs to a creation: the container is there and runs, or it never was.
    func startNow(from connection: ShimConnection? = nil) async throws {
        do { try await launch(from: connection) } catch {
            let failure = SupervisorError.startFailure(container: name, error)
            // The event of the deletion carries the reason to a client that asks again.
            state.task?.row.error = failure.message
            await failExitWaiters(failure)
            try await remove()
            throw failure
        }
    }

    // MARK: start

    /// Starts the container's next task. `attached`: for a client that will read its output.
    func start(attached: Bool) async throws {
        try await perform(.start) { instance in
            instance.startedAttached = attached
            try await instance.startNext()
        }
    }

    private func startNext() async throws {
        if state.row.phase == .removing { throw fail(.failedPrecondition, "start container", "container \(name) is being removed") }
        if let task = state.task, !task.row.phase.hasEnded {
            if task.row.phase == .starting { return try await carryOnStart(from: connection) }
            guard task.proved else {
                throw fail(.unavailable, "start container", "container \(name) has not been found again yet: its shim does not answer")
            }
            // The client whose call an earlier manager did not answer asks again.
            if startCarriedOn { return startCarriedOn = false }
            throw fail(.failedPrecondition, "start container", "container \(name) is already \(task.row.phase.rawValue)")
        }
        // The upper directory must not be mounted twice, so the guards of the last incarnation go first.
        try await endGuards()
        try await clearRuntimeState()
        let next = incarnation + 1
        state.task = TaskState(
            row: TaskRow(container: id, incarnation: next, phase: .starting, bootID: supervisor.host.bootID), proved: true)
        var changes: [Change] = []
        if next > 1 { changes.append(.deleteTask(container: id, incarnation: next - 1)) }
        if let task = state.task { changes.append(.putTask(task.row)) }
        try await commit(changes, .taskCreate)
        try await carryOnStart(from: nil)
    }

    /// A start whose row says `starting`: it ends running, or stopped with the reason.
    func carryOnStart(from connection: ShimConnection?) async throws {
        do { try await launch(from: connection) } catch {
            let failure = SupervisorError.startFailure(container: name, error)
            try? await endGuards(force: true)
            try? await clearRuntimeState()
            await move(to: .stopped, topic: .taskFailed) { $0.row.error = failure.message }
            await failExitWaiters(failure)
            throw failure
        }
    }

    // MARK: launch

    /// Brings the task of the current incarnation to `running`, from wherever an earlier attempt left it.
    func launch(from existing: ShimConnection?) async throws {
        launching = true
        defer { launching = false }
        let plan = LaunchPlan(state: state, supervisor: supervisor)
        let mounts: [Containerd_Types_Mount]
        if existing == nil {
            let launched = try await executor.blocking { try plan.run() }
            mounts = launched.mounts
            adoptKeeper(launched.keeper)
        } else {
            mounts = try await executor.blocking { try plan.mounts() }
        }
        var connection = existing
        var deaths = 0
        while true {
            do {
                let open = try await usable(connection)
                connection = open
                let info = try await bringUp(open, mounts, fresh: existing == nil && deaths == 0)
                return try await running(open, info, began: existing == nil && deaths == 0 ? now(CLOCK_REALTIME) : await startedTime())
            } catch ShimError.connectionLost where deaths < Self.shimDeaths {
                // The keeper starts another shim on the same socket; it says how far the dead one came.
                deaths += 1
                connection = nil
            }
        }
    }

    private func usable(_ connection: ShimConnection?) async throws -> ShimConnection {
        if let connection, connection.isOpen { return connection }
        return try await dialShim()
    }

    /// Where the standard streams of the container's first process go: its output into the log, which is what shims of every version do
    /// without being told.
    private var streams: ShimStreams {
        let config = state.container.config
        // Kept for those alone who are attached; read all the same when nobody is, so that no pipe fills.
        let output = keepsNoLog ? "log:attached" : ""
        return ShimStreams(
            terminal: config.terminal, stdin: config.openStdin ? "spool:" : "", stdout: output, stderr: config.terminal ? "" : output)
    }

    /// Create and Start, as far as they are not done.
    private func bringUp(
        _ connection: ShimConnection, _ mounts: [Containerd_Types_Mount], fresh: Bool
    ) async throws -> ShimInfo {
        let shim = Shim(connection: connection, id: id)
        let found = fresh ? ShimInfo() : try await shim.info(timeout: Self.startDeadline)
        if found.taskPID == 0 {
            do { _ = try await shim.create(bundle: bundle, mounts: mounts, streams: streams, timeout: Self.createDeadline) } catch let
                status as Status
                where status.code == .alreadyExists
            {}
        }
        if keepsNoLog && (startedAttached || state.row.attached) { await announceAttachedReader(shim) }
        if !found.exited {
            // The shim records a start before it carries it out: one that died in between has to be told again, and one that did not says so.
            do { try await shim.start(timeout: Self.startDeadline) } catch let status as Status
                where found.started && status.code == .failedPrecondition
            {}
        }
        return try await shim.info(timeout: Self.startDeadline)
    }

    /// The task runs: written, watched, announced.
    private func running(_ connection: ShimConnection, _ info: ShimInfo, began: Int64) async throws {
        let identity = ProcessIdentity(pid: Int32(clamping: info.taskPID), startTime: info.taskStartTime)
        remember(initOf: identity)
        apply(info)
        // A container that was made to be started at once is complete only now.
        let changes: [Change] = state.row.phase == .creating ? [.setPhase(id: id, .created)] : []
        state.row.phase = .created
        await move(to: .running, topic: .taskStart, changes: changes) { task in
            task.row.pid = identity.pid
            task.row.startTime = identity.startTime
            task.row.started = began
            task.row.error = ""
        }
        attach(connection, info)
        expectAttachedReader()
        driveLog()
    }
}
