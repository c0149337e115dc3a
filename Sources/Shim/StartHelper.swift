import CLinux
import Glibc
import Linux
import OCI
import Records

/// `ctr-shim … start`: makes what a container's guards need, starts the keeper with it and ends. The caller reads the shim's address.
enum StartHelper {
    /// Returns the address to print. While a shim lives (or another helper is at work) it is that one's, and nothing is started.
    static func run(_ arguments: Arguments, program: String) throws(ShimError) -> String {
        let bundle = try shimErrors { () throws(SysError) in try Linux.open(arguments.bundle, O_RDONLY | O_DIRECTORY) }
        // Our manager writes the record; without one it is containerd that calls.
        let recorded = try recordErrors { () throws(RecordError) in try StartRecord.read(in: bundle.raw) }
        let containerd = recorded == nil ? try ContainerdStart(arguments, bundle: bundle.raw) : nil
        guard let start = recorded ?? containerd?.record else { throw ShimError("start guards", arguments.id, "no record") }
        let address = "unix://" + start.socket
        // Held until this process ends; by then `guards` names the keeper, whose shim waits for the lock. So a second helper either finds
        // the lock
        // held, or a living keeper.
        let lock = Descriptor(owning: try Place.openLock(in: bundle.raw))
        let taken = ctr_ofd_lock(lock.raw, false)
        if taken == -EAGAIN || taken == -EACCES { return address }
        try shimErrors { () throws(SysError) in _ = try check("take lock of", arguments.bundle, taken) }

        let predecessors = (try? GuardsRecord.read(in: bundle.raw)) ?? nil
        if let predecessors, isAlive(predecessors.keeper) { return address }

        let plan = try Plan(bundle: bundle.raw, id: arguments.id, underContainerd: start.publishAddress != nil, containerd)
        let regain = try Regain(bundle: bundle.raw, start: start, predecessors: predecessors)
        var guards = try shimErrors { () throws(SysError) in
            try startKeeper(plan, regain, command: command(arguments, start), bundle: bundle.raw, socket: start.socket)
        }
        guards.bootID = try shimErrors { () throws(SysError) in try Linux.bootID() }
        try recordErrors { () throws(RecordError) in try guards.write(in: bundle.raw) }
        if start.publishAddress != nil {
            try shimErrors { () throws(SysError) in try ContainerdStart.writeAddress(address, bundle: bundle.raw) }
        }
        return address
    }

    /// A zombie is not alive, although its identity is still there.
    private static func isAlive(_ process: ProcessIdentity) -> Bool {
        guard let pidfd = try? process.open() else { return false }
        var ended = pollfd(fd: pidfd.raw, events: Int16(POLLIN), revents: 0)
        return poll(&ended, 1, 0) == 0
    }

    /// What config.json says of the guards: whose the pipes are, and beside which control group the guards' own is.
    private struct Plan {
        var user: UInt32 = 0
        var group: UInt32 = 0
        var cgroup: GuardCgroup?

        /// Under containerd the guards stay where containerd's shims are, or where its options put them.
        init(bundle: Int32, id: String, underContainerd: Bool, _ containerd: ContainerdStart?) throws(ShimError) {
            let bytes = try shimErrors { () throws(SysError) in try readFile("config.json", limit: 16 << 20, at: bundle) }
            let config: JSON
            do throws(JSON.SyntaxError) { config = try JSON(parsing: bytes) } catch {
                throw ShimError("read", "config.json", error.description)
            }
            let account = config["process"]?["user"]
            user = Self.onHost(account?["uid"], config["linux"]?["uidMappings"])
            group = Self.onHost(account?["gid"], config["linux"]?["gidMappings"])
            if let owner = containerd?.owner { (user, group) = owner }
            if underContainerd {
                if let path = containerd?.shimCgroup, !path.isEmpty {
                    cgroup = try shimErrors { () throws(SysError) in try GuardCgroup(existing: path) }
                }
            } else if let path = config["linux"]?["cgroupsPath"]?.stringValue {
                let hierarchies = try shimErrors { () throws(SysError) in try CgroupHierarchies() }
                cgroup = GuardCgroup(beside: path, id: id, hierarchies: hierarchies)
            }
        }

        /// The host's number for a number inside the container's user namespace; itself without one.
        private static func onHost(_ inside: JSON?, _ mappings: JSON?) -> UInt32 {
            let number = inside?.integerValue ?? 0
            for mapping in mappings?.arrayValue ?? [] {
                guard let first = mapping["containerID"]?.integerValue, let host = mapping["hostID"]?.integerValue,
                    let size = mapping["size"]?.integerValue
                else { continue }
                let distance = number.subtractingReportingOverflow(first)
                if !distance.overflow && distance.partialValue >= 0 && distance.partialValue < size {
                    return UInt32(truncatingIfNeeded: host &+ distance.partialValue)
                }
            }
            return UInt32(truncatingIfNeeded: number)
        }
    }

    /// keeper, then the shim with its own command line.
    private static func command(_ arguments: Arguments, _ start: StartRecord) throws(SysError) -> [String] {
        let shim = try RuntimeChoice.ownProgram()
        let directory = shim.utf8.lastIndex(of: UInt8(ascii: "/")).map { String(shim[...$0]) } ?? "/"
        return [
            start.keeper ?? directory + "ctr-keeper", shim, "-namespace", arguments.namespace, "-id", arguments.id, "-bundle",
            arguments.bundle, "-dir",
            start.incarnationDirectory, "run",
        ]
    }

