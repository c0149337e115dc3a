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
    /// What is to be parked again, by its name: of execs, and what the log owes.
    private(set) var parked: [(name: String, files: [Int32])] = []

    /// Processes that are looked at, at most.
    private static let processLimit = 65536

    /// nil when these are the container's first guards: there is no record of predecessors in this boot, or of a process that they made.
    init?(bundle: Int32, start: StartRecord, predecessors: GuardsRecord?) throws(ShimError) {
        guard let predecessors, let boot = try? bootID(), predecessors.bootID == boot,
            let process = (try? PidRecord.read(in: bundle)) ?? nil, process.bootID == boot
        else { return nil }
        let wanted = (predecessors.stdoutPipe, predecessors.stderrPipe)
        let first = try Stream.regain(process, wanted, log: start.incarnationDirectory + "/log", start.segmentBytes)
        (stdout, stderr) = (first.stdout, first.stderr)
        var (regained, lost) = (first.regained, first.lost)
        var drops = ParkedFiles()
        first.addDrops(to: &drops)
        if !drops.files.isEmpty { parked.append((ParkedName(.process(execID: ""), letters: drops.letters).text, drops.files)) }
        for exec in Self.execs(in: bundle) {
            let path = "exec/\(exec)"
            guard let directory = try? Linux.open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, at: bundle),
                let record = (try? ExecRecord.read(in: directory.raw)) ?? nil,
                let process = (try? PidRecord.read(in: directory.raw)) ?? nil, process.bootID == boot,
                ((try? ExitRecord.read(in: directory.raw)) ?? nil) == nil
            else { continue }
            let log = "/proc/self/fd/\(directory.raw)/log"
            let found = try Stream.regain(
                process, (record.stdoutPipe, record.stderrPipe), log: log, start.segmentBytes)
            var files = ParkedFiles()
            files.add("o", found.stdout)
            files.add("e", found.stderr)
            found.addDrops(to: &files)
            if !files.files.isEmpty { parked.append((ParkedName(.process(execID: exec), letters: files.letters).text, files.files)) }
            regained += found.regained.map { path + "/" + $0 }
            lost += found.lost.map { path + "/" + $0 }
        }
        // A record has its limit, and an exec's log says the same.
        outcome = GuardsRecord.Regained(
            streams: regained.prefix(128).joined(separator: ","), lost: lost.prefix(128).joined(separator: ","))
    }

    private static func execs(in bundle: Int32) -> [String] {
        guard let directory = try? Linux.open("exec", O_RDONLY | O_DIRECTORY | O_NOFOLLOW, at: bundle) else { return [] }
        return Array(directoryNames(in: directory.raw).filter { (try? Container.validate($0)) != nil }.prefix(Container.execLimit))
    }

    static func inode(_ file: Int32) -> UInt64? {
        var status = stat()
        return fstat(file, &status) == 0 ? UInt64(status.st_ino) : nil
    }

    /// The two streams of one process.
    private struct Stream {
        var stdout: Int32 = -1
        var stderr: Int32 = -1
        /// Of a disk that takes nothing now: what its log owes, ``LogWriter/dropFile(_:)``.
        var drops: (stdout: Int32, stderr: Int32) = (-1, -1)
        var regained: [String] = []
        var lost: [String] = []

        func addDrops(to files: inout ParkedFiles) {
            files.add("d", drops.stdout)
            files.add("D", drops.stderr)
        }

        static func regain(
            _ process: PidRecord, _ wanted: (UInt64?, UInt64?), log: String, _ segmentBytes: UInt64
        ) throws(ShimError) -> Stream {
            var writer = try shimErrors { () throws(SysError) in try openLog(log, segmentBytes) }
            var found = Finder(stdout: wanted.0, stderr: wanted.1)
            if process.process.exists { Regain.search(process, &found) }
            if writer?.hasEnded(.stdout) == true { found.drop(.stdout) }
            if writer?.hasEnded(.stderr) == true { found.drop(.stderr) }
            var result = Stream(stdout: found.stdout, stderr: found.stderr)
            for stream in LogStream.allCases {
                let name = stream == .stdout ? "stdout" : "stderr"
                if writer?.hasEnded(stream) == true { continue }
                if found.end(stream) != nil { result.regained.append(name) } else { result.lost.append(name) }
                do throws(SysError) {
                    // What was written while there was a reader comes before the gap.
                    var rest = found.waiting(stream)
                    while rest > 0, let end = found.end(stream), case .moved(let count) = writer?.drain(stream, from: end, limit: rest) {
                        rest -= count
                    }
                    try writer?.oweGap(stream)
                } catch { throw ShimError(error) }
            }
            // The writer closes its own.
            if let writer {
                result.drops.stdout = try shimErrors { () throws(SysError) in try copy(writer.dropFile(.stdout)) }
                result.drops.stderr = try shimErrors { () throws(SysError) in try copy(writer.dropFile(.stderr)) }
            }
            return result
        }

        private static func copy(_ file: Int32) throws(SysError) -> Int32 {
            file < 0 ? -1 : try check("duplicate descriptor", "dropped", ctr_fcntl_int(file, F_DUPFD_CLOEXEC, 3))
        }

        /// The log, of which nobody else is a writer now; nil when the output goes elsewhere.
        private static func openLog(_ path: String, _ segmentBytes: UInt64) throws(SysError) -> LogWriter? {
            guard access(path + "/index", F_OK) == 0 else { return nil }
            return try LogWriter(directory: Linux.open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW), segmentBytes: segmentBytes)
        }
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
        guard let directory = try? Linux.open("/proc/\(pid)/fd", O_RDONLY | O_DIRECTORY), isMeant() else { return }
        for name in directoryNames(in: directory.raw) where !found.complete {
            if name.utf8.allSatisfy({ $0 >= 0x30 && $0 <= 0x39 }) { found.take(name, in: directory.raw) }
        }
    }
}

extension Place {
    /// Whether this shim's keeper is not the one that counts: another helper started a second pair, because the first one was killed before it
    /// wrote who its keeper is. Then this shim ends, and its keeper with it. A keeper that no record names and that has no rival is written down.
    ///
    /// Called with the lock held, and every helper holds it until its record is written.
    func isSuperseded() -> Bool {
        guard keeperPid > 0, let keeper = try? ProcessIdentity(current: keeperPid) else { return false }
        let record = (try? GuardsRecord.read(in: bundleDirectory)) ?? nil
        if record?.keeper == keeper { return false }
        if let rival = record?.keeper, record?.bootID == bootID, let pidfd = try? rival.open(), !isReadable(pidfd.raw) { return true }
        let first = ((try? PidRecord.read(in: bundleDirectory)) ?? nil)?.bootID != bootID
        try? GuardsRecord(
            keeper: keeper, bootID: bootID, stdoutPipe: Regain.inode(Inherited.stdout), stderrPipe: Regain.inode(Inherited.stderr),
            regained: first ? nil : GuardsRecord.Regained(streams: "", lost: "")
        ).write(in: bundleDirectory)
        return false
    }
}
