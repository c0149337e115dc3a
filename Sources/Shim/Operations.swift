import CLinux
import Glibc
import Linux
import OCI
import Records
import TTRPC

extension Container {
    /// Carries `kind` out as soon as nothing else runs; the same operation in flight is joined.
    func perform(_ kind: Operation.Kind, for call: Call?) {
        if let call, let running = operation, running.kind.joins(kind) {
            operation?.callers.append(call)
            return
        }
        for index in queue.indices where queue[index].kind.joins(kind) {
            if let call { queue[index].callers.append(call) }
            return
        }
        queue.append(Operation(kind: kind, callers: call.map { [$0] } ?? []))
        next()
    }

    /// Begins what may begin now.
    func next() {
        while operation == nil, let following = queue.first {
            if case .upgrade = following.kind {
                // Everything that was asked for before it, and what runs, comes first.
                if let other = queue.firstIndex(where: { !$0.kind.isUpgrade }) {
                    queue.insert(queue.remove(at: other), at: 0)
                    continue
                }
                startWaitingExecs()
                if execs.contains(where: { $0.start != nil }) || operation != nil || queue.first?.kind != following.kind { return }
            } else if following.kind.isExclusive && startsUnderWay > 0 {
                // What they would make is about to end.
                if following.kind == .delete { for exec in execs { exec.start?.cancel() } }
                return
            }
            queue.removeFirst()
            if queue.isEmpty { queue = [] }
            operation = following
            begin(following.kind)
        }
        startWaitingExecs()
    }

    func finish(_ result: Result<[UInt8], Status>) {
        let callers = operation?.callers ?? []
        operation = nil
        for call in callers { answer(call, result) }
        next()
    }

    func fail(_ code: StatusCode, _ message: String) { finish(.failure(Status(code, message))) }

    private func begin(_ kind: Operation.Kind) {
        switch kind {
        case .create(let mounts, let names):
            switch phase {
            case .none: create(mounts, names)
            case .deleted: fail(.failedPrecondition, "container \(place.id) is deleted")
            default: fail(.alreadyExists, "container \(place.id) is created already")
            }
        case .start:
            switch phase {
            case .created: start()
            case .none, .deleted: finish(.failure(notFound))
            default: fail(.failedPrecondition, "container \(place.id) was started already")
            }
        case .delete:
            switch phase {
            case .created, .stopped:
                // Where the kernel did not end them with the first process, or that has not begun.
                if execs.contains(where: { $0.isAlive }) { endExecs() }
                run(["delete", "--force"])
            case .none, .deleted: finish(.failure(notFound))
            case .running, .paused: fail(.failedPrecondition, "container \(place.id) is running")
            }
        case .pause:
            switch phase {
            case .running: run(["pause"])
            case .paused: finish(.success([]))
            case .none, .deleted: finish(.failure(notFound))
            default: fail(.failedPrecondition, "container \(place.id) is not running")
            }
        case .resume:
            switch phase {
            case .paused: run(["resume"])
            case .running: finish(.success([]))
            case .none, .deleted: finish(.failure(notFound))
            default: fail(.failedPrecondition, "container \(place.id) is not paused")
            }
        case .update(let resources):
            switch phase {
            case .created, .running, .paused: update(resources)
            case .none, .deleted: finish(.failure(notFound))
            case .stopped: fail(.failedPrecondition, "container \(place.id) has ended")
            }
        case .upgrade(let program): checkUpgrade(program)
        case .clean: run(["delete", "--force"])
        case .inquire: look()
        }
    }

    /// Runs the runtime with nothing on its standard streams.
    private func run(_ action: [String], step: Operation.Step = .main, output: SharedDescriptor? = nil) {
        operation?.step = step
        operation?.output = output
        do throws(SysError) {
            operation?.child = try runtime.spawn(action, descriptors: [0, output?.raw ?? 1, 2])
        } catch {
            ended(failure: Status(.unknown, error.description))
        }
    }

    /// The runtime reads the limits from its standard input.
    private func update(_ resources: [UInt8]) {
        operation?.step = .main
        do throws(SysError) {
            let document = SharedDescriptor(Descriptor(owning: try check("create memfd", "", ctr_memfd_create("resources", 1))))
            try writeAll(document.raw, resources, name: "resources")
            try checkErrno("rewind", "resources", lseek(document.raw, 0, SEEK_SET))
            operation?.child = try runtime.spawn(["update", "--resources", "-"], descriptors: [document.raw, 1, 2])
        } catch {
            ended(failure: Status(.unknown, error.description))
        }
    }

