import CLinux
import Glibc
import Linux
import Records
import TTRPC

extension Container {
    /// How long one waits for the keeper before one looks again whether it still can answer.
    private static let keeperTime: Int64 = 2_000_000_000

    /// The pidfd is readable: the process has ended. Its status is recorded before it is reaped, and before anybody is told.
    func ended(_ process: Process) {
        guard let pidfd = process.pidfd, process.exit == nil, process.unrecorded == nil else { return }
        var status: Int32 = 0
        let waited = ctr_waitid(CTR_P_PIDFD, pidfd.raw, &status, CTR_WNOWAIT | WNOHANG)
        if waited > 0 {
            loop.remove(pidfd.raw)
            return record(process, Outcome(waitStatus: status), .reaped, child: true)
        }
        if waited == 0 { return }
        // Not our child: it was adopted by the keeper when a predecessor died.
        loop.remove(pidfd.raw)
        if !recordFromKeeper(process) { awaitKeeper(process) }
    }

    /// The keeper has written something: perhaps the status of one of ours.
    func keeperWrote() {
        for process in execs + [first] where process.exit == nil && process.unrecorded == nil && process.record != nil {
            _ = recordFromKeeper(process)
        }
    }

    /// A living keeper that is older than init is its parent, or was until a moment ago, between reaping and writing: the entry comes, and
    /// SIGUSR2 with it. A younger one watches over what others left.
    private func awaitKeeper(_ process: Process) {
        guard let record = process.record, place.keeperIsAlive, let keeper = try? ProcessIdentity(current: place.keeperPid),
            keeper.startTime <= record.process.startTime
        else { return recordFromKernel(process) }
        process.keeperDeadline = now(CLOCK_MONOTONIC) + Self.keeperTime
    }

    /// The entry did not come: its file may be on a full disk, or the keeper died over it.
    func keeperIsLate(_ process: Process) {
        process.keeperDeadline = .max
        guard process.exit == nil, process.unrecorded == nil, process.record != nil else { return }
        if recordFromKeeper(process) { return }
        if place.keeperIsAlive, Self.parent(of: process.pid) == place.keeperPid { return awaitKeeper(process) }
        recordFromKernel(process)
    }

    private typealias Outcome = ExitRecord.Outcome

    private func recordFromKeeper(_ process: Process) -> Bool {
        guard let identity = process.record?.process, let entry = try? ExitsFile.find(identity, in: place.exits) else { return false }
        if let pidfd = process.pidfd { loop.remove(pidfd.raw) }
        process.keeperDeadline = .max
        record(process, Outcome(waitStatus: entry.waitStatus), .reaped, boot: entry.boot, child: false)
        return true
    }

    /// Shim and keeper were both gone for a while and somebody else is or was its parent: the kernel may still know.
    private func recordFromKernel(_ process: Process) {
        guard let identity = process.record?.process else { return }
        let witness = process.witness ?? Witness(of: identity, place: place)
        if let pidfd = process.pidfd, let (status, source) = witness.testimony(pidfd: pidfd.raw) {
            return record(process, Outcome(waitStatus: status), source, child: false)
        }
        let reason =
            process.pidfd == nil
            ? "shim and keeper died before the exit status was recorded" : "another process reaped it and the kernel keeps no status"
        record(process, .unknown(reason: reason + witness.remark), .unknown, child: false)
    }

    /// At the shim's start, when no process has the recorded identity any more.
    func recordGone(_ process: Process) {
        if !recordFromKeeper(process) { awaitKeeper(process) }
    }

    /// Fields 4 and 52 of /proc/PID/stat (proc(5)), counted behind the name.
    static func statFields(_ pid: Int32) -> [ArraySlice<UInt8>]? {
        guard let stat = try? readFile("/proc/\(pid)/stat", limit: 4096), let end = stat.lastIndex(of: UInt8(ascii: ")")) else {
            return nil
        }
        return stat[(end + 1)...].split(whereSeparator: { $0 == 0x20 || $0 == 0x0a })
    }

    static func parent(of pid: Int32) -> Int32? {
        statFields(pid).flatMap { $0.count > 1 ? Int32(String(decoding: $0[1], as: UTF8.self)) : nil }
    }

