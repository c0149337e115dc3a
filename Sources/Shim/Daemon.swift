import CLinux
import Glibc
import Linux
import Logs
import Records
import TTRPC

/// The shim itself: one thread, one epoll set, one container.
final class Daemon {
    /// Ends in the version, which is a text of its own in the program's file that way.
    static let banner = "ctr-shim, version 0.2.0"
    static var version: String { String(banner.dropFirst(18)) }
    static let taskServices = ["containerd.task.v2.Task", "containerd.task.v3.Task"]
    static let guardService = "ctr.shim.v1.Guard"

    /// 128 execs with all their streams hold about 1,500 descriptors, and as many again while their parked ones are looked through.
    static let descriptorLimit: UInt64 = 16384

    /// Nanoseconds without an event after which memory is given back.
    static let quietTime: Int64 = 500_000_000

    let loop: Loop
    let server: Server
    let container: Container
    private let place: Place
    private let signals: Int32
    /// Calls of Upgrade to which this program is the answer.
    private var upgraded: [Call] = []
    private var publisher: Publisher?
    /// Shutdown was answered; what containerd was not told yet is still told, until then (CLOCK_MONOTONIC, nanoseconds).
    private var leaving = Int64.max
    static let leaveTime: Int64 = 3_000_000_000

    /// Becomes what the keeper's contract wants of it and takes over what it finds.
    init(_ arguments: Arguments) throws(ShimError) {
        // What this starts gets the limit that there was.
        _ = ctr_raise_descriptors(Self.descriptorLimit)
        // Asked before anything is opened: without them, other files would get their numbers.
        let stdoutWriter = Inherited.isPipe(Inherited.stdoutWriter) ? Inherited.stdoutWriter : -1
        let stderrWriter = Inherited.isPipe(Inherited.stderrWriter) ? Inherited.stderrWriter : -1
        Inherited.reserve()
        let before = Self.state(arguments)
        try Self.settle(keeping: before?.descriptors ?? [])
        let place = try Place(arguments, before)
        if place.isSuperseded() { _exit(0) }
        self.place = place
        let made = try shimErrors { () throws(SysError) -> (Loop, Server, Int32) in
            let loop = try Loop()
            let signals = try ProcessControl.signalDescriptor([SIGCHLD, SIGUSR2]).release()
            try loop.add(signals, .readable, .signals)
            return (loop, try Server(listener: Inherited.listener, loop: loop), signals)
        }
        loop = made.0
        server = made.1
        signals = made.2
        let answer = { [server] (call: Call, result: Result<[UInt8], Status>) in server.answer(call, result) }
        container = Container(
            place: place, loop: loop,
            parking: Parking(receiving: Inherited.parkingReceiver, sending: Inherited.parkingSender),
            stdoutWriter: stdoutWriter, stderrWriter: stderrWriter, answer: answer)
        server.onCall = { [unowned self] call, request in self.dispatch(call, request) }
        server.onClose = { [container] connection in container.forget(connection: connection) }
        container.onUpgrade = UpgradeSteps(
            pause: { [server] in server.pause() }, resume: { [server] in server.resume() },
            state: { [unowned self] in self.state().encoded() },
            become: { [unowned self] program in self.become(program) })
        container.mounted = before?.mounted ?? false
        upgraded = before?.waits.filter { $0.method == "Upgrade" }.map { $0.call } ?? []
        if let address = place.start.publishAddress {
            let made = try shimErrors { () throws(SysError) in
                try Publisher(address: address, place: place, loop: loop, underWay: before?.publisher)
            }
            publisher = made
            container.onEvent = { event, again, kept in made.publish(event, again: again, kept: kept) }
            try shimErrors { () throws(SysError) in try outlive() }
        }
        if let before { server.restore(before.connections, waits: before.waits) }
        try container.takeOver()
        // An upgrade is no death.
        server.carryOnCalls(counting: before == nil)
        guard let before else { return }
        container.resume(before)
        server.receiveRest()
    }

