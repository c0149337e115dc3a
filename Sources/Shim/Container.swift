import CLinux
import CShimProto
import Glibc
import Linux
import OCI
import Records
import TTRPC

/// The one container of this shim: what it is, its processes, and the operations on it. Those that concern all of it are carried out one at
/// a time; execs start beside each other. Records are written before anything is done or said; an operation goes on when its caller is gone.
final class Container {
    typealias Phase = Process.Phase
    /// Execs that are not deleted, at most.
    static let execLimit = 128

    /// What the shim was started with and where the container's files are.
    let place: Place
    private(set) var runtime: RuntimeCall
    let loop: Loop
    let parking: Parking
    let answer: (Call, Result<[UInt8], Status>) -> Void

    let first: Process
    var execs: [Process] = []
    var nextNumber: UInt32 = 1
    /// Room was made in the parking queue.
    var widened = false
    /// Messages in the parking queue, living or not.
    var parked = 0
    /// What else is parked there.
    var guests: () -> [(name: String, file: Int32)] = { [] }

    var operation: Operation?
    var queue: [Operation] = []

    /// The detached root mount; the same one is parked.
    var rootfs: SharedDescriptor?
    /// Write ends of the keeper's output pipes until the container has them, -1 afterwards.
    var stdoutWriter: Int32
    var stderrWriter: Int32
    /// Read ends of the keeper's output pipes until they have a sink, -1 afterwards.
    var stdoutReader = Inherited.stdout
    var stderrReader = Inherited.stderr
    /// Whether this shim has a mount namespace of its own in which the root file system is mounted.
    var mounted = false
    lazy var userMappings = readMappings()
    /// How the daemon becomes another program; set once.
    var onUpgrade: UpgradeSteps?
    /// Told of everything that containerd wants to hear; set once, by who publishes it. `again`: a predecessor may have told it already.
    /// Calls `kept` once it will be told whatever happens.
    var onEvent: ((_ event: TaskEvent, _ again: Bool, _ kept: () -> Void) -> Void)?
    private var held: [(event: TaskEvent, again: Bool)] = []
    private var memory: MemoryWatch?
    /// Loggers of processes that are deleted.
    var dismissed: [LoggerProcess] = []

    init(
        place: Place, loop: Loop, parking: Parking, stdoutWriter: Int32, stderrWriter: Int32,
        answer: @escaping (Call, Result<[UInt8], Status>) -> Void
    ) {
        self.place = place
        self.runtime = RuntimeCall(start: place.start, bundle: place.bundle, id: place.id)
        self.loop = loop
        self.parking = parking
        self.stdoutWriter = stdoutWriter
        self.stderrWriter = stderrWriter
        self.answer = answer
        first = Process(
            first: place.bundleDirectory, exitDirectory: place.incarnationDirectory, output: Output(number: 0, loop: loop, answer: answer),
            input: Input(number: 0, loop: loop, answer: answer))
        attach(first)
    }

    /// The runtime that Create's options name, where they name another than `start` was given: a caller may give them only here.
    func choose(_ options: AnyMessage) throws(Status) {
        if options.typeURL.isEmpty || phase != .none || operation != nil { return }
        let wanted = try RuntimeOptions(options)
        do {
            let program = try RuntimeChoice.ownProgram()
            let directory = ContainerdStart.stateDirectory(of: ContainerdStart.stateDirectory(of: place.start.socket))
            let choice = try RuntimeChoice(wanted, namespace: place.namespace, stateDirectory: directory, shim: program)
            if choice == RuntimeChoice(place.start) { return }
            var start = place.start
            choice.apply(to: &start)
            try makeDirectories(start.runtimeRoot, mode: 0o700)
            try place.change(start)
            runtime = RuntimeCall(start: start, bundle: place.bundle, id: place.id)
        } catch {
            throw Status(.invalidArgument, "\(error)")
        }
    }

    /// The one place from which events go out, in the order in which things happen.
    func publish(_ event: TaskEvent, again: Bool = false) {
        // A process may end, or take all memory, before the runtime that started it has ended: its start is told first all the same.
        switch event {
        case .exited(let execID, _, _, _) where isStarting(execID): held.append((event, again))
        case .oom where isStarting(""):
            if !again || !held.contains(where: { $0.event == .oom }) { held.append((event, again)) }
        default: tell(event, again)
        }
    }

    private func tell(_ event: TaskEvent, _ again: Bool) {
        guard let onEvent else { return }
        guard let (exec, told) = Told.of(event).flatMap({ mark in find(mark.execID).map { ($0, mark.told) } }) else {
            return onEvent(event, again) {}
        }
        // What happened to it may have been written down by one that was killed before it told it.
        if again && exec.told?.contains(told) != false { return }
        onEvent(event, again) { exec.remember(told) }
    }