    /// Asks the runtime for the container's state.
    private func look() {
        let made = ctr_memfd_create("state", 1)
        if made < 0 { return ended(failure: Status(.unknown, SysError("create memfd", "", code: -made).description)) }
        run(["state"], step: .look, output: SharedDescriptor(Descriptor(owning: made)))
    }

    // MARK: create and start

    private func create(_ mounts: [MountRequest], _ names: StreamNames) {
        do throws(Status) { try name(first: names) } catch { return finish(.failure(error)) }
        // A logger that is not ready yet is waited for.
        if first.logger?.isReady ?? true { createNow(mounts, names) }
    }

    func createNow(_ mounts: [MountRequest], _ names: StreamNames) {
        do throws(SysError) {
            var action = ["create", "--bundle", place.bundle, "--pid-file", place.bundle + "/init.pid"]
            let isLogged = { (name: String) in (try? StreamPlace.output(name))?.isLogger == true }
            var descriptors: [Int32] = [
                0, first.output.pipe(of: .stdout) < 0 && !isLogged(names.stdout) ? 1 : stdoutWriter,
                first.output.pipe(of: .stderr) < 0 && !isLogged(names.stderr) ? 2 : stderrWriter,
            ]
            var reader: SharedDescriptor?
            if names.terminal {
                descriptors = [0, 1, 2]
                let writer = SharedDescriptor(
                    Descriptor(owning: try check("duplicate descriptor", "pipe", ctr_fcntl_int(stdoutWriter, F_DUPFD_CLOEXEC, 3))))
                let console = try console(in: place.bundle, for: first, writer: writer)
                operation?.console = console
                action += ["--console-socket", console.path]
            }
            if names.stdin == "spool:" {
                try first.input.open(terminal: names.terminal)
                if !names.terminal {
                    let pipe = try Pipe(owner: nil)
                    let end = SharedDescriptor(pipe.takeReader())
                    descriptors[0] = end.raw
                    reader = end
                    try first.input.connect(pipe: pipe.writer)
                }
            }
            if let fifo = try openInputFIFO(of: first), !names.terminal {
                let pipe = try Pipe(owner: nil)
                let end = SharedDescriptor(pipe.takeReader())
                descriptors[0] = end.raw
                reader = end
                try fifo.connect(pipe: pipe.writer)
            }
            // What the keeper knows nothing of outlives this shim from here on: standard input, the caller's FIFOs.
            try park(first)
            switch place.start.rootfsMode {
            case .detached: descriptors.append(try makeRootfs(mounts).raw)
            case .mounted: try mount(mounts)
            }
            unlinkat(place.bundleDirectory, "init.pid", 0)
            let child = try runtime.spawn(action, descriptors: descriptors)
            operation?.child = child
            operation?.console?.runtime = child
            withExtendedLifetime(reader) {}
        } catch {
            dropRootfs()
            resetInput()
            fail(error.code == EINVAL ? .invalidArgument : .unknown, error.description)
        }
    }

    private func resetInput() {
        first.logger?.signal(SIGTERM)
        first.logger = nil
        first.input.reset()
        first.inputFIFO?.end()
        first.inputFIFO = nil
    }

    func makeRootfs(_ mounts: [MountRequest]) throws(SysError) -> SharedDescriptor {
        let made = SharedDescriptor(try Rootfs.make(mounts, bundle: place.bundle))
        try parking.park(ParkedName(.rootfs, letters: "").text, [made.raw])
        parked += 1
        rootfs = made
        return made
    }

