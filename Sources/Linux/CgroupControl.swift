import CLinux
import Glibc

/// Stopping, killing and removing.
extension ContainerCgroup {
    /// Kills every process in it and below, forks in flight too, and returns without waiting for their end. With version 2 by cgroup.kill
    /// (Linux 5.14), without it by freezing and signalling each. What a version 1 freezer held is thawed, so that it can die. No error when
    /// it is gone.
    public func kill() throws(SysError) {
        if let unified {
            do throws(SysError) {
                try Self.writeText(unified + "/cgroup.kill", "1")
                return thawKilled()
            } catch {
                if error.code != ENOENT && error.code != ENODEV { throw error }
                // Either the group is gone, or the kernel is older than the file.
                if access(unified, F_OK) < 0 { return }
            }
        }
        try killEach()
    }

    /// Frozen, no process can fork past the list; the signal is delivered by the thaw.
    private func killEach() throws(SysError) {
        if let freezer = directory("freezer") { try? Self.writeText(freezer + "/freezer.state", "FROZEN") }
        for pid in try processes() { _ = Glibc.kill(pid, SIGKILL) }
        thawKilled()
    }

    /// A version 1 freezer keeps whoever it caught asleep, the signal pending, until it thaws.
    private func thawKilled() {
        if let freezer = directory("freezer") { try? Self.writeText(freezer + "/freezer.state", "THAWED") }
    }

    /// Waits until no process is left: true, or false after `milliseconds`. By the event of version 2; without version 2 by the end of each
    /// process that is listed.
    public func waitUntilEmpty(milliseconds: Int) throws(SysError) -> Bool {
        let deadline = now(CLOCK_MONOTONIC) + Int64(milliseconds) * 1_000_000
        guard unified != nil else { return try waitForEach(deadline: deadline) }
        let events: Descriptor
        do throws(SysError) {
            guard let opened = try openEvents() else { return true }
            events = opened
        } catch {
            if error.code == ENOENT { return true }
            throw error
        }
        while true {
            // Read through the polled descriptor: a change after this read wakes the poll.
            var text = [UInt8](repeating: 0, count: 256)
            let got = pread(events.raw, &text, text.count, 0)
            if got < 0 {
                if errno == ENODEV { return true }
                throw SysError("read", "cgroup.events", code: errno)
            }
            if try Self.value("populated", in: String(decoding: text[..<got], as: UTF8.self)) != 1 { return true }
            guard try Self.wait(events.raw, Int16(POLLPRI), deadline: deadline) else { return false }
        }
    }

    private func waitForEach(deadline: Int64) throws(SysError) -> Bool {
        while true {
            guard let pid = try processes().first else { return true }
            let pidfd = ctr_pidfd_open(pid, 0)
            if pidfd < 0 {
                // A zombie that nobody reaps stays listed; its pidfd opens, so only a vanished process comes here.
                if pidfd == -ESRCH { continue }
                throw SysError("open pidfd of", "\(pid)", code: -pidfd)
            }
            let process = Descriptor(owning: pidfd)
            guard try Self.wait(process.raw, Int16(POLLIN), deadline: deadline) else { return false }
            // Readable means dead, but a zombie stays in the list until its parent looks.
            if ctr_pidfd_send_signal(process.raw, 0) == 0 { return try processes().allSatisfy { Self.isZombie($0) } }
        }
    }

    private static func isZombie(_ pid: Int32) -> Bool {
        guard let stat = try? readFile("/proc/\(pid)/stat", limit: 4096), let close = stat.lastIndex(of: UInt8(ascii: ")")) else {
            return true
        }
        return close + 2 < stat.count && stat[close + 2] == UInt8(ascii: "Z")
    }

    /// poll(2) for one descriptor until `deadline` (CLOCK_MONOTONIC, nanoseconds); false when it passed.
    private static func wait(_ descriptor: Int32, _ what: Int16, deadline: Int64) throws(SysError) -> Bool {
        while true {
            let left = (deadline - now(CLOCK_MONOTONIC) + 999_999) / 1_000_000
            if left <= 0 { return false }
            var item = pollfd(fd: descriptor, events: what, revents: 0)
            let ready = poll(&item, 1, Int32(clamping: left))
            if ready > 0 { return true }
            if ready < 0 && errno != EINTR { throw SysError("poll", "control group", code: errno) }
        }
    }

    // MARK: freezing

