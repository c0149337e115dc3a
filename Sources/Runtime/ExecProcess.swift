import CLinux
import Glibc
import Linux
import OCI

/// A further process of a container, from clone3 to execve. It is a copy of the program with one thread, so it goes on in Swift; it is in the
/// container's pid namespace and version 2 control group from its first instruction, and cannot be looked into.
///
/// Order matters: version 1 control groups first; then what needs the host's procfs, which nobody in the container can have prepared;
/// then all namespaces by one call; then the terminal; then every descriptor of the host is closed, before any path of the caller's is
/// resolved; then privileges are given up; the seccomp filter as late as they allow; execve.
struct ExecProcess {
    let plan: ExecPlan
    let seccomp: SeccompProgram?
    /// Write "0" to enter; of the version 1 hierarchies.
    let entrances: [Int32]
    /// Pidfd of the container's first process.
    let container: Int32
    /// CLONE_NEW* to join.
    let namespaces: UInt64
    /// Name of the session keyring; nil keeps the caller's.
    let keyring: String?
    /// Where a terminal's master goes; -1 without one.
    let console: Int32

    private var process: RuntimeSpec.Process { plan.launched.process }

    /// Never returns; what fails goes to the caller's side.
    func run(_ end: consuming Descriptor, closing other: Int32) -> Never {
        _ = Glibc.close(other)
        let channel = Channel(owning: end)
        do throws(RuntimeError) {
            try prepare(channel)
            try enter()
            try settle(channel)
        } catch {
            try? channel.send(.failed(error.message))
        }
        _exit(1)
    }

    private func prepare(_ channel: borrowing Channel) throws(RuntimeError) {
        _ = "ctrun:[EXEC]".withCString { ctr_prctl(ProcessControl.setName, UInt(bitPattern: $0), 0, 0, 0) }
        // What is ignored stays so over execve.
        signal(SIGPIPE, SIG_DFL)
        ctr_unblock_all_signals()
        umask(0)
        try attempt("enter control group") { () throws(SysError) in
            for entrance in entrances { try writeAll(entrance, [0x30], name: "0 to tasks") }
        }
        if let value = process.oomScoreAdjustment {
            do throws(SysError) { try Self.writeSelf("oom_score_adj", "\(value)") } catch {
                guard error.code == EACCES || error.code == EPERM else { throw RuntimeError(error) }
                try tell(channel, "oom_score_adj \(value) needs CAP_SYS_RESOURCE: it stays as it is")
            }
        }
        if let profile = process.apparmorProfile {
            try AppArmor.onExecute(profile) { (file, text) throws(SysError) in try Self.writeSelf(file, text) }
        }
        try attempt { () throws(SysError) in try checkErrno("make", "session", setsid()) }
        if let keyring {
            // A kernel without keys has nothing to separate.
            let result = ctr_join_session_keyring(keyring)
            if result < 0 && result != -ENOSYS { try tell(channel, "session keyring: \(SysError("join", "", code: -result).cause)") }
        }
    }

    private func tell(_ channel: borrowing Channel, _ warning: String) throws(RuntimeError) {
        try attempt { () throws(SysError) in try channel.send(.warning(warning)) }
    }

    /// The host's procfs, as it is in sight before the mount namespace is joined.
    private static func writeSelf(_ name: String, _ text: String) throws(SysError) {
        let file = try Linux.open("/proc/self/\(name)", O_WRONLY)
        try writeAll(file.raw, Array(text.utf8), name: "/proc/self/\(name)")
    }

    private func enter() throws(RuntimeError) {
        try attempt { () throws(SysError) in
            try check("join namespaces of", "the container", ctr_setns(container, Int32(truncatingIfNeeded: namespaces)))
        }
        guard process.terminal else { return }
        let root = try attempt { () throws(SysError) in try RootFS(path: "/") }
        let terminal = try Terminal(process, socket: console, rootfs: root)
        try terminal.takeOver(owner: process.user.uid)
    }

    private func settle(_ channel: borrowing Channel) throws(RuntimeError) {
        let first = 3 + plan.launched.preservedDescriptors
        try attempt { () throws(SysError) in
            if channel.socket.raw != first { try check("move descriptor", "", ctr_dup3(channel.socket.raw, first, O_CLOEXEC)) }
            try check("close", "descriptors", ctr_close_range(UInt32(first) + 1, .max, 0))
        }
        let line = Channel(owning: Descriptor(owning: first))
        do throws(RuntimeError) {
            let launch = Launch(plan.launched, seccomp)
            try launch.dropPrivileges(makingDirectory: false) { (text) throws(RuntimeError) in try tell(line, text) }
            let program = try launch.findProgram()
            try attempt { () throws(SysError) in try line.send(.ready) }
            guard try attempt({ () throws(SysError) in try line.receive() }) == .proceed else { _exit(1) }
            // The other side sees the end of the channel when execve has succeeded.
            let (failure, status) = launch.execute(program)
            try? line.send(.failed(failure.message))
            _exit(status)
        } catch {
            try? line.send(.failed(error.message))
            _exit(1)
        }
    }
}
