import Linux

/// What the manager is about to start; written before any guard of the incarnation exists. Not synced: the row that says the same is.
public struct IntentRecord: TypedRecord {
    public static let kind = "intent"
    public static let fileName = "intent"
    public static let durable = false

    public var id: String
    public var namespace: String
    public var incarnation: UInt32
    public var bootID: String
    /// CLOCK_REALTIME, nanoseconds.
    public var created: Int64

    public init(id: String, namespace: String, incarnation: UInt32, bootID: String, created: Int64) {
        self.id = id
        self.namespace = namespace
        self.incarnation = incarnation
        self.bootID = bootID
        self.created = created
    }

    public init(fields: borrowing RecordFields) throws(RecordError) {
        id = try fields.text("id")
        namespace = try fields.text("namespace")
        incarnation = try fields.number("incarnation")
        bootID = try fields.text("boot_id")
        created = try fields.number("created_ns")
    }

    public func fill(_ record: inout Record) {
        record.set("id", id)
        record.set("namespace", namespace)
        record.set("incarnation", incarnation)
        record.set("boot_id", bootID)
        record.set("created_ns", created)
    }
}

/// How the guards of an incarnation are started; the file is `shim.env` in the bundle.
public struct StartRecord: TypedRecord {
    public static let kind = "start"
    public static let fileName = "shim.env"
    public static let durable = false
    /// Bytes after which a log segment is followed by the next one, where the record does not say.
    public static let defaultSegmentBytes: UInt64 = 16 << 20

    public enum RootfsMode: String, Sendable {
        /// The runtime gets the root file system as descriptor 3 (ctrun).
        case detached
        /// The shim mounts it at BUNDLE/rootfs in a mount namespace of its own.
        case mounted
    }

    /// Absolute path of the OCI runtime.
    public var runtime: String
    /// Its `--root`.
    public var runtimeRoot: String
    public var rootfsMode: RootfsMode
    /// Path of the socket that the shim listens on.
    public var socket: String
    /// ROOT/containers/NS/ID/N.
    public var incarnationDirectory: String
    /// Written only when it is not ``defaultSegmentBytes``.
    public var segmentBytes: UInt64
    /// Absolute path of ctr-keeper; nil: beside the shim's own program.
    public var keeper: String?
    /// Comma separated: which sources of an exit status a shim that is not init's parent may use, beside what its keeper reaped; nil: each that
    /// the host has. For proving one where the kernel has a stronger.
    public var exitSources: String?
    /// Where events go (`containerd.services.events.ttrpc.v1.Events`); nil under our own manager, which asks instead.
    public var publishAddress: String?
    /// Flags that `RUNTIME` gets before its command, and those that `create` gets, separated by spaces.
    public var runtimeFlags = ""
    public var createFlags = ""
    /// Whose the output pipes are, in the host's numbers, and the guards' directories in version 2 and in `name=systemd` ("" where the host has
    /// none): what the helper would read from config.json and mountinfo. All or none.
    public var pipeUser: UInt32?
    public var pipeGroup: UInt32?
    public var guardsUnified: String?
    public var guardsSystemd: String?
    /// So many log segments of a stream are kept; 0: all, and not written.
    public var segmentCount: UInt32 = 0

    public init(
        runtime: String, runtimeRoot: String, rootfsMode: RootfsMode, socket: String, incarnationDirectory: String,
        segmentBytes: UInt64 = defaultSegmentBytes, keeper: String? = nil, exitSources: String? = nil
    ) {
        self.runtime = runtime
        self.runtimeRoot = runtimeRoot
        self.rootfsMode = rootfsMode
        self.socket = socket
        self.incarnationDirectory = incarnationDirectory
        self.segmentBytes = segmentBytes
        self.keeper = keeper
        self.exitSources = exitSources
    }

    public init(fields: borrowing RecordFields) throws(RecordError) {
        runtime = try fields.text("runtime")
        runtimeRoot = try fields.text("runtime_root")
        guard let mode = RootfsMode(rawValue: try fields.text("rootfs_mode")) else {
            throw RecordError("read record", Self.fileName, .wrong("bad rootfs_mode"))
        }
        rootfsMode = mode
        socket = try fields.text("socket")
        incarnationDirectory = try fields.text("incarnation_dir")
        segmentBytes = try fields.optionalNumber("segment_bytes") ?? Self.defaultSegmentBytes
        segmentCount = try fields.optionalNumber("segment_count") ?? 0
        keeper = fields.optionalText("keeper")
        exitSources = fields.optionalText("exit_sources")
        publishAddress = fields.optionalText("publish_address")
        runtimeFlags = fields.optionalText("runtime_flags") ?? ""
        pipeUser = try fields.optionalNumber("pipe_user")
        pipeGroup = try fields.optionalNumber("pipe_group")
        guardsUnified = fields.optionalText("guards_unified")
        guardsSystemd = fields.optionalText("guards_systemd")
        createFlags = fields.optionalText("create_flags") ?? ""
    }

