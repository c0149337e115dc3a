import CLinux
import Glibc
import Linux
import Logs
import Records

extension ForeignRecord {
    /// nil when there is none. Blocking.
    static func read(bundle path: String) -> ForeignRecord? {
        guard let bundle = try? Linux.open(path, O_RDONLY | O_DIRECTORY) else { return nil }
        return (try? read(in: bundle.raw)) ?? nil
    }
}

/// The log that `ctr-shim log` writes for a shim of others. Every call may block.
enum ForeignLog {
    /// The living logger of `directory`.
    static func logger(_ directory: String) -> ProcessIdentity? {
        guard let opened = try? Linux.open(directory, O_RDONLY | O_DIRECTORY), let boot = try? bootID(),
            let record = (try? PidRecord.read(in: opened.raw)) ?? nil, record.bootID == boot, record.process.exists
        else { return nil }
        return record.process
    }

    /// Whether a logger ever began to write there.
    static func hasBegun(_ directory: String) -> Bool { access(directory + "/\(PidRecord.fileName)", F_OK) == 0 }

    /// Ends a log whose logger is gone, with a gap where something may be missing. Nothing while a logger lives, or is still to come, or when the
    /// log has ended.
    static func complete(_ directory: String) throws(SysError) {
        let opened: Descriptor
        do throws(SysError) { opened = try Linux.open(directory, O_RDONLY | O_DIRECTORY) } catch {
            if error.code == ENOENT { return }
            throw error
        }
        guard faccessat(opened.raw, PidRecord.fileName, F_OK, 0) == 0 else { return }
        let lock = try Linux.open("lock", O_RDWR | O_CREAT | O_NOFOLLOW, mode: 0o600, at: opened.raw)
        let taken = ctr_ofd_lock(lock.raw, false)
        if taken == -EAGAIN || taken == -EACCES { return }
        try check("take lock of", directory, taken)
        var writer = try LogWriter(directory: opened, segmentBytes: .max)
        for stream in LogStream.allCases where !writer.hasEnded(stream) {
            try writer.gap(stream)
            writer.end(stream)
        }
        writer.retry()
    }

    /// Whole entries of the index, in bytes; nil without one.
    static func indexSize(_ directory: String) -> UInt64? {
        var status = stat()
        guard stat(directory + "/index", &status) == 0 else { return nil }
        return UInt64(clamping: status.st_size) / UInt64(LogEntry.length) * UInt64(LogEntry.length)
    }
}

extension ExitRecord {
    /// What a shim of others said of an end. It tells a number alone, so a signal is not named.
    init?(process: ProcessIdentity, status: UInt32, exitedAt: Int64, cgroup: ContainerCgroup?) {
        guard let code = UInt8(exactly: status) else { return nil }
        let time = now(CLOCK_REALTIME)
        let exited = exitedAt > 0 && exitedAt <= time ? exitedAt : time
        self.init(
            process: process, outcome: .exited(code), source: .reaped, exited: exited,
            exitedBoot: now(CLOCK_BOOTTIME) - (time - exited))
        guard let cgroup else { return }
        usage = Usage(
            oomKills: (try? cgroup.oomKills()) ?? nil, cpu: (try? cgroup.cpuUsage()) ?? nil, memoryPeak: (try? cgroup.memoryPeak()) ?? nil)
        oom = (usage.oomKills ?? 0) > 0
    }
}

extension ForeignLog {
    /// Removes the segments of which a reader that has `indexSize` bytes of the index has everything. Blocking.
    static func removeRead(_ directory: String, upTo indexSize: UInt64) throws(SysError) {
        let index: Descriptor
        do throws(SysError) { index = try Linux.open(directory + "/index", O_RDONLY | O_NOFOLLOW) } catch {
            if error.code == ENOENT { return }
            throw error
        }
        // The last entry of each stream that was read names the segment that may go on; the entries before it lie within a bounded tail.
        let length = UInt64(LogEntry.length)
        var at = indexSize / length
        var seen: Set<LogStream> = []
        var buffer = [UInt8](repeating: 0, count: LogEntry.length)
        for _ in 0..<1024 where at > 0 && seen.count < LogStream.allCases.count {
            at -= 1
            guard pread(index.raw, &buffer, buffer.count, off_t(clamping: at * length)) == buffer.count,
                let entry = buffer.withUnsafeBytes({ LogEntry($0) })
            else { return }
            guard seen.insert(entry.stream).inserted else { continue }
            var number = entry.segment
            while number > 1 {
                number -= 1
                if unlink("\(directory)/\(entry.stream.segmentName(number))") != 0 { break }
            }
        }
    }
}
