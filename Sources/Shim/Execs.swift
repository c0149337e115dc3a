import CLinux
import Glibc
import Linux
import OCI
import Records
import TTRPC

/// Further processes in the container: registered by Exec, begun by Start, each with a directory in the bundle. The directory without the
/// record `exec` is a leftover; the record is the first thing that Delete removes.
extension Container {
    /// Runs of the runtime for execs at one time, at most; more of them wait.
    static let startLimit = 16

    static let directoryName = "exec"
    private static let processFile = "process.json"
    static let pidFile = "exec.pid"

    func path(of exec: String) -> String { "\(place.bundle)/\(Self.directoryName)/\(exec)" }

    // MARK: Exec

    func register(_ call: Call, _ request: Messages.Exec) {
        do throws(Status) {
            try register(request)
            publish(.execAdded(execID: request.target.execID))
            answer(call, .success([]))
        } catch { answer(call, .failure(error)) }
    }

    private func register(_ request: Messages.Exec) throws(Status) {
        let execID = request.target.execID
        if phase == .none || phase == .deleted { throw notFound }
        if phase == .stopped { throw Status(.failedPrecondition, "container \(place.id) has ended") }
        try Self.validate(execID)
        if find(execID) != nil { throw Status(.alreadyExists, "process \(execID) of container \(place.id) exists already") }
        if execs.count >= Self.execLimit {
            throw Status(.resourceExhausted, "container \(place.id) has \(execs.count) execs: delete those that have ended")
        }
        _ = try StreamPlace.output(request.names.stdout)
        _ = try StreamPlace.output(request.names.stderr)
        let input = try StreamPlace.input(request.names.stdin)
        let document = try Self.document(request)
        let number = nextNumber
        do {
            let directory = try makeDirectory(of: execID)
            let process = Process(
                execID: execID, number: number, directory: directory, output: Output(number: number, loop: loop, answer: answer),
                input: Input(number: number, loop: loop, answer: answer))
            attach(process)
            process.setNames(request.names)
            let file = try Linux.open(Self.processFile, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, mode: 0o600, at: directory.raw)
            try writeAll(file.raw, document, name: Self.processFile)
            let names = request.names
            let record = ExecRecord(
                execID: execID, terminal: names.terminal, stdin: names.stdin, stdout: names.stdout, stderr: names.stderr,
                created: now(CLOCK_REALTIME), createdBoot: now(CLOCK_BOOTTIME))
            if onEvent != nil { try process.beginTelling() }
            try record.write(in: directory.raw)
            process.exec = record
            nextNumber += 1
            execs.append(process)
            if input == .spool {
                try process.input.open(terminal: names.terminal)
                try park(process)
            }
        } catch {
            if let process = find(execID), !execID.isEmpty { remove(process) } else { removeDirectory(of: execID) }
            throw Status(.unknown, "\(error)")
        }
    }

    /// Letters, digits, dots, dashes and underscores, as containerd's own; it names a directory.
    static func validate(_ execID: String) throws(Status) {
        let fine =
            !execID.isEmpty && execID.utf8.count <= 128 && !execID.hasPrefix(".")
            && execID.utf8.allSatisfy { byte in
                switch byte {
                case 0x30...0x39, 0x41...0x5a, 0x61...0x7a, 0x2d, 0x2e, 0x5f: true
                default: false
                }
            }
        if !fine {
            throw Status(.invalidArgument, "exec id \(execID.prefix(130)) is empty, too long, or has other letters than A-Za-z0-9._-")
        }
    }

    /// The OCI process, which says of the terminal what Exec says.
    private static func document(_ request: Messages.Exec) throws(Status) -> [UInt8] {
        guard let bytes = request.spec?.value else { throw Status(.invalidArgument, "exec \(request.target.execID): no process is given") }
        let document: JSON
        do throws(JSON.SyntaxError) { document = try JSON(parsing: bytes) } catch {
            throw Status(.invalidArgument, "exec \(request.target.execID): \(error)")
        }
        guard case .object(var members) = document else {
            throw Status(.invalidArgument, "exec \(request.target.execID): the process is no JSON object")
        }
        if (document["terminal"]?.boolValue ?? false) == request.names.terminal { return bytes }
        members.removeAll { $0.key == "terminal" }
        members.append(JSON.Member("terminal", .bool(request.names.terminal)))
        return JSON.object(members).encoded()
    }

