import CLinux
import Glibc
import Linux
import Logs
import OCI
import Records

/// The output of a container whose keeper and shim are both gone: its pipes, found again among the descriptors of its own processes.
///
/// While nobody has a read end, a writer gets SIGPIPE or EPIPE; what is in a pipe stays there as long as somebody has it open. So something may
/// be missing and nobody knows how much, which the log says with a gap of unknown length for each stream. A terminal does not outlive its
/// master.
struct Regain {
    /// Read ends, the caller's; -1 where nobody holds the pipe any more.
    private(set) var stdout: Int32 = -1
    private(set) var stderr: Int32 = -1
    let outcome: GuardsRecord.Regained

    /// Processes and descriptors that are looked at, at most.
    private static let processLimit = 65536
    private static let descriptorLimit = 1 << 20

    /// nil when these are the container's first guards: there is no record of predecessors in this boot, or of a process that they made.
    init?(bundle: Int32, start: StartRecord, predecessors: GuardsRecord?) throws(ShimError) {
        guard let predecessors, let boot = try? bootID(), predecessors.bootID == boot,
            let process = (try? PidRecord.read(in: bundle)) ?? nil, process.bootID == boot
        else { return nil }
        let (out, err) = (predecessors.stdoutPipe, predecessors.stderrPipe)
        var writer = try shimErrors { () throws(SysError) in try Self.openLog(start) }
        var found = Finder(stdout: out, stderr: err)
        if process.process.exists { Self.search(process, &found) }
        if writer?.hasEnded(.stdout) == true { found.drop(.stdout) }
        if writer?.hasEnded(.stderr) == true { found.drop(.stderr) }
        stdout = found.stdout
        stderr = found.stderr
        var (regained, lost): ([String], [String]) = ([], [])
        for stream in LogStream.allCases {
            let name = stream == .stdout ? "stdout" : "stderr"
            if writer?.hasEnded(stream) == true { continue }
            if (stream == .stdout ? stdout : stderr) >= 0 { regained.append(name) } else { lost.append(name) }
            do throws(SysError) {
                // What was written while there was a reader comes before the gap.
                var rest = found.waiting(stream)
                while rest > 0, let end = found.end(stream), case .moved(let count) = writer?.drain(stream, from: end, limit: rest) {
                    rest -= count
                }
                try writer?.gap(stream)
            } catch { throw ShimError(error) }
        }
        outcome = GuardsRecord.Regained(streams: regained.joined(separator: ","), lost: lost.joined(separator: ","))
    }

    /// The log, of which nobody else is a writer now; nil when the output goes elsewhere.
    private static func openLog(_ start: StartRecord) throws(SysError) -> LogWriter? {
        let path = start.incarnationDirectory + "/log"
        guard access(path + "/index", F_OK) == 0 else { return nil }
        return try LogWriter(directory: Linux.open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW), segmentBytes: start.segmentBytes)
    }

    // MARK: the search

    /// What is looked for, and what of it was found.
    private struct Finder {
        private(set) var stdout: Int32 = -1
        private(set) var stderr: Int32 = -1
        private var counts = (stdout: 0, stderr: 0)
        private let wanted: (stdout: UInt64?, stderr: UInt64?)

        init(stdout: UInt64?, stderr: UInt64?) { wanted = (stdout, stderr) }

        func end(_ stream: LogStream) -> Int32? {
            let end = stream == .stdout ? stdout : stderr
            return end < 0 ? nil : end
        }

        /// Bytes that were in the pipe before it had a reader again.
        func waiting(_ stream: LogStream) -> Int { stream == .stdout ? counts.stdout : counts.stderr }

        var complete: Bool { (stdout >= 0 || wanted.stdout == nil) && (stderr >= 0 || wanted.stderr == nil) }

        /// Takes a read end of descriptor `name` in `directory` (a /proc/PID/fd) when it is one of the pipes.
        mutating func take(_ name: String, in directory: Int32) {
            // The object first, without opening it; then exactly that object, whatever the process does with its number meanwhile.
            let opened = ctr_openat(directory, name, CTR_O_PATH | O_CLOEXEC, 0)
            if opened < 0 { return }
            let object = Descriptor(owning: opened)
            var status = Glibc.stat()
            guard fstat(object.raw, &status) == 0, status.st_mode & S_IFMT == S_IFIFO,
                ctr_filesystem_magic(object.raw) == 0x5049_5045 /* PIPEFS_MAGIC */
            else { return }
            let inode = UInt64(status.st_ino)
            let isOut = stdout < 0 && inode == wanted.stdout
            let isErr = stderr < 0 && inode == wanted.stderr
            guard isOut || isErr else { return }
            // Without a reader nothing is added, so this counts exactly what was written before the hole.
            let count = Self.bytesInside("/proc/self/fd/\(object.raw)")
            let end = ctr_openat(AT_FDCWD, "/proc/self/fd/\(object.raw)", O_RDONLY | O_NONBLOCK | O_CLOEXEC, 0)
            guard end >= 0 else { return }
            var check = Glibc.stat()
            guard fstat(end, &check) == 0, check.st_ino == status.st_ino else {
                close(end)
                return
            }
            // As the first guards had it: a description of its own, blocking.
            _ = ctr_fcntl_int(end, F_SETFL, 0)
            if isOut { (stdout, counts.stdout) = (end, count) } else { (stderr, counts.stderr) = (end, count) }
        }

        private static func bytesInside(_ path: String) -> Int {
            guard let end = try? Linux.open(path, O_WRONLY | O_NONBLOCK) else { return 0 }
            var count: Int32 = 0
            let asked = withUnsafeMutablePointer(to: &count) { ctr_ioctl_int(end.raw, 0x541B /* FIONREAD */, Int(bitPattern: $0)) }
            return asked < 0 ? 0 : max(Int(count), 0)
        }

        mutating func drop(_ stream: LogStream) {
            switch stream {
            case .stdout:
                if stdout >= 0 { close(stdout) }
                stdout = -1
            case .stderr:
                if stderr >= 0 { close(stderr) }
                stderr = -1
            }
        }
    }

    /// Looks through the descriptors of init, then of every process of the container's control group.
    private static func search(_ record: PidRecord, _ found: inout Finder) {
        look(at: record.process.pid, &found) { record.process.exists }
        if found.complete { return }
        guard let group = Container.controlGroup(record.cgroup) else { return }
        for pid in ((try? group.processes()) ?? []).prefix(processLimit) where pid != record.process.pid {
            guard let identity = try? ProcessIdentity(current: pid) else { continue }
            // Still a member after its directory was opened: then the directory is this process's.
            look(at: pid, &found) { identity.exists && Container.cgroupPath(of: pid).map { isInside($0, record.cgroup) } ?? false }
            if found.complete { return }
        }
    }

    private static func isInside(_ path: String, _ group: String?) -> Bool {
        guard let group else { return false }
        return path == group || path.utf8.starts(with: (group + "/").utf8)
    }

    private static func look(at pid: Int32, _ found: inout Finder, isMeant: () -> Bool) {
        guard let directory = try? Linux.open("/proc/\(pid)/fd", O_RDONLY | O_DIRECTORY), isMeant(),
            let copy = try? directory.duplicate(), let stream = fdopendir(copy.release())
        else { return }
        defer { closedir(stream) }
        var count = 0
        while let entry = readdir(stream), count < descriptorLimit, !found.complete {
            count += 1
            let name = withUnsafePointer(to: &entry.pointee.d_name) { tuple in
                tuple.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if name.utf8.allSatisfy({ $0 >= 0x30 && $0 <= 0x39 }) { found.take(name, in: directory.raw) }
        }
    }
}
