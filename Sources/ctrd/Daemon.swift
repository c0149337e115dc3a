import APITTRPC
import CLinux
import Glibc
import Linux
import Logging
import NIOCore
import NIOPosix
import Store
import Supervisor

/// The running manager: its locks, its database, its socket, its supervisor, made in this order.
struct Daemon {
    private static let patience = TimeAmount.milliseconds(300)

    private let configuration: Configuration
    private let supervisor: Supervisor
    private let store: Store
    private let locks: [Int32]

    init(configuration: Configuration, logger: Logger) throws(StartupError) {
        self.configuration = configuration
        // Whoever is refused leaves nothing behind.
        try Self.probe(configuration)
        try Self.makeDirectories(configuration)
        locks = [try Self.lock(configuration.root), try Self.lock(configuration.state)]
        let socket = try Self.listen(configuration.address)
        let events = try configuration.eventsAddress.map { path throws(StartupError) in try Self.listen(path) }

        let executor = Executor(loop: MultiThreadedEventLoopGroup(numberOfThreads: 1).next())
        do {
            let opened = try Store.open(path: configuration.root + "/ctrd.db", time: now(CLOCK_REALTIME) / 1_000_000_000)
            if let damage = opened.damage { logger.error("database rebuilt from what is on disk", metadata: ["cause": "\(damage)"]) }
            store = opened.store
            supervisor = try Supervisor(
                configuration: configuration, executor: executor, store: opened.store, rebuild: opened.damage != nil, logger: logger)
        } catch { throw StartupError("\(error)") }

        // Connections are taken from now on, and answered once the containers are found again: soon, or after a bounded while without those
        // whose shims are silent.
        let supervisor = supervisor
        let server = Server(supervisor: supervisor, executor: executor, logger: logger)
        let eventServer = Server(supervisor: supervisor, executor: executor, logger: logger, events: true)
        executor.spawn {
            await supervisor.reconcile(patience: Self.patience)
            do {
                if let events { _ = try await eventServer.serve(events) }
                _ = try await server.serve(socket)
                logger.info("listening", metadata: ["address": "\(configuration.address)", "root": "\(configuration.root)"])
            } catch {
                complain("cannot serve \(configuration.address): \(error)")
                _exit(1)
            }
        }
    }

    /// Returns at SIGTERM or SIGINT. Nothing is finished first: whatever is under way is carried on by the next start.
    func waitForStop(_ signals: Int32) {
        var item = pollfd(fd: signals, events: Int16(POLLIN), revents: 0)
        while poll(&item, 1, -1) < 0 && errno == EINTR {}
        unlink(configuration.address)
        if let events = configuration.eventsAddress { unlink(events) }
        supervisor.removeEmptyCgroups()
        store.settle()
    }

    private static func makeDirectories(_ configuration: Configuration) throws(StartupError) {
        for path in [
            configuration.root, configuration.state, configuration.state + "/s", configuration.state + "/runtime",
            configuration.root + "/containers",
        ] {
            try makePath(path, mode: 0o700)
        }
        guard let slash = configuration.address.lastIndex(of: "/"), slash > configuration.address.startIndex else { return }
        try makePath(String(configuration.address[..<slash]), mode: 0o700)
    }

    /// Makes what is missing of `path`: the last component with `mode`, those above it with 0711.
    private static func makePath(_ path: String, mode: mode_t) throws(StartupError) {
        var status = stat()
        if stat(path, &status) == 0 {
            guard status.st_mode & S_IFMT == S_IFDIR else { throw StartupError("\(path) is not a directory") }
            return
        }
        if let slash = path.lastIndex(of: "/"), slash > path.startIndex { try makePath(String(path[..<slash]), mode: 0o711) }
        try startupStep { () throws(SysError) in try makeDirectory(path, mode: mode) }
    }

    /// Holds DIRECTORY/ctrd.lock for the life of this process; the kernel lets go of it whatever happens.
    private static func lock(_ directory: String) throws(StartupError) -> Int32 {
        let path = directory + "/ctrd.lock"
        let file = try startupStep { () throws(SysError) in try Linux.open(path, O_RDWR | O_CREAT, mode: 0o600) }
        if ctr_ofd_lock(file.raw, false) < 0 { throw inUse(directory, file.raw) }
        try startupStep { () throws(SysError) in
            try checkErrno("truncate", path, ftruncate(file.raw, 0))
            try writeAll(file.raw, Array("\(getpid())\n".utf8), name: path)
        }
        return file.release()
    }

    /// Refuses locks and an address that another process has.
    private static func probe(_ configuration: Configuration) throws(StartupError) {
        for directory in [configuration.root, configuration.state] {
            let path = directory + "/ctrd.lock"
            guard let file = try? Linux.open(path, O_RDWR), ctr_ofd_locked(file.raw) == 1 else { continue }
            if let owner = owner(file.raw), Heirs.letGo(ofLock: path, owner: owner) { continue }
            throw inUse(directory, file.raw)
        }
        _ = try addressIsFree(configuration.address)
        if let events = configuration.eventsAddress { _ = try addressIsFree(events) }
    }

    /// Who took the lock, as is written in it.
    private static func owner(_ lock: Int32) -> Int32? {
        lseek(lock, 0, SEEK_SET)
        let text = (try? readAll(lock, name: "ctrd.lock", limit: 64)).map { String(decoding: $0, as: UTF8.self) } ?? ""
        return text.split(separator: "\n").first.flatMap { Int32($0) }
    }

    private static func inUse(_ directory: String, _ lock: Int32) -> StartupError {
        let pid = owner(lock).map { " (pid \($0))" } ?? ""
        return StartupError("another ctrd\(pid) uses \(directory)")
    }

    /// Whether nothing is at `path`; false for a socket file with nobody behind it. One that answers is somebody's.
    private static func addressIsFree(_ path: String) throws(StartupError) -> Bool {
        let connected = ctr_unix_connect(path, true)
        if connected >= 0 || connected == -EAGAIN {
            var isGone = false
            if connected >= 0 {
                isGone = Heirs.letGo(ofSocket: connected)
                close(connected)
            }
            if isGone { return false }
            throw StartupError("address in use: somebody listens on \(path)")
        }
        if connected == -ECONNREFUSED {
            var status = stat()
            guard lstat(path, &status) == 0, status.st_mode & S_IFMT == S_IFSOCK else {
                throw StartupError("\(path) exists and is not a socket")
            }
            return false
        }
        if connected == -ENOENT { return true }
        throw StartupError("cannot use address \(path): \(SysError("connect", code: -connected).cause)")
    }

    private static func listen(_ path: String) throws(StartupError) -> Int32 {
        if !(try addressIsFree(path)) { unlink(path) }
        return try startupStep { () throws(SysError) in try check("listen on", path, ctr_unix_listen(path, 256, 0o600)) }
    }
}
