import CtrProto
import Glibc
import Linux
import NIOCore
import Records
import Store
import TTRPC

/// The link to a task's guards: connected, lost, connected again; and what it tells of the task.
extension Instance {
    /// After this long without an answer a shim counts as unresponsive. It is still waited for.
    private static let answerDeadline = TimeAmount.seconds(5)

    // MARK: the link's loop

    /// Watches over a connection that was used already.
    func attach(_ connection: ShimConnection, _ info: ShimInfo) {
        link?.cancel()
        let number = incarnation
        self.connection = connection
        newsOfLink()
        link = executor.spawn { await self.watch(connection, incarnation: number) }
    }

    /// Connects, asks, watches; returns when the guards are gone or another incarnation began.
    private func watch(_ first: ShimConnection?, incarnation number: UInt32) async {
        var next = first
        var failures = 0
        while !Task.isCancelled && incarnation == number {
            var used = next
            do {
                let open: ShimConnection
                if let given = next {
                    open = given
                } else {
                    open = try await dialShim()
                    used = open
                    try await introduce(open)
                }
                next = nil
                failures = 0
                connection = open
                newsOfLink()
                // A shim that was silent when the manager looked, in the middle of a start.
                if state.task?.row.phase == .starting && isIdle {
                    enqueue(.adopt) { try await $0.carryOnFound() }
                }
                try await follow(open)
            } catch ShimError.refused {
                return await guardsGone()
            } catch is CancellationError {
                // Whoever cancelled this goes on with the connection that he knows.
                if connection !== used { used?.close() }
                return
            } catch {
                failures += 1
                logger.debug("link to shim lost", metadata: logContext.merging(["error": "\(error)"]) { $1 })
            }
            guard !Task.isCancelled && incarnation == number else {
                if connection !== used { used?.close() }
                return
            }
            connection = nil
            used?.close()
            newsOfLink()
            if state.task?.row.phase.hasEnded != true && !keeperEnded { note { $0.guards = .keeperOnly } }
            // The keeper paces its restarts itself; this bounds what a socket that only breaks can cost.
            if failures > 2 { await pause(milliseconds: Int64(min(10 << min(failures, 9), 5000))) }
        }
    }

    private func pause(milliseconds: Int64) async {
        try? await executor.loop.scheduleTask(in: .milliseconds(milliseconds)) {}.futureResult.get()
    }

    /// Waits for the end of the task, then for the end of the connection.
    private func follow(_ connection: ShimConnection) async throws {
        let shim = Shim(connection: connection, id: id)
        if let phase = state.task?.row.phase, !phase.hasEnded && phase != .starting {
            let answer = try await shim.wait()
            await ended(answer)
        }
        try await connection.closed.get()
    }

    /// Asks a shim that was just connected who it is. Silence is shown after a while, and listened to for as long as it lasts.
    private func introduce(_ connection: ShimConnection) async throws {
        let number = incarnation
        let alarm = executor.loop.scheduleTask(in: Self.answerDeadline) { [self] in
            _ = executor.spawn { await self.unanswered(connection, incarnation: number) }
        }
        defer { alarm.cancel() }
        let shim = Shim(connection: connection, id: id)
        var info = try await shim.info(timeout: nil)
        if info.started && !info.exited {
            do { info.paused = try await shim.state(timeout: nil) == .paused } catch let status as Status
                where status.code == .unimplemented
            {
                // As it was known to be.
                info.paused = state.task?.row.phase == .paused
            }
        }
        guard incarnation == number else { throw CancellationError() }
        apply(info)
        await prove(info)
        if info.level >= Self.execLevel && info.taskPID != 0 {
            do { try await takeOver(shim) } catch let status as Status {
                // It has not what its level promises: from here on it counts as one of the level below.
                logger.warning(
                    "shim claims more than it can; no execs are possible", metadata: logContext.merging(["error": "\(status)"]) { $1 })
                info.level = Self.execLevel - 1
                apply(info)
            }
        }
        expectAttachedReader()
    }