    public func fill(_ record: inout Record) {
        record.set("runtime", runtime)
        record.set("runtime_root", runtimeRoot)
        record.set("rootfs_mode", rootfsMode.rawValue)
        record.set("socket", socket)
        record.set("incarnation_dir", incarnationDirectory)
        if segmentBytes != Self.defaultSegmentBytes { record.set("segment_bytes", segmentBytes) }
        if segmentCount != 0 { record.set("segment_count", segmentCount) }
        if let keeper { record.set("keeper", keeper) }
        if let exitSources { record.set("exit_sources", exitSources) }
        if let publishAddress { record.set("publish_address", publishAddress) }
        if !runtimeFlags.isEmpty { record.set("runtime_flags", runtimeFlags) }
        record.set("pipe_user", ifPresent: pipeUser)
        record.set("pipe_group", ifPresent: pipeGroup)
        if let guardsUnified { record.set("guards_unified", guardsUnified) }
        if let guardsSystemd { record.set("guards_systemd", guardsSystemd) }
        if !createFlags.isEmpty { record.set("create_flags", createFlags) }
    }
}

/// Who guards the container.
public struct GuardsRecord: TypedRecord {
    public static let kind = "guards"
    public static let fileName = "guards"
    public static let durable = false

    public var keeper: ProcessIdentity
    public var bootID: String
    /// Inode numbers of the container's output pipes: by them they are found again among its descriptors when both guards are gone.
    public var stdoutPipe: UInt64?
    public var stderrPipe: UInt64?
    /// These guards took over a container whose keeper and shim were both gone; nil for the first ones.
    public var regained: Regained?

    /// What became of the output streams, by their names, comma separated.
    public struct Regained: Equatable, Sendable {
        /// The pipe was found again; what was written in between may be missing.
        public var streams: String
        /// Nobody held the pipe any more, or it was a terminal's: the stream has ended.
        public var lost: String

        public init(streams: String, lost: String) {
            self.streams = streams
            self.lost = lost
        }
    }

    public init(
        keeper: ProcessIdentity, bootID: String, stdoutPipe: UInt64? = nil, stderrPipe: UInt64? = nil, regained: Regained? = nil
    ) {
        self.keeper = keeper
        self.bootID = bootID
        self.stdoutPipe = stdoutPipe
        self.stderrPipe = stderrPipe
        self.regained = regained
    }

    public init(fields: borrowing RecordFields) throws(RecordError) {
        keeper = ProcessIdentity(pid: try fields.number("keeper_pid"), startTime: try fields.number("keeper_start"))
        bootID = try fields.text("boot_id")
        stdoutPipe = try fields.optionalNumber("stdout_pipe")
        stderrPipe = try fields.optionalNumber("stderr_pipe")
        regained = fields.optionalText("regained").map { Regained(streams: $0, lost: fields.optionalText("lost") ?? "") }
    }

    public func fill(_ record: inout Record) {
        record.set("keeper_pid", keeper.pid)
        record.set("keeper_start", keeper.startTime)
        record.set("boot_id", bootID)
        record.set("stdout_pipe", ifPresent: stdoutPipe)
        record.set("stderr_pipe", ifPresent: stderrPipe)
        if let regained {
            record.set("regained", regained.streams)
            record.set("lost", regained.lost)
        }
    }
}

/// The container's init: written before Create is answered, and again before the runtime is told to start it.
public struct PidRecord: TypedRecord {
    public static let kind = "pid"
    public static let fileName = "pid"
    public static let durable = false

    public var process: ProcessIdentity
    public var bootID: String
    /// CLOCK_REALTIME, nanoseconds.
    public var created: Int64
    /// CLOCK_REALTIME, nanoseconds; nil until Start.
    public var started: Int64?
    /// The container's control group as the kernel names it, "/ctrd/default/c1"; nil where it is in none of its own.
    public var cgroup: String?
    /// Where the standard streams go, as Create named them; empty: the default.
    public var terminal = false
    public var stdin = ""
    public var stdout = ""
    public var stderr = ""

    public init(process: ProcessIdentity, bootID: String, created: Int64, started: Int64? = nil, cgroup: String? = nil) {
        self.process = process
        self.bootID = bootID
        self.created = created
        self.started = started
        self.cgroup = cgroup
    }

    public init(fields: borrowing RecordFields) throws(RecordError) {
        process = ProcessIdentity(pid: try fields.number("pid"), startTime: try fields.number("start_time"))
        bootID = try fields.text("boot_id")
        created = try fields.number("created_ns")
        started = try fields.flag("started") ? try fields.number("started_ns") as Int64 : nil
        cgroup = fields.optionalText("cgroup")
        terminal = fields.optionalText("terminal") == "1"
        stdin = fields.optionalText("stdin") ?? ""
        stdout = fields.optionalText("stdout") ?? ""
        stderr = fields.optionalText("stderr") ?? ""
    }

    public func fill(_ record: inout Record) {
        record.set("pid", process.pid)
        record.set("start_time", process.startTime)
        record.set("boot_id", bootID)
        record.set("created_ns", created)
        record.set("started", started != nil)
        record.set("started_ns", started ?? 0)
        if let cgroup { record.set("cgroup", cgroup) }
        if terminal { record.set("terminal", true) }
        for (key, name) in [("stdin", stdin), ("stdout", stdout), ("stderr", stderr)] where !name.isEmpty { record.set(key, name) }
    }
}
