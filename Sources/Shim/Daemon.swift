import CLinux
import Glibc
import Linux
import Logs
import Records
import TTRPC

/// The shim itself: one thread, one epoll set, one container.
final class Daemon {
    static let version = "0.1.0"
    static let taskServices = ["containerd.task.v2.Task", "containerd.task.v3.Task"]
    static let guardService = "ctr.shim.v1.Guard"

    /// Nanoseconds without an event after which memory is given back.
    static let quietTime: Int64 = 500_000_000

    let loop: Loop
    let server: Server
    let container: Container
    private let place: Place
    private let signals: Int32
    private var finished = false

    /// Becomes what the keeper's contract wants of it and takes over what it finds.
    init(_ arguments: Arguments) throws(ShimError) {
        // Asked before anything is opened: without them, other files get their numbers.
        let stdoutWriter = Self.inherited(Inherited.stdoutWriter)
        let stderrWriter = Self.inherited(Inherited.stderrWriter)
        try Self.settle()
        let place = try Place(arguments)
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
        let pump = try shimErrors { [loop] () throws(SysError) in
            try LogPump(
                incarnation: place.incarnationDirectory, segmentBytes: place.start.segmentBytes, stdout: Inherited.stdout,
                stderr: Inherited.stderr, loop: loop, answer: answer)
        }
        container = Container(
            place: place, loop: loop, pump: pump,
            parking: Parking(receiving: Inherited.parkingReceiver, sending: Inherited.parkingSender),
            stdoutWriter: stdoutWriter, stderrWriter: stderrWriter, answer: answer)
        server.onCall = { [unowned self] call, request in self.dispatch(call, request) }
        server.onClose = { [container] connection in container.forget(connection: connection) }
        try container.takeOver()
    }

    /// `number` when it is open, else -1.
    private static func inherited(_ number: Int32) -> Int32 { ctr_fcntl_int(number, F_GETFD, 0) >= 0 ? number : -1 }

    private static func settle() throws(ShimError) {
        try shimErrors { () throws(SysError) in
            try check("close descriptors", "", ctr_close_range(UInt32(Inherited.count), .max, 0))
            try check("close descriptors on exec", "", ctr_close_range(3, .max, 4))
            // What the keeper left blocked is sorted out here: two signals are waited for, the rest is as good as unknown.
            try ProcessControl.setSignals(
                blocked: [SIGCHLD, SIGUSR2], ignored: [SIGPIPE, SIGXFSZ, SIGHUP, SIGINT, SIGTERM, SIGQUIT, SIGUSR1])
            try ProcessControl.becomeSubreaper()
            try ProcessControl.becomeNonDumpable()
            try ProcessControl.setName("ctr-shim")
        }
    }

    /// Serves until Shutdown.
    func run() throws(ShimError) {
        // After something happened the memory that it took is given back, once it has been quiet for a moment.
        var tidyAt = now(CLOCK_MONOTONIC) + Self.quietTime
        while !finished {
            let deadline = min(container.deadline, tidyAt)
            var happened = false
            try shimErrors { () throws(SysError) in
                try loop.wait(until: deadline) { source, number, events in
                    happened = true
                    switch source {
                    case .listener: server.accept()
                    case .connection: server.handle(number, events)
                    case .signals: signalled()
                    case .stdout: container.pump.pump(.stdout)
                    case .stderr: container.pump.pump(.stderr)
                    case .initProcess: container.initReadable()
                    case .exitEvents: container.witness?.eventsReadable()
                    }
                }
            }
            if deadline == .max && !happened { continue }
            let time = now(CLOCK_MONOTONIC)
            if deadline <= time { container.expire(at: time) }
            if happened {
                tidyAt = time + Self.quietTime
            } else if tidyAt <= time {
                ctr_trim_memory()
                tidyAt = .max
            }
        }
        container.pump.finish()
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
        case "WaitLog": container.pump.wait(call, indexSize: try Messages.waitLog(request.payload))
        default: throw Status(.unimplemented, "method \(request.method)")
        }
    }

    private func taskCall(_ call: Call, _ request: RequestEnvelope) throws(Status) {
        let payload = request.payload
        switch request.method {
        case "State":
            try expect(Messages.state(payload))
            container.status(call)
        case "Create": container.perform(.create(try createMounts(payload)), for: call)
        case "Start":
            try expect(Messages.start(payload))
            container.perform(.start, for: call)
        case "Delete":
            try expect(Messages.delete(payload))
            container.perform(.delete, for: call)
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
            try expect(target)
            container.kill(call, signal: signal, all: all)
        case "Wait":
            try expect(Messages.wait(payload))
            container.wait(call)
        case "Connect":
            server.answer(call, .success(Messages.connected(shim: getpid(), task: container.pid)))
        case "Shutdown":
            let (_, immediately) = try Messages.shutdown(payload)
            // A shim that still has a container stays, as every shim does.
            finished = container.isDisposable(immediately: immediately)
            server.answer(call, .success([]))
        default: throw Status(.unimplemented, "method \(request.method)")
        }
    }

    private func expect(_ target: Messages.Target) throws(Status) {
        if target.id != place.id { throw Status(.notFound, "container \(target.id) is not here; this shim has \(place.id)") }
        if !target.execID.isEmpty { throw Status(.notFound, "container \(place.id) has no process \(target.execID)") }
    }

    private func createMounts(_ payload: [UInt8]) throws(Status) -> [MountRequest] {
        let request = try Messages.create(payload)
        try expect(request.target)
        if !request.bundle.isEmpty && request.bundle != place.bundle {
            throw Status(.invalidArgument, "bundle \(request.bundle) is not here; this shim has \(place.bundle)")
        }
        if request.terminal { throw Status(.unimplemented, "terminals are not supported") }
        if request.others.contains(where: { !$0.isEmpty }) {
            throw Status(.unimplemented, "streams and checkpoints of the caller's own are not supported")
        }
        return request.mounts
    }

    private func info() -> [UInt8] {
        let exit = container.exit
        return Messages.info(version: Self.version, source: exit?.source.rawValue ?? "") { message in
            message.shim_pid = UInt32(bitPattern: getpid())
            message.keeper_pid = place.keeperIsAlive ? UInt32(bitPattern: place.keeperPid) : 0
            message.task_pid = UInt32(bitPattern: container.pid)
            message.task_start_time = container.process?.process.startTime ?? 0
            message.started = container.process?.started != nil ? 1 : 0
            message.shim_restarts = place.restarts
            guard let exit else { return }
            message.exited = 1
            message.exit_status = exit.outcome.code ?? 0
            message.exited_at_ns = exit.exited
            message.oom_killed = exit.oom ? 1 : 0
        }
    }
}
