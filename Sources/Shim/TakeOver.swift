import CLinux
import Glibc
import Linux
import Logs
import Records
import TTRPC

extension Container {
    /// What a shim finds at its start, and makes of it (docs/architecture.md, "The shim").
    func takeOver() throws(ShimError) {
        first.record = try recordErrors { () throws(RecordError) in try PidRecord.read(in: place.bundleDirectory) }
        first.exit = try recordErrors { () throws(RecordError) in try ExitRecord.read(in: place.incarnationDirectory) }
        first.names = first.record?.streams ?? StreamNames()
        // What the container writes before anybody asks for it is taken from the start; where containerd says where to, it says so in Create.
        let predecessors = takeParked()
        adoptSinks(of: first, predecessors[""])
        if first.record != nil || place.start.publishAddress == nil {
            do throws(Status) { try connectFirst() } catch { throw ShimError("open log", place.id, error.message) }
        }
        guard let record = first.record else {
            // Nothing was created, but a predecessor may have died in the middle of it.
            if place.restarts > 0 {
                // The caller's FIFOs stay: with its last writer gone a reader would see an end.
                if let parked = predecessors[""]?.take("h") ?? predecessors[""]?.take("H"),
                    let fifo = try? InputFIFO(parked: parked, number: 0, loop: loop)
                {
                    keep(fifo, of: first)
                }
                rootfs = nil
                parkAgain()
                perform(.clean, for: nil)
            }
            return
        }
        if stdoutWriter >= 0 || stderrWriter >= 0 { handOverPipes() }
        reconnect(first, predecessors[""])
        publish(.created(pid: pid, streams: first.names, mounts: []), again: true)
        if record.started != nil { publish(.started(pid: pid), again: true) }
        phase = record.started == nil ? .created : .running
        takeOverExecs(predecessors)
        try takeOver(first, record)
        if first.isAlive { watchMemory() }
        // At once: whoever asks now is told what holds.
        if phase == .running, (try? cgroup?.isFrozen()) == true { phase = .paused }
        // Created or running, running or paused: the record says what was begun, the runtime what came of it, and where its freezer is
        // elsewhere.
        if record.started != nil && first.isAlive { perform(.inquire, for: nil) }
        if parked > 0 { parkAgain() }
        reap()
    }

    /// What a predecessor knew of a process that has a pid: watched, or its end looked for.
    private func takeOver(_ process: Process, _ record: PidRecord) throws(ShimError) {
        process.record = record
        if let exit = process.exit {
            process.phase = .stopped
            process.output.processEnded()
            process.inputEnded()
            return publish(.exited(execID: process.execID, pid: process.pid, status: process.exitCode, at: exit.exited), again: true)
        }
        do throws(SysError) {
            // Before the process is looked at: whoever is not its parent must not miss its end.
            process.witness = Witness(of: record.process, place: place, loop: loop, number: process.number)
            let opened = SharedDescriptor(try record.process.open())
            process.pidfd = opened
            process.witness?.pidfd = opened
            try loop.add(opened.raw, .readable, .process, number: process.number)
        } catch {
            if error.code != ESRCH { throw ShimError(error) }
            recordGone(process)
        }
    }

    // MARK: what is parked

    /// What a predecessor has parked, by exec; the last message of a name counts.
    private func takeParked() -> [String: ParkedProcess] {
        var found: [String: ParkedProcess] = [:]
        guard let messages = try? parking.peek() else { return found }
        parked = messages.count
        for message in messages {
            guard let name = ParkedName(message.text, count: message.files.count) else {
                for file in message.files { close(file) }
                continue
            }
            switch name.owner {
            case .rootfs: rootfs = SharedDescriptor(Descriptor(owning: message.files[0]))
            case .process(let execID): found[execID] = ParkedProcess(letters: name.letters, files: message.files)
            }
        }
        return found
    }

