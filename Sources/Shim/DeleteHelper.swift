import CLinux
import Glibc
import Linux
import Records
import TTRPC

/// `ctr-shim … delete`: ends whatever is left of a container and prints how it ended (containerd.task.v2.DeleteResponse, raw). A living
/// shim
/// is asked to do it, so that the true status is not lost; what does not answer is killed. Can be repeated.
enum DeleteHelper {
    static func run(_ arguments: Arguments) throws(ShimError) {
        let bundle = try shimErrors { () throws(SysError) in try Linux.open(arguments.bundle, O_RDONLY | O_DIRECTORY) }
        guard let start = try recordErrors({ () throws(RecordError) in try StartRecord.read(in: bundle.raw) }) else {
            throw ShimError("read record", StartRecord.fileName, "no such file in \(arguments.bundle)")
        }
        let lock = Descriptor(owning: try Place.openLock(in: bundle.raw))
        if ctr_ofd_locked(lock.raw) == 1 { askShim(start.socket, id: arguments.id) }
        try endKeeper(bundle.raw)

        let call = RuntimeCall(start: start, bundle: arguments.bundle, id: arguments.id)
        try shimErrors { () throws(SysError) in
            let null = try Linux.open("/dev/null", O_RDWR)
            let pid = try call.spawn(["delete", "--force"], descriptors: [null.raw, null.raw, null.raw])
            var status: Int32 = 0
            _ = try check("wait for", start.runtime, ctr_waitid(CTR_P_PID, pid, &status, 0))
        }
        unlink(start.socket)
        let response = try outcome(bundle.raw, start)
        try shimErrors { () throws(SysError) in try writeAll(1, response, name: "standard output") }
    }

    /// The exit record, else what the keeper wrote; 255 when nobody knows.
    private static func outcome(_ bundle: Int32, _ start: StartRecord) throws(ShimError) -> [UInt8] {
        let incarnation = try shimErrors { () throws(SysError) in try Linux.open(start.incarnationDirectory, O_RDONLY | O_DIRECTORY) }
        if let exit = try recordErrors({ () throws(RecordError) in try ExitRecord.read(in: incarnation.raw) }) {
            return Messages.deleted(pid: exit.process.pid, exitStatus: exit.outcome.code ?? 255, exitedAt: exit.exited)
        }
        guard let record = try recordErrors({ () throws(RecordError) in try PidRecord.read(in: bundle) }) else {
            return Messages.deleted(pid: 0, exitStatus: 255, exitedAt: nil)
        }
        let exits = try shimErrors { () throws(SysError) in try Linux.open(KeeperExit.fileName, O_RDONLY, at: bundle) }
        let entry = try recordErrors { () throws(RecordError) in try ExitsFile.find(record.process, in: exits.raw) }
        return Messages.deleted(
            pid: record.process.pid, exitStatus: entry.map { exitCode(waitStatus: $0.waitStatus) } ?? 255,
            exitedAt: entry.map { now(CLOCK_REALTIME) - now(CLOCK_BOOTTIME) + $0.boot })
    }

    /// Kill, Delete, Shutdown: each answer is awaited for at most a second.
    private static func askShim(_ socket: String, id: String) {
        let connected = ctr_unix_connect(socket, false)
        if connected < 0 { return }
        let connection = Descriptor(owning: connected)
        var limit = timeval(tv_sec: 1, tv_usec: 0)
        setsockopt(connected, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        setsockopt(connected, SOL_SOCKET, SO_SNDTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        let calls: [(String, [UInt8])] = [
            ("Kill", Messages.killRequest(id: id, signal: UInt32(SIGKILL))), ("Wait", Messages.waitRequest(id: id)),
            ("Delete", Messages.deleteRequest(id: id)), ("Shutdown", Messages.shutdownRequest(id: id)),
        ]
        var decoder = FrameDecoder()
        for (number, (method, payload)) in calls.enumerated() {
            let request = RequestEnvelope(service: "containerd.task.v2.Task", method: method, payload: payload)
            let frame = Frame(stream: UInt32(number * 2 + 1), kind: .request, data: request.encoded()).encoded()
            if (try? writeAll(connection.raw, frame, name: socket)) == nil { return }
            var answered = false
            while !answered {
                var chunk = [UInt8](repeating: 0, count: 1024)
                let got = read(connection.raw, &chunk, chunk.count)
                if got <= 0 { return }
                decoder.feed(chunk[..<got])
                while let event = decoder.next() {
                    if case .frame(let frame) = event, frame.stream == UInt32(number * 2 + 1) { answered = true }
                }
            }
        }
    }

    /// A keeper whose shim did not go away by itself: both are ended, the keeper first, so that it starts no other.
    private static func endKeeper(_ bundle: Int32) throws(ShimError) {
        guard let guards = try recordErrors({ () throws(RecordError) in try GuardsRecord.read(in: bundle) }) else { return }
        do throws(SysError) {
            let keeper = try guards.keeper.open()
            // A shim that was shut down ends at once, and its keeper with it.
            var waiting = pollfd(fd: keeper.raw, events: Int16(POLLIN), revents: 0)
            if poll(&waiting, 1, 500) > 0 { return }
            let children = (try? readFile("/proc/\(guards.keeper.pid)/task/\(guards.keeper.pid)/children", limit: 1 << 16)) ?? []
            let shims = children.split(separator: 0x20).compactMap { Int32(String(decoding: $0, as: UTF8.self)) }
            let identities = shims.compactMap { try? ProcessIdentity(current: $0) }
            _ = ctr_pidfd_send_signal(keeper.raw, SIGKILL)
            for identity in identities where isShim(identity.pid) {
                if let shim = try? identity.open() { _ = ctr_pidfd_send_signal(shim.raw, SIGKILL) }
            }
        } catch {
            if error.code != ESRCH { throw ShimError(error) }
        }
    }

    private static func isShim(_ pid: Int32) -> Bool {
        guard let name = try? readFile("/proc/\(pid)/comm", limit: 64) else { return false }
        return name.elementsEqual("ctr-shim\n".utf8)
    }
}