    /// From now on until its end it is told when the container runs out of memory.
    func watchMemory() {
        if onEvent != nil, let cgroup { memory = MemoryWatch(cgroup, loop: loop) }
    }

    /// The first process has ended, and memory ran out in its life: told now, if neither this shim nor one before it told it when it happened.
    func memoryEnded(ranOut: Bool) {
        if ranOut { publish(.oom, again: true) }
        memory = nil
    }

    private func isStarting(_ execID: String) -> Bool { execID.isEmpty && operation?.kind == .start }

    /// The start has come through or failed: what was held for it follows.
    func tellHeld() {
        let events = held
        held = []
        for each in events { tell(each.event, each.again) }
    }

    // MARK: processes

    /// Of the first process, which is the container's.
    var phase: Phase {
        get { first.phase }
        set { first.phase = newValue }
    }

    /// 0 before Create.
    var pid: Int32 { first.pid }

    func find(_ execID: String) -> Process? {
        if execID.isEmpty { return first }
        for exec in execs where exec.execID == execID { return exec }
        return nil
    }

    func find(number: UInt32) -> Process? {
        if number == 0 { return first }
        for exec in execs where exec.number == number { return exec }
        return nil
    }

    /// Runs `body` with the process that a call is about, or answers that there is none.
    func with(_ execID: String, _ call: Call, _ body: (Process) -> Void) {
        guard phase != .none && phase != .deleted else { return answer(call, .failure(notFound)) }
        guard let process = find(execID) else { return answer(call, .failure(noExec(execID))) }
        body(process)
    }

    var notFound: Status { Status(.notFound, "container \(place.id) was not created, or is deleted") }
    func noExec(_ execID: String) -> Status { Status(.notFound, "container \(place.id) has no process \(execID)") }

    // MARK: answers that wait for nothing

    func status(_ call: Call, execID: String) {
        with(execID, call) { process in
            // What holds for the first process holds for all: a frozen container runs no exec.
            let phase = process.phase == .running && self.phase == .paused ? .paused : process.phase
            let status =
                switch phase {
                case .none, .created: CONTAINERD__V1__TYPES__STATUS__CREATED
                case .running: CONTAINERD__V1__TYPES__STATUS__RUNNING
                case .paused: CONTAINERD__V1__TYPES__STATUS__PAUSED
                case .stopped, .deleted: CONTAINERD__V1__TYPES__STATUS__STOPPED
                }
            let state = Messages.State(
                id: place.id, execID: execID, bundle: place.bundle, pid: process.pid, status: status, names: process.names,
                exitStatus: process.exitCode, exitedAt: process.exit?.exited)
            answer(call, .success(Messages.state(state)))
        }
    }

    func wait(_ call: Call, execID: String) {
        with(execID, call) { process in
            if let exit = process.exit {
                process.greetReaders()
                answer(call, .success(Messages.waited(exitStatus: process.exitCode, exitedAt: exit.exited)))
            } else {
                process.waits.append(call)
            }
        }
    }

    func listPids(_ call: Call) {
        guard phase != .none && phase != .deleted else { return answer(call, .failure(notFound)) }
        if phase == .stopped {
            // A restarted containerd (1.7 and later) deletes a shim without any process as one that was never used, and its exit status with it.
            let ended = place.start.publishAddress == nil ? [] : [(pid: pid, info: nil as AnyMessage?)]
            return answer(call, .success(Messages.pids(ended)))
        }
        var pids = (try? cgroup?.processes()) ?? []
        // Whatever the control group says, init is there: its pidfd tells.
        if !pids.contains(pid) { pids.insert(pid, at: 0) }
        let running = execs.filter { $0.isAlive }
        let entries = pids.map { pid in
            (pid: pid, info: running.first { $0.pid == pid }.map { Messages.processDetails(execID: $0.execID) })
        }
        answer(call, .success(Messages.pids(entries)))
    }

    /// What the container uses now, as the kernel counts it.
    func statistics(_ call: Call) {
        guard phase != .none && phase != .deleted else { return answer(call, .failure(notFound)) }
        guard let cgroup else {
            return answer(call, .failure(Status(.failedPrecondition, "container \(place.id) has no control group of its own")))
        }
        do throws(SysError) {
            answer(call, .success(Messages.stats(MetricsMessages.metrics(try cgroup.stats()))))
        } catch {
            answer(call, .failure(Status(error.code == ENOENT ? .notFound : .unknown, error.description)))
        }
    }