    private func unanswered(_ connection: ShimConnection, incarnation number: UInt32) {
        guard incarnation == number, self.connection == nil else { return }
        logger.warning("shim does not answer", metadata: logContext)
        note { $0.guards = .unresponsive }
        watchInit()
        newsOfLink()
    }

    // MARK: what the shim says

    /// Takes over who the guards are.
    func apply(_ info: ShimInfo) {
        shimIdentity = try? ProcessIdentity(current: Int32(clamping: info.shimPID))
        if info.keeperPID == 0 { keeperEnded = true }
        let gone = keeperEnded
        note { task in
            task.shim = info
            task.shimPID = info.shimPID
            if let keeper = info.keeperPID, keeper != 0 { task.keeperPID = keeper }
            if gone { task.keeperPID = 0 }
            task.guards = gone ? .shimOnly : .both
            task.note = ""
        }
    }

    /// Brings the row to what the shim proves. An end is told by Wait, with its record.
    private func prove(_ info: ShimInfo) async {
        guard let task = state.task, !task.row.phase.hasEnded else { return }
        if info.taskPID != 0 {
            remember(initOf: ProcessIdentity(pid: Int32(clamping: info.taskPID), startTime: info.taskStartTime))
        }
        // A start that was interrupted is carried on by whoever found this link.
        guard info.started, task.row.phase != .starting else { return }
        let phase: TaskPhase = info.paused ? .paused : .running
        if task.row.phase != phase || task.row.pid != Int32(clamping: info.taskPID) {
            let topic: Event.Topic =
                task.row.phase == phase ? .taskStart : phase == .paused ? .taskPaused : .taskResumed
            let started = topic == .taskStart ? await startedTime() : task.row.started
            let changes: [Change] = state.row.phase == .creating ? [.setPhase(id: id, .created)] : []
            if state.row.phase == .creating { state.row.phase = .created }
            await move(to: phase, topic: topic, changes: changes) { task in
                task.row.pid = Int32(clamping: info.taskPID)
                task.row.startTime = info.taskStartTime
                task.row.started = started
            }
        } else {
            note { $0.proved = true }
        }
    }

    func startedTime() async -> Int64 {
        let bundle = bundle
        let record = try? await executor.blocking {
            let opened = try Linux.open(bundle, O_RDONLY | O_DIRECTORY)
            return try PidRecord.read(in: opened.raw)
        }
        return (record ?? nil)?.started ?? now(CLOCK_REALTIME)
    }

    // MARK: processes

    func remember(initOf identity: ProcessIdentity) {
        guard initProcess?.identity != identity, identity.pid > 0 else { return }
        if let initWatch { supervisor.watcher.cancel(initWatch) }
        initWatch = nil
        initProcess = try? ProcessHandle(identity)
    }

    func adoptKeeper(_ identity: ProcessIdentity?) {
        guard let identity, keeper?.identity != identity else { return }
        keeperEnded = false
        do throws(SysError) {
            let handle = try ProcessHandle(identity)
            keeper = handle
            try supervisor.watcher.watch(handle) { [self] in
                executor.spawn { await self.keeperHasEnded(handle) }
            }
            note { $0.keeperPID = UInt32(clamping: identity.pid) }
        } catch { keeperEnded = true }
    }

    private func keeperHasEnded(_ handle: ProcessHandle) {
        guard keeper === handle else { return }
        keeperEnded = true
        newsOfLink()
        guard let task = state.task, !task.row.phase.hasEnded else { return }
        note { task in
            task.keeperPID = 0
            // Whether the shim lives too, its connection tells.
            if task.guards == .both { task.guards = .shimOnly }
        }
    }

    /// Sees the end of init without the shim: where there is none, or one that says nothing.
    func watchInit() {
        guard let process = initProcess, initWatch == nil else { return }
        let number = incarnation
        initWatch = try? supervisor.watcher.watch(process) { [self] in
            executor.spawn { await self.initHasEnded(incarnation: number) }
        }
    }

