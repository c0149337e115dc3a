import CLinux
import Glibc
import Linux
import Records
import TTRPC

/// `ctr-shim … delete`: ends whatever is left of a container and prints how it ended (containerd.task.v2.DeleteResponse, raw). A living shim
/// is asked to do it, so that the true status is not lost; what does not answer is killed. Can be repeated, copes with what is missing, and
/// takes less than the five seconds that containerd gives it.
struct DeleteHelper {
    /// Nanoseconds for all of it.
    static let time: Int64 = 4_000_000_000
    /// Of these, at most so many for a shim that is asked.
    static let askTime: Int64 = 2_000_000_000

    private let arguments: Arguments
    private let deadline = now(CLOCK_MONOTONIC) + DeleteHelper.time
    /// -1 when there is no bundle any more.
    private let bundle: Int32
    private let start: StartRecord
    /// Init, when it was created in this boot.
    private let record: PidRecord?
    private let process: SharedDescriptor?
    /// Init lived when this looked, so that its end is this one's deed.
    private let found: Bool

    static func run(_ arguments: Arguments) throws(ShimError) {
        let helper = try DeleteHelper(arguments)
        helper.endGuards()
        helper.endContainer()
        helper.removeFiles()
        let response = helper.outcome()
        try shimErrors { () throws(SysError) in try writeAll(1, response, name: "standard output") }
    }

    private init(_ arguments: Arguments) throws(ShimError) {
        self.arguments = arguments
        let opened = ctr_openat(AT_FDCWD, arguments.bundle, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0)
        if opened < 0 && opened != -ENOENT { throw ShimError(SysError("open", arguments.bundle, code: -opened)) }
        bundle = opened
        let recorded = opened < 0 ? nil : try? StartRecord.read(in: opened)
        if let recorded {
            start = recorded
        } else if arguments.address.isEmpty {
            throw ShimError("read record", StartRecord.fileName, "no such file in \(arguments.bundle)")
        } else {
            // What a start would have chosen without options.
            start = try ContainerdStart.usual(arguments)
        }
        let boot = (try? bootID()) ?? ""
        let known = opened < 0 ? nil : (try? PidRecord.read(in: opened)).flatMap { $0 }
        record = known?.bootID == boot ? known : nil
        if let identity = record?.process, let pidfd = try? identity.open() {
            let shared = SharedDescriptor(pidfd)
            process = shared
            found = !isReadable(shared.raw)
        } else {
            process = nil
            found = false
        }
    }

    /// Milliseconds until the end of the time, at most `limit` of nanoseconds.
    private func left(_ limit: Int64 = .max) -> Int32 {
        Int32(clamping: min(max(deadline - now(CLOCK_MONOTONIC), 0), limit) / 1_000_000)
    }

    // MARK: guards

    private func endGuards() {
        if bundle < 0 { return }
        if let lock = try? Place.openLock(in: bundle) {
            if ctr_ofd_locked(lock) == 1 { askShim() }
            close(lock)
        }
        endKeeper()
    }

    /// Kill, Wait, Delete, Shutdown, as far as the time goes.
    private func askShim() {
        let connected = ctr_unix_connect(start.socket, true)
        if connected < 0 { return }
        let connection = Descriptor(owning: connected)
        let end = now(CLOCK_MONOTONIC) + Self.askTime
        let id = arguments.id
        let calls: [(String, [UInt8])] = [
            ("Kill", Messages.killRequest(id: id, signal: UInt32(SIGKILL))), ("Wait", Messages.waitRequest(id: id)),
            ("Delete", Messages.deleteRequest(id: id)), ("Shutdown", Messages.shutdownRequest(id: id)),
        ]
        var decoder = FrameDecoder()
        for (number, (method, payload)) in calls.enumerated() {
            let stream = UInt32(number * 2 + 1)
            let request = RequestEnvelope(service: Daemon.taskServices[0], method: method, payload: payload)
            let frame = Frame(stream: stream, kind: .request, data: request.encoded()).encoded()
            if (try? writeAll(connection.raw, frame, name: start.socket)) == nil { return }
            var answered = false
            while !answered {
                let rest = end - now(CLOCK_MONOTONIC)
                if rest <= 0 || !isReadable(connection.raw, milliseconds: left(rest)) { return }
                var chunk = [UInt8](repeating: 0, count: 1024)
                let got = read(connection.raw, &chunk, chunk.count)
                if got <= 0 { return }
                decoder.feed(chunk[..<got])
                while let event = decoder.next() {
                    if case .frame(let frame) = event, frame.stream == stream { answered = true }
                }
            }
        }
    }

