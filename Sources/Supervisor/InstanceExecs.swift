import CtrProto
import Glibc
import Images
import Linux
import NIOCore
import OCI
import Records
import Store
import SwiftProtobuf
import TTRPC

/// Execs: started, found again after a restart of the manager or the shim, watched.
extension Instance {
    private static let execDeadline = TimeAmount.seconds(30)
    /// How long an exec waits for a shim that is being started again.
    private static let linkPatience = TimeAmount.seconds(20)
    /// How often a shim may die in the middle of an exec before the exec fails.
    private static let shimDeaths = 3
    static let execLimit = 128
    /// The first level of the shim's protocol with execs, input and upgrades.
    static let execLevel: UInt32 = 2

    // MARK: start

    /// Runs a process. The same id asked for again joins the first call or has its result; what ended and was forgotten is not run again.
    func exec(_ id: String, _ config: Ctr_V1_ExecConfig) async throws -> Ctr_V1_Exec {
        try await settled()
        if execs[id] == nil, let ended = try await endedExec(id) {
            try requireSame(ended.config, config, id)
            return ended
        }
        if let known = execs[id] {
            if known.configIsKnown { try requireSame(known.config, config, id) }
            try await known.launch?.value
            return execMessage(known)
        }
        _ = try requireExecutable()
        guard execs.count < Self.execLimit else {
            throw fail(
                .resourceExhausted, "exec", "container \(name) has \(Self.execLimit) execs already: delete ended ones (`ctrctl exec list`)")
        }
        let exec = ExecProcess(id: id, config: config, created: now(CLOCK_REALTIME))
        execs[id] = exec
        let launch = executor.spawnThrowing { try await self.launchExec(id) }
        exec.launch = launch
        try await launch.value
        return execMessage(exec)
    }

    private func requireSame(_ known: Ctr_V1_ExecConfig, _ asked: Ctr_V1_ExecConfig, _ id: String) throws(SupervisorError) {
        if known != asked { throw fail(.alreadyExists, "exec", "exec id \(id.prefix(12)) is already in use in container \(name)") }
    }

    /// The running task, or why nothing can be executed in it.
    private func requireExecutable() throws(SupervisorError) -> TaskState {
        let task = try requireRunning("exec")
        if task.row.phase == .paused {
            throw fail(.failedPrecondition, "exec", "container \(name) is paused: resume it first (`ctrctl tasks resume \(name)`)")
        }
        return task
    }

    private func launchExec(_ id: String) async throws {
        guard let exec = execs[id] else { return }
        do {
            let process = try await processObject(exec.config)
            try await bringUp(exec, process)
            exec.launch = nil
        } catch {
            forget(exec)
            throw execFailure(error)
        }
        watchExec(exec)
    }

    private func execFailure(_ error: any Error) -> SupervisorError {
        if let error = error as? SupervisorError { return error }
        if let status = error as? Status, status.code == .unimplemented { return shimIsTooOld("exec") }
        let cause = SupervisorError.cause(of: error)
        return SupervisorError(
            cause.code, "exec", name, "cannot exec in container \(name): \(cause.text)",
            exitCode: SupervisorError.exitCode(ofRuntimeMessage: cause.text))
    }

    func shimIsTooOld(_ operation: String) -> SupervisorError {
        fail(
            .failedPrecondition, operation,
            "cannot \(operation) in container \(name): its shim is of an older release that cannot do this: stop and start the container")
    }

