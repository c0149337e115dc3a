import CLinux
import Glibc
import Linux
import OCI

/// `exec`, seen from outside: a further process in a container that exists.
///
/// Everything is read and checked before the process is made, and the process becomes its program only after its pid is written down; the
/// death of either side before that ends the other.
enum Execution {
    /// The exit status: 0 with --detach, else that of the process.
    static func run(_ line: Invocation, _ options: Invocation.ExecOptions, _ log: Log) throws(RuntimeError) -> Int32 {
        let directory = try StateDirectory.open(root: line.root, id: line.id)
        guard let state = try directory.read() else { throw RuntimeError.noContainer }
        let initial = try initialProcess(state, options)
        let plan = try ExecPlan(options, try directory.readConfiguration())
        let terminal = plan.launched.process.terminal
        if options.detach && terminal && options.consoleSocket == nil {
            throw RuntimeError("cannot allocate a terminal when --detach is given without --console-socket")
        }
        if options.consoleSocket != nil && !(options.detach && terminal) {
            throw RuntimeError("cannot use --console-socket without --detach and a terminal")
        }
        let seccomp = state.hasSeccomp ? try directory.readSeccomp() : nil
        let keyring = state.hasKeyring ? "_ses.\(state.id)" : nil
        if options.detach {
            let console = try Runtime.connect(options.consoleSocket).release()
            defer { if console >= 0 { close(console) } }
            _ = try start(plan, seccomp, keyring: keyring, initial, state.cgroup, options, console: console, log)
            return 0
        }
        let signals = try Foreground.openSignals()
        let ends = try attempt { () throws(SysError) in try Channel.pair() }
        let child = try start(plan, seccomp, keyring: keyring, initial, state.cgroup, options, console: ends.theirs.raw, log)
        var relay = terminal ? try TerminalRelay(receiving: ends.ours) : TerminalRelay()
        return try Foreground.wait(child.pid, child.pidfd, signals: signals, terminal: &relay)
    }

    private static let stopped = RuntimeError("cannot exec in a stopped container")

    /// A pidfd of the container's first process, whose namespaces are the container's. That it has become a zombie is told by the kernel
    /// when they are joined.
    private static func initialProcess(_ state: ContainerState, _ options: Invocation.ExecOptions) throws(RuntimeError) -> InitialProcess {
        guard try attempt({ () throws(SysError) in try bootID() }) == state.bootID else { throw stopped }
        guard let initial = state.initial else {
            throw state.creator.exists ? RuntimeError("cannot exec in a container that is being created") : stopped
        }
        let pidfd: Descriptor
        do throws(SysError) { pidfd = try initial.open() } catch { throw error.code == ESRCH ? stopped : RuntimeError(error) }
        if !options.ignorePaused, try attempt({ () throws(SysError) in try state.cgroup.isFrozen() }) {
            throw RuntimeError("cannot exec in a paused container (use --ignore-paused to override)")
        }
        return InitialProcess(pid: initial.pid, pidfd: pidfd)
    }

    private struct InitialProcess: ~Copyable {
        let pid: Int32
        let pidfd: Descriptor
    }

    private struct Child: ~Copyable {
        let pid: Int32
        let pidfd: Descriptor
    }