    /// Under containerd connections and calls go on when a shim is killed.
    private func outlive() throws(SysError) {
        let survivors = try Survivors(directory: place.bundleDirectory, parking: container.parking)
        survivors.onParked = { [container] in container.parked += 1 }
        survivors.onUnpark = { [container] in container.parkAgain() }
        survivors.onRepeated = { [container] method, execID, failure in container.outcome(ofRepeated: method, execID, failure) }
        container.guests = { [unowned survivors] in survivors.sockets.map { (name: Survivors.name($0.serial), file: $0.socket) } }
        server.survivors = survivors
        server.adoptSurvivors()
    }

    /// `kept`: beside what the keeper gives, in rising order.
    private static func settle(keeping kept: [Int32]) throws(ShimError) {
        try shimErrors { () throws(SysError) in
            var next = UInt32(Inherited.count)
            for descriptor in kept {
                if UInt32(descriptor) > next { try check("close descriptors", "", ctr_close_range(next, UInt32(descriptor) - 1, 0)) }
                next = UInt32(descriptor) + 1
            }
            try check("close descriptors", "", ctr_close_range(next, .max, 0))
            try check("close descriptors on exec", "", ctr_close_range(3, .max, 4))
            // What the keeper left blocked is sorted out here: two signals are waited for, the rest is as good as unknown.
            try ProcessControl.setSignals(
                blocked: [SIGCHLD, SIGUSR2], ignored: [SIGPIPE, SIGXFSZ, SIGHUP, SIGINT, SIGTERM, SIGQUIT, SIGUSR1])
            try ProcessControl.becomeSubreaper()
            try ProcessControl.becomeNonDumpable()
            try ProcessControl.setName("ctr-shim")
        }
    }

    /// An event that was not taken, or a logger that reads the last of its output.
    private var hasSomethingToFinish: Bool { publisher?.isIdle == false || container.hasLoggers }

    /// Serves until Shutdown.
    func run() throws(ShimError) {
        // After something happened the memory that it took is given back, once it has been quiet for a moment.
        var tidyAt = now(CLOCK_MONOTONIC) + Self.quietTime
        while leaving == .max || (leaving > now(CLOCK_MONOTONIC) && hasSomethingToFinish) {
            let deadline = min(container.deadline, publisher?.deadline ?? .max, tidyAt, leaving)
            var happened = false
            try shimErrors { () throws(SysError) in
                try loop.wait(until: deadline) { source, number, events in
                    happened = true
                    switch source {
                    case .listener:
                        server.accept()
                        publisher?.clientCame()
                    case .connection: server.handle(number, events)
                    case .signals: signalled()
                    case .publisher: publisher?.handle(events)
                    default: if let process = container.find(number: number) { container.ready(process, source) }
                    }
                }
            }
            if deadline == .max && !happened { continue }
            let time = now(CLOCK_MONOTONIC)
            if deadline <= time {
                container.expire(at: time)
                publisher?.expire(at: time)
            }
            if happened {
                tidyAt = time + Self.quietTime
            } else if tidyAt <= time {
                ctr_trim_memory()
                tidyAt = .max
            }
        }
        container.first.output.finish()
        container.endLoggers()
        unlink(place.start.socket)
    }

    private func signalled() {
        withUnsafeTemporaryAllocation(byteCount: 512, alignment: 8) { buffer in
            while read(signals, buffer.baseAddress, buffer.count) > 0 {}
        }
        container.keeperWrote()
        container.reap()
    }

    // MARK: calls

    private func dispatch(_ call: Call, _ request: RequestEnvelope) {
        do throws(Status) {
            if request.service == Self.guardService {
                try guardCall(call, request)
            } else if Self.taskServices.contains(request.service) {
                try taskCall(call, request)
            } else {
                throw Status(.unimplemented, "service \(request.service)")
            }
        } catch {
            server.answer(call, .failure(error))
        }
    }

