import CLinux
import Glibc
import Linux

/// Programs that a manager was about to start when it was killed. Until such a program is executed, which is a moment, it has all of the manager's
/// files: its locks are held and its sockets take connections, though nobody is behind them.
enum Heirs {
    /// Milliseconds.
    private static let patience: Int32 = 5000

    /// Whether the lock at `path`, which `owner` took, was let go of: at once where that process lives, else within a while.
    static func letGo(ofLock path: String, owner: Int32) -> Bool {
        guard hasEnded(owner), let file = try? Linux.open(path, O_RDWR) else { return false }
        var ends: [Int32] = [-1, -1]
        guard ctr_pipe2(&ends, O_CLOEXEC) >= 0 else { return false }
        let news = Descriptor(owning: ends[0])
        // One that waits in vain ends with the process, which is refused then.
        let waiter = Unmanaged.passRetained(Waiter(file: file.release(), end: ends[1]))
        var thread = pthread_t()
        let made = pthread_create(
            &thread, nil,
            { raw in
                guard let raw else { return nil }
                let waiter = Unmanaged<Waiter>.fromOpaque(raw).takeRetainedValue()
                while ctr_ofd_lock(waiter.file, true) == -EINTR {}
                close(waiter.file)
                close(waiter.end)
                return nil
            }, waiter.toOpaque())
        guard made == 0 else { return false }
        pthread_detach(thread)
        return waits(for: news.raw)
    }

    /// Whether the socket that `connection` was made to was closed: at once where the process that listens lives, else within a while.
    static func letGo(ofSocket connection: Int32) -> Bool {
        var (owner, user, group): (UInt32, UInt32, UInt32) = (0, 0, 0)
        guard ctr_peer_credentials(connection, &owner, &user, &group) == 0, owner > 0 else { return false }
        return hasEnded(Int32(clamping: owner)) && waits(for: connection)
    }

    private final class Waiter {
        let file: Int32
        let end: Int32
        init(file: Int32, end: Int32) { (self.file, self.end) = (file, end) }
    }

    private static func waits(for descriptor: Int32) -> Bool {
        var item = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        var result: Int32
        repeat { result = poll(&item, 1, patience) } while result < 0 && errno == EINTR
        return result > 0
    }

    private static func hasEnded(_ pid: Int32) -> Bool {
        let process = ctr_pidfd_open(pid, 0)
        if process < 0 { return process == -ESRCH }
        let handle = Descriptor(owning: process)
        var item = pollfd(fd: handle.raw, events: Int16(POLLIN), revents: 0)
        return poll(&item, 1, 0) > 0
    }
}
