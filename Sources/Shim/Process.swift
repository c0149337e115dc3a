import Linux
import Logs
import Records

/// One process that the shim looks after: the container's first, or an exec.
final class Process {
    enum Phase: Equatable {
        /// Nothing runs yet: Create, or an exec's Start, is awaited.
        case none
        /// The first process waits for Start.
        case created
        case running
        /// Only the first process says so; it holds for all of the container.
        case paused
        /// It has ended and the exit record says how.
        case stopped
        case deleted
    }

    /// Empty for the first process.
    let execID: String
    /// Says which process an event of the epoll set is about; no other has it as long as the shim lives.
    let number: UInt32
    /// Directories of the records `pid` and `exit`; an exec has one for both and owns it.
    let pidDirectory: Int32
    let exitDirectory: Int32
    private let directory: SharedDescriptor?

    var phase = Phase.none
    var names = StreamNames()
    let output: Output
    let input: Input
    /// FIFOs of the caller's that its output flows into.
    var stdoutFIFO: CallerFIFO?
    var stderrFIFO: CallerFIFO?
    /// The one that its input comes from, once it begins; CloseIO may come before.
    var inputFIFO: InputFIFO?
    var isInputClosed = false
    /// The caller's program that reads its output.
    var logger: LoggerProcess?
    /// An exec's pipes that it reads: held here too, so that a process whose logger dies waits and is not ended.
    var loggerPipes: [LogStream: SharedDescriptor] = [:]

    /// Who it is; nil until it runs.
    var record: PidRecord?
    var pidfd: SharedDescriptor?
    /// What tells how it ended when this shim is not its parent.
    var witness: Witness?
    var exit: ExitRecord?
    var waits: [Call] = []

    /// An exec's own record, and its control group as the kernel names it.
    var exec: ExecRecord?
    var group: String? { exec?.cgroup }
    var start: ExecStart?
    /// Which of an exec's events were told; nil where none are remembered.
    var told: Told?
    /// Calls of Delete that wait for a sink which takes nothing now, and for how long they do (CLOCK_MONOTONIC, nanoseconds).
    var deleters: [Call] = []
    var deleteDeadline = Int64.max
    static let deleteTime: Int64 = 10_000_000_000
    /// What a predecessor has counted of output that the disk did not take, until its log is open.
    var parkedDrops = ParkedDrops()
    /// What of it is parked, by its letters.
    var parked = ""

    /// An exit record that the disk did not take yet, and when it is tried again (CLOCK_MONOTONIC, nanoseconds).
    var unrecorded: (exit: ExitRecord, child: Bool)?
    var retryDeadline = Int64.max
    /// Until when the keeper's entry about it is waited for (CLOCK_MONOTONIC, nanoseconds).
    var keeperDeadline = Int64.max

    /// The container's first process; the directories stay the caller's.
    init(first pidDirectory: Int32, exitDirectory: Int32, output: Output, input: Input) {
        execID = ""
        number = 0
        self.pidDirectory = pidDirectory
        self.exitDirectory = exitDirectory
        directory = nil
        self.output = output
        self.input = input
    }

    /// An exec whose records lie in `directory`.
    init(execID: String, number: UInt32, directory: SharedDescriptor, output: Output, input: Input) {
        self.execID = execID
        self.number = number
        self.directory = directory
        pidDirectory = directory.raw
        exitDirectory = directory.raw
        self.output = output
        self.input = input
    }

    /// As Exec gave them.
    func setNames(_ names: StreamNames) {
        self.names = names
        output.expectsLog = names.stdout.hasPrefix("log:") || (!names.terminal && names.stderr.hasPrefix("log:"))
    }

    /// Before the exec's record: from then on what is told is remembered, over a restart of the shim too.
    func beginTelling() throws(SysError) {
        try Told().write(in: pidDirectory)
        told = []
    }

    func remember(_ event: Told) {
        guard told != nil, (try? event.write(in: pidDirectory)) != nil else { return }
        told?.formUnion(event)
    }

    /// Its directory is closed: the exec is deleted.
    func release() { directory?.closeNow() }

    var isFirst: Bool { execID.isEmpty }

    /// 0 before it runs.
    var pid: Int32 { record?.process.pid ?? 0 }

    /// It has ended, or never began.
    func inputEnded() {
        input.processEnded()
        inputFIFO?.end()
    }

    /// A reader that comes late finds what is left of the output, and its end.
    func greetReaders() {
        stdoutFIFO?.greetReader()
        stderrFIFO?.greetReader()
    }

    /// Whether it exists and its end is not recorded.
    var isAlive: Bool { phase == .created || phase == .running || phase == .paused }

    /// What the task service can say of its end; 255 where nobody knows (Guard says so).
    var exitCode: UInt32 { exit.map { $0.outcome.code ?? 255 } ?? 0 }

    /// The nearest moment at which something of it is due.
    var deadline: Int64 {
        var nearest = min(retryDeadline, keeperDeadline, output.deadline, input.deadline)
        nearest = min(nearest, deleteDeadline, logger?.deadline ?? .max)
        for call in waits { nearest = min(nearest, call.deadline) }
        for call in start?.callers ?? [] { nearest = min(nearest, call.deadline) }
        for call in deleters { nearest = min(nearest, call.deadline) }
        return nearest
    }

    /// Takes the waits out whose time is over.
    func takeLate(_ time: Int64, into late: inout [Call]) {
        output.takeLate(time, into: &late)
        input.takeLate(time, into: &late)
        Self.takeLate(time, &waits, into: &late)
        Self.takeLate(time, &deleters, into: &late)
        start?.takeLate(time, into: &late)
    }

    private static func takeLate(_ time: Int64, _ calls: inout [Call], into late: inout [Call]) {
        late += calls.filter { $0.deadline <= time }
        calls.removeAll { $0.deadline <= time }
    }

    func forget(connection: UInt32) {
        output.forget(connection: connection)
        input.forget(connection: connection)
        waits.removeAll { $0.connection == connection }
        deleters.removeAll { $0.connection == connection }
        start?.callers.removeAll { $0.connection == connection }
    }
}
