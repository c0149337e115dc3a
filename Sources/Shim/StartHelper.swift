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

        let plan =
            if let known = Plan(start) { known } else {
                try Plan(bundle: bundle.raw, id: arguments.id, underContainerd: start.publishAddress != nil, containerd)
            }
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
        return !isReadable(pidfd.raw)
    }

    /// What config.json says of the guards: whose the pipes are, and beside which control group the guards' own is.
    private struct Plan {
        var owner: PipeOwner
        var cgroup: GuardCgroup?

        /// Our manager knows all of it: the document need not be read again.
        init?(_ start: StartRecord) {
            guard let user = start.pipeUser, let group = start.pipeGroup, let unified = start.guardsUnified,
                let systemd = start.guardsSystemd
            else { return nil }
            owner = PipeOwner(user: user, group: group)
            cgroup = GuardCgroup(unified: unified, systemd: systemd)
        }

        /// Under containerd the guards stay where containerd's shims are, or where its options put them.
        init(bundle: Int32, id: String, underContainerd: Bool, _ containerd: ContainerdStart?) throws(ShimError) {
            let bytes = try shimErrors { () throws(SysError) in try readFile("config.json", limit: 16 << 20, at: bundle) }
            let config: JSON
            do throws(JSON.SyntaxError) { config = try JSON(parsing: bytes) } catch {
                throw ShimError("read", "config.json", error.description)
            }
            let account = config["process"]?["user"]
            owner = UserMappings(config).owner(uid: account?["uid"], gid: account?["gid"])
            if let user = containerd?.record.pipeUser, let group = containerd?.record.pipeGroup {
                owner = PipeOwner(user: user, group: group)
            }
            if underContainerd {
                if let path = containerd?.shimCgroup, !path.isEmpty {
                    cgroup = try shimErrors { () throws(SysError) in try GuardCgroup(existing: path) }
                }
            } else if let path = config["linux"]?["cgroupsPath"]?.stringValue {
                let hierarchies = try shimErrors { () throws(SysError) in try CgroupHierarchies() }
                cgroup = GuardCgroup(beside: path, id: id, hierarchies: hierarchies)
            }
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
        let stdout = regain == nil ? try Pipe(owner: plan.owner).release() : (try readEnd(regain?.stdout), null.raw)
        let stderr = regain == nil ? try Pipe(owner: plan.owner).release() : (try readEnd(regain?.stderr), null.raw)
        let group = try plan.cgroup?.make() ?? (unified: -1, entrances: [])
        unlink(socket)
        let listener = Descriptor(owning: try check("listen on", socket, ctr_unix_listen(socket, 64, 0o600)))
        let sources = [
            null.raw, null.raw, null.raw, listener.raw, exits.raw, parking.0, parking.1, stdout.0, stderr.0, stdout.1, stderr.1,
        ]
        var words: [UnsafeMutablePointer<CChar>?] = command.map { strdup($0) }
        words.append(nil)

        let spawned = words.withUnsafeBufferPointer { words in
            sources.withUnsafeBufferPointer { sources in
                group.entrances.withUnsafeBufferPointer { entrances in
                    ctr_spawn_guards(
                        command[0], words.baseAddress, ctr_environ(), sources.baseAddress, Int32(sources.count), group.unified,
                        entrances.baseAddress, Int32(entrances.count))
                }
            }
        }
        if spawned < 0 {
            unlink(socket)
            throw SysError("start keeper", command[0], code: -spawned)
        }
        let child = spawned
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
}