    /// Exec and Start, as far as they are not done, also when the shim dies in between.
    private func bringUp(_ exec: ExecProcess, _ process: [UInt8]) async throws {
        var deaths = 0
        while true {
            let shim = Shim(connection: try await execConnection(), id: id)
            do {
                var found: Ctr_Shim_V1_Process?
                if deaths > 0 { found = try await shim.processes(timeout: Self.execDeadline).first { $0.execID == exec.id } }
                if found == nil {
                    do {
                        try await shim.exec(
                            exec.id, process: process, streams: ExecProcess.streams(exec.config), timeout: Self.execDeadline)
                    } catch let status as Status where status.code == .alreadyExists {}
                }
                if let found, found.pid != 0 || found.exited {
                    exec.pid = found.pid
                } else {
                    do { exec.pid = try await shim.start(exec: exec.id, timeout: Self.execDeadline) } catch let status as Status
                        where deaths > 0 && status.code == .failedPrecondition
                    {}
                }
                return await announce([event(.execAdded, exec), event(.execStarted, exec)])
            } catch ShimError.connectionLost where deaths < Self.shimDeaths {
                // The keeper starts another shim; it says how far the dead one came.
                deaths += 1
            } catch {
                // What was prepared, perhaps after the deadline, and cannot run is no exec.
                let execID = exec.id
                let deletion = executor.spawn { _ = try? await shim.delete(exec: execID, timeout: Self.execDeadline) }
                if error as? ShimError == .deadline { note { $0.guards = .unresponsive } } else { await deletion.value }
                throw error
            }
        }
    }

    /// The connection to a shim that knows execs; waits a while for one that is being started.
    func execConnection(_ operation: String = "exec") async throws -> ShimConnection {
        let alarm = executor.loop.scheduleTask(in: Self.linkPatience) { [self] in
            _ = executor.spawn { await self.newsOfLink() }
        }
        defer { alarm.cancel() }
        await guarded()
        let deadline = NIODeadline.now() + Self.linkPatience
        while true {
            let task = try requireRunning(operation)
            if let connection, connection.isOpen {
                if shimInfo.level < Self.execLevel { throw shimIsTooOld(operation) }
                return connection
            }
            guard task.guards != .lost, NIODeadline.now() < deadline else {
                throw fail(.unavailable, operation, "cannot \(operation) in container \(name): its shim does not answer")
            }
            await linkChange()
        }
    }

    // MARK: the process

    /// What to execute: the container's own process as its configuration says, changed as the exec asks. Names are looked up in the
    /// container's own files.
    private func processObject(_ config: Ctr_V1_ExecConfig) async throws -> [UInt8] {
        let container = try await containerProcess()
        let (process, state) = (initProcess, state)
        let make = { @Sendable [supervisor] in
            do {
                let user = try config.user.isEmpty ? nil : Self.resolve(config.user, in: process, state.name)
                let keepsHome = user == nil || supervisor.choosesHome(state)
                return try ProcessObject.make(
                    container: container, config, user: user, keepsHome: keepsHome,
                    capabilities: config.privileged ? supervisor.host.capabilities : []
                ).encoded()
            } catch let error as SupervisorError {
                throw error
            } catch let error as ImageError {
                throw SupervisorError(
                    .invalidArgument, "exec", state.name, "cannot exec in container \(state.name): \(error)", exitCode: 125)
            } catch {
                throw SupervisorError(.invalidArgument, "exec", state.name, "\(error)", exitCode: 125)
            }
        }
        // Only a user's name is looked up in files.
        return config.user.isEmpty ? try make() : try await executor.blocking(make)
    }

    /// The process object that the running task was started with; read once, and kept from its first exec on.
    private func containerProcess() async throws -> JSON {
        if let known = startedProcess, known.incarnation == incarnation { return known.process }
        let (path, number, name) = (bundle + "/config.json", incarnation, name)
        let process = try await executor.blocking {
            guard let process = try JSON(parsing: readFile(path, limit: 16 << 20))["process"] else {
                throw SupervisorError(.internal, "exec", name, "\(path) has no process")
            }
            return process
        }
        startedProcess = (number, process)
        return process
    }