    /// What a predecessor left half-made under the name is removed first.
    private func makeDirectory(of execID: String) throws -> SharedDescriptor {
        try Linux.makeDirectory(Self.directoryName, mode: 0o700, at: place.bundleDirectory)
        removeDirectory(of: execID)
        try Linux.makeDirectory("\(Self.directoryName)/\(execID)", mode: 0o700, at: place.bundleDirectory, existing: false)
        return SharedDescriptor(
            try Linux.open("\(Self.directoryName)/\(execID)", O_RDONLY | O_DIRECTORY | O_NOFOLLOW, at: place.bundleDirectory))
    }

    // MARK: Start

    func startExec(_ call: Call, _ execID: String) {
        with(execID, call) { exec in
            if exec.start != nil {
                exec.start?.callers.append(call)
                return
            }
            if exec.phase != .none {
                return answer(call, .failure(Status(.failedPrecondition, "process \(execID) was started already")))
            }
            if let refusal = refusalToStart(execID) { return answer(call, .failure(refusal)) }
            exec.start = ExecStart(callers: [call])
            startWaitingExecs()
        }
    }

    private func refusalToStart(_ execID: String) -> Status? {
        switch phase {
        case .created, .running: nil
        case .paused: Status(.failedPrecondition, "process \(execID) cannot start: container \(place.id) is paused")
        case .none, .stopped, .deleted: Status(.failedPrecondition, "process \(execID) cannot start: container \(place.id) has ended")
        }
    }

    /// Runs of the runtime for execs now.
    var startsUnderWay: Int { execs.reduce(0) { $0 + (($1.start?.child ?? 0) > 0 ? 1 : 0) } }

    /// Begins what may begin: execs start beside each other, but not beside what makes or ends the container.
    func startWaitingExecs() {
        if operation?.kind.isExclusive ?? false { return }
        if let following = queue.first?.kind, following.isExclusive && !following.isUpgrade { return }
        for exec in execs where exec.start != nil && exec.start?.child == 0 {
            if startsUnderWay >= Self.startLimit { return }
            if let refusal = refusalToStart(exec.execID) {
                startFailed(exec, refusal, ended: false)
            } else {
                begin(exec)
            }
        }
    }

