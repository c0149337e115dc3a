import CLinux
import Glibc
import Linux
import OCI
import Records
import TTRPC

/// Runs the OCI runtime by its command line. It dies with the shim, and starts without the guards' protection from the kernel's
/// memory killer.
struct RuntimeCall {
    let start: StartRecord
    let bundle: String
    let id: String

    /// Where the calls that concern all of the container leave their errors; execs, which run beside each other, have a log each.
    var log: String { bundle + "/log.json" }

    /// Starts `action` with `descriptors` as its 0, 1, 2 … (-1: closed) and returns its pid; its end comes as SIGCHLD.
    func spawn(_ action: [String], descriptors: [Int32], log: String? = nil) throws(SysError) -> Int32 {
        let log = log ?? self.log
        // The log holds this call's errors only.
        unlink(log)
        var words = [start.runtime, "--root", start.runtimeRoot, "--log", log, "--log-format", "json"]
        for flag in start.runtimeFlags.split(separator: " ") { words.append(String(flag)) }
        words += action
        if action.first == "create" { for flag in start.createFlags.split(separator: " ") { words.append(String(flag)) } }
        words.append(id)
        let copy = action.first == "create" || action.first == "exec" ? readOnlyCopy() : nil
        let path = copy.map { "/proc/self/fd/\($0.raw)" } ?? start.runtime
        return try Self.spawn(path, words, directory: bundle, descriptors, named: start.runtime)
    }

    /// Starts `program` (in errors `named`) with `words` as its arguments and `descriptors` as its 0, 1, 2 … (-1: closed); it dies with the shim.
    static func spawn(
        _ program: String, _ words: [String], directory: String, _ descriptors: [Int32], named: String? = nil
    ) throws(SysError) -> Int32 {
        var arguments: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) }
        arguments.append(nil)
        defer { for argument in arguments { free(argument) } }
        let pid = arguments.withUnsafeBufferPointer { arguments in
            descriptors.withUnsafeBufferPointer { descriptors in
                ctr_spawn_with(
                    program, arguments.baseAddress, ctr_environ(), directory, descriptors.baseAddress, Int32(descriptors.count),
                    UInt32(CTR_SPAWN_DIE_WITH_PARENT | CTR_SPAWN_OOM_NEUTRAL))
            }
        }
        return try check("run", named ?? program, pid)
    }

    /// Lets the created container of our own runtime go: one byte into the FIFO at which it waits, which is what `ctrun start` does too. False
    /// when it waits no more, and for any other runtime.
    func openGate() -> Bool {
        guard start.rootfsMode == .detached,
            let gate = try? Linux.open("\(start.runtimeRoot)/\(id)/start.fifo", O_WRONLY | O_NONBLOCK | O_NOFOLLOW)
        else { return false }
        return write(gate.raw, "0", 1) == 1
    }

    /// What enters a container must run from a mount that nobody can write to (CVE-2019-5736). ctrun would make such a copy and execute itself
    /// again; made here, that is saved. nil for a foreign runtime, and for a script, whose interpreter could not open it.
    private func readOnlyCopy() -> SharedDescriptor? {
        guard start.rootfsMode == .detached, let file = try? Linux.open(start.runtime, O_RDONLY) else { return nil }
        var magic: (UInt8, UInt8, UInt8, UInt8) = (0, 0, 0, 0)
        guard read(file.raw, &magic, 4) == 4, magic == (0x7f, 0x45, 0x4c, 0x46) else { return nil }
        guard let copy = try? Mounts.bind(file, name: start.runtime, recursive: false),
            (try? Mounts.change(copy, name: start.runtime, set: .readOnly)) != nil
        else { return nil }
        return SharedDescriptor(copy)
    }

    /// How the runtime's failure reaches the caller: the last error line of its log, or else how it ended.
    func failure(_ action: String, waitStatus: Int32, log: String? = nil) -> Status {
        guard let message = lastError(log ?? self.log) else {
            let how =
                ctr_wifsignaled(waitStatus)
                ? "was ended by signal \(ctr_wtermsig(waitStatus))" : "exited with status \(ctr_wexitstatus(waitStatus))"
            return Status(.unknown, "\(start.runtime) \(action) \(how) and gave no reason")
        }
        let atExec =
            message.contains("executable file not found") || message.contains("permission denied")
            || (message.contains("exec") && message.contains("no such file or directory"))
        return Status(atExec ? .invalidArgument : .unknown, message)
    }

    private func lastError(_ log: String) -> String? {
        guard let bytes = try? readFile(log, limit: 1 << 20) else { return nil }
        var last: String?
        for line in bytes.split(separator: 0x0a) where line.count <= 64 << 10 {
            guard let entry = try? JSON(parsing: Array(line)), entry["level"]?.stringValue == "error" else { continue }
            last = entry["msg"]?.stringValue ?? last
        }
        return last
    }
}