    /// Starts the keeper and says who it is and which pipes it holds.
    private static func startKeeper(
        _ plan: Plan, _ regain: Regain?, command: [String], bundle: Int32, socket: String
    ) throws(SysError) -> GuardsRecord {
        let null = try Linux.open("/dev/null", O_RDWR)
        let exits = try Linux.open(KeeperExit.fileName, O_RDWR | O_CREAT | O_APPEND | O_NOFOLLOW, mode: 0o600, at: bundle)
        let parking = try pair("make parking sockets") { ctr_socketpair(Int32(SOCK_SEQPACKET.rawValue | SOCK_CLOEXEC.rawValue), $0) }
        let queue = Parking(receiving: parking.0, sending: parking.1)
        if regain != nil { queue.widen() }
        for exec in regain?.parked ?? [] { try queue.park(exec.name, exec.files) }
        // Pipes that the container has already: it keeps its write ends, and nobody else gets one.
        let stdout = regain == nil ? try pipe(plan) : (try readEnd(regain?.stdout), null.raw)
        let stderr = regain == nil ? try pipe(plan) : (try readEnd(regain?.stderr), null.raw)
        let group = try plan.cgroup?.make() ?? (unified: -1, entrances: [])
        unlink(socket)
        let listener = Descriptor(owning: try check("listen on", socket, ctr_unix_listen(socket, 64, 0o600)))
        let sources = [
            null.raw, null.raw, null.raw, listener.raw, exits.raw, parking.0, parking.1, stdout.0, stderr.0, stdout.1, stderr.1,
        ]
        var words: [UnsafeMutablePointer<CChar>?] = command.map { strdup($0) }
        words.append(nil)

        // With CLONE_VFORK this process goes on when the keeper is executed or its start has failed; exec closes the pipe, a failure is in
        // it.
        let verdict = try pair("make pipe") { ctr_pipe2($0, O_CLOEXEC | O_NONBLOCK) }
        // Above the numbers of the contract and their copies.
        let teller = try check("duplicate descriptor", "pipe", ctr_fcntl_int(verdict.1, F_DUPFD_CLOEXEC, 128))
        close(verdict.1)
        let child = try check("start keeper", "", ctr_clone3(0x4000, nil, group.unified))
        if child == 0 {
            var failure = become(words, sources, entrances: group.entrances)
            _ = write(teller, &failure, 4)
            _exit(127)
        }
        close(teller)
        var failure: Int32 = 0
        if read(verdict.0, &failure, 4) == 4 {
            unlink(socket)
            throw SysError("start keeper", command[0], code: failure)
        }
        return GuardsRecord(
            keeper: try ProcessIdentity(current: child), bootID: "", stdoutPipe: try inode(stdout.0), stderrPipe: try inode(stderr.0),
            regained: regain?.outcome)
    }

    private static func inode(_ file: Int32) throws(SysError) -> UInt64 {
        var status = stat()
        try checkErrno("look at", "pipe", fstat(file, &status))
        return UInt64(status.st_ino)
    }

    /// What was found of a stream; else the read end of a pipe that nobody writes to: it has ended.
    private static func readEnd(_ found: Int32?) throws(SysError) -> Int32 {
        if let found, found >= 0 { return found }
        let ends = try pair("make pipe") { ctr_pipe2($0, O_CLOEXEC) }
        close(ends.1)
        return ends.0
    }

    private static func pair(_ what: String, _ make: (UnsafeMutablePointer<Int32>) -> Int32) throws(SysError) -> (Int32, Int32) {
        var ends: [Int32] = [-1, -1]
        let made = ends.withUnsafeMutableBufferPointer { buffer in buffer.baseAddress.map(make) ?? -EINVAL }
        try check(what, "", made)
        return (ends[0], ends[1])
    }

    /// An output pipe that the container's user, and whoever it becomes, can open again for writing through /dev/stdout, and nobody for
    /// reading.
    private static func pipe(_ plan: Plan) throws(SysError) -> (reader: Int32, writer: Int32) {
        let ends = try pair("make pipe") { ctr_pipe2($0, O_CLOEXEC) }
        try checkErrno("set owner of", "pipe", fchown(ends.1, plan.user, plan.group))
        try checkErrno("set mode of", "pipe", fchmod(ends.1, 0o622))
        return ends
    }

    /// In the child: the descriptors of the contract, a session of its own, the guards' group; then the keeper. Returns errno.
    private static func become(_ words: [UnsafeMutablePointer<CChar>?], _ sources: [Int32], entrances: [Int32]) -> Int32 {
        for entrance in entrances { _ = write(entrance, "0", 1) }
        if setsid() < 0 { return errno }
        // The lowest that the host allows: without CAP_SYS_RESOURCE it stays where it is.
        if let score = try? Linux.open("/proc/self/oom_score_adj", O_WRONLY) { _ = write(score.raw, "-998", 4) }
        var high: [Int32] = []
        for source in sources {
            let copy = ctr_fcntl_int(source, F_DUPFD_CLOEXEC, 64)
            if copy < 0 { return -copy }
            high.append(copy)
        }
        for (target, source) in high.enumerated() {
            let placed = ctr_dup3(source, Int32(target), 0)
            if placed < 0 { return -placed }
        }
        _ = ctr_close_range(UInt32(sources.count), .max, 4)
        if chdir("/") < 0 { return errno }
        guard let path = words[0] else { return EINVAL }
        var arguments = words
        arguments.withUnsafeMutableBufferPointer { buffer in
            if let base = buffer.baseAddress { _ = execve(path, base, ctr_environ()) }
        }
        return errno
    }
}