    /// The container's root is opened through its first process; that this was it and nobody who got its number is known when the process
    /// still lives after the opening.
    private static func resolve(_ user: String, in process: ProcessHandle?, _ name: String) throws -> ResolvedUser {
        let gone = SupervisorError(.failedPrecondition, "exec", name, "container \(name) is not running")
        guard let process else { throw gone }
        let root: RootFS
        do { root = try RootFS(path: "/proc/\(process.identity.pid)/root") } catch {
            if process.hasEnded { throw gone }
            throw error
        }
        if process.hasEnded { throw gone }
        return try resolveUser(user, in: root)
    }

    // MARK: watching

    /// Takes over what a shim that was just connected says of its execs, and watches those that run. Nobody else talks to it yet.
    func takeOver(_ shim: Shim) async throws {
        var processes = try await shim.processes(timeout: nil)
        // The manager that asked for them died before they ran. A client that still wants one asks again, and it is made again.
        let idle = processes.filter { $0.pid == 0 && !$0.exited && execs[$0.execID]?.launch == nil }
        for process in idle {
            // Refused when its start is under way all the same.
            do { try await shim.delete(exec: process.execID, timeout: nil) } catch let status as Status {
                logger.debug("exec not dismissed", metadata: logContext.merging(["error": "\(status.message)"]) { $1 })
            }
        }
        if !idle.isEmpty { processes = try await shim.processes(timeout: nil) }
        for process in processes where execs[process.execID]?.launch == nil { await takeOver(process) }
        let alive = Set(processes.map(\.execID))
        for exec in Array(execs.values) where exec.launch == nil && !alive.contains(exec.id) && !exec.isBeingForgotten {
            // A shim has everything that was not deleted: it was, in a call whose answer was lost.
            if !exec.hasEnded { await ended(exec, recordedExit(exec.id)) }
            forget(exec)
        }
        executor.spawn { await self.pruneExecs() }
    }

    private func takeOver(_ process: Ctr_Shim_V1_Process) async {
        if let known = execs[process.execID] {
            known.pid = process.pid
            // A new shim does not know that nobody reads.
            expectReader(known)
            return watchExec(known)
        }
        let (config, known) = await recordedExec(process)
        let exec = ExecProcess(id: process.execID, config: config, configIsKnown: known, created: process.createdAtNs)
        exec.pid = process.pid
        if process.exited { exec.exit = try? await endedExec(process.execID).map { ExitRow($0.exit) } }
        let lastStart = try? await supervisor.store.lastEvent(.execStarted, of: "\(id)/\(process.execID)")
        guard execs[process.execID] == nil else { return }
        execs[process.execID] = exec
        let missing =
            (known ? [] : [event(.execAdded, exec)]) + (lastStart == .some(nil) && !exec.hasEnded ? [event(.execStarted, exec)] : [])
        if !missing.isEmpty { await announce(missing) }
        // Wait answers at once for one that ended.
        watchExec(exec)
    }

    /// As the event of its beginning says; else what its process object and the shim tell.
    private func recordedExec(_ process: Ctr_Shim_V1_Process) async -> (config: Ctr_V1_ExecConfig, known: Bool) {
        if let payload = try? await supervisor.store.lastEvent(.execAdded, of: "\(id)/\(process.execID)"),
            let exec = try? Ctr_V1_Exec(serializedBytes: payload)
        {
            return (exec.config, true)
        }
        let path = "\(bundle)/exec/\(process.execID)/process.json"
        let document = try? await executor.blocking { try JSON(parsing: readFile(path, limit: 4 << 20)) }
        var config = Ctr_V1_ExecConfig()
        config.args = (document?["args"]?.arrayValue ?? []).compactMap(\.stringValue)
        config.cwd = document?["cwd"]?.stringValue ?? ""
        config.terminal = process.terminal
        config.openStdin = process.inputOpen
        config.attached = process.stdout == "log:attached"
        return (config, false)
    }

    /// Waits for its end, through whatever shims there will be.
    func watchExec(_ exec: ExecProcess) {
        guard exec.watch == nil, !exec.hasEnded else { return }
        expectReader(exec)
        let id = exec.id
        exec.watch = executor.spawn { await self.awaitExec(id) }
    }