    private func begin(_ exec: Process) {
        do {
            let sinks = try sinks(of: exec)
            let owner = try processOwner(of: exec)
            var given: [Int32] = [0, 1, 2]
            var ends: [SharedDescriptor] = []
            let logged = try startLogger(of: exec, owner: owner)
            if exec.names.terminal {
                // The runtime gets no pipe: the terminal's master flows through this one.
                var writer = logged[.stdout]
                if let sink = sinks.stdout {
                    let pipe = try Pipe(owner: nil)
                    try exec.output.connect(.stdout, pipe.takeReader().release(), to: sink)
                    writer = pipe.writer
                }
                _ = try openInputFIFO(of: exec)
                if let writer { exec.start?.console = try console(in: path(of: exec.execID), for: exec, writer: writer) }
            } else {
                for (stream, writer) in logged {
                    given[stream == .stdout ? 1 : 2] = writer.raw
                    ends.append(writer)
                }
                if let sink = sinks.stdout {
                    let pipe = try Pipe(owner: owner)
                    try exec.output.connect(.stdout, pipe.takeReader().release(), to: sink)
                    given[1] = pipe.writer.raw
                    ends.append(pipe.writer)
                }
                if let sink = sinks.stderr {
                    let pipe = try Pipe(owner: owner)
                    try exec.output.connect(.stderr, pipe.takeReader().release(), to: sink)
                    given[2] = pipe.writer.raw
                    ends.append(pipe.writer)
                }
                if let fifo = try openInputFIFO(of: exec) {
                    let pipe = try Pipe(owner: nil)
                    let reader = SharedDescriptor(pipe.takeReader())
                    given[0] = reader.raw
                    ends.append(reader)
                    try fifo.connect(pipe: pipe.writer)
                }
                if exec.input.spool != nil {
                    let pipe = try Pipe(owner: nil)
                    let reader = SharedDescriptor(pipe.takeReader())
                    given[0] = reader.raw
                    ends.append(reader)
                    try exec.input.connect(pipe: pipe.writer)
                }
            }
            try setConsoleSize(of: exec)
            let group = makeGroup(for: exec)
            exec.exec?.starting = true
            exec.exec?.cgroup = group?.path
            exec.exec?.stdoutPipe = sinks.stdout == nil ? nil : Regain.inode(given[1])
            exec.exec?.stderrPipe = sinks.stderr == nil ? nil : Regain.inode(given[2])
            try exec.exec?.write(in: exec.pidDirectory)
            try park(exec)
            let directory = path(of: exec.execID)
            unlinkat(exec.pidDirectory, Self.pidFile, 0)
            var action = [
                "exec", "--process", "\(directory)/\(Self.processFile)", "--pid-file", "\(directory)/\(Self.pidFile)", "--detach",
            ]
            if let console = exec.start?.console { action += ["--console-socket", console.path] }
            if let group { action += ["--cgroup", group.name] }
            let child = try runtime.spawn(action, descriptors: given, log: "\(directory)/log.json")
            exec.start?.child = child
            exec.start?.console?.runtime = child
            withExtendedLifetime(ends) {}
        } catch {
            startFailed(exec, (error as? Status) ?? Status(.unknown, "\(error)"), ended: true)
        }
    }

    /// Of our own runtime, where the host has version 2: a control group for the exec and what it starts, so that a kill reaches all of it.
    private func makeGroup(for exec: Process) -> (path: String, name: String)? {
        let isOwn = place.start.rootfsMode == .detached || place.start.runtime.hasSuffix("/" + RuntimeChoice.ownRuntime)
        guard isOwn, let container = first.record?.cgroup, let unified = cgroup?.unified else { return nil }
        let name = "exec-" + exec.execID.prefix(32)
        let path = "\(container)/\(name)"
        if execs.contains(where: { $0 !== exec && $0.group == path }) { return nil }
        // Always a new directory: once a group was killed, Linux kills whatever is cloned into it. One that is left and lives is not shared.
        rmdir("\(unified)/\(name)")
        return mkdir("\(unified)/\(name)", 0o755) == 0 ? (path, name) : nil
    }

    /// Whose the pipes of an exec are: its user, seen from the host.
    private func processOwner(of exec: Process) throws(SysError) -> PipeOwner {
        // Under containerd its options say so, for all processes alike.
        if place.start.publishAddress != nil, let user = place.start.pipeUser, let group = place.start.pipeGroup {
            return PipeOwner(user: user, group: group)
        }
        let bytes = try readFile(Self.processFile, limit: 4 << 20, at: exec.pidDirectory)
        let account = (try? JSON(parsing: bytes))?["user"]
        return userMappings.owner(uid: account?["uid"], gid: account?["gid"])
    }

    /// The runtime gives the terminal its size before the process sees it.
    private func setConsoleSize(of exec: Process) throws(SysError) {
        guard exec.names.terminal, let columns = exec.exec?.columns, let rows = exec.exec?.rows,
            case .object(var members)? = try? JSON(parsing: readFile(Self.processFile, limit: 4 << 20, at: exec.pidDirectory))
        else { return }
        members.removeAll { $0.key == "consoleSize" }
        members.append(JSON.Member("consoleSize", ["height": .integer(Int64(rows)), "width": .integer(Int64(columns))]))
        let file = try Linux.open(Self.processFile, O_WRONLY | O_TRUNC | O_NOFOLLOW, at: exec.pidDirectory)
        try writeAll(file.raw, JSON.object(members).encoded(), name: Self.processFile)
    }

