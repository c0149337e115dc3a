import CLinux
import Glibc
import Linux
import Synchronization

/// A pidfd with an owner that may be shared.
final class ProcessHandle: Sendable {
    let identity: ProcessIdentity
    private let pidfd: Descriptor

    /// Opens a pidfd of exactly this process; ESRCH when it is gone.
    init(_ identity: ProcessIdentity) throws(SysError) {
        self.identity = identity
        pidfd = try identity.open()
    }

    fileprivate var raw: Int32 { pidfd.raw }

    /// ESRCH when it has ended.
    func signal(_ number: Int32) throws(SysError) {
        try check("signal process", "\(identity.pid)", ctr_pidfd_send_signal(pidfd.raw, number))
    }

    /// Whether the process has ended, reaped or not.
    var hasEnded: Bool {
        var item = pollfd(fd: pidfd.raw, events: Int16(POLLIN), revents: 0)
        return poll(&item, 1, 0) > 0
    }

    /// How it ended, in wait(2)'s encoding, for a process that ``hasEnded``, and how that is known: the kernel still knows after somebody reaped it
    /// (Linux 6.15), or nobody has and its zombie says so. nil when nobody knows any more.
    var testimony: (status: Int32, source: String)? {
        if let status = exitStatus { return (status, "pidfd") }
        if let status = zombieStatus { return (status, "zombie") }
        // Reaped between the two looks.
        return exitStatus.map { ($0, "pidfd") }
    }

    /// Field 52 of /proc/PID/stat (proc(5)).
    private var zombieStatus: Int32? {
        guard let stat = try? readFile("/proc/\(identity.pid)/stat", limit: 4096), let end = stat.lastIndex(of: UInt8(ascii: ")")),
            ProcessIdentity.startTime(inStat: stat) == identity.startTime
        else { return nil }
        let fields = stat[(end + 1)...].split(whereSeparator: { $0 == 0x20 || $0 == 0x0a })
        guard fields.count > 49, fields[0].elementsEqual("Z".utf8) else { return nil }
        return Int32(String(decoding: fields[49], as: UTF8.self))
    }

    /// What the kernel still knows after somebody reaped it (Linux 6.15), in wait(2)'s encoding; nil when it does not.
    var exitStatus: Int32? {
        var status: Int32 = 0
        return ctr_pidfd_exit_status(pidfd.raw, &status) == 0 ? status : nil
    }
}

/// Tells of the end of processes: one thread that sleeps in epoll_wait(2) on their pidfds.
final class PidfdWatcher: Sendable {
    private struct Watch {
        let process: ProcessHandle
        let action: @Sendable () -> Void
    }
    private let epoll: Int32
    private let watches = Mutex<(next: UInt64, active: [UInt64: Watch])>((1, [:]))

    init() throws(SysError) {
        epoll = try check("make epoll", "", ctr_epoll_create())
        Thread.start { [self] in run() }
    }

    /// Calls `action` once, on the watcher's thread, when `process` has ended; at once when it has already.
    /// - Returns: a number for ``cancel(_:)``.
    @discardableResult
    func watch(_ process: ProcessHandle, _ action: @escaping @Sendable () -> Void) throws(SysError) -> UInt64 {
        let key = watches.withLock { watches in
            defer { watches.next += 1 }
            watches.active[watches.next] = Watch(process: process, action: action)
            return watches.next
        }
        // One shot: a pidfd stays readable for ever once its process has ended.
        let failure = ctr_epoll_ctl(epoll, 1 /* EPOLL_CTL_ADD */, process.raw, 1 /* EPOLLIN */ | 1 << 30 /* EPOLLONESHOT */, key)
        guard failure == 0 else {
            watches.withLock { $0.active[key] = nil }
            throw SysError("watch process", "\(process.identity.pid)", code: -failure)
        }
        return key
    }

    func cancel(_ key: UInt64) {
        guard let watch = watches.withLock({ $0.active.removeValue(forKey: key) }) else { return }
        forget(watch)
    }

    private func forget(_ watch: Watch) { _ = ctr_epoll_ctl(epoll, 2 /* EPOLL_CTL_DEL */, watch.process.raw, 0, 0) }

    private func run() {
        var events = [ctr_event](repeating: ctr_event(), count: 64)
        while true {
            let ready = ctr_epoll_wait(epoll, &events, Int32(events.count), -1)
            if ready < 0 && ready != -EINTR { return }
            for event in events.prefix(Int(max(ready, 0))) {
                let watch = watches.withLock { $0.active.removeValue(forKey: event.token) }
                if let watch {
                    forget(watch)
                    watch.action()
                }
            }
        }
    }
}

/// A detached thread for as long as the process lives.
enum Thread {
    private final class Body {
        let run: @Sendable () -> Void
        init(_ run: @escaping @Sendable () -> Void) { self.run = run }
    }

    static func start(_ body: @escaping @Sendable () -> Void) {
        var thread = pthread_t()
        let context = Unmanaged.passRetained(Body(body))
        let failure = pthread_create(
            &thread, nil,
            { context in
                if let context { Unmanaged<Body>.fromOpaque(context).takeRetainedValue().run() }
                return nil
            }, context.toOpaque())
        if failure == 0 { pthread_detach(thread) } else { context.release() }
    }
}