    private func awaitExec(_ execID: String) async {
        while let exec = execs[execID], !exec.hasEnded, !Task.isCancelled {
            guard let connection, connection.isOpen else {
                await linkChange()
                continue
            }
            do {
                let answer = try await Shim(connection: connection, id: id).wait(exec: execID)
                guard execs[execID] === exec else { return }
                let recorded = recordedExit(execID)
                return await ended(
                    exec, recorded ?? ExitRow(code: answer.exitStatus, source: "reaped", exited: answer.exitedAt.nanoseconds))
            } catch let status as Status where status.code == .notFound {
                guard execs[execID] === exec else { return }
                return await ended(exec, recordedExit(execID))
            } catch is CancellationError {
                return
            } catch {
                // The link is about to say what became of the shim.
                if self.connection === connection { await linkChange() }
            }
        }
    }

    private func recordedExit(_ execID: String) -> ExitRow? {
        // A file in memory that was written a moment ago: another thread would cost more than it.
        guard let opened = try? Linux.open("\(bundle)/exec/\(execID)", O_RDONLY | O_DIRECTORY) else { return nil }
        return (try? ExitRecord.read(in: opened.raw)).flatMap { $0 }.map { ExitRow($0) }
    }

    /// Written down, then told.
    private func ended(_ exec: ExecProcess, _ exit: ExitRow?) async {
        guard !exec.hasEnded, execs[exec.id] === exec else { return }
        let row =
            exit
            ?? ExitRow(
                code: nil, source: "unknown", reason: "the shim that knew its end is gone", exited: now(CLOCK_REALTIME))
        var message = execMessage(exec)
        message.status = .stopped
        message.pid = 0
        message.exit = row.message
        await announce([event(.execExit, exec, message)])
        exec.exit = row
        exec.watch = nil
        exec.farewell?.cancel()
        let waiters = exec.exitWaiters
        exec.exitWaiters = [:]
        for waiter in waiters.values { waiter.resume() }
        newsOfLink()
        await pruneExecs()
    }

    /// The task's guards go: whatever execs there were have ended with it.
    func dropExecs() async {
        for exec in Array(execs.values) {
            exec.watch?.cancel()
            exec.launch?.cancel()
            if !exec.hasEnded && exec.pid != 0 { await ended(exec, recordedExit(exec.id)) }
            forget(exec)
        }
    }

    func forget(_ exec: ExecProcess) {
        guard execs[exec.id] === exec else { return }
        execs[exec.id] = nil
        exec.farewell?.cancel()
        let waiters = exec.exitWaiters
        exec.exitWaiters = [:]
        for waiter in waiters.values { waiter.resume() }
    }

    // MARK: events

    func event(_ topic: Event.Topic, _ exec: ExecProcess, _ message: Ctr_V1_Exec? = nil) -> Event {
        Event(
            namespace: namespace, topic: topic, object: "\(id)/\(exec.id)", incarnation: incarnation,
            payload: (try? (message ?? execMessage(exec)).serializedBytes()) ?? [], time: now(CLOCK_REALTIME))
    }

    func announce(_ events: [Event]) async {
        do { try await supervisor.store.commit([], events: events) } catch {
            logger.error("events not written", metadata: logContext.merging(["error": "\(error)"]) { $1 })
        }
    }

    /// How an exec ended that nobody here knows any more.
    func endedExec(_ execID: String) async throws -> Ctr_V1_Exec? {
        guard let payload = try await supervisor.store.lastEvent(.execExit, of: "\(id)/\(execID)") else { return nil }
        return try Ctr_V1_Exec(serializedBytes: payload)
    }

    func execMessage(_ exec: ExecProcess) -> Ctr_V1_Exec {
        let guards = state.task?.guards
        return exec.message(container: id, shimAnswers: guards != .unresponsive && guards != .lost)
    }
}