    // MARK: the runtime's end

    func execStarted(_ exec: Process, waitStatus: Int32) {
        exec.start?.child = 0
        if waitStatus != 0 {
            // A runtime that was killed half-way may have left a process that nobody answers for.
            if let pid = runtimePid(of: exec), let pidfd = try? ProcessIdentity(current: pid).open() {
                _ = ctr_pidfd_send_signal(pidfd.raw, SIGKILL)
            }
            return startFailed(exec, runtime.failure("exec", waitStatus: waitStatus, log: path(of: exec.execID) + "/log.json"), ended: true)
        }
        do {
            guard let pid = runtimePid(of: exec) else { throw SysError("read", Self.pidFile, code: EINVAL) }
            if let console = exec.start?.console {
                console.take()
                guard console.taken else {
                    if let pidfd = try? ProcessIdentity(current: pid).open() { _ = ctr_pidfd_send_signal(pidfd.raw, SIGKILL) }
                    throw SysError("get terminal from", place.start.runtime, code: ENXIO)
                }
            }
            // A child of ours that nobody else reaps: the number means the same process until we wait for it.
            try adopt(exec, ProcessIdentity(current: pid), started: now(CLOCK_REALTIME))
            publish(.execStarted(execID: exec.execID, pid: pid))
            let callers = exec.start?.callers ?? []
            exec.start = nil
            for call in callers { answer(call, .success(Messages.started(pid: pid))) }
        } catch {
            startFailed(exec, Status(.unknown, "\(error)"), ended: true)
        }
        startsChanged()
    }

    /// Writes the record of a process that runs and looks after it from here on.
    func adopt(_ exec: Process, _ identity: ProcessIdentity, started: Int64) throws {
        let opened = SharedDescriptor(Descriptor(owning: try check("open pidfd of", "\(identity.pid)", ctr_pidfd_open(identity.pid, 0))))
        let record = PidRecord(
            process: identity, bootID: place.bootID, created: exec.exec?.created ?? started, started: started,
            cgroup: Self.cgroupPath(of: identity.pid))
        try record.write(in: exec.pidDirectory)
        exec.record = record
        exec.pidfd = opened
        exec.phase = .running
        try loop.add(opened.raw, .readable, .process, number: exec.number)
    }

    /// What the runtime wrote; nil when it wrote none.
    func runtimePid(of exec: Process) -> Int32? {
        guard let text = try? readFile(Self.pidFile, limit: 32, at: exec.pidDirectory),
            let pid = Int32(String(decoding: text.prefix { $0 >= 0x30 && $0 <= 0x39 }, as: UTF8.self)), pid > 1
        else { return nil }
        return pid
    }

    /// `ended`: it was tried, and is not tried again; else everything is as Exec left it.
    private func startFailed(_ exec: Process, _ failure: Status, ended: Bool) {
        let callers = exec.start?.callers ?? []
        exec.start = nil
        if ended {
            exec.output.abandon()
            exec.inputEnded()
            exec.loggerPipes = [:]
            exec.phase = .stopped
            let time = now(CLOCK_REALTIME)
            let exit = ExitRecord(
                process: ProcessIdentity(pid: 0, startTime: 0), outcome: .unknown(reason: failure.message), source: .unknown, exited: time,
                exitedBoot: now(CLOCK_BOOTTIME), logEnded: true)
            try? exit.record.write(to: ExitRecord.fileName, in: exec.exitDirectory, durable: false)
            exec.exit = exit
            unpark(exec)
            for call in exec.waits { answer(call, .success(Messages.waited(exitStatus: exec.exitCode, exitedAt: time))) }
            exec.waits = []
        }
        for call in callers { answer(call, .failure(failure)) }
        startsChanged()
    }

    /// A start has ended: others may begin, and an operation that waited for it.
    func startsChanged() {
        next()
        reap()
    }

    // MARK: Delete