    private func created(_ mounts: [MountRequest]) {
        do {
            operation?.console?.take()
            if let console = operation?.console, !console.taken {
                throw SysError("get terminal from", place.start.runtime, code: ENXIO)
            }
            let text = try readFile("init.pid", limit: 32, at: place.bundleDirectory)
            guard let pid = Int32(String(decoding: text.prefix { $0 >= 0x30 && $0 <= 0x39 }, as: UTF8.self)), pid > 1 else {
                throw SysError("read", "init.pid", code: EINVAL)
            }
            // A child of ours that nobody else reaps: the number means the same process until we wait for it.
            let identity = try ProcessIdentity(current: pid)
            let opened = SharedDescriptor(Descriptor(owning: try check("open pidfd of", "\(pid)", ctr_pidfd_open(pid, 0))))
            var record = PidRecord(
                process: identity, bootID: place.bootID, created: now(CLOCK_REALTIME), cgroup: Self.cgroupPath(of: pid))
            record.streams = first.names
            try record.write(in: place.bundleDirectory)
            first.record = record
            first.pidfd = opened
            phase = .created
            try loop.add(opened.raw, .readable, .process)
            handOverPipes()
            watchMemory()
            publish(.created(pid: pid, streams: first.names, mounts: mounts))
            finish(.success(Messages.created(pid: pid)))
        } catch {
            operation?.failure = Status(.unknown, "\(error)")
            first.record = nil
            first.pidfd = nil
            phase = .none
            run(["delete", "--force"], step: .cleanup)
        }
    }

    /// The container has its ends of the pipes: with ours and the keeper's closed, end of file can come.
    func handOverPipes() {
        Inherited.giveBack(stdoutWriter)
        Inherited.giveBack(stderrWriter)
        stdoutWriter = -1
        stderrWriter = -1
        place.signalKeeper(SIGUSR1)
    }

    /// The path that the kernel shows for a process: of version 2, else of the memory controller, else any that is not the root.
    static func cgroupPath(of pid: Int32) -> String? {
        guard let text = try? readFile("/proc/\(pid)/cgroup", limit: 64 << 10) else { return nil }
        var found: String?
        for line in text.split(separator: 0x0a) {
            let parts = line.split(separator: UInt8(ascii: ":"), maxSplits: 2, omittingEmptySubsequences: false)
            guard parts.count == 3, parts[2].count > 1 else { continue }
            let path = String(decoding: parts[2], as: UTF8.self)
            if parts[0].elementsEqual("0".utf8) { return path }
            if found == nil || parts[1].elementsEqual("memory".utf8) { found = path }
        }
        return found
    }

    private func start() {
        guard var record = first.record else { return finish(.failure(notFound)) }
        record.started = now(CLOCK_REALTIME)
        do throws(RecordError) { try record.write(in: place.bundleDirectory) } catch {
            return fail(.unknown, error.description)
        }
        first.record = record
        if runtime.openGate() { return ended(failure: nil) }
        run(["start"])
    }

    private func startFailed(_ failure: Status) {
        if var record = first.record, phase == .created {
            record.started = nil
            if (try? record.write(in: place.bundleDirectory)) != nil { first.record = record }
        }
        tellHeld()
        finish(.failure(failure))
    }

    // MARK: the runtime's end

    /// Whether `pid` is the runtime that the current operation waits for; then its end is dealt with.
    func runtimeEnded(_ pid: Int32, waitStatus: Int32) -> Bool {
        guard let running = operation, running.child == pid else { return false }
        operation?.child = 0
        if case .upgrade(let program) = running.kind {
            becomeUpgrade(program, waitStatus: waitStatus)
            return true
        }
        ended(failure: waitStatus == 0 ? nil : runtime.failure(running.kind.word, waitStatus: waitStatus))
        return true
    }

    private func ended(failure: Status?) {
        guard let running = operation else { return }
        switch (running.kind, running.step, failure) {
        case (.create(let mounts, _), .main, nil): created(mounts)
        case (.create, .main, let failure?):
            operation?.failure = failure
            run(["delete", "--force"], step: .cleanup)
        case (.create, _, _):
            dropRootfs()
            resetInput()
            finish(.failure(running.failure ?? Status(.unknown, "create failed")))

        case (.start, .main, nil): started()
        case (.start, .main, let failure?):
            // A predecessor's start may have come through just before it died.
            operation?.failure = failure
            look()
        case (.start, _, _):
            if failure == nil && seenState(running.output) == .running { return started() }
            startFailed(running.failure ?? Status(.unknown, "start failed"))

        case (.delete, _, nil):
            operation?.awaitsExit = true
            deleteIfEnded()
        case (.delete, _, let failure?): finish(.failure(failure))

        case (.pause, _, nil):
            if phase == .running {
                phase = .paused
                publish(.paused)
            }
            finish(.success([]))
        case (.resume, _, nil):
            if phase == .paused {
                phase = .running
                publish(.resumed)
            }
            finish(.success([]))
        case (.pause, _, let failure?), (.resume, _, let failure?): finish(.failure(failure))

        case (.update, _, nil): finish(.success([]))
        case (.update, _, let failure?): finish(.failure(failure))

        case (.upgrade, _, _): break
        case (.clean, _, _): finish(.success([]))
        case (.inquire, _, _):
            if phase == .running || phase == .created || phase == .paused, let state = failure == nil ? seenState(running.output) : nil {
                phase = state
            }
            finish(.success([]))
        }
    }

