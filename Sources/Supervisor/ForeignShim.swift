import CtrProto
import Glibc
import Linux
import NIOCore
import Records
import SwiftProtobuf
import Synchronization
import TTRPC

/// Drives the shim of others that guards one incarnation, so that nobody else has to know: it takes the calls that are made for our own shim,
/// asks the shim for what every shim does, and does itself what only ours does. Whatever it has to remember is in records in the bundle, where the
/// next manager finds it.
final class ForeignShim: Sendable {
    /// How long output that the shim copies is waited for after the end.
    private static let drainTime = TimeAmount.seconds(2)

    let supervisor: Supervisor
    let namespace: String
    let id: String
    let incarnation: UInt32
    let runtime: ForeignRuntime
    private let state = Mutex(State())

    struct State {
        var begun = false
        /// "containerd.task.v2.Task" or v3, once it is known.
        var service: String?
        var inputs: [String: ForeignInput] = [:]
        /// Watches of loggers, by their directory.
        var loggers: [String: UInt64] = [:]
        var messages: ForeignMessages?
        var isClosed = false
    }

    init(_ runtime: ForeignRuntime, supervisor: Supervisor, namespace: String, id: String, incarnation: UInt32) {
        self.runtime = runtime
        self.supervisor = supervisor
        self.namespace = namespace
        self.id = id
        self.incarnation = incarnation
    }

    var configuration: Configuration { supervisor.configuration }
    var executor: Executor { supervisor.executor }
    var bundle: String { configuration.bundle(namespace, id) }
    var records: String { configuration.incarnationDirectory(namespace, id, incarnation) }
    func directory(of exec: String) -> String { "\(bundle)/exec/\(exec)" }
    func log(of exec: String) -> String { exec.isEmpty ? records + "/log" : directory(of: exec) + "/log" }

    // MARK: the link

    /// Connects by the recorded address. `refused` when nobody listens there, or no shim was started for this incarnation.
    func dial() async throws -> ShimConnection {
        let bundle = bundle
        let found = try await executor.blocking { ForeignRecord.read(bundle: bundle) }
        guard let record = found, record.incarnation == incarnation, let socket = record.socket else { throw ShimError.refused }
        begin()
        return try await ShimConnection.dial(socket, executor: executor, foreign: self)
    }

    /// Takes up what a manager does beside its calls: it reads the shim's messages and watches over the loggers. Once.
    private func begin() {
        let first = state.withLock { state in
            defer { state.begun = true }
            return !state.begun && !state.isClosed
        }
        guard first else { return }
        let messages = ForeignStart(configuration: configuration, namespace: namespace, id: id).messages(of: runtime, supervisor)
        let isLate = state.withLock { state in
            if state.isClosed { return true }
            state.messages = messages
            return false
        }
        if isLate { return messages.close() }
        executor.spawn { [self] in
            let execs = (try? await executor.blocking { [self] in execNames() }) ?? []
            for exec in [""] + execs { await watchLogger(of: exec) }
        }
    }

    /// Lets go of everything; the records stay.
    func close() {
        let old = state.withLock { state in
            defer { (state.inputs, state.loggers, state.messages, state.isClosed) = ([:], [:], nil, true) }
            return state
        }
        old.messages?.close()
        for key in old.loggers.values { supervisor.watcher.cancel(key) }
        for input in old.inputs.values { executor.spawn { await input.shut() } }
    }

    // MARK: calls

    /// A call as our own shim takes it.
    func call<Response: Message>(
        _ connection: ShimConnection, _ service: String, _ method: String, _ request: some Message, timeout: TimeAmount?
    ) async throws -> Response {
        let answer: any Message
        switch (service == Shim.guardService, request) {
        case (true, _): answer = try await guardCall(connection, method, request, timeout)
        case (_, let request as Containerd_Task_V2_CreateTaskRequest): answer = try await create(connection, request, timeout)
        case (_, let request as Containerd_Task_V2_StartRequest): answer = try await start(connection, request, timeout)
        case (_, let request as Containerd_Task_V2_WaitRequest): answer = try await wait(connection, request)
        case (_, let request as Containerd_Task_V2_ExecProcessRequest): answer = try await exec(connection, request, timeout)
        case (_, let request as Containerd_Task_V2_DeleteRequest): answer = try await delete(connection, request, timeout)
        default: return try await task(connection, method, request, timeout)
        }
        guard let typed = answer as? Response else { throw Status(.internal, "no such answer to \(method)") }
        return typed
    }

    /// A call of the task service as the shim has it.
    func task<Response: Message>(
        _ connection: ShimConnection, _ method: String, _ request: some Message, _ timeout: TimeAmount?
    ) async throws -> Response {
        let service = try await service(connection)
        do { return try await connection.send(service, method, request, timeout: timeout) } catch let status as Status
            where status.code == .unimplemented
        {
            throw Status(.failedPrecondition, "\(runtime.file) has no \(method): \(status.message)")
        }
    }

