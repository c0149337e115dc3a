import CtrProto
import Glibc
import Linux
import NIOCore
import Store
import TTRPC

/// Ending the guards, and removing everything that a container left. Each step may be repeated, and the row goes last.
extension Instance {
    private static let deleteDeadline = TimeAmount.seconds(10)
    private static let shutdownDeadline = TimeAmount.seconds(3)
    private static let killDeadline = TimeAmount.seconds(10)

    // MARK: containers

    /// Removes the container; one that runs only with `force`.
    func delete(force: Bool) async throws {
        try await perform(.delete(force: force)) { instance in
            try await instance.endTask(force: force, "delete container", hint: "stop it first or use --force")
            try await instance.remove()
        }
    }

    /// From any state to nothing. Interrupted anywhere, the next start of the manager goes on with it.
    func remove() async throws {
        removalTimer?.cancel()
        removalTimer = nil
        // An ended auto_remove container is removed by whoever finds it: that it is being removed needs no row.
        let implied = state.container.config.autoRemove && state.task?.row.phase.hasEnded == true
        let undone = state.row.phase == .creating
        state.row.phase = .removing
        if !implied && !undone { try await supervisor.store.commit([.setPhase(id: id, .removing)], events: []) }
        try await endGuards(force: true)
        await finishLog()
        let leftovers = leftovers
        let hierarchies = supervisor.host.cgroups
        let (supervisor, namespace, id) = (supervisor, namespace, id)
        try await executor.blocking {
            try leftovers.removeRuntimeState(hierarchies)
            try supervisor.removeSnapshot(namespace: namespace, id: id)
            try leftovers.removeRecords()
        }
        note { ($0.guards, $0.shimPID, $0.keeperPID) = (.none, 0, 0) }
        try await supervisor.store.commit([.deleteContainer(id: id)], event: event(.containerDelete, state))
        supervisor.registry.remove(id)
        await failExitWaiters(fail(.notFound, "wait for task", "container \(name) was removed"))
        initProcess = nil
        keeper = nil
        // The last one to go takes the shared directories along, so that the host is as it was before the first. Not for an auto_remove
        // container: the next of its kind would only make them again.
        if !state.container.config.autoRemove && supervisor.registry.isEmpty {
            try? await executor.blocking { supervisor.removeEmptyCgroups() }
        }
    }

    // MARK: tasks

    /// Ends the guards of an ended task; the container, its logs and its exit stay.
    func deleteTask(force: Bool) async throws {
        try await perform(.deleteTask(force: force)) { instance in
            guard instance.state.task != nil else {
                throw instance.fail(.notFound, "delete task", "container \(instance.name) has no task")
            }
            try await instance.endTask(force: force, "delete task", hint: "stop it first or use --force")
            try await instance.endGuards()
            try await instance.clearRuntimeState()
            instance.note { ($0.guards, $0.shimPID, $0.keeperPID) = (.none, 0, 0) }
        }
    }

    private func endTask(force: Bool, _ operation: String, hint: String) async throws {
        guard let task = state.task, !task.row.phase.hasEnded else { return }
        guard force else {
            let what = task.row.phase == .paused ? "paused" : task.proved ? "running" : "not known to have ended"
            throw fail(.failedPrecondition, operation, "container \(name) (\(state.shortID)) is \(what): \(hint)")
        }
        if task.row.phase == .starting { return }
        do { try await kill(signal: UInt32(SIGKILL), all: true) } catch let error as SupervisorError where error.code == .failedPrecondition
        {}
        let alarm = executor.loop.scheduleTask(in: Self.killDeadline) { [self] in
            _ = executor.spawn { await self.killLast() }
        }
        defer { alarm.cancel() }
        try await waitForEnd()
    }

    /// The kill went out and no end was told: whoever guards is stuck, and goes too.
    private func killLast() async {
        guard state.task?.row.phase.hasEnded == false else { return }
        let leftovers = leftovers
        let hierarchies = supervisor.host.cgroups
        let cgroup = configuration.cgroupPath(namespace, id)
        try? await executor.blocking {
            try ContainerCgroup(cgroup, in: hierarchies).kill()
            try leftovers.killGuards(hierarchies)
        }
    }

    var leftovers: Leftovers {
        Leftovers(configuration: configuration, namespace: namespace, id: id, incarnation: incarnation)
    }

    func clearRuntimeState() async throws {
        let leftovers = leftovers
        let hierarchies = supervisor.host.cgroups
        try await executor.blocking { try leftovers.removeRuntimeState(hierarchies) }
    }

    // MARK: guards

    /// Returns when neither keeper nor shim of this incarnation lives and their cgroup and socket are gone. With `force` they are killed
    /// together with a container that they still guard.
    func endGuards(force: Bool = false) async throws {
        link?.cancel()
        link = nil
        await dropExecs()
        if incarnation > 0 {
            var shut = false
            if let open = await guardConnection() { shut = await shutDown(open, force: force) }
            if let keeper {
                var gone = shut
                if shut { gone = await hasEnded(keeper) }
                if !gone { try? keeper.signal(SIGKILL) }
            }
        }
        connection?.close()
        connection = nil
        foreignShim?.close()
        foreignShim = nil
        newsOfLink()
        let leftovers = leftovers
        let hierarchies = supervisor.host.cgroups
        // Whoever did not go by itself goes with the cgroup.
        try await executor.blocking { try leftovers.removeGuards(hierarchies) }
        (keeper, shimIdentity, initProcess) = (nil, nil, nil)
    }

    private func guardConnection() async -> ShimConnection? {
        if let connection, connection.isOpen { return connection }
        return try? await dialShim()
    }

    /// Whether the shim promised to end.
    private func shutDown(_ open: ShimConnection, force: Bool) async -> Bool {
        let shim = Shim(connection: open, id: id)
        defer { open.close() }
        do {
            // A shim does not leave a living container; with force both are killed by their cgroups.
            if state.task?.row.phase.hasEnded != true {
                let info = try await shim.info(timeout: Self.shutdownDeadline)
                if info.taskPID != 0 && !info.exited { return false }
            }
            // Our own runtime leaves a cgroup and a directory, which we remove as cheaply ourselves; another may leave more.
            if !usesOwnRuntime {
                do { try await shim.delete(timeout: Self.deleteDeadline) } catch let status as Status
                    where status.code == .notFound || status.code == .failedPrecondition
                {}
            }
            try await shim.shutdown(timeout: Self.shutdownDeadline)
            return true
        } catch {
            logger.debug("shim did not shut down", metadata: logContext.merging(["error": "\(error)"]) { $1 })
            return false
        }
    }

    /// Waits for the keeper, which ends with its shim; false after a while.
    private func hasEnded(_ keeper: ProcessHandle) async -> Bool {
        let alarm = executor.loop.scheduleTask(in: Self.shutdownDeadline) { [self] in
            _ = executor.spawn { await self.newsOfLink() }
        }
        defer { alarm.cancel() }
        let deadline = NIODeadline.now() + Self.shutdownDeadline
        while self.keeper === keeper && !keeperEnded && NIODeadline.now() < deadline { await linkChange() }
        return keeperEnded
    }
}