    private func record(_ process: Process, _ outcome: Outcome, _ source: ExitRecord.Source, boot: Int64? = nil, child: Bool) {
        guard let identity = process.record?.process else { return }
        // Where both have ended an exec's end is recorded and told first, as it was the kernel's order.
        if process.isFirst { for exec in execs where exec.isAlive { ended(exec) } }
        // What the process wrote last is in the log before its end is known, where that takes no waiting.
        process.output.drainNow(steps: 4)
        let bootNow = now(CLOCK_BOOTTIME)
        let bootTime = boot ?? bootNow
        var exit = ExitRecord(
            process: identity, outcome: outcome, source: source, exited: now(CLOCK_REALTIME) - (bootNow - bootTime), exitedBoot: bootTime)
        if let cgroup = process.isFirst ? cgroup : group(of: process) {
            exit.usage = ExitRecord.Usage(
                oomKills: (try? cgroup.oomKills()) ?? nil, cpu: (try? cgroup.cpuUsage()) ?? nil,
                memoryPeak: (try? cgroup.memoryPeak()) ?? nil)
        }
        exit.oom = (exit.usage.oomKills ?? 0) > 0
        exit.logEnded = process.output.ended
        process.unrecorded = (exit, child)
        retryRecord(process)
    }

    /// Writes the exit record; when the disk is full the zombie, or the keeper's entry, keeps the status until it works.
    func retryRecord(_ process: Process) {
        process.retryDeadline = .max
        guard let (exit, child) = process.unrecorded else { return }
        do throws(RecordError) {
            // An exec's end need not survive a power loss: nothing of the container does.
            try exit.record.write(to: ExitRecord.fileName, in: process.exitDirectory, durable: process.isFirst)
        } catch {
            process.retryDeadline = now(CLOCK_MONOTONIC) + 1_000_000_000
            return
        }
        process.unrecorded = nil
        process.exit = exit
        if child {
            var status: Int32 = 0
            _ = ctr_waitid(CTR_P_PID, exit.process.pid, &status, WNOHANG)
        }
        process.pidfd = nil
        process.phase = .stopped
        if process.isFirst { memoryEnded(ranOut: exit.oom) }
        publish(.exited(execID: process.execID, pid: process.pid, status: process.exitCode, at: exit.exited))
        let callers = process.waits
        process.waits = []
        if !callers.isEmpty {
            let response = Messages.waited(exitStatus: process.exitCode, exitedAt: exit.exited)
            for call in callers { answer(call, .success(response)) }
        }
        process.output.processEnded()
        process.inputEnded()
        process.start = nil
        deleteIfEnded()
    }

    /// Reaps what has ended. While the runtime makes a process only the runtime is looked for: what it makes may be among the others, and
    /// its status is not to be lost before its pid is known.
    func reap() {
        while true {
            var status: Int32 = 0
            if let child = operation?.child, child > 0, ctr_waitid(CTR_P_PID, child, &status, WNOHANG) == child {
                _ = runtimeEnded(child, waitStatus: status)
                continue
            }
            if let exec = execs.first(where: { exec in
                guard let child = exec.start?.child, child > 0 else { return false }
                return ctr_waitid(CTR_P_PID, child, &status, WNOHANG) == child
            }) {
                execStarted(exec, waitStatus: status)
                continue
            }
            if makesProcess { return }
            let pid = ctr_waitid(CTR_P_ALL, 0, &status, CTR_WNOWAIT | WNOHANG)
            if pid <= 0 { return }
            if let process = ([first] + execs).first(where: { $0.pid == pid && $0.exit == nil }) {
                ended(process)
                // Not recorded yet: it stays what it is, and hides later ends until then.
                if process.exit == nil { return }
                continue
            }
            _ = ctr_waitid(CTR_P_PID, pid, &status, WNOHANG)
        }
    }

    /// Whether the runtime is making a process whose pid is not known yet.
    private var makesProcess: Bool {
        if let operation, operation.child > 0, case .create = operation.kind { return true }
        return startsUnderWay > 0
    }
}
