import CLinux
import Glibc
import Linux
import OCI

/// Hooks: programs of the administrator that run beside a container's life. They get the container's state on standard input, the
/// environment that the document gives them (none by default, never the container's), "/" as directory, and no descriptor but the three
/// streams.
enum HookRunner {
    /// The state of the specification, as hooks and `state` show it.
    static func state(_ plan: ContainerPlan, pid: Int32, _ status: ContainerStatus) -> [UInt8] {
        state(id: plan.id, bundle: plan.bundle, annotations: plan.spec.annotations, pid: pid, status)
    }

    static func state(
        id: String, bundle: String, annotations: [RuntimeSpec.KeyValue], pid: Int32, _ status: ContainerStatus
    ) -> [UInt8] {
        var members: [JSON.Member] = [
            .init("ociVersion", .string(Runtime.specVersion)), .init("id", .string(id)), .init("status", .string(status.rawValue)),
        ]
        if pid > 0 { members.append(.init("pid", .integer(Int64(pid)))) }
        members.append(.init("bundle", .string(bundle)))
        if !annotations.isEmpty { members.append(.init("annotations", .object(annotations.map { .init($0.key, .string($0.value)) }))) }
        return JSON.object(members).encoded()
    }

    /// One after the other; the first failure ends it.
    static func run(_ hooks: [RuntimeSpec.Hook], _ kind: String, _ state: [UInt8]) throws(RuntimeError) {
        for hook in hooks {
            do throws(SysError) { try run(hook, state) } catch { throw RuntimeError(error).during("\(kind) hook") }
        }
    }

    private static func run(_ hook: RuntimeSpec.Hook, _ state: [UInt8]) throws(SysError) {
        // A file, not a pipe: a hook that does not read its input cannot hold us up.
        let input = Descriptor(owning: try check("make", "memory file", ctr_memfd_create("state", 1)))
        try writeAll(input.raw, state, name: "state of the container")
        try checkErrno("rewind", "state of the container", lseek(input.raw, 0, SEEK_SET))
        let null = try Linux.open("/dev/null", O_RDWR)
        let streams = [input.raw, null.raw, STDERR_FILENO]
        let pid = withCStrings(hook.args.isEmpty ? [hook.path] : hook.args) { arguments in
            withCStrings(hook.env) { variables in
                ctr_spawn(hook.path, arguments, variables, "/", streams, 3, false)
            }
        }
        try check("run", hook.path, pid)
        let process = Descriptor(owning: try check("open pidfd of", hook.path, ctr_pidfd_open(pid, 0)))
        var item = pollfd(fd: process.raw, events: Int16(POLLIN), revents: 0)
        let limit = hook.timeout.map { Int32(clamping: $0 * 1000) } ?? -1
        var ready = poll(&item, 1, limit)
        while ready < 0 && errno == EINTR { ready = poll(&item, 1, limit) }
        if ready == 0 { ctr_pidfd_send_signal(process.raw, SIGKILL) }
        var status: Int32 = 0
        try check("wait for", hook.path, ctr_waitid(CTR_P_PID, pid, &status, 0))
        if ready == 0 { throw SysError("run \(hook.path): it took longer than its timeout of \(hook.timeout ?? 0) s", code: ETIMEDOUT) }
        let code = exitCode(waitStatus: status)
        if code != 0 { throw SysError("run \(hook.path): it ended with status \(code)", code: ECANCELED) }
    }
}

/// Calls `body` with a NULL-terminated array of C strings that lives as long as the call.
func withCStrings<Result>(_ texts: [String], _ body: (UnsafePointer<UnsafeMutablePointer<CChar>?>) -> Result) -> Result {
    var pointers: [UnsafeMutablePointer<CChar>?] = texts.map { strdup($0) }
    pointers.append(nil)
    defer { for pointer in pointers { free(pointer) } }
    return pointers.withUnsafeBufferPointer { buffer in
        guard let base = buffer.baseAddress else { preconditionFailure("an array with a terminator is not empty") }
        return body(base)
    }
}