    private func guardCall(_ call: Call, _ request: RequestEnvelope) throws(Status) {
        switch request.method {
        case "Info": server.answer(call, .success(info()))
        case "WaitLog":
            let (execID, indexSize) = try Messages.waitLog(request.payload)
            guard let process = container.find(execID) else { throw container.noExec(execID) }
            process.output.wait(call, indexSize: indexSize)
        case "Upgrade":
            // A call that is carried on has done what it asked for.
            if upgraded.contains(where: { $0.connection == call.connection && $0.stream == call.stream }) {
                return server.answer(call, .success(Messages.upgraded(version: Self.version)))
            }
            container.perform(.upgrade(try Container.upgradeProgram(Messages.upgrade(request.payload))), for: call)
        case "Processes": container.listExecs(call)
        case "WriteInput":
            let (execID, write) = try Messages.writeInput(request.payload)
            container.writeInput(call, execID: execID, write)
        default: throw Status(.unimplemented, "method \(request.method)")
        }
    }

    private func taskCall(_ call: Call, _ request: RequestEnvelope) throws(Status) {
        let payload = request.payload
        switch request.method {
        case "State":
            container.status(call, execID: try expect(Messages.state(payload)))
        case "Create": container.perform(try create(payload), for: call)
        case "Start":
            let execID = try expect(Messages.start(payload))
            if execID.isEmpty { container.perform(.start, for: call) } else { container.startExec(call, execID) }
        case "Delete":
            let execID = try expect(Messages.delete(payload))
            if execID.isEmpty { container.perform(.delete, for: call) } else { container.deleteExec(call, execID) }
        case "Exec":
            let request = try Messages.exec(payload)
            try expect(request.target)
            container.register(call, request)
        case "ResizePty":
            let (target, width, height) = try Messages.resizePty(payload)
            container.resize(call, execID: try expect(target), width: width, height: height)
        case "CloseIO":
            let (target, stdin) = try Messages.closeIO(payload)
            container.closeIO(call, execID: try expect(target), stdin: stdin)
        case "Update":
            let (target, resources) = try Messages.update(payload)
            try expect(target)
            guard let resources, resources.value.count <= 1 << 20 else {
                throw Status(.invalidArgument, "no resources are given, or more than 1 MiB of them")
            }
            container.perform(.update(resources.value), for: call)
        case "Pids":
            try expect(Messages.idOnly(payload))
            container.listPids(call)
        case "Pause":
            try expect(Messages.idOnly(payload))
            container.perform(.pause, for: call)
        case "Resume":
            try expect(Messages.idOnly(payload))
            container.perform(.resume, for: call)
        case "Kill":
            let (target, signal, all) = try Messages.kill(payload)
            container.kill(call, execID: try expect(target), signal: signal, all: all)
        case "Wait": container.wait(call, execID: try expect(Messages.wait(payload)))
        case "Stats":
            try expect(Messages.idOnly(payload))
            container.statistics(call)
        case "Connect":
            server.answer(call, .success(Messages.connected(shim: getpid(), task: container.pid)))
        case "Shutdown":
            let (_, immediately) = try Messages.shutdown(payload)
            // A shim that still has a container stays, as every shim does.
            let disposable = container.isDisposable(immediately: immediately)
            server.answer(call, .success([]))
            if !disposable { return }
            // Nobody is to come any more.
            unlink(place.start.socket)
            leaving = now(CLOCK_MONOTONIC) + Self.leaveTime
        default: throw Status(.unimplemented, "method \(request.method)")
        }
    }

    /// The exec that is meant, empty for the first process.
    @discardableResult
    private func expect(_ target: Messages.Target) throws(Status) -> String {
        if target.id != place.id { throw Status(.notFound, "container \(target.id) is not here; this shim has \(place.id)") }
        return target.execID
    }

