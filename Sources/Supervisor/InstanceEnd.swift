import CtrProto
import Glibc
import Linux
import NIOCore
import Records
import Store
import TTRPC

/// How a task ends, who is told, and what an ended container with `auto_remove` waits for.
extension Instance {
    /// How long an `auto_remove` container that a client promised to delete waits for that client.
    private static let clientGrace = TimeAmount.seconds(10)

    // MARK: the end

    /// The shim answered Wait. Its exit record, written before it answered, says more.
    func ended(_ answer: Containerd_Task_V2_WaitResponse) async {
        guard state.task?.row.phase.hasEnded == false else { return }
        if let exit = await exitRecord() { return await finish(ExitRow(exit)) }
        // A foreign shim writes no record of ours; it reaped the process itself.
        await finish(ExitRow(code: answer.exitStatus, source: "reaped", exited: answer.exitedAt.nanoseconds))
    }

    private func exitRecord() async -> ExitRecord? {
        let directory = incarnationDirectory
        let read = try? await executor.blocking {
            // Held by a name: a descriptor that is only an expression is closed before the call that it is for.
            let opened = try Linux.open(directory, O_RDONLY | O_DIRECTORY)
            return try ExitRecord.read(in: opened.raw)
        }
        return read ?? nil
    }

    /// Both guards are gone: the task has ended as the records or the kernel say, or goes on unguarded.
    func guardsGone() async {
        connection = nil
        keeperEnded = true
        guardLosses += 1
        defer { newsOfLink() }
        guard let task = state.task, !task.row.phase.hasEnded else { return note { ($0.guards, $0.shimPID, $0.keeperPID) = (.none, 0, 0) } }
        if launching { return }
        if let process = initProcess, !process.hasEnded {
            logger.warning("its guards are gone; the container goes on unguarded", metadata: logContext)
            note { ($0.guards, $0.shimPID, $0.keeperPID, $0.proved) = (.lost, 0, 0, true) }
            let phase: TaskPhase = task.row.phase == .starting ? .running : task.row.phase
            if phase != task.row.phase {
                await move(to: phase, topic: .taskStart) { task in
                    task.row.pid = process.identity.pid
                    task.row.startTime = process.identity.startTime
                }
            }
            await write([], .taskLost)
            watchInit()
            return regainByItself()
        }
        await endedWithoutGuards()
    }

    /// Nobody reaped the process whom we could ask: the strongest source that is left.
    func endedWithoutGuards() async {
        guard let task = state.task else { return }
        let leftovers = Leftovers(configuration: configuration, namespace: namespace, id: id, incarnation: incarnation)
        let found = try? await executor.blocking { try leftovers.look() }
        if let exit = found?.exit { return await finish(ExitRow(exit)) }
        let time = now(CLOCK_REALTIME)
        if let status = found?.reapedByKeeper {
            return await finish(ExitRow(code: exitCode(waitStatus: status), source: "reaped", exited: time))
        }
        if let process = initProcess, process.hasEnded, let (status, source) = process.testimony {
            return await finish(ExitRow(code: exitCode(waitStatus: status), source: source, exited: time))
        }
        let guards = foreign == nil ? "shim and keeper" : "the shim"
        let reason =
            task.row.phase == .starting
            ? "\(guards) died while the container was being started" : "\(guards) died before the exit status was recorded"
        await finish(ExitRow(code: nil, source: "unknown", reason: reason, exited: time))
    }

    /// The task ran in another boot.
    func endedWithHost() async {
        if let exit = await exitRecord() { return await finish(ExitRow(exit)) }
        await finish(ExitRow(code: nil, source: "unknown", reason: "host rebooted", exited: 0))
    }