    func deleteExec(_ call: Call, _ execID: String) {
        with(execID, call) { exec in
            if exec.start != nil || exec.isAlive {
                return answer(call, .failure(Status(.failedPrecondition, "process \(execID) is running")))
            }
            exec.deleters.append(call)
            deleteIfDrained(exec)
        }
    }

    /// Only a sink that takes nothing now can hold up what was written; it is waited for, but not without end.
    func deleteIfDrained(_ exec: Process) {
        if exec.deleters.isEmpty { return }
        exec.output.finish()
        if exec.deleters.isEmpty { return }
        if !exec.output.ended && exec.deleteDeadline == .max { exec.deleteDeadline = now(CLOCK_MONOTONIC) + Process.deleteTime }
        if !exec.output.ended && exec.deleteDeadline > now(CLOCK_MONOTONIC) { return }
        let callers = exec.deleters
        exec.deleters = []
        exec.deleteDeadline = .max
        remove(exec)
        publish(.deleted(execID: exec.execID, pid: exec.pid, status: exec.exitCode, at: exec.exit?.exited ?? 0))
        let response = Messages.deleted(pid: exec.pid, exitStatus: exec.exitCode, exitedAt: exec.exit?.exited)
        for call in callers { answer(call, .success(response)) }
    }

    /// The record goes first, then whatever else there is of it.
    func remove(_ exec: Process) {
        unlinkat(exec.pidDirectory, ExecRecord.fileName, 0)
        exec.output.drop(noExec(exec.execID))
        exec.inputEnded()
        dismissLogger(of: exec)
        exec.phase = .deleted
        let wasParked = !exec.parked.isEmpty
        execs.removeAll { $0 === exec }
        if execs.isEmpty { execs = [] }
        if wasParked { parkAgain() }
        removeGroups(with: exec)
        removeDirectory(of: exec.execID)
        exec.release()
    }

    /// The control groups of execs that are deleted; one that processes still live in is tried again with the next.
    private func removeGroups(with exec: Process) {
        guard exec.group != nil, let unified = cgroup?.unified else { return }
        for name in directoryNames(at: unified) where name.hasPrefix("exec-") {
            if !execs.contains(where: { $0.group?.hasSuffix("/" + name) ?? false }) { rmdir("\(unified)/\(name)") }
        }
    }

    func removeDirectory(of execID: String) {
        let directory = path(of: execID)
        for name in directoryNames(at: directory + "/log") { unlink("\(directory)/log/\(name)") }
        rmdir(directory + "/log")
        for name in directoryNames(at: directory) { unlink("\(directory)/\(name)") }
        rmdir(directory)
    }
}

/// A start of an exec: asked for, waiting for its turn, or under way.
struct ExecStart {
    var callers: [Call]
    /// The runtime's pid, 0 while it does not run.
    var child: Int32 = 0
    /// Where the runtime leaves the terminal.
    var console: Console?

    init(callers: [Call]) { self.callers = callers }

    /// The runtime is killed; its end comes as any other.
    func cancel() {
        if child > 0 { kill(child, SIGKILL) }
    }

    mutating func takeLate(_ time: Int64, into late: inout [Call]) {
        late += callers.filter { $0.deadline <= time }
        callers.removeAll { $0.deadline <= time }
    }
}

extension Container {
    /// Guard.Processes: in the order of their creation.
    func listExecs(_ call: Call) {
        answer(
            call,
            .success(
                Messages.processes(execs.count) { index, message, copies in
                    let exec = execs[index]
                    message.exec_id = copies.text(exec.execID)
                    message.pid = UInt32(bitPattern: exec.pid)
                    message.start_time = exec.record?.process.startTime ?? 0
                    message.terminal = exec.names.terminal ? 1 : 0
                    message.input_open = exec.input.isOpen ? 1 : 0
                    message.created_at_ns = exec.exec?.created ?? 0
                    message.stdout = copies.text(exec.names.stdout)
                    guard let exit = exec.exit else { return }
                    message.exited = 1
                    message.exit_status = exit.outcome.code ?? 0
                    message.exit_source = copies.text(exit.source.rawValue)
                    message.exited_at_ns = exit.exited
                }))
    }
}
