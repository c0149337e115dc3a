/// An exec of a container: written before Exec is answered, and removed with its directory by Delete.
public struct ExecRecord: TypedRecord {
    public static let kind = "exec"
    public static let fileName = "exec"
    public static let durable = false

    public var execID: String
    public var terminal: Bool
    /// Where its streams go, as Exec named them.
    public var stdin: String
    public var stdout: String
    public var stderr: String
    /// CLOCK_REALTIME, nanoseconds.
    public var created: Int64
    /// CLOCK_BOOTTIME, nanoseconds: an exit that the keeper saw before this is another process's.
    public var createdBoot: Int64
    /// The exec's own control group as the kernel names it; nil where it has none.
    public var cgroup: String?
    /// What ResizePty asked for before Start.
    public var columns: UInt16?
    public var rows: UInt16?
    /// Inode numbers of its output pipes, as the guards' record has the container's.
    public var stdoutPipe: UInt64?
    public var stderrPipe: UInt64?
    /// Start was begun: what a killed shim leaves is looked for.
    public var starting: Bool

    public init(
        execID: String, terminal: Bool, stdin: String, stdout: String, stderr: String, created: Int64, createdBoot: Int64,
        cgroup: String? = nil
    ) {
        self.execID = execID
        self.terminal = terminal
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self.created = created
        self.createdBoot = createdBoot
        self.cgroup = cgroup
        starting = false
    }

    public init(fields: borrowing RecordFields) throws(RecordError) {
        execID = try fields.text("exec_id")
        terminal = try fields.flag("terminal")
        stdin = try fields.text("stdin")
        stdout = try fields.text("stdout")
        stderr = try fields.text("stderr")
        created = try fields.number("created_ns")
        createdBoot = try fields.number("created_boot_ns")
        cgroup = fields.optionalText("cgroup")
        columns = try fields.optionalNumber("columns")
        rows = try fields.optionalNumber("rows")
        starting = try fields.flag("starting")
        stdoutPipe = try fields.optionalNumber("stdout_pipe")
        stderrPipe = try fields.optionalNumber("stderr_pipe")
    }

    public func fill(_ record: inout Record) {
        record.set("exec_id", execID)
        record.set("terminal", terminal)
        record.set("stdin", stdin)
        record.set("stdout", stdout)
        record.set("stderr", stderr)
        record.set("created_ns", created)
        record.set("created_boot_ns", createdBoot)
        if let cgroup { record.set("cgroup", cgroup) }
        record.set("columns", ifPresent: columns)
        record.set("rows", ifPresent: rows)
        record.set("starting", starting)
        record.set("stdout_pipe", ifPresent: stdoutPipe)
        record.set("stderr_pipe", ifPresent: stderrPipe)
    }
}
