import CLinux
import Glibc
import Linux
import Records
import TTRPC

extension Container {
    /// How long one waits for the keeper before one looks again whether it still can answer.
    private static let keeperTime: Int64 = 2_000_000_000

    /// The pidfd is readable: init has ended. Its status is recorded before it is reaped, and before anybody is told.
    func initReadable() {
        guard let pidfd, process != nil, exit == nil, unrecorded == nil else { return }
        var status: Int32 = 0
        let waited = ctr_waitid(CTR_P_PIDFD, pidfd.raw, &status, CTR_WNOWAIT | WNOHANG)
        if waited > 0 {
            loop.remove(pidfd.raw)
            return record(Outcome(waitStatus: status), .reaped, child: true)
        }
        if waited == 0 { return }
        // Not our child: it was adopted by the keeper when a predecessor died.
        loop.remove(pidfd.raw)
        if !recordFromKeeper() { awaitKeeper() }
    }

    /// The keeper has written something: perhaps init's status.
    func keeperWrote() {
        guard exit == nil, unrecorded == nil, process != nil else { return }
        _ = recordFromKeeper()
    }

    /// A living keeper that is older than init is its parent, or was until a moment ago, between reaping and writing: the entry comes, and
    /// SIGUSR2 with it. A younger one watches over what others left.
    private func awaitKeeper() {
        guard let process, place.keeperIsAlive, let keeper = try? ProcessIdentity(current: place.keeperPid),
            keeper.startTime <= process.process.startTime
        else { return recordFromKernel() }
        keeperDeadline = now(CLOCK_MONOTONIC) + Self.keeperTime
    }

    /// The entry did not come: its file may be on a full disk, or the keeper died over it.
    func keeperIsLate() {
        keeperDeadline = .max
        guard exit == nil, unrecorded == nil, let process else { return }
        if recordFromKeeper() { return }
        if place.keeperIsAlive, Self.parent(of: process.process.pid) == place.keeperPid { return awaitKeeper() }
        recordFromKernel()
    }

    private typealias Outcome = ExitRecord.Outcome

    private func recordFromKeeper() -> Bool {
        guard let process, let entry = try? ExitsFile.find(process.process, in: place.exits) else { return false }
        if let pidfd { loop.remove(pidfd.raw) }
        keeperDeadline = .max
        record(Outcome(waitStatus: entry.waitStatus), .reaped, boot: entry.boot, child: false)
        return true
    }

    /// Shim and keeper were both gone for a while and somebody else is or was its parent: the kernel may still know.
    private func recordFromKernel() {
        guard let process else { return }
        let witness = witness ?? Witness(of: process.process, place: place, loop: nil)
        if let pidfd, let (status, source) = witness?.testimony(pidfd: pidfd.raw) {
            return record(Outcome(waitStatus: status), source, child: false)
        }
        let reason =
            pidfd == nil
            ? "shim and keeper died before the exit status was recorded" : "another process reaped it and the kernel keeps no status"
        record(.unknown(reason: reason + (witness?.remark ?? "")), .unknown, child: false)
    }

    /// At the shim's start, when no process has the recorded identity any more.
    func recordGone() {
        if !recordFromKeeper() { awaitKeeper() }
    }

    /// Fields 4 and 52 of /proc/PID/stat (proc(5)), counted behind the name.
    static func stat(_ pid: Int32) -> [ArraySlice<UInt8>]? {
        guard let stat = try? readFile("/proc/\(pid)/stat", limit: 4096), let end = stat.lastIndex(of: UInt8(ascii: ")")) else {
            return nil
        }
        return stat[(end + 1)...].split(whereSeparator: { $0 == 0x20 || $0 == 0x0a })
    }

    private static func parent(of pid: Int32) -> Int32? {
        stat(pid).flatMap { $0.count > 1 ? Int32(String(decoding: $0[1], as: UTF8.self)) : nil }
    }

    private func record(_ outcome: Outcome, _ source: ExitRecord.Source, boot: Int64? = nil, child: Bool) {
        guard let process else { return }
        // What the container wrote last is in the log before its end is known, where that takes no waiting.
        pump.drainNow(steps: 4)
        let bootNow = now(CLOCK_BOOTTIME)
        let bootTime = boot ?? bootNow
        var exit = ExitRecord(
            process: process.process, outcome: outcome, source: source, exited: now(CLOCK_REALTIME) - (bootNow - bootTime),
            exitedBoot: bootTime)
        if let cgroup {
            exit.usage = ExitRecord.Usage(
                oomKills: (try? cgroup.oomKills()) ?? nil, cpu: (try? cgroup.cpuUsage()) ?? nil,
                memoryPeak: (try? cgroup.memoryPeak()) ?? nil)
        }
        exit.oom = (exit.usage.oomKills ?? 0) > 0
        exit.logEnded = pump.ended
        unrecorded = (exit, child)
        retryRecord()
    }

    /// Writes the exit record; when the disk is full the zombie, or the keeper's entry, keeps the status until it works.
    func retryRecord() {
        retryDeadline = .max
        guard let (exit, child) = unrecorded else { return }
        do throws(RecordError) { try exit.write(in: place.incarnationDirectory) } catch {
            retryDeadline = now(CLOCK_MONOTONIC) + 1_000_000_000
            return
        }
        unrecorded = nil
        self.exit = exit
        if child {
            var status: Int32 = 0
            _ = ctr_waitid(CTR_P_PID, exit.process.pid, &status, WNOHANG)
        }
        pidfd = nil
        phase = .stopped
        let callers = waits
        waits = []
        if !callers.isEmpty {
            let response = Messages.waited(exitStatus: exitCode, exitedAt: exit.exited)
            for call in callers { answer(call, .success(response)) }
        }
        pump.initEnded()
        if operation?.awaitsExit == true { deleted() }
    }

    /// Reaps what has ended. While Create runs only the runtime is looked for: the container's init may be among the others, and its status
    /// is not to be lost before its pid is known.
    func reap() {
        while true {
            var status: Int32 = 0
            if let child = operation?.child, child > 0 {
                if ctr_waitid(CTR_P_PID, child, &status, WNOHANG) == child {
                    _ = runtimeEnded(child, waitStatus: status)
                    continue
                }
                if case .create = operation?.kind { return }
            }
            let pid = ctr_waitid(CTR_P_ALL, 0, &status, CTR_WNOWAIT | WNOHANG)
            if pid <= 0 { return }
            if pid == process?.process.pid && exit == nil {
                initReadable()
                // Not recorded yet: it stays what it is, and hides later ends until then.
                if exit == nil { return }
                continue
            }
            _ = ctr_waitid(CTR_P_PID, pid, &status, WNOHANG)
        }
    }
}