    func kill(_ call: Call, execID: String, signal: UInt32, all: Bool) {
        guard signal > 0 && signal <= 64 else {
            return answer(call, .failure(Status(.invalidArgument, "no signal has the number \(signal)")))
        }
        if !execID.isEmpty, phase != .none, phase != .deleted, find(execID) == nil { return answer(call, .failure(noExec(execID))) }
        guard let process = find(execID), let pidfd = process.pidfd, process.isAlive else {
            let whose = execID.isEmpty ? "process of container \(place.id)" : "process \(execID) of container \(place.id)"
            return answer(call, .failure(Status(.notFound, "\(whose) has ended, or was not created")))
        }
        do throws(SysError) {
            let group = process.isFirst ? cgroup : group(of: process)
            // Reaches what a freezer holds, and forks in flight.
            if signal == SIGKILL && (all || !process.isFirst || phase == .paused), let group {
                try group.kill()
            } else if all, let group {
                for pid in try group.processes() {
                    let opened = ctr_pidfd_open(pid, 0)
                    if opened < 0 { continue }
                    let process = Descriptor(owning: opened)
                    _ = ctr_pidfd_send_signal(process.raw, Int32(signal))
                }
            } else {
                try check("signal process", "\(process.pid)", ctr_pidfd_send_signal(pidfd.raw, Int32(signal)))
            }
            answer(call, .success([]))
        } catch {
            answer(call, .failure(Status(error.code == ESRCH ? .notFound : .unknown, error.description)))
        }
    }

    /// Where the container's processes are counted and killed; nil when it has no control group of its own.
    var cgroup: ContainerCgroup? { Self.controlGroup(first.record?.cgroup) }

    /// The control group of an exec alone, in version 2.
    func group(of exec: Process) -> ContainerCgroup? {
        guard let path = exec.group, let group = Self.controlGroup(path), group.unified != nil else { return nil }
        return ContainerCgroup(v1: [], unified: group.unified)
    }

    static func controlGroup(_ path: String?) -> ContainerCgroup? {
        guard let path, let hierarchies = try? CgroupHierarchies(), let group = try? ContainerCgroup(path, in: hierarchies) else {
            return nil
        }
        // Runtimes of others make no directory in a version 2 hierarchy that has no controllers.
        let tracked = group.unified.map { access($0, F_OK) == 0 } ?? false
        return tracked ? group : ContainerCgroup(v1: group.v1, unified: nil)
    }

    // MARK: time and connections

    var deadline: Int64 {
        var nearest = first.deadline
        for exec in execs { nearest = min(nearest, exec.deadline) }
        if let operation { nearest = min(nearest, operation.limit) }
        for call in operation?.callers ?? [] { nearest = min(nearest, call.deadline) }
        for queued in queue { for call in queued.callers { nearest = min(nearest, call.deadline) } }
        return nearest
    }

    /// Answers the calls whose time is over; what they asked for goes on.
    func expire(at time: Int64) {
        var late: [Call] = []
        for process in [first] + execs {
            if process.keeperDeadline <= time { keeperIsLate(process) }
            if process.retryDeadline <= time { retryRecord(process) }
            process.takeLate(time, into: &late)
            if !process.deleters.isEmpty { deleteIfDrained(process) }
            if process.isFirst && process.deleteDeadline <= time { deleteIfEnded() }
        }
        if let operation, operation.limit <= time { upgradeIsLate() }
        if let logger = first.logger, logger.deadline <= time { loggerIsLate(logger) }
        if operation != nil { operation?.takeLate(time, into: &late) }
        for index in queue.indices { queue[index].takeLate(time, into: &late) }
        for call in late { answer(call, .failure(Status(.deadlineExceeded, "not done in time; it goes on"))) }
    }

    func forget(connection: UInt32) {
        for process in [first] + execs { process.forget(connection: connection) }
        operation?.callers.removeAll { $0.connection == connection }
        for index in queue.indices { queue[index].callers.removeAll { $0.connection == connection } }
    }
}

extension Container {
    /// A descriptor of `process` is ready.
    func ready(_ process: Process, _ source: Loop.Source) {
        switch source {
        case .process: ended(process)
        case .exitEvents: process.witness?.eventsReadable()
        case .stdout: process.output.pump(.stdout)
        case .stderr: process.output.pump(.stderr)
        case .sink:
            process.output.sinkReady()
            if process.logger?.look() == true { loggerReady(process) }
        case .stdin: if let fifo = process.inputFIFO { fifo.ready() } else { process.input.writable() }
        case .inputSource: process.inputFIFO?.ready()
        case .terminal: process.output.terminalReady()
        case .memory: if memory?.take() == true { publish(.oom) }
        case .console: (process.isFirst ? operation?.console : process.start?.console)?.take()
        case .listener, .signals, .connection, .publisher: break
        }
    }
}
