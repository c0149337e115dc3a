import CLinux
import Glibc
import Linux
import OCI

/// The last steps inside the container: who the process is, what it may do, and which program it becomes.
struct Launch {
    private let plan: ProcessPlan
    private let process: RuntimeSpec.Process
    private let seccomp: SeccompProgram?
    private let environment: [String]

    init(_ plan: ProcessPlan, _ seccomp: SeccompProgram?) {
        self.plan = plan
        process = plan.process
        self.seccomp = seccomp
        environment = Self.environment(plan.process)
    }

    // MARK: privileges

    /// Limits, streams, filter (when it needs privileges), bounding set, user, capabilities, working directory. `warn` takes what was asked
    /// for and cannot be given. A working directory that is missing is made when `makingDirectory` says so.
    func dropPrivileges(makingDirectory: Bool, warn: (String) throws(RuntimeError) -> Void) throws(RuntimeError) {
        try setLimits()
        giveStreams()
        var sets = plan.capabilities
        let available = try Self.available()
        let missing = sets.limit(to: available)
        if missing != 0 {
            let names = (0..<64).filter { missing >> UInt64($0) & 1 == 1 }.map { Capability.name($0) }
            try warn("this process does not have \(names.joined(separator: " ")) and cannot give it")
        }
        if makingDirectory { try makeWorkingDirectory() }
        let entered = try enterWorkingDirectory(deniedIsFine: true)
        if process.noNewPrivileges {
            try attempt { () throws(SysError) in try check("set", "no_new_privs", ctr_prctl(ProcessControl.setNoNewPrivileges, 1, 0, 0, 0))
            }
        } else if let seccomp {
            try attempt { () throws(SysError) in try seccomp.install() }
        }
        try attempt { () throws(SysError) in
            for number in 0..<UInt(64) where sets.bounding >> UInt64(number) & 1 == 0 {
                let result = ctr_prctl(ProcessControl.dropBoundingCapability, number, 0, 0, 0)
                if result == -EINVAL { break }
                try check("drop capability", Capability.name(Int(number)), result)
            }
            try check("keep", "capabilities", ctr_prctl(ProcessControl.setKeepCapabilities, 1, 0, 0, 0))
            try setUser()
            try check("set", "capabilities", ctr_capset(sets.effective, sets.permitted, sets.inheritable))
            // Not inherited from whoever started this program, and nothing by default.
            try check("clear", "ambient capabilities", ctr_prctl(ProcessControl.ambientCapabilities, ProcessControl.clearAll, 0, 0, 0))
            for number in 0..<UInt(64) where sets.ambient >> UInt64(number) & 1 == 1 {
                let result = ctr_prctl(ProcessControl.ambientCapabilities, ProcessControl.raise, number, 0, 0)
                try check("raise ambient capability", Capability.name(Int(number)), result)
            }
            // A change of user makes the process dumpable again by its own rules.
            try check("set", "dumpable", ctr_prctl(ProcessControl.setDumpable, 0, 0, 0, 0))
        }
        if !entered { _ = try enterWorkingDirectory(deniedIsFine: false) }
        umask(mode_t(process.user.umask ?? 0o022))
    }

    private static func available() throws(RuntimeError) -> UInt64 {
        var effective: UInt64 = 0
        var permitted: UInt64 = 0
        var inheritable: UInt64 = 0
        try attempt { () throws(SysError) in try check("read", "capabilities", ctr_capget(&effective, &permitted, &inheritable)) }
        return permitted
    }

    private func setLimits() throws(RuntimeError) {
        for limit in plan.limits {
            let result = ctr_prlimit(0, limit.resource, limit.soft, limit.hard)
            if result >= 0 { continue }
            var soft: UInt64 = 0
            var hard: UInt64 = 0
            ctr_getrlimit(limit.resource, &soft, &hard)
            if result == -EPERM && limit.soft == soft && limit.hard == hard { continue }
            if result == -EPERM && limit.hard > hard {
                throw RuntimeError(
                    "set \(limit.name): \(limit.hard) is above the hard limit of \(hard), and raising that needs CAP_SYS_RESOURCE")
            }
            throw RuntimeError(SysError("set", limit.name, code: -result))
        }
    }

    /// Pipes and terminals that are the container's streams belong to its user, so that it can open /dev/stdout again. Files of the caller
    /// keep their owner.
    private func giveStreams() {
        let owner = process.user.uid
        for stream in Int32(0)...2 {
            var status = stat()
            guard fstat(stream, &status) == 0, status.st_uid != owner else { continue }
            let kind = status.st_mode & S_IFMT
            if kind == S_IFIFO || kind == S_IFSOCK || isatty(stream) == 1 { _ = fchown(stream, owner, gid_t.max) }
        }
    }

    private func setUser() throws(SysError) {
        let user = process.user
        try check("set", "supplementary groups", ctr_setgroups(user.additionalGids, user.additionalGids.count))
        try check("set", "group \(user.gid)", ctr_setresgid(user.gid, user.gid, user.gid))
        try check("set", "user \(user.uid)", ctr_setresuid(user.uid, user.uid, user.uid))
    }

    // MARK: working directory