    /// Writes and announces the end.
    func finish(_ told: ExitRow) async {
        var exit = told
        // The pidfd was open before the end: it may know what guards that came later do not.
        if exit.code == nil, let status = initProcess?.exitStatus {
            exit = ExitRow(code: exitCode(waitStatus: status), source: "pidfd", exited: told.exited)
        }
        let changes: [Change] = state.row.phase == .creating ? [.setPhase(id: id, .created)] : []
        if state.row.phase == .creating { state.row.phase = .created }
        let lost = state.task?.guards == .lost
        let row = exit
        let moved = await move(
            to: row.code == nil ? .unknown : .stopped, topic: .taskExit, before: row.oomKilled ? [.taskOOM] : [], changes: changes
        ) { task in
            task.row.exit = row
            if lost { task.guards = .none }
        }
        guard moved else { return }
        logger.debug(
            "task ended",
            metadata: logContext.merging(["code": "\(exit.code.map { "\($0)" } ?? "unknown")", "source": "\(exit.source)"]) { $1 })
        if let initWatch { supervisor.watcher.cancel(initWatch) }
        initWatch = nil
        let waiters = exitWaiters
        exitWaiters = [:]
        for waiter in waiters.values { waiter.resume() }
        newsOfLink()
        armRemoval()
    }

    func failExitWaiters(_ error: any Error) async {
        let waiters = exitWaiters
        exitWaiters = [:]
        for waiter in waiters.values { waiter.resume(throwing: error) }
    }

    // MARK: waiting

    /// Returns when the task has ended; at once when it has.
    func waitForEnd() async throws {
        while true {
            guard let task = state.task else {
                throw fail(.failedPrecondition, "wait for task", "container \(name) was never started")
            }
            // Not before it is written: whoever is told finds it in every list from then on.
            if task.row.phase.hasEnded && endIsShown {
                if task.row.exit == nil {
                    throw fail(
                        .failedPrecondition, "wait for task", task.row.error.isEmpty ? "container \(name) did not start" : task.row.error)
                }
                return
            }
            readers += 1
            defer {
                readers -= 1
                armRemoval()
            }
            let (key, waiter) = newWaiter()
            exitWaiters[key] = waiter
            try await waiter.wait { [self] in executor.spawn { await self.cancelWaiter(key) } }
        }
    }

    private var endIsShown: Bool {
        guard let shown = supervisor.registry.state(id)?.task?.row else { return true }
        return shown.incarnation == incarnation && shown.phase.hasEnded
    }

    private func cancelWaiter(_ key: UInt64) { exitWaiters.removeValue(forKey: key)?.cancel() }

    // MARK: auto_remove

    /// Removes an ended `auto_remove` container: at once, or, when a client promised to do it, once that client has been absent for a
    /// while.
    func armRemoval() {
        removalTimer?.cancel()
        removalTimer = nil
        guard state.container.config.autoRemove, state.row.phase != .removing, let task = state.task, task.row.phase.hasEnded, readers == 0
        else { return }
        guard hasClient else { return removeByItself() }
        removalTimer = executor.loop.scheduleTask(in: Self.clientGrace) { [self] in
            _ = executor.spawn { await self.clientIsGone() }
        }
    }

    /// Somebody who will read the output and then delete the container himself was promised, perhaps to an earlier manager.
    private var hasClient: Bool { state.row.attached || startedAttached }

    private func clientIsGone() {
        guard readers == 0, removalTimer != nil else { return }
        removeByItself()
    }

    private func removeByItself() {
        executor.spawn { [self] in
            do { try await delete(force: false) } catch {
                logger.error("container not removed", metadata: logContext.merging(["error": "\(error)"]) { $1 })
            }
        }
    }

    func readerCame() {
        readers += 1
        removalTimer?.cancel()
        removalTimer = nil
    }

    func readerLeft() {
        readers -= 1
        armRemoval()
    }
}

extension ExitRow {
    init(_ record: ExitRecord) {
        var reason = ""
        if case .unknown(let why) = record.outcome { reason = why }
        self.init(
            code: record.outcome.code, source: record.source.rawValue, reason: reason, exited: record.exited, oomKilled: record.oom)
    }
}