    /// Lets the streams of `process` flow on from where a predecessor left them.
    private func reconnect(_ process: Process, _ predecessor: ParkedProcess?) {
        do {
            if !process.isFirst {
                adoptSinks(of: process, predecessor)
                let sinks = try sinks(of: process)
                for (stream, letter, sink) in [(LogStream.stdout, Character("o"), sinks.stdout), (.stderr, "e", sinks.stderr)] {
                    guard let sink else {
                        process.loggerPipes[stream] = predecessor?.take(letter)
                        continue
                    }
                    if let pipe = predecessor?.take(letter) {
                        try process.output.connect(stream, pipe.release(), to: sink)
                    } else {
                        // It had ended, and only its last entry was not written.
                        sink.end(stream)
                    }
                }
            }
            let master = predecessor?.take("m")
            if let master, let writer = predecessor?.take("O") { try process.output.connect(terminal: master, writer: writer) }
            if let parked = predecessor?.take("h") ?? predecessor?.take("H") {
                let fifo = try InputFIFO(parked: parked, number: process.number, loop: loop)
                keep(fifo, of: process)
                if let pipe = predecessor?.take("i") {
                    try fifo.connect(pipe: pipe)
                } else if let master {
                    try fifo.connect(terminal: master)
                }
            }
            guard let spool = predecessor?.take("s") else { return }
            try process.input.adopt(spool: spool, terminal: process.names.terminal)
            if let pipe = predecessor?.take("i") {
                try process.input.connect(pipe: pipe)
            } else if let master {
                try process.input.connect(terminal: master)
            }
        } catch {
            // A stream that cannot be gone on with ends; the process is looked after all the same.
            process.output.abandon()
        }
    }

    // MARK: execs

    private func takeOverExecs(_ predecessors: [String: ParkedProcess]) {
        var found: [Process] = []
        for execID in directoryNames(at: "\(place.bundle)/\(Self.directoryName)") {
            guard (try? Self.validate(execID)) != nil, found.count < Self.execLimit,
                let opened = try? Linux.open(
                    "\(Self.directoryName)/\(execID)", O_RDONLY | O_DIRECTORY | O_NOFOLLOW, at: place.bundleDirectory)
            else { continue }
            let directory = SharedDescriptor(opened)
            guard let record = (try? ExecRecord.read(in: directory.raw)) ?? nil else {
                removeDirectory(of: execID)
                continue
            }
            let exec = Process(
                execID: execID, number: nextNumber, directory: directory, output: Output(number: nextNumber, loop: loop, answer: answer),
                input: Input(number: nextNumber, loop: loop, answer: answer))
            nextNumber += 1
            attach(exec)
            exec.setNames(StreamNames(terminal: record.terminal, stdin: record.stdin, stdout: record.stdout, stderr: record.stderr))
            exec.exec = record
            if onEvent != nil { exec.told = Told(in: directory.raw) }
            found.append(exec)
        }
        execs = found.sorted { ($0.exec?.created ?? 0, $0.execID) < ($1.exec?.created ?? 0, $1.execID) }
        for exec in execs { takeOver(exec, predecessors[exec.execID]) }
    }

    private func takeOver(_ exec: Process, _ predecessor: ParkedProcess?) {
        publish(.execAdded(execID: exec.execID), again: true)
        exec.exit = (try? ExitRecord.read(in: exec.exitDirectory)) ?? nil
        let record = (try? PidRecord.read(in: exec.pidDirectory)) ?? nil
        if let record {
            exec.phase = .running
            reconnect(exec, predecessor)
            publish(.execStarted(execID: exec.execID, pid: record.process.pid), again: true)
            do throws(ShimError) { try takeOver(exec, record) } catch { recordGone(exec) }
        } else if exec.exit != nil {
            // The runtime could not start it.
            exec.phase = .stopped
        } else if exec.exec?.starting == true {
            takeOverStart(exec, predecessor)
        } else {
            reconnectSpool(exec, predecessor)
        }
    }