    private func started() {
        if phase == .created { phase = .running }
        publish(.started(pid: pid))
        tellHeld()
        finish(.success(Messages.started(pid: pid)))
    }

    /// What the runtime printed as the container's state.
    private func seenState(_ output: SharedDescriptor?) -> Phase? {
        guard let output, lseek(output.raw, 0, SEEK_SET) == 0,
            let bytes = try? readAll(output.raw, name: "state", limit: 256 << 10), let state = try? JSON(parsing: bytes)
        else { return nil }
        switch state["status"]?.stringValue {
        case "created": return .created
        case "running": return .running
        case "paused": return .paused
        default: return nil
        }
    }

    // MARK: delete

    /// The runtime has deleted it; every end is recorded before that is said. What was written and a full sink does not take yet is waited
    /// for too, but not without end: the shim may be told to go next.
    func deleteIfEnded() {
        guard operation?.awaitsExit == true, first.exit != nil, !execs.contains(where: { $0.isAlive }) else { return }
        first.output.finish()
        // The end of the output comes to this place itself.
        if operation?.awaitsExit != true { return }
        if first.output.ended { return deleted() }
        if first.deleteDeadline == .max { first.deleteDeadline = now(CLOCK_MONOTONIC) + Process.deleteTime }
        if first.deleteDeadline <= now(CLOCK_MONOTONIC) { deleted() }
    }

    private func endExecs() {
        try? cgroup?.kill()
        for exec in execs where exec.isAlive {
            if let pidfd = exec.pidfd { _ = ctr_pidfd_send_signal(pidfd.raw, SIGKILL) }
        }
    }

    private func deleted() {
        phase = .deleted
        first.deleteDeadline = .max
        let exit = first.exit
        let response = Messages.deleted(pid: pid, exitStatus: first.exitCode, exitedAt: exit?.exited)
        publish(.deleted(execID: "", pid: pid, status: first.exitCode, at: exit?.exited ?? 0))
        first.greetReaders()
        finish(.success(response))
        dropRootfs()
    }

    /// Lets go of the root file system. Whoever closes the last reference waits for overlayfs to sync its upper file system; that is a
    /// child,
    /// which first lets go of everything else.
    func dropRootfs() {
        let messages = (try? parking.drain()) ?? []
        parked = 0
        for process in [first] + execs { process.parked = "" }
        parkGuests()
        // What of the output is missing is still to be said.
        if first.output.log?.isCounting == true { try? park(first) }
        if mounted { Rootfs.unmountAll(place.bundle) }
        guard let rootfs else {
            for file in messages { close(file) }
            return
        }
        self.rootfs = nil
        var gate: [Int32] = [-1, -1]
        let gated = gate.withUnsafeMutableBufferPointer { buffer in
            buffer.baseAddress.map { ctr_pipe2($0, O_CLOEXEC) == 0 } ?? false
        }
        // Two of rootfs and gate stay open in the child, which goes on when the shim has let go of both.
        if gated && ctr_clone3(0, nil, -1) == 0 {
            let (low, high) = (UInt32(min(rootfs.raw, gate[0])), UInt32(max(rootfs.raw, gate[0])))
            _ = ctr_close_range(0, low - 1, 0)
            if high > low + 1 { _ = ctr_close_range(low + 1, high - 1, 0) }
            _ = ctr_close_range(high + 1, .max, 0)
            var byte: UInt8 = 0
            _ = read(gate[0], &byte, 1)
            _exit(0)
        }
        for file in messages { close(file) }
        rootfs.closeNow()
        for end in gate where end >= 0 { close(end) }
    }
}