    private static func start(
        _ plan: ExecPlan, _ seccomp: SeccompProgram?, keyring: String?, _ initial: borrowing InitialProcess, _ cgroup: ContainerCgroup,
        _ options: Invocation.ExecOptions, console: Int32, _ log: Log
    ) throws(RuntimeError) -> Child {
        let group = try ExecPlan.group(options.cgroups, below: cgroup)
        let entrances = try attempt("join control group") { () throws(SysError) in try group.openEntrances() }
        defer { for entrance in entrances { close(entrance) } }
        let unified = try attempt("join control group") { () throws(SysError) in try group.openUnified() }.release()
        defer { if unified >= 0 { close(unified) } }
        let flags = try joinedNamespaces(initial.pid)
        let ends = try attempt { () throws(SysError) in try Channel.pair() }
        // Inherited by the child: at no moment can a process of the container look into it or its open files.
        try attempt { () throws(SysError) in try Linux.ProcessControl.becomeNonDumpable() }
        do throws(SysError) {
            // A pid namespace is entered by children only. The descriptor names the process for good: one that has ended is told.
            try check("join namespace", "pid", ctr_setns(initial.pidfd.raw, Int32(truncatingIfNeeded: CTR_CLONE_NEWPID)))
        } catch {
            if error.code == ESRCH { throw stopped }
            throw RuntimeError(error)
        }
        var pidfd: Int32 = -1
        var pid = ctr_clone3(0, &pidfd, unified)
        if pid == -EBUSY && options.cgroups.isEmpty {
            // The container has made groups of its own and enabled controllers: then processes live in leaves only, as its first one does.
            let leaf = try attempt { () throws(SysError) in try Linux.open(try unifiedPath(of: initial.pid), O_RDONLY | O_DIRECTORY) }
            pid = ctr_clone3(0, &pidfd, leaf.raw)
        }
        if pid == 0 {
            ExecProcess(
                plan: plan, seccomp: seccomp, entrances: entrances, container: initial.pidfd.raw, namespaces: flags, keyring: keyring,
                console: console
            ).run(ends.theirs, closing: ends.ours.raw)
        }
        try attempt { () throws(SysError) in try check("make process in control group", group.unified ?? "", pid) }
        let child = Child(pid: pid, pidfd: Descriptor(owning: pidfd))
        try follow(child, Channel(owning: ends.ours), closing: ends.theirs, options, log)
        return child
    }

    /// Until the process has become its program; its errors are ours.
    private static func follow(
        _ child: borrowing Child, _ channel: consuming Channel, closing other: consuming Descriptor, _ options: Invocation.ExecOptions,
        _ log: Log
    ) throws(RuntimeError) {
        // A copy of its end would hide the end of the child.
        _ = consume other
        var wasReady = false
        do throws(RuntimeError) {
            while true {
                switch try attempt({ () throws(SysError) in try channel.receive() }) {
                case .warning(let text): log.warning(text)
                case .ready:
                    wasReady = true
                    if let file = options.pidFile { try Creation.writePidFile(file, child.pid) }
                    try attempt { () throws(SysError) in try channel.send(.proceed) }
                case .failed(let text): throw RuntimeError("unable to start container process: \(text)")
                case nil:
                    // The channel closes on execve.
                    if wasReady { return }
                    throw RuntimeError("unable to start container process: it was killed before it was ready")
                case .namespacesMade, .proceed: throw RuntimeError("unable to start container process: it lost the thread")
                }
            }
        } catch {
            ctr_pidfd_send_signal(child.pidfd.raw, SIGKILL)
            var status: Int32 = 0
            ctr_waitid(CTR_P_PID, child.pid, &status, 0)
            if wasReady, let file = options.pidFile { unlink(file) }
            throw error
        }
    }

    // MARK: where the container is

    /// All that a container can have of its own but the pid namespace. Joining one that is shared with the host changes nothing; of two kinds
    /// the kernel refuses that, or it is not free: these are compared first.
    private static func joinedNamespaces(_ pid: Int32) throws(RuntimeError) -> UInt64 {
        var flags = CTR_CLONE_NEWNS | CTR_CLONE_NEWUTS | CTR_CLONE_NEWIPC | CTR_CLONE_NEWNET | CTR_CLONE_NEWCGROUP
        for (name, flag) in [("user", CTR_CLONE_NEWUSER), ("time", CTR_CLONE_NEWTIME)] {
            var ours = stat()
            var theirs = stat()
            // A kernel without the kind has it nowhere.
            guard stat("/proc/self/ns/\(name)", &ours) == 0 else { continue }
            guard stat("/proc/\(pid)/ns/\(name)", &theirs) == 0 else {
                throw RuntimeError(SysError("look at namespace", "\(name) of \(pid)", code: errno))
            }
            if ours.st_ino != theirs.st_ino || ours.st_dev != theirs.st_dev { flags |= flag }
        }
        return flags
    }

    /// The version 2 directory that the process itself is in.
    private static func unifiedPath(of pid: Int32) throws(SysError) -> String {
        let text = String(decoding: try readFile("/proc/\(pid)/cgroup", limit: 1 << 20), as: UTF8.self)
        guard let mountPoint = try CgroupHierarchies().unified,
            let line = text.split(separator: "\n").first(where: { $0.hasPrefix("0::/") })
        else { throw SysError("find control group of", "\(pid)", code: ENOENT) }
        return mountPoint + line.dropFirst(3)
    }
}