    /// The predecessor was killed while the runtime was at work, and the runtime with it. Ours leaves the pid before it lets the process go:
    /// without one nothing ran. Of another a process in the container is found by its output pipes.
    private func takeOverStart(_ exec: Process, _ predecessor: ParkedProcess?) {
        if let identity = leftProcess(of: exec, predecessor) {
            reconnect(exec, predecessor)
            do {
                if identity.exists {
                    try adopt(exec, identity, started: now(CLOCK_REALTIME))
                } else {
                    exec.record = PidRecord(
                        process: identity, bootID: place.bootID, created: exec.exec?.created ?? 0, started: now(CLOCK_REALTIME))
                    try exec.record?.write(in: exec.pidDirectory)
                    exec.phase = .running
                    recordGone(exec)
                }
                return publish(.execStarted(execID: exec.execID, pid: identity.pid))
            } catch { exec.record = nil }
        }
        // As Exec left it: Start can be repeated.
        if let group = group(of: exec) { try? group.kill() }
        exec.phase = .none
        exec.exec?.starting = false
        try? exec.exec?.write(in: exec.pidDirectory)
        unlinkat(exec.pidDirectory, Self.pidFile, 0)
        reconnectSpool(exec, predecessor)
    }

    private func reconnectSpool(_ exec: Process, _ predecessor: ParkedProcess?) {
        guard exec.names.stdin == "spool:" else { return }
        do throws(SysError) {
            if let spool = predecessor?.take("s") {
                // What went into a pipe that nobody read is delivered again.
                try checkErrno("rewind", "stdin", lseek(spool.raw, 0, SEEK_SET))
                try exec.input.adopt(spool: spool, terminal: exec.names.terminal)
            } else {
                try exec.input.open(terminal: exec.names.terminal)
                try park(exec)
            }
        } catch {}
    }

    /// The process that a killed start has left: living, or ended in the keeper's care.
    private func leftProcess(of exec: Process, _ predecessor: ParkedProcess?) -> ProcessIdentity? {
        let earliest = Self.ticks(exec.exec?.createdBoot ?? 0)
        let parents = [getpid(), place.keeperPid]
        if let pid = runtimePid(of: exec) {
            if let identity = try? ProcessIdentity(current: pid), identity.startTime >= earliest,
                Self.parent(of: pid).map({ parents.contains($0) }) ?? false
            {
                return identity
            }
            return ProcessIdentity(pid: pid, startTime: earliest)
        }
        let pipes = predecessor?.inodes(of: ["o", "e"]) ?? []
        guard place.start.rootfsMode == .mounted, !pipes.isEmpty, let inside = Self.mountNamespace(of: pid) else { return nil }
        for parent in parents where parent > 1 {
            let children = (try? readFile("/proc/\(parent)/task/\(parent)/children", limit: 1 << 16)) ?? []
            for text in children.split(separator: 0x20) {
                guard let pid = Int32(String(decoding: text, as: UTF8.self)), let identity = try? ProcessIdentity(current: pid),
                    identity.startTime >= earliest, Self.mountNamespace(of: pid) == inside
                else { continue }
                for stream in 1...2 {
                    var status = stat()
                    if stat("/proc/\(pid)/fd/\(stream)", &status) == 0 && pipes.contains(status.st_ino) { return identity }
                }
            }
        }
        return nil
    }

    private static func mountNamespace(of pid: Int32) -> ino_t? {
        var status = stat()
        return stat("/proc/\(pid)/ns/mnt", &status) == 0 ? status.st_ino : nil
    }

    /// CLOCK_BOOTTIME in the clock ticks of process start times.
    private static func ticks(_ boot: Int64) -> UInt64 {
        let ticks = UInt64(max(sysconf(Int32(_SC_CLK_TCK)), 1))
        return UInt64(max(boot, 0)) / (1_000_000_000 / ticks)
    }

    /// Whether the shim may end: it has no container, or its caller knows that the container has ended and wants no more of it.
    func isDisposable(immediately: Bool) -> Bool {
        switch phase {
        case .none, .deleted: operation == nil
        case .stopped: immediately
        case .created, .running, .paused: false
        }
    }
}
