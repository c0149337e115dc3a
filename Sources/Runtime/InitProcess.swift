import CLinux
import Glibc
import Linux
import OCI

/// The container's first process, from clone3 to execve. It is a copy of the program with one thread, so it goes on in Swift.
///
/// Order matters: control groups first, so that nothing runs outside of them; then everything that needs the host's view; then the root;
/// then what needs privileges; then they are given up; then the gate; the seccomp filter as late as the privileges allow; execve.
struct InitProcess {
    let plan: ContainerPlan
    let seccomp: SeccompProgram?
    /// Write "0" to enter; of the version 1 hierarchies.
    let entrances: [Int32]
    /// Namespaces to join, opened on the host.
    let joined: [(kind: RuntimeSpec.Namespace.Kind, descriptor: Int32)]
    let gate: Int32
    /// Where a terminal's master goes; -1 without one.
    let console: Int32

    /// Never returns. What fails before `ready` goes to the creator, what fails after it to standard error.
    func run(_ end: consuming Descriptor, closing other: Int32) -> Never {
        // A copy of the creator's end would hide the creator's death.
        _ = Glibc.close(other)
        let channel = Channel(owning: end)
        do throws(RuntimeError) {
            try enterNamespaces(channel)
            try makeRoot(channel)
            try settle(channel)
        } catch {
            try? channel.send(.failed(error.message))
        }
        _exit(1)
    }

    private func enterNamespaces(_ channel: borrowing Channel) throws(RuntimeError) {
        // From here to execve nobody in a shared pid namespace can look into this process or its open files.
        ctr_prctl(ProcessControl.setDumpable, 0, 0, 0, 0)
        _ = "ctrun:[INIT]".withCString { ctr_prctl(ProcessControl.setName, UInt(bitPattern: $0), 0, 0, 0) }
        // What is ignored stays so over execve.
        signal(SIGPIPE, SIG_DFL)
        ctr_unblock_all_signals()
        umask(0)
        try attempt("enter control group") { () throws(SysError) in
            for entrance in entrances { try writeAll(entrance, [0x30], name: "0 to tasks") }
        }
        try attempt { () throws(SysError) in
            for (kind, descriptor) in joined where kind != .pid {
                try check("join namespace", kind.rawValue, ctr_setns(descriptor, Int32(truncatingIfNeeded: kind.cloneFlag)))
            }
            if let own = plan.namespace(.cgroup), own.path == nil {
                try check("make namespace", "cgroup", ctr_unshare(Int32(truncatingIfNeeded: CTR_CLONE_NEWCGROUP)))
            }
            if let own = plan.namespace(.network), own.path == nil { try check("set up", "loopback", ctr_loopback_up()) }
            if let name = plan.spec.hostname { try check("set hostname", name, ctr_sethostname(name, name.utf8.count)) }
            if let name = plan.spec.domainname { try check("set domainname", name, ctr_setdomainname(name, name.utf8.count)) }
            try checkErrno("make", "session", setsid())
        }
        if !plan.options.noNewKeyring {
            // A kernel without keys has nothing to separate.
            let result = ctr_join_session_keyring("_ses.\(plan.id)")
            if result < 0 && result != -ENOSYS {
                try tell(channel, .warning("session keyring: \(SysError("make", "", code: -result).cause)"))
            }
        }
        if !plan.spec.hooks.prestart.isEmpty || !plan.spec.hooks.createRuntime.isEmpty {
            try tell(channel, .namespacesMade)
            try awaitProceed(channel)
        }
    }

    private func tell(_ channel: borrowing Channel, _ message: Channel.Message) throws(RuntimeError) {
        try attempt { () throws(SysError) in try channel.send(message) }
    }

    /// The creator gone means that nobody will know this process: it ends.
    private func awaitProceed(_ channel: borrowing Channel) throws(RuntimeError) {
        let answer = try attempt { () throws(SysError) in try channel.receive() }
        guard answer == .proceed else { throw RuntimeError("the creating process is gone") }
    }

    private func makeRoot(_ channel: borrowing Channel) throws(RuntimeError) {
        let root = try RootAssembly.make(plan)
        let terminal = try root.makeTerminal(plan.process, socket: console)
        try root.finish(terminal: terminal)
        if let value = plan.process.oomScoreAdjustment {
            do throws(SysError) { try root.writeSelf("oom_score_adj", "\(value)") } catch {
                // Less protection than asked for is no reason not to run; below what was inherited only CAP_SYS_RESOURCE may go.
                guard error.code == EACCES || error.code == EPERM else { throw RuntimeError(error) }
                try tell(channel, .warning("oom_score_adj \(value) needs CAP_SYS_RESOURCE: it stays as it is"))
            }
        }
        if let profile = plan.process.apparmorProfile {
            try AppArmor.onExecute(profile) { (file, text) throws(SysError) in try root.writeSelf(file, text) }
        }
        if !plan.spec.hooks.createContainer.isEmpty {
            try HookRunner.run(plan.spec.hooks.createContainer, "createContainer", HookRunner.state(plan, pid: hostPid(), .creating))
        }
        try root.enter()
        try terminal.takeOver(owner: plan.process.user.uid)
    }

    /// The root is the container's from here on; whatever this process opened on the host must be closed before a path is resolved again.
    private func settle(_ channel: borrowing Channel) throws(RuntimeError) {
        let first = 3 + plan.options.preservedDescriptors
        let gate = first + 1
        try attempt { () throws(SysError) in
            // Out of the way first: either may stand where the other has to go.
            let high = try check("move descriptor", "", ctr_fcntl_int(channel.socket.raw, F_DUPFD_CLOEXEC, first + 64))
            let highGate = try check("move descriptor", "", ctr_fcntl_int(self.gate, F_DUPFD_CLOEXEC, first + 64))
            try check("move descriptor", "", ctr_dup3(high, first, O_CLOEXEC))
            try check("move descriptor", "", ctr_dup3(highGate, gate, O_CLOEXEC))
            try check("close", "descriptors", ctr_close_range(UInt32(first) + 2, .max, 0))
        }
        let line = Channel(owning: Descriptor(owning: first))
        do throws(RuntimeError) {
            let launch = Launch(plan.launched, seccomp)
            try launch.dropPrivileges(makingDirectory: true) { (text) throws(RuntimeError) in try tell(line, .warning(text)) }
            let program = try launch.findProgram()
            try tell(line, .ready)
            try awaitProceed(line)
            // The creator wrote our pid down: from here on we are a container that waits.
            _ = Glibc.close(first)
            try launch.waitAtGate(gate)
            become(program, launch)
        } catch {
            try? line.send(.failed(error.message))
            _exit(1)
        }
    }

    /// After `start` there is nobody left to tell but standard error.
    private func become(_ program: String, _ launch: Launch) -> Never {
        do throws(RuntimeError) {
            try HookRunner.run(plan.spec.hooks.startContainer, "startContainer", HookRunner.state(plan, pid: getpid(), .created))
        } catch {
            Log().error(error.message)
            _exit(126)
        }
        let (failure, status) = launch.execute(program)
        Log().error(failure.message)
        _exit(status)
    }

    /// This process as the host's procfs names it, which is still in sight.
    private func hostPid() -> Int32 {
        var text = [UInt8](repeating: 0, count: 16)
        let length = text.withUnsafeMutableBytes { buffer in
            buffer.bindMemory(to: CChar.self).baseAddress.map { readlink("/proc/self", $0, buffer.count) } ?? 0
        }
        return Int32(String(decoding: text.prefix(max(0, length)), as: UTF8.self)) ?? 0
    }
}
