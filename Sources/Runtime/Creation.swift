import CLinux
import Glibc
import Linux
import OCI

/// Making a container, seen from outside: claim the id, write down what will exist, then make it; on any failure undo it all.
struct Creation: ~Copyable {
    /// Of the first process, which waits at the gate.
    let pid: Int32
    let pidfd: Descriptor
    let directory: StateDirectory
    /// Whether a terminal's master was sent to the console socket.
    let terminal: Bool

    /// `console`: a connected socket for the terminal's master, or -1; with `consoleIfAsked` it is no error that the document asks for
    /// none.
    static func make(
        _ line: Invocation, _ options: Invocation.CreateOptions, console: Int32, consoleIfAsked: Bool = false, _ log: Log
    ) throws(RuntimeError) -> Creation {
        let plan = try ContainerPlan(id: line.id, options: options)
        let terminal = plan.process.terminal
        if terminal && console < 0 { throw RuntimeError("cannot allocate a terminal without --console-socket") }
        if !terminal && console >= 0 && !consoleIfAsked {
            throw RuntimeError("cannot use --console-socket: config.json asks for no terminal")
        }
        let seccomp: SeccompCache.Entry?
        if let document = plan.spec.linux.seccomp {
            seccomp = try SeccompCache(root: line.root).program(document, log)
        } else {
            seccomp = nil
        }
        let directory = try StateDirectory.create(root: line.root, id: line.id)
        do throws(RuntimeError) {
            let made = try make(plan, seccomp, directory, console, log)
            let pid = made.pid
            return Creation(pid: pid, pidfd: made.take(), directory: directory, terminal: terminal)
        } catch {
            undo(plan, directory, log)
            throw error
        }
    }

    private struct Made: ~Copyable {
        let pid: Int32
        let pidfd: Descriptor
        consuming func take() -> Descriptor { pidfd }
    }

    private static func make(
        _ plan: ContainerPlan, _ seccomp: SeccompCache.Entry?, _ directory: borrowing StateDirectory, _ console: Int32, _ log: Log
    ) throws(RuntimeError) -> Made {
        let creator = try attempt { () throws(SysError) in try ProcessIdentity(current: getpid()) }
        var state = ContainerState(
            id: plan.id, bundle: plan.bundle, rootfs: plan.rootPath, created: Timestamp.now(),
            bootID: try attempt { () throws(SysError) in try bootID() }, creator: creator, cgroup: plan.cgroup.group, spec: plan.spec,
            hasKeyring: !plan.options.noNewKeyring)
        try directory.write(state)
        try directory.write(plan.saved)
        if let seccomp { try directory.keep(seccomp) }
        let gate = try directory.makeGate()
        let group = plan.cgroup.group
        let limits = plan.cgroup.limits
        try attempt { () throws(SysError) in try group.create(limits) }
        let child = try start(plan, seccomp?.program, gate.raw, console)
        do throws(RuntimeError) {
            try follow(child, plan, log)
            state.initial = try attempt { () throws(SysError) in try ProcessIdentity(current: child.pid) }
            try directory.write(state)
            if let file = plan.options.pidFile { try writePidFile(file, child.pid) }
            try attempt { () throws(SysError) in try child.channel.send(.proceed) }
        } catch {
            ctr_pidfd_send_signal(child.pidfd.raw, SIGKILL)
            var status: Int32 = 0
            ctr_waitid(CTR_P_PID, child.pid, &status, 0)
            throw error
        }
        return Made(pid: child.pid, pidfd: child.takePidfd())
    }

    private static func undo(_ plan: ContainerPlan, _ directory: borrowing StateDirectory, _ log: Log) {
        do throws(SysError) { try plan.cgroup.group.remove() } catch {
            // Then the directory stays, so that delete --force finds what is left.
            log.warning("\(error)")
            return
        }
        do throws(RuntimeError) { try directory.remove() } catch { log.warning(error.message) }
    }

    // MARK: the first process

    private struct Child: ~Copyable {
        let pid: Int32
        let pidfd: Descriptor
        let channel: Channel
        consuming func takePidfd() -> Descriptor { pidfd }
    }

    private static func start(
        _ plan: ContainerPlan, _ seccomp: SeccompProgram?, _ gate: Int32, _ console: Int32
    ) throws(RuntimeError) -> Child {
        let joined = try openNamespaces(plan)
        defer { for each in joined { close(each.descriptor) } }
        return try attempt { () throws(SysError) in
            // A pid namespace is entered by children only.
            for each in joined where each.kind == .pid {
                try check("join namespace", "pid", ctr_setns(each.descriptor, Int32(truncatingIfNeeded: CTR_CLONE_NEWPID)))
            }
            let entrances = try plan.cgroup.group.openEntrances()
            defer { for entrance in entrances { close(entrance) } }
            let group = try plan.cgroup.group.openUnified().release()
            defer { if group >= 0 { close(group) } }
            let ends = try Channel.pair()
            var pidfd: Int32 = -1
            let pid = ctr_clone3(plan.cloneFlags, &pidfd, group)
            if pid == 0 {
                InitProcess(plan: plan, seccomp: seccomp, entrances: entrances, joined: joined, gate: gate, console: console)
                    .run(ends.theirs, closing: ends.ours.raw)
            }
            try check("make the container's first process", "", pid)
            return Child(pid: pid, pidfd: Descriptor(owning: pidfd), channel: Channel(owning: ends.ours))
        }
    }

    private static func openNamespaces(
        _ plan: ContainerPlan
    ) throws(RuntimeError) -> [(kind: RuntimeSpec.Namespace.Kind, descriptor: Int32)] {
        var joined: [(kind: RuntimeSpec.Namespace.Kind, descriptor: Int32)] = []
        for namespace in plan.spec.linux.namespaces {
            guard let path = namespace.path else { continue }
            do throws(SysError) { joined.append((namespace.kind, try Linux.open(path, O_RDONLY).release())) } catch {
                for each in joined { close(each.descriptor) }
                throw RuntimeError(error).during("join \(namespace.kind.rawValue) namespace")
            }
        }
        return joined
    }

    /// Until the first process is ready; its errors are ours.
    private static func follow(_ child: borrowing Child, _ plan: ContainerPlan, _ log: Log) throws(RuntimeError) {
        while true {
            switch try attempt({ () throws(SysError) in try child.channel.receive() }) {
            case .ready: return
            case .warning(let text): log.warning(text)
            case .failed(let text): throw RuntimeError("unable to start container process: \(text)")
            case .namespacesMade:
                let state = HookRunner.state(plan, pid: child.pid, .creating)
                try HookRunner.run(plan.spec.hooks.prestart, "prestart", state)
                try HookRunner.run(plan.spec.hooks.createRuntime, "createRuntime", state)
                try attempt { () throws(SysError) in try child.channel.send(.proceed) }
            case .proceed, nil: throw RuntimeError("unable to start container process: it ended before it was ready")
            }
        }
    }

    /// Replaced as a whole: a reader never sees half a number.
    static func writePidFile(_ path: String, _ pid: Int32) throws(RuntimeError) {
        try attempt("pid file") { () throws(SysError) in
            let temporary = path + ".tmp"
            let file = try Linux.open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, mode: 0o644)
            try writeAll(file.raw, Array("\(pid)".utf8), name: path)
            try checkErrno("rename", path, rename(temporary, path))
        }
    }
}

extension ContainerPlan {
    /// As `state` shows it.
    var rootPath: String { if case .path(let path) = root { path } else { "" } }
}
