import CtrProto
import Glibc
import Linux
import LogDrivers
import Logging
import NIOCore
import OCI
import Store
import SwiftProtobuf
import TTRPC

/// One container: its state, its shim's connection, and the operations on it, one after another. Nothing here is shared with another
/// container, so a shim that hangs delays nobody else.
///
/// Every change of state is written with its event before anybody sees it (``move(to:topic:_:)``); what clients read is in the
/// ``Registry``, so they never wait for this actor.
actor Instance {
    /// What an operation is; one that is asked for again joins the one that runs.
    enum Operation: Equatable {
        case create, adopt, start, delete(force: Bool), deleteTask(force: Bool), pause, resume, update, guards
    }

    nonisolated let id: String
    nonisolated let namespace: String
    nonisolated let supervisor: Supervisor

    /// The newest truth, ahead of the registry while a commit is on its way.
    var state: ContainerState
    private var revision = 0
    private var shownRevision = 0

    private var operations: [(number: Int, kind: Operation, task: Task<Void, any Error>)] = []
    private var operationNumber = 0

    /// The link to the guards of the current incarnation, and what waits for news of it.
    var link: Task<Void, Never>?
    var connection: ShimConnection?
    var linkWaiters: [Waiter] = []
    /// What the log driver makes of the output, where it makes anything, and its work while it is at it.
    var logDriver: LogDriver?
    var logDriverTask: Task<Void, Never>?
    /// Open from the moment the task runs: with them the end of a process is seen, and what the kernel still knows of it.
    var initProcess: ProcessHandle?
    var initWatch: UInt64?
    var keeper: ProcessHandle?
    var keeperEnded = false
    var shimIdentity: ProcessIdentity?
    /// How often both guards were lost, and when new ones were made without being asked.
    var guardLosses = 0
    var regains: [NIODeadline] = []
    var foreignShim: ForeignShim?
    /// A shim of others is asked how its task is, and has sent a hint since.
    var isLooking = false
    var looksAgain = false
    /// What execs take over from the container's own process.
    var startedProcess: (incarnation: UInt32, process: JSON)?
    /// Every exec that was not forgotten, by id.
    var execs: [String: ExecProcess] = [:]

    var exitWaiters: [UInt64: Waiter] = [:]
    private var nextKey: UInt64 = 0
    /// Connections that read this container's output.
    var readers = 0
    var removalTimer: Scheduled<Void>?
    /// A client that started the latest task said that it will read its output and then delete an `auto_remove` container itself.
    var startedAttached = false
    /// Who reads the output of a container that keeps none, and how far each is in the index.
    var attachedReaders: [UInt64: UInt64] = [:]
    var attachedFarewell: Scheduled<Void>?
    /// A start is under way and decides itself what the loss of its guards means.
    var launching = false
    /// This manager finished a start that an earlier one was asked for.
    var startCarriedOn = false

    init(state: ContainerState, supervisor: Supervisor) {
        id = state.id
        namespace = state.namespace
        self.state = state
        self.supervisor = supervisor
    }

    nonisolated var configuration: Configuration { supervisor.configuration }
    nonisolated var executor: Executor { supervisor.executor }
    nonisolated var logger: Logger { supervisor.logger }
    nonisolated var logContext: Logger.Metadata { ["container": "\(id.prefix(12))", "namespace": "\(namespace)"] }
    var name: String { state.name }
    var bundle: String { configuration.bundle(namespace, id) }
    var incarnation: UInt32 { state.task?.row.incarnation ?? 0 }
    var socketPath: String { configuration.socket(namespace, id, incarnation) }
    var incarnationDirectory: String { configuration.incarnationDirectory(namespace, id, incarnation) }
    var runtime: String { state.container.config.runtime.isEmpty ? configuration.runtime : state.container.config.runtime }
    var shimInfo: ShimInfo { state.task?.shim ?? ShimInfo() }
    /// Drives the shim of the current incarnation when it is another's.
    var foreign: ForeignShim? {
        guard let runtime = ForeignRuntime(runtime), incarnation > 0 else { return nil }
        if let known = foreignShim, known.incarnation == incarnation { return known }
        foreignShim?.close()
        let made = ForeignShim(runtime, supervisor: supervisor, namespace: namespace, id: id, incarnation: incarnation)
        foreignShim = made
        return made
    }
    /// Connects to the shim, whoever's it is.
    func dialShim() async throws -> ShimConnection {
        if let foreign { return try await foreign.dial() }
        return try await ShimConnection.dial(socketPath, executor: executor)
    }
    var usesOwnRuntime: Bool { runtime == configuration.runtime }

    // MARK: operations

    /// Carries out `body` after the operations before it. The same operation asked for again, while it is the last in the queue, is joined.
    /// Whoever stops waiting stops nothing.
    func perform(_ kind: Operation, _ body: @escaping @Sendable (isolated Instance) async throws -> Void) async throws {
        if let last = operations.last, last.kind == kind { return try await last.task.value }
        try await enqueue(kind, body).value
    }

    /// The same without waiting.
    @discardableResult
    func enqueue(_ kind: Operation, _ body: @escaping @Sendable (isolated Instance) async throws -> Void) -> Task<Void, any Error> {
        let previous = operations.last?.task
        operationNumber += 1
        let number = operationNumber
        let task = executor.spawnThrowing {
            _ = await previous?.result
            do {
                try await body(self)
                await self.finished(number)
            } catch {
                await self.finished(number)
                throw error
            }
        }
        operations.append((number, kind, task))
        return task
    }

    var isIdle: Bool { operations.isEmpty }

    /// One who is about to wait, and its number among them.
    func newWaiter() -> (UInt64, Waiter) { (newKey(), Waiter(on: executor.loop)) }

    func newKey() -> UInt64 {
        nextKey += 1
        return nextKey
    }

    private func finished(_ number: Int) { operations.removeAll { $0.number == number } }

    /// Returns when the operation that makes the container, or that finds it again, has ended.
    func settled() async throws {
        for operation in operations where operation.kind == .create || operation.kind == .adopt { try await operation.task.value }
    }

    // MARK: state

    /// Writes the task's change with its event as one transaction, then shows it. An illegal change is refused: it was overtaken.
    /// A database that cannot be written is no reason to forget what happened: it is shown, logged, and found again by the next start.
    @discardableResult
    func move(
        to phase: TaskPhase, topic: Event.Topic, before: [Event.Topic] = [], changes: [Change] = [], _ change: (inout TaskState) -> Void
    ) async -> Bool {
        guard var task = state.task, task.row.phase.canBecome(phase) || (task.row.phase == phase && !task.proved) else { return false }
        task.row.phase = phase
        task.proved = true
        change(&task)
        state.task = task
        await write([.putTask(task.row)] + changes, topic, before: before)
        return true
    }

    /// Writes `changes` with an event of the state as it is now, then shows that state; `before` are events of the same change that come first.
    func write(_ changes: [Change], _ topic: Event.Topic, before: [Event.Topic] = []) async {
        do { try await commit(changes, topic, before: before) } catch {
            logger.error("state not written", metadata: logContext.merging(["error": "\(error)", "event": "\(topic.rawValue)"]) { $1 })
        }
    }

    /// The same for changes that must be on the disk before the work begins.
    func commit(_ changes: [Change], _ topic: Event.Topic, before: [Event.Topic] = []) async throws {
        revision += 1
        let number = revision
        let snapshot = state
        let events = (before + [topic]).map { event($0, snapshot) }
        defer { show(snapshot, number) }
        try await supervisor.store.commit(changes, events: events)
    }

    /// Later snapshots may have overtaken this one; what no row holds (guards, notes) is always the newest.
    private func show(_ snapshot: ContainerState, _ number: Int) {
        guard number > shownRevision else { return }
        shownRevision = number
        var shown = snapshot
        if let newest = state.task, newest.row.incarnation == snapshot.task?.row.incarnation {
            shown.task = newest
            if let row = snapshot.task?.row { shown.task?.row = row }
        }
        shown.visible = true
        let result = shown
        supervisor.registry.update(id) { $0 = result }
    }

    /// Changes what no row holds, and shows it.
    func note(_ change: (inout TaskState) -> Void) {
        guard var task = state.task else { return }
        change(&task)
        state.task = task
        let newest = task
        supervisor.registry.update(id) { shown in
            guard var task = shown.task, task.row.incarnation == newest.row.incarnation else { return }
            task.guards = newest.guards
            task.proved = newest.proved
            task.shimPID = newest.shimPID
            task.keeperPID = newest.keeperPID
            task.shim = newest.shim
            task.note = newest.note
            shown.task = task
        }
    }

    func event(_ topic: Event.Topic, _ state: ContainerState) -> Event {
        let payload: [UInt8]
        switch topic {
        case .containerCreate, .containerDelete, .taskUpdate: payload = (try? state.message.serializedBytes()) ?? []
        default: payload = (try? (state.taskMessage ?? Ctr_V1_Task()).serializedBytes()) ?? []
        }
        return Event(
            namespace: namespace, topic: topic, object: id, incarnation: state.task?.row.incarnation ?? 0, payload: payload,
            time: now(CLOCK_REALTIME))
    }

    func fail(_ code: StatusCode, _ operation: String, _ message: String, exitCode: UInt32 = 1) -> SupervisorError {
        SupervisorError(code, operation, name, message, exitCode: exitCode)
    }
}
