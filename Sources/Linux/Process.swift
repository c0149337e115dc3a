import CLinux
import Glibc

/// Who a process is, beyond its number: pid and start time name it within one boot, the boot id across boots.
/// A bare pid is never signalled.
public struct ProcessIdentity: Equatable, Sendable {
    public let pid: Int32
    /// Field 22 of /proc/PID/stat (proc(5)): clock ticks since boot, in the host's time namespace.
    public let startTime: UInt64

    public init(pid: Int32, startTime: UInt64) {
        self.pid = pid
        self.startTime = startTime
    }

    /// The process that has `pid` now; ESRCH when there is none.
    public init(current pid: Int32) throws(SysError) {
        let stat: [UInt8]
        do { stat = try readFile("/proc/\(pid)/stat", limit: 4096) } catch {
            throw SysError("find process", "\(pid)", code: error.code == ENOENT ? ESRCH : error.code)
        }
        guard let time = Self.startTime(inStat: stat) else { throw SysError("find process", "\(pid)", code: EIO) }
        self.init(pid: pid, startTime: time)
    }

    /// Parses the stat line; the command name may contain spaces and parentheses, so fields count from the last ')'.
    public static func startTime(inStat stat: [UInt8]) -> UInt64? {
        guard let close = stat.lastIndex(of: UInt8(ascii: ")")) else { return nil }
        let fields = stat[(close + 1)...].split(separator: UInt8(ascii: " "))
        guard fields.count > 19 else { return nil }
        return UInt64(String(decoding: fields[19], as: UTF8.self))
    }

    /// A pidfd of exactly this process; ESRCH when it is gone or its pid belongs to another now.
    public func open() throws(SysError) -> Descriptor {
        let pidfd = Descriptor(owning: try check("open pidfd of", "\(pid)", ctr_pidfd_open(pid, 0)))
        // The pidfd was opened first: if the start time still agrees, it names the process that we mean.
        guard try ProcessIdentity(current: pid) == self else { throw SysError("find process", "\(pid)", code: ESRCH) }
        return pidfd
    }

    /// Whether exactly this process exists and is not a zombie whose end was seen.
    public var exists: Bool { (try? ProcessIdentity(current: pid)) == self }
}

/// The kernel's id of this boot, 36 characters; a record with another one speaks of the dead.
public func bootID() throws(SysError) -> String {
    let bytes = try readFile("/proc/sys/kernel/random/boot_id", limit: 64)
    return String(decoding: bytes.prefix { $0 != 0x0a }, as: UTF8.self)
}

/// wait(2)'s encoding as the engine shows it: the exit code, or 128 + signal.
public func exitCode(waitStatus: Int32) -> UInt32 {
    if ctr_wifsignaled(waitStatus) { return 128 + UInt32(ctr_wtermsig(waitStatus)) }
    return UInt32(ctr_wexitstatus(waitStatus))
}
