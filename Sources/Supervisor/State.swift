import CtrProto
import Store
import SwiftProtobuf

extension TaskPhase {
    /// What may follow what; a change that is not here is a defect, and refused.
    static let successors: [TaskPhase: Set<TaskPhase>] = [
        .starting: [.running, .paused, .stopped, .unknown],
        .running: [.paused, .stopped, .unknown],
        .paused: [.running, .stopped, .unknown],
        // The end of a task is its end: the next start is another incarnation.
        .stopped: [],
        // Nothing proved an end; a late proof, such as an exit record that turns up, is still welcome.
        .unknown: [.stopped],
    ]

    public func canBecome(_ next: TaskPhase) -> Bool { Self.successors[self]?.contains(next) ?? false }

    /// Whether the task has ended as far as anyone can find out.
    public var hasEnded: Bool { self == .stopped || self == .unknown }
}

/// The latest task of a container, as clients see it.
public struct TaskState: Equatable, Sendable {
    public var row: TaskRow
    /// Proved since this manager started; until then clients are told that it is unknown.
    public var proved: Bool
    public var guards: Ctr_V1_Guards
    public var shimPID: UInt32 = 0
    public var keeperPID: UInt32 = 0
    /// What the shim said of itself when it was last asked.
    var shim = ShimInfo()
    /// What the manager could not find out, beside `row.error`.
    public var note = ""

    public init(row: TaskRow, proved: Bool, guards: Ctr_V1_Guards = .none) {
        self.row = row
        self.proved = proved
        self.guards = guards
    }

    public var status: Ctr_V1_TaskStatus {
        guard proved || row.phase.hasEnded else { return .unknown }
        switch row.phase {
        case .starting: return .created
        case .running: return .running
        case .paused: return .paused
        case .stopped: return .stopped
        case .unknown: return .unknown
        }
    }
}

/// A container and its latest task, as clients see it. A value: whoever holds one waits for nobody.
public struct ContainerState: Equatable, Sendable {
    public var row: ContainerRow
    /// Decoded from `row.record`; without a task.
    public var container: Ctr_V1_Container
    public var task: TaskState?
    /// Order of creation.
    public var created: Int64
    /// Written to the database: before that it reserves its id and name and is not listed.
    var visible = false

    public init(row: ContainerRow, container: Ctr_V1_Container, task: TaskState?) {
        self.row = row
        self.container = container
        self.task = task
        created = container.createdAt.nanoseconds
    }

    public var id: String { row.id }
    public var namespace: String { row.namespace }
    public var name: String { row.name }
    /// 12 digits, as they are shown.
    public var shortID: String { String(row.id.prefix(12)) }

    public var message: Ctr_V1_Container {
        var message = container
        if let task = taskMessage { message.task = task }
        return message
    }

    public var taskMessage: Ctr_V1_Task? {
        guard let task else { return nil }
        var message = Ctr_V1_Task()
        message.containerID = id
        message.containerName = name
        message.image = container.image
        message.incarnation = task.row.incarnation
        message.status = task.status
        message.pid = task.row.phase.hasEnded ? 0 : UInt32(clamping: task.row.pid)
        message.startTime = task.row.phase.hasEnded ? 0 : task.row.startTime
        if task.row.started != 0 { message.startedAt = task.row.started.timestamp }
        if let exit = task.row.exit { message.exit = exit.message }
        message.guards = task.guards
        message.shimPid = task.shimPID
        message.limitsOfGuards = ForeignRuntime(container.config.runtime)?.limits ?? []
        message.keeperPid = task.keeperPID
        if message.guards != .none { message.shimVersion = task.shim.version }
        message.error = task.row.error.isEmpty ? task.note : task.row.error
        return message
    }
}

extension ExitRow {
    init(_ message: Ctr_V1_Exit) {
        self.init(
            code: message.source == "unknown" ? nil : message.code, source: message.source, reason: message.reason,
            exited: message.hasExitedAt ? message.exitedAt.nanoseconds : 0, oomKilled: message.oomKilled)
    }

    var message: Ctr_V1_Exit {
        var message = Ctr_V1_Exit()
        message.code = code ?? 0
        message.source = source
        message.reason = reason
        if exited != 0 { message.exitedAt = exited.timestamp }
        message.oomKilled = oomKilled
        return message
    }
}