    /// Makes what is missing while the process may still; inside the root, where a link can lead nowhere else.
    private func makeWorkingDirectory() throws(RuntimeError) {
        if process.cwd == "/" || access(process.cwd, F_OK) == 0 { return }
        guard errno == ENOENT else { return }
        try attempt("working directory \(process.cwd)") { () throws(SysError) in
            _ = try RootFS(path: "/").makeDirectories(process.cwd)
        }
    }

    /// The kernel must name the place from the container's root. False when this user may not enter: then the container's user tries.
    private func enterWorkingDirectory(deniedIsFine: Bool) throws(RuntimeError) -> Bool {
        try attempt { () throws(SysError) in
            if chdir(process.cwd) < 0 {
                if errno == EACCES && deniedIsFine { return false }
                throw SysError("change to working directory", process.cwd, code: errno)
            }
            var buffer = [CChar](repeating: 0, count: 4096)
            // The C library answers ENOENT when the kernel says "(unreachable)".
            guard getcwd(&buffer, buffer.count) != nil, buffer[0] == 0x2f else {
                throw SysError("change to working directory: it is outside of the root file system:", process.cwd, code: EACCES)
            }
            return true
        }
    }

    // MARK: program

    /// PATH lookup as the container will do it, now, so that `create` can say what is wrong.
    func findProgram() throws(RuntimeError) -> String {
        let name = process.args[0]
        if name.utf8.contains(UInt8(ascii: "/")) {
            let code = Self.executable(name)
            if code == 0 { return name }
            if code == ENOENT { throw RuntimeError("exec: \"\(name)\": stat \(name): no such file or directory") }
            throw RuntimeError("exec: \"\(name)\": \(code == EACCES ? "permission denied" : SysError("", code: code).cause.lowercased())")
        }
        var path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        for variable in process.env where variable.hasPrefix("PATH=") { path = String(variable.dropFirst(5)) }
        var denied = false
        for directory in path.split(separator: ":", omittingEmptySubsequences: false) {
            let candidate = directory.isEmpty ? "./\(name)" : "\(directory)/\(name)"
            let code = Self.executable(candidate)
            if code == 0 { return candidate }
            if code == EACCES { denied = true }
        }
        throw RuntimeError("exec: \"\(name)\": \(denied ? "permission denied" : "executable file not found in $PATH")")
    }

    /// 0, or why this user cannot execute the file.
    private static func executable(_ path: String) -> Int32 {
        var status = stat()
        if stat(path, &status) < 0 { return errno }
        if ctr_s_isdir(status.st_mode) { return EACCES }
        // With the effective ids, and seeing noexec mounts.
        return faccessat(AT_FDCWD, path, X_OK, 0x200 /* AT_EACCESS */) == 0 ? 0 : errno
    }

    /// The document's variables; HOME, when it has none, from the container's user database.
    private static func environment(_ process: RuntimeSpec.Process) -> [String] {
        if process.env.contains(where: { $0.hasPrefix("HOME=") }) { return process.env }
        return process.env + ["HOME=\(home(of: process.user.uid))"]
    }

    private static func home(of uid: UInt32) -> String {
        guard let root = try? RootFS(path: "/"), let text = try? root.readFile("/etc/passwd", limit: 1 << 20) else { return "/" }
        for line in text.split(separator: 0x0a) {
            let fields = line.split(separator: UInt8(ascii: ":"), omittingEmptySubsequences: false)
            guard fields.count >= 7, UInt32(String(decoding: fields[2], as: UTF8.self)) == uid else { continue }
            let home = String(decoding: fields[5], as: UTF8.self)
            return home.hasPrefix("/") && home.utf8.allSatisfy { $0 >= 0x20 } ? home : "/"
        }
        return "/"
    }

    // MARK: end

    /// Sleeps until `start` writes to the gate. Closed at once: its last holder gone is how `start` knows that the container runs.
    func waitAtGate(_ gate: Int32) throws(RuntimeError) {
        var byte: UInt8 = 0
        while read(gate, &byte, 1) < 0 {
            if errno != EINTR { throw RuntimeError(SysError("wait for", "start", code: errno)) }
        }
        _ = close(gate)
    }

    /// Becomes the program, or says why not and with which status to end.
    func execute(_ program: String) -> (failure: RuntimeError, status: Int32) {
        do throws(SysError) {
            try check(
                "protect", "descriptors", ctr_close_range(UInt32(3 + plan.preservedDescriptors), .max, 4 /* CLOSE_RANGE_CLOEXEC */))
            if process.noNewPrivileges, let seccomp { try seccomp.install() }
        } catch { return (RuntimeError(error), 126) }
        let code = execve(program)
        let failure = RuntimeError("exec: \"\(process.args[0])\": \(SysError("", code: code).cause.lowercased())")
        return (failure, code == ENOENT ? 127 : 126)
    }

    private func execve(_ program: String) -> Int32 {
        var arguments: [UnsafeMutablePointer<CChar>?] = process.args.map { strdup($0) }
        arguments.append(nil)
        var variables: [UnsafeMutablePointer<CChar>?] = environment.map { strdup($0) }
        variables.append(nil)
        Glibc.execve(program, arguments, variables)
        return errno
    }
}