    private func create(_ payload: [UInt8]) throws(Status) -> Operation.Kind {
        let request = try Messages.create(payload)
        try expect(request.target)
        if !request.bundle.isEmpty && request.bundle != place.bundle {
            throw Status(.invalidArgument, "bundle \(request.bundle) is not here; this shim has \(place.bundle)")
        }
        if !request.checkpoint.isEmpty { throw Status(.unimplemented, "checkpoints are not supported") }
        if let options = request.options, place.start.publishAddress != nil { try container.choose(options) }
        return .create(request.mounts, request.names)
    }

    private func info() -> [UInt8] {
        let first = container.first
        let exit = first.exit
        return Messages.info(version: Self.version, source: exit?.source.rawValue ?? "") { message in
            message.shim_pid = UInt32(bitPattern: getpid())
            message.keeper_pid = place.keeperIsAlive ? UInt32(bitPattern: place.keeperPid) : 0
            message.task_pid = UInt32(bitPattern: container.pid)
            message.task_start_time = first.record?.process.startTime ?? 0
            message.started = first.record?.started != nil ? 1 : 0
            message.level = 2
            message.terminal = first.names.terminal ? 1 : 0
            message.input_open = first.input.isOpen ? 1 : 0
            message.shim_restarts = place.restarts
            message.upgrades = place.upgrades
            guard let exit else { return }
            message.exited = 1
            message.exit_status = exit.outcome.code ?? 0
            message.exited_at_ns = exit.exited
            message.oom_killed = exit.oom ? 1 : 0
        }
    }
}

// MARK: becoming another program

extension Daemon {
    /// What the program that this process was before has left; nil in a new process, and where it makes no sense.
    private static func state(_ arguments: Arguments) -> ShimState? {
        guard let descriptor = arguments.state, let bytes = try? readAll(descriptor, name: "state", limit: ShimState.limit) else {
            return nil
        }
        close(descriptor)
        return try? ShimState.decode(bytes)
    }

    private func state() -> ShimState {
        let connections = server.connectionStates
        // What outlives every shim is carried on from the journal, but for the upgrade itself.
        let waits = container.waitsOfAll.filter { wait in
            wait.method == "Upgrade" || connections.contains { $0.serial == wait.call.connection }
        }
        return ShimState(
            version: Self.version, upgrades: place.upgrades + 1, restarts: place.restarts, lock: place.lock, connections: connections,
            waits: waits, reads: container.readsOfAll, mounted: container.mounted, publisher: publisher?.underWay)
    }

    /// Returns errno when the program cannot be executed; then everything is as it was.
    private func become(_ program: String) -> Int32 {
        let state = state()
        guard let file = try? Container.sealed(state.encoded()), let words = try? readFile("/proc/self/cmdline", limit: 1 << 16) else {
            return EIO
        }
        var arguments = words.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
        if let old = arguments.firstIndex(of: "-state"), old + 1 < arguments.count { arguments.removeSubrange(old...(old + 1)) }
        arguments.insert(contentsOf: ["-state", String(file.raw)], at: 1)
        let handed = state.descriptors + [file.raw] + (3..<Inherited.count)
        for descriptor in handed { _ = ctr_fcntl_int(descriptor, F_SETFD, 0) }
        _ = ctr_restore_descriptors()
        var copies: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) }
        copies.append(nil)
        var failure = EINVAL
        copies.withUnsafeMutableBufferPointer { buffer in
            if let base = buffer.baseAddress { _ = execve(program, base, ctr_environ()) }
            failure = errno
        }
        for copy in copies { free(copy) }
        _ = ctr_raise_descriptors(Self.descriptorLimit)
        for descriptor in handed { _ = ctr_fcntl_int(descriptor, F_SETFD, FD_CLOEXEC) }
        return failure
    }
}

extension ShimState {
    /// What stays open beside the keeper's, in rising order.
    var descriptors: [Int32] {
        (connections.map(\.descriptor) + [lock, publisher?.descriptor ?? -1]).filter { $0 >= Inherited.count }.sorted()
    }
}