    /// Stops (or resumes) every process; returns when all are stopped. ETIMEDOUT, thawed again, when that takes longer than `milliseconds`:
    /// a process in an uninterruptible call holds it up. ENOTSUP when the host has no freezer.
    public func setFrozen(_ frozen: Bool, milliseconds: Int = 10_000) throws(SysError) {
        let deadline = now(CLOCK_MONOTONIC) + Int64(milliseconds) * 1_000_000
        if let freezer = directory("freezer") { return try setFrozenV1(freezer + "/freezer.state", frozen, deadline: deadline) }
        guard let unified, access(unified + "/cgroup.freeze", F_OK) == 0, let events = try openEvents() else {
            throw SysError("freeze", "control group", code: ENOTSUP)
        }
        try Self.writeText(unified + "/cgroup.freeze", frozen ? "1" : "0")
        while true {
            var text = [UInt8](repeating: 0, count: 256)
            let got = try checkErrno("read", unified + "/cgroup.events", pread(events.raw, &text, text.count, 0))
            if try Self.value("frozen", in: String(decoding: text[..<got], as: UTF8.self)) == (frozen ? 1 : 0) { return }
            if try !Self.wait(events.raw, Int16(POLLPRI), deadline: deadline) {
                if frozen { try? Self.writeText(unified + "/cgroup.freeze", "0") }
                throw SysError("freeze", unified, code: ETIMEDOUT)
            }
        }
    }

    /// Version 1 has no event: reading the state makes the kernel look again, and writing it again sends what was missed.
    private func setFrozenV1(_ file: String, _ frozen: Bool, deadline: Int64) throws(SysError) {
        let wanted = frozen ? "FROZEN" : "THAWED"
        try Self.writeText(file, wanted)
        var attempts = 0
        while try Self.readText(file) != wanted {
            if now(CLOCK_MONOTONIC) > deadline {
                if frozen { try? Self.writeText(file, "THAWED") }
                throw SysError("freeze", file, code: ETIMEDOUT)
            }
            Self.letOthersRun(&attempts)
            try Self.writeText(file, wanted)
        }
    }

    /// Between two looks at what the kernel has no event for: at first only the processor, then a millisecond.
    private static func letOthersRun(_ attempts: inout Int) {
        attempts += 1
        if attempts < 20 { sched_yield() } else { _ = poll(nil, 0, 1) }
    }

    /// Whether it was frozen by `setFrozen`; false when it is gone.
    public func isFrozen() throws(SysError) -> Bool {
        if let freezer = directory("freezer") { return try Self.readOptional(freezer + "/freezer.state").map { $0 != "THAWED" } ?? false }
        guard let unified, let text = try Self.readOptional(unified + "/cgroup.freeze") else { return false }
        return text == "1"
    }

    // MARK: removing

    /// Removes all directories with what is below them, killing what still lives there; waits at most `milliseconds` for the end of
    /// the killed. Repeatable; no error when all is gone. EBUSY when something could not be removed.
    public func remove(milliseconds: Int = 10_000) throws(SysError) {
        var failure = removeDirectories()
        if failure == nil { return }
        try kill()
        guard try waitUntilEmpty(milliseconds: milliseconds) else { throw SysError("empty control group", tracker ?? "", code: EBUSY) }
        // A dying process leaves the version 1 hierarchies one by one, after version 2 has told of emptiness.
        let deadline = now(CLOCK_MONOTONIC) + Int64(milliseconds) * 1_000_000
        var attempts = 0
        while true {
            failure = removeDirectories()
            guard let left = failure else { return }
            if left.code != EBUSY || now(CLOCK_MONOTONIC) > deadline { throw left }
            Self.letOthersRun(&attempts)
        }
    }

    /// The first failure, after all were tried.
    private func removeDirectories() -> SysError? {
        var failure: SysError?
        for path in v1.map(\.path) + (unified.map { [$0] } ?? []) {
            if let error = Self.removeTree(path, depth: 0), failure == nil { failure = error }
        }
        return failure
    }

    private static func removeTree(_ path: String, depth: Int) -> SysError? {
        if rmdir(path) == 0 || errno == ENOENT { return nil }
        let code = errno
        // EBUSY is both "has processes" and "has children".
        if code == EBUSY && depth < 32 {
            var found = false
            for child in childDirectories(path) {
                found = true
                if let error = removeTree("\(path)/\(child)", depth: depth + 1) { return error }
            }
            if found && (rmdir(path) == 0 || errno == ENOENT) { return nil }
        }
        return SysError("remove control group", path, code: code)
    }
}