    private func initHasEnded(incarnation number: UInt32) async {
        guard incarnation == number, let task = state.task, !task.row.phase.hasEnded else { return }
        initWatch = nil
        if task.guards == .lost || task.guards == .none { return await endedWithoutGuards() }
        // A live shim records the end and answers Wait. One that does not within the deadline is stuck: its keeper starts another.
        await pause(milliseconds: Self.answerDeadline.nanoseconds / 1_000_000)
        guard incarnation == number, let task = state.task, !task.row.phase.hasEnded else { return }
        if let shim = shimIdentity, let handle = try? ProcessHandle(shim) {
            logger.warning("shim is stuck; its keeper starts another", metadata: logContext)
            try? handle.signal(SIGKILL)
        }
    }

    // MARK: news

    /// Returns at the next change of the link.
    func linkChange() async {
        let waiter = Waiter(on: executor.loop)
        linkWaiters.append(waiter)
        try? await waiter.wait()
    }

    func newsOfLink() {
        let waiters = linkWaiters
        linkWaiters = []
        for waiter in waiters { waiter.resume() }
    }

    // MARK: after a restart of the manager

    /// Finds out what became of the task while no manager looked, and goes on watching it. Returns with a verdict, or when the shim is
    /// silent.
    func adopt() async throws {
        try await perform(.adopt) { instance in
            try await instance.adoptNow()
            instance.driveLog()
        }
    }

    private func adoptNow() async throws {
        // A client of an earlier manager may have started it, and come back.
        startedAttached = !state.row.startNow
        if state.row.phase == .removing { return try await remove() }
        guard let task = state.task else {
            // A container that was to be made and started, and of whose task there is no row, was never begun.
            if state.row.phase == .creating { return try await remove() }
            return
        }
        if task.row.bootID != supervisor.host.bootID {
            if !task.row.phase.hasEnded { await endedWithHost() }
            armRemoval()
            return
        }
        let found = try await executor.blocking { [configuration, namespace, id, number = task.row.incarnation] in
            try Leftovers(configuration: configuration, namespace: namespace, id: id, incarnation: number).look()
        }
        adoptKeeper(found.keeper)
        if let process = found.process, !task.row.phase.hasEnded { remember(initOf: process) }
        if let exit = found.exit, !task.row.phase.hasEnded { await finish(ExitRow(exit)) }
        do {
            let open = try await dialShim()
            try await adopt(open)
        } catch ShimError.refused {
            if state.task?.row.phase == .starting && !found.started { return try await restart() }
            await guardsGone()
        }
        armRemoval()
    }

    private func adopt(_ open: ShimConnection) async throws {
        let number = incarnation
        link = executor.spawn { await self.introduceAndWatch(open, incarnation: number) }
        while state.task?.proved == false && state.task?.row.phase.hasEnded == false && !linkSettled { await linkChange() }
        try await carryOnFound()
    }

    /// Goes on with a start whose guards are there.
    private func carryOnFound() async throws {
        guard let connection, state.task?.row.phase == .starting else { return }
        if state.row.phase == .creating { return try await startNow(from: connection) }
        startCarriedOn = true
        try await carryOnStart(from: connection)
    }

    /// Connected, lost, or known to be silent.
    private var linkSettled: Bool { connection != nil || state.task?.guards == .unresponsive || state.task?.guards == .lost }

    func introduceAndWatch(_ open: ShimConnection, incarnation number: UInt32) async {
        do {
            try await introduce(open)
        } catch {
            open.close()
            return await watch(nil, incarnation: number)
        }
        await watch(open, incarnation: number)
    }

    /// Nothing of the interrupted start is left that could be carried on: once more from the beginning.
    private func restart() async throws {
        try await endGuards(force: true)
        try await clearRuntimeState()
        note { $0.proved = true }
        if state.row.phase == .creating { return try await startNow() }
        startCarriedOn = true
        try await carryOnStart(from: nil)
    }
}