    /// A keeper whose shim did not go away by itself: both are ended, the keeper first, so that it starts no other.
    private func endKeeper() {
        guard let guards = (try? GuardsRecord.read(in: bundle)).flatMap({ $0 }), let keeper = try? guards.keeper.open() else { return }
        // A shim that was shut down ends at once, and its keeper with it.
        if isReadable(keeper.raw, milliseconds: left(500_000_000)) { return }
        let children = (try? readFile("/proc/\(guards.keeper.pid)/task/\(guards.keeper.pid)/children", limit: 1 << 16)) ?? []
        let shims = children.split(separator: 0x20).compactMap { Int32(String(decoding: $0, as: UTF8.self)) }
        let identities = shims.compactMap { try? ProcessIdentity(current: $0) }
        _ = ctr_pidfd_send_signal(keeper.raw, SIGKILL)
        for identity in identities where isShim(identity.pid) {
            if let shim = try? identity.open() { _ = ctr_pidfd_send_signal(shim.raw, SIGKILL) }
        }
    }

    private func isShim(_ pid: Int32) -> Bool {
        guard let name = try? readFile("/proc/\(pid)/comm", limit: 64) else { return false }
        return name.elementsEqual("ctr-shim\n".utf8)
    }

    // MARK: container

    /// Kills what lives, and has the runtime forget it.
    private func endContainer() {
        if let process {
            if let path = record?.cgroup, let hierarchies = try? CgroupHierarchies(),
                let group = try? ContainerCgroup(path, in: hierarchies),
                group.exists
            {
                try? group.kill()
            }
            _ = ctr_pidfd_send_signal(process.raw, SIGKILL)
            _ = isReadable(process.raw, milliseconds: left(1_000_000_000))
        }
        guard let null = try? Linux.open("/dev/null", O_RDWR) else { return }
        let call = RuntimeCall(start: start, bundle: bundle < 0 ? "/" : arguments.bundle, id: arguments.id)
        // Without a bundle there is no place for its log: its standard error, which is nothing.
        let log = bundle < 0 ? "/proc/self/fd/2" : nil
        guard let pid = try? call.spawn(["delete", "--force"], descriptors: [null.raw, null.raw, null.raw], log: log) else { return }
        let opened = ctr_pidfd_open(pid, 0)
        if opened >= 0 {
            let runtime = Descriptor(owning: opened)
            if !isReadable(runtime.raw, milliseconds: left()) { _ = ctr_pidfd_send_signal(runtime.raw, SIGKILL) }
        }
        var status: Int32 = 0
        _ = ctr_waitid(CTR_P_PID, pid, &status, 0)
    }

    private func removeFiles() {
        unlink(start.socket)
        // What an older shim, or somebody else, may have mounted where this host sees it; ours mounts where only it sees.
        Rootfs.unmountAll(arguments.bundle)
    }

    // MARK: outcome

    /// The exit record, else what the keeper wrote, else what the kernel keeps for who held a pidfd (Linux 6.15), else SIGKILL where it was this
    /// one that killed a living process. 255, containerd's word for unknown, when nobody knows (decision 0022).
    private func outcome() -> [UInt8] {
        let directory = bundle < 0 ? -1 : ctr_openat(AT_FDCWD, start.incarnationDirectory, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0)
        if directory >= 0 {
            defer { close(directory) }
            if let exit = (try? ExitRecord.read(in: directory)).flatMap({ $0 }) {
                return Messages.deleted(pid: exit.process.pid, exitStatus: exit.outcome.code ?? 255, exitedAt: exit.exited)
            }
        }
        let time = now(CLOCK_REALTIME)
        guard let record else { return Messages.deleted(pid: 0, exitStatus: 255, exitedAt: time) }
        let pid = record.process.pid
        if let exits = try? Linux.open(KeeperExit.fileName, O_RDONLY | O_NOFOLLOW, at: bundle),
            let entry = (try? ExitsFile.find(record.process, in: exits.raw)).flatMap({ $0 })
        {
            return Messages.deleted(
                pid: pid, exitStatus: exitCode(waitStatus: entry.waitStatus), exitedAt: time - now(CLOCK_BOOTTIME) + entry.boot)
        }
        var status: Int32 = 0
        if let process, ctr_pidfd_exit_status(process.raw, &status) == 0 {
            return Messages.deleted(pid: pid, exitStatus: exitCode(waitStatus: status), exitedAt: time)
        }
        if found, let process, isReadable(process.raw, milliseconds: 0) {
            return Messages.deleted(pid: pid, exitStatus: 128 + UInt32(SIGKILL), exitedAt: time)
        }
        return Messages.deleted(pid: pid, exitStatus: 255, exitedAt: time)
    }
}