    /// Which version of the task service it speaks: what it says, unless it does not know that.
    private func service(_ connection: ShimConnection) async throws -> String {
        if let known = state.withLock({ $0.service }) { return known }
        let bundle = bundle
        guard var record = try await executor.blocking({ ForeignRecord.read(bundle: bundle) }) else { throw ShimError.refused }
        var request = Containerd_Task_V2_ConnectRequest()
        request.id = id
        for version in [record.version, record.version == 3 ? 2 : 3] {
            let name = "containerd.task.v\(version).Task"
            do {
                let _: Containerd_Task_V2_ConnectResponse = try await connection.send(name, "Connect", request, timeout: .seconds(10))
            } catch let status as Status where status.code == .unimplemented {
                continue
            } catch is Status {}  // It knows the service, and not the container.
            if record.version != version {
                record.version = version
                let changed = record
                try await executor.blocking {
                    let opened = try Linux.open(bundle, O_RDONLY | O_DIRECTORY)
                    try changed.write(in: opened.raw)
                }
            }
            state.withLock { $0.service = name }
            return name
        }
        throw Status(.failedPrecondition, "\(runtime.file) has neither version 2 nor version 3 of the task service")
    }

    // MARK: the container's first process

    private func create(
        _ connection: ShimConnection, _ original: Containerd_Task_V2_CreateTaskRequest, _ timeout: TimeAmount?
    ) async throws -> Containerd_Task_V2_CreateTaskResponse {
        var request = original
        let output = request.stdout.isEmpty ? "log:" : request.stdout
        let streams = try await prepare("", ShimStreams(terminal: request.terminal, stdin: request.stdin, stdout: output, stderr: output))
        (request.stdin, request.stdout, request.stderr) = (streams.stdin, streams.stdout, streams.stderr)
        if runtime.isRunc {
            var options = Containerd_Runc_V1_Options()
            // It adds the namespace itself: then this is where our own runtime's state is.
            options.root = configuration.state + "/runtime"
            request.options.typeURL = "containerd.runc.v1.Options"
            request.options.value.append(contentsOf: try options.serializedBytes() as [UInt8])
        }
        let answer: Containerd_Task_V2_CreateTaskResponse = try await task(connection, "Create", request, timeout)
        try await recordProcess("", pid: answer.pid, started: false)
        await watchLogger(of: "")
        return answer
    }

    private func start(
        _ connection: ShimConnection, _ request: Containerd_Task_V2_StartRequest, _ timeout: TimeAmount?
    ) async throws -> Containerd_Task_V2_StartResponse {
        if request.execID.isEmpty { try await recordStart() }
        let answer: Containerd_Task_V2_StartResponse = try await task(connection, "Start", request, timeout)
        if !request.execID.isEmpty {
            try await recordProcess(request.execID, pid: answer.pid, started: true)
            await watchLogger(of: request.execID)
        }
        return answer
    }

    /// The shim reaped it; it is written down before anybody is told.
    private func wait(_ connection: ShimConnection, _ request: Containerd_Task_V2_WaitRequest) async throws
        -> Containerd_Task_V2_WaitResponse
    {
        let answer: Containerd_Task_V2_WaitResponse = try await task(connection, "Wait", request, nil)
        let exec = request.execID
        forgetInput(of: exec)
        do {
            try await executor.blocking { [self] in
                let pids = try Linux.open(exec.isEmpty ? bundle : directory(of: exec), O_RDONLY | O_DIRECTORY)
                let exits = try Linux.open(exec.isEmpty ? records : directory(of: exec), O_RDONLY | O_DIRECTORY)
                guard try ExitRecord.read(in: exits.raw) == nil, let process = try PidRecord.read(in: pids.raw)?.process else { return }
                let group = exec.isEmpty ? try? trackedCgroup() : nil
                try ExitRecord(process: process, status: answer.exitStatus, exitedAt: answer.exitedAt.nanoseconds, cgroup: group)?
                    .write(in: exits.raw)
            }
        } catch let error as SysError where error.code == ENOENT {
            throw Status(.notFound, "the process was deleted meanwhile")
        }
        // A logger's pipes the shim keeps open until Delete, so their end never comes by itself. With the first process its namespace has ended, and
        // all that anybody wrote is in them. What the shim itself copies, from a terminal or into FIFOs, may still be under way; then it closes.
        if try await isCopied(exec) {
            _ = executor.loop.scheduleTask(in: Self.drainTime) { [self] in
                _ = executor.spawn { await self.endLogger(of: exec) }
            }
        } else {
            await endLogger(of: exec)
        }
        return answer
    }

    /// Whether a process's output passes through the shim.
    private func isCopied(_ exec: String) async throws -> Bool {
        if exec.isEmpty {
            let config = supervisor.registry.state(id)?.container.config
            return config?.terminal == true || config?.openStdin == true
        }
        let home = directory(of: exec)
        return try await executor.blocking {
            let opened = try Linux.open(home, O_RDONLY | O_DIRECTORY)
            guard let record = try ExecRecord.read(in: opened.raw) else { return false }
            return record.terminal || !record.stdin.isEmpty
        }
    }

