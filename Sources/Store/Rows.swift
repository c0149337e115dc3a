/// What is known of a container that has no task, or of one whatever its task does.
public enum ContainerPhase: String, Equatable, Sendable {
    /// Its row exists and its first task is still to be tried: interrupted here, the next start of the manager goes on.
    case creating
    case created
    /// Being deleted: its row is the last thing to go, and whoever finds it goes on deleting.
    case removing
}

/// One row of `containers`.
public struct ContainerRow: Equatable, Sendable {
    /// 64 lower-case hex digits.
    public var id: String
    public var namespace: String
    public var name: String
    public var phase: ContainerPhase
    /// Digest of the image's manifest, so that an image in use is found without opening records.
    public var imageID: String
    /// The container as ctr.v1.Container, without its task.
    public var record: [UInt8]
    /// As the client asked for it, so that the same request is known when it comes again.
    public var startNow: Bool
    public var attached: Bool
    /// The manager chose the name.
    public var inventedName: Bool

    public init(
        id: String, namespace: String, name: String, phase: ContainerPhase, imageID: String, record: [UInt8], startNow: Bool,
        attached: Bool, inventedName: Bool
    ) {
        self.id = id
        self.namespace = namespace
        self.name = name
        self.phase = phase
        self.imageID = imageID
        self.record = record
        self.startNow = startNow
        self.attached = attached
        self.inventedName = inventedName
    }
}

/// Where a task is; which change may follow which is `TaskPhase.successors` in Supervisor.
public enum TaskPhase: String, Equatable, Sendable, CaseIterable {
    case starting, running, paused, stopped, unknown
}

/// How a task ended.
public struct ExitRow: Equatable, Sendable {
    /// 0–255; nil when nobody can know it, and then `reason` says why.
    public var code: UInt32?
    public var source: String
    public var reason: String
    /// CLOCK_REALTIME, nanoseconds; 0 when not known.
    public var exited: Int64
    public var oomKilled: Bool

    public init(code: UInt32?, source: String, reason: String = "", exited: Int64, oomKilled: Bool = false) {
        self.code = code
        self.source = source
        self.reason = reason
        self.exited = exited
        self.oomKilled = oomKilled
    }
}

/// One row of `tasks`: an incarnation of a container.
public struct TaskRow: Equatable, Sendable {
    public var container: String
    public var incarnation: UInt32
    public var phase: TaskPhase
    public var pid: Int32
    /// Clock ticks since boot, field 22 of /proc/PID/stat.
    public var startTime: UInt64
    public var bootID: String
    /// CLOCK_REALTIME, nanoseconds; 0 before it ran.
    public var started: Int64
    public var exit: ExitRow?
    public var error: String

    public init(
        container: String, incarnation: UInt32, phase: TaskPhase, pid: Int32 = 0, startTime: UInt64 = 0, bootID: String, started: Int64 = 0,
        exit: ExitRow? = nil, error: String = ""
    ) {
        self.container = container
        self.incarnation = incarnation
        self.phase = phase
        self.pid = pid
        self.startTime = startTime
        self.bootID = bootID
        self.started = started
        self.exit = exit
        self.error = error
    }
}

/// One row of `image_names`.
public struct ImageNameRow: Equatable, Sendable {
    public var namespace: String
    /// The normalised reference; an image imported without a name has its digest here.
    public var name: String
    /// Digest of the manifest.
    public var manifest: String
    /// CLOCK_REALTIME, nanoseconds.
    public var imported: Int64

    public init(namespace: String, name: String, manifest: String, imported: Int64) {
        self.namespace = namespace
        self.name = name
        self.manifest = manifest
        self.imported = imported
    }
}

/// One row of `events`: what changed, told once, in the order of `sequence`.
public struct Event: Equatable, Sendable {
    public enum Topic: String, Equatable, Sendable {
        case containerCreate = "/containers/create"
        case containerDelete = "/containers/delete"
        case taskCreate = "/tasks/create"
        case taskStart = "/tasks/start"
        case taskFailed = "/tasks/failed"
        case taskExit = "/tasks/exit"
        case taskPaused = "/tasks/paused"
        case taskResumed = "/tasks/resumed"
        case taskLost = "/tasks/lost"
        case taskGuarded = "/tasks/guarded"
        case taskUpdate = "/tasks/update"
        case taskOOM = "/tasks/oom"
        case execAdded = "/tasks/exec-added"
        case execStarted = "/tasks/exec-started"
        case execExit = "/tasks/exec-exit"
        case imageCreate = "/images/create"
        case imageDelete = "/images/delete"
    }

    public var namespace: String
    public var topic: Topic
    /// The container's id, the image's name, or of an exec "<container id>/<exec id>".
    public var object: String
    public var incarnation: UInt32
    /// ctr.v1.Container for `/containers/…` and `/tasks/update`, ctr.v1.Exec for `/tasks/exec-…`, ctr.v1.Task for the other `/tasks/…`, empty
    /// for images.
    public var payload: [UInt8]
    /// CLOCK_REALTIME, nanoseconds.
    public var time: Int64

    public init(namespace: String, topic: Topic, object: String, incarnation: UInt32 = 0, payload: [UInt8] = [], time: Int64) {
        self.namespace = namespace
        self.topic = topic
        self.object = object
        self.incarnation = incarnation
        self.payload = payload
        self.time = time
    }
}

/// One step of a transaction.
public enum Change: Equatable, Sendable {
    case insertContainer(ContainerRow)
    case setPhase(id: String, ContainerPhase)
    /// Replaces what the container is: ctr.v1.Container without its task.
    case setRecord(id: String, [UInt8])
    /// Removes the container's row and those of all its tasks.
    case deleteContainer(id: String)
    /// Inserts or replaces the row of (container, incarnation).
    case putTask(TaskRow)
    case deleteTask(container: String, incarnation: UInt32)
    case putImageName(ImageNameRow)
    case deleteImageName(namespace: String, name: String)
}

/// Everything that the manager keeps in memory, as it was at the start.
public struct StoreContents: Equatable, Sendable {
    public var containers: [ContainerRow] = []
    /// The latest task of each container, by container id.
    public var tasks: [String: TaskRow] = [:]
    public var imageNames: [ImageNameRow] = []
    public init() {}
}