    /// The container's control group as far as its runtime made it: not each puts it into version 2 on a host with both.
    func trackedCgroup() throws(SysError) -> ContainerCgroup {
        let group = try ContainerCgroup(configuration.cgroupPath(namespace, id), in: supervisor.host.cgroups)
        let tracked = group.unified.map { access($0, F_OK) == 0 } ?? false
        return tracked ? group : ContainerCgroup(v1: group.v1, unified: nil)
    }

    // MARK: records

    private func recordProcess(_ exec: String, pid: UInt32, started: Bool) async throws {
        let (path, boot) = (exec.isEmpty ? bundle : directory(of: exec), supervisor.host.bootID)
        let group = configuration.cgroupPath(namespace, id)
        try await executor.blocking {
            // One that has ended already has no identity; its Wait tells.
            guard let identity = try? ProcessIdentity(current: Int32(clamping: pid)) else { return }
            let opened = try Linux.open(path, O_RDONLY | O_DIRECTORY)
            let time = now(CLOCK_REALTIME)
            try PidRecord(process: identity, bootID: boot, created: time, started: started ? time : nil, cgroup: group).write(
                in: opened.raw)
        }
    }

    private func recordStart() async throws {
        let bundle = bundle
        try await executor.blocking {
            let opened = try Linux.open(bundle, O_RDONLY | O_DIRECTORY)
            guard var record = try PidRecord.read(in: opened.raw) else { return }
            record.started = now(CLOCK_REALTIME)
            try record.write(in: opened.raw)
        }
    }

    // MARK: logs

    /// Waits until the log is longer than `indexSize` or nothing will be added to it: also when the shim is gone, whose logger lives on. nil when
    /// there is no log yet. At `until` (CLOCK_REALTIME, nanoseconds) it is over.
    func waitLog(exec: String, indexSize: UInt64, until: Int64? = nil) async throws -> (indexSize: UInt64, ended: Bool)? {
        let directory = log(of: exec)
        let alarm = until.map { until in
            executor.loop.scheduleTask(in: .nanoseconds(max(until - now(CLOCK_REALTIME), 0))) { [supervisor] in
                supervisor.logWatch.poke(directory)
            }
        }
        defer { alarm?.cancel() }
        guard let news = try? supervisor.logWatch.subscribe(directory) else { return nil }
        try await acknowledge(exec, indexSize)
        while true {
            let generation = news.generation
            let size = try await executor.blocking { ForeignLog.indexSize(directory) }
            if let size, size > indexSize { return (size, false) }
            if supervisor.registry.state(id)?.task?.row.phase.hasEnded != false {
                let begun = try await executor.blocking { ForeignLog.hasBegun(directory) }
                if !begun { return (indexSize, true) }
            }
            if let until, until <= now(CLOCK_REALTIME) { return (indexSize, true) }
            try await news.change(after: generation)
        }
    }

    /// Sees the end of a logger: what it did not end is ended here.
    private func watchLogger(of exec: String) async {
        let directory = log(of: exec)
        let known = state.withLock { $0.isClosed || $0.loggers[directory] != nil }
        if known { return }
        let logger = try? await executor.blocking { ForeignLog.logger(directory) }
        guard let identity = logger ?? nil, let handle = try? ProcessHandle(identity) else { return await completeLog(directory) }
        let key = try? supervisor.watcher.watch(handle) { [self] in
            executor.spawn { await self.completeLog(directory) }
        }
        guard let key else { return }
        let isLate = state.withLock { state in
            if state.isClosed || state.loggers[directory] != nil { return true }
            state.loggers[directory] = key
            return false
        }
        if isLate { supervisor.watcher.cancel(key) }
    }

    private func completeLog(_ directory: String) async {
        do { try await executor.blocking { try ForeignLog.complete(directory) } } catch {
            supervisor.logger.warning("log not ended", metadata: ["container": "\(id.prefix(12))", "error": "\(error)"])
        }
        supervisor.logWatch.poke(directory)
    }

    /// The logger takes what is there and ends.
    private func endLogger(of exec: String) async {
        let directory = log(of: exec)
        let logger = try? await executor.blocking { ForeignLog.logger(directory) }
        if let identity = logger ?? nil, let handle = try? ProcessHandle(identity) { try? handle.signal(SIGTERM) }
        supervisor.logWatch.poke(directory)
    }

    // MARK: input

    func input(of exec: String) -> ForeignInput {
        state.withLock { state in
            if let known = state.inputs[exec] { return known }
            let made = ForeignInput(directory: exec.isEmpty ? bundle : directory(of: exec), executor: executor)
            if state.isClosed { executor.spawn { await made.shut() } } else { state.inputs[exec] = made }
            return made
        }
    }

    func forgetInput(of exec: String) {
        let input = state.withLock { $0.inputs.removeValue(forKey: exec) }
        if let input { executor.spawn { await input.shut() } }
    }
}
