import Glibc
import Linux
import OCI

/// `update`: other limits for a container that runs.
enum Update {
    /// First the kernel, which may refuse; then the record, which only says what was asked for.
    static func run(_ line: Invocation, _ options: Invocation.UpdateOptions) throws(RuntimeError) {
        let directory = try StateDirectory.open(root: line.root, id: line.id)
        guard let state = try directory.read() else { throw RuntimeError.noContainer }
        let change = try options.file.map { (file) throws(RuntimeError) in try read(file) } ?? options.resources
        let limits = try limits(change)
        switch try directory.status(state) {
        case .stopped: throw RuntimeError.notRunning
        case .creating: throw RuntimeError("cannot update a container that is being created")
        case .created, .running, .paused: break
        }
        do throws(SysError) { try state.cgroup.update(limits) } catch { throw explain(error, limits) }
        var saved = try directory.readConfiguration()
        saved.change(resources: change)
        try directory.write(saved)
    }

    private static func read(_ file: String) throws(RuntimeError) -> JSON {
        let bytes = try attempt("resources") { () throws(SysError) in
            file == "-"
                ? try readAll(STDIN_FILENO, name: "standard input", limit: RuntimeSpec.sizeLimit)
                : try readFile(file, limit: RuntimeSpec.sizeLimit)
        }
        do throws(SpecError) { return try RuntimeSpec.document(parsing: bytes) } catch { throw told(error, file) }
    }

    /// Devices are not looked at: which ones a container has is decided when it is made.
    static func limits(_ change: JSON) throws(RuntimeError) -> CgroupLimits {
        let resources: RuntimeSpec.Resources
        do throws(SpecError) {
            let (parsed, unsupported) = try RuntimeSpec.resources(change)
            if let name = unsupported.first { throw SpecError(name, "is not supported") }
            resources = parsed
        } catch { throw told(error, "update") }
        if resources.disableOOMKiller { throw RuntimeError("update: memory.disableOOMKiller cannot be changed") }
        var limits = CgroupPlan.limits(resources)
        // 0 is how callers write "as it is".
        if limits.pids == 0 { limits.pids = nil }
        return limits
    }

    private static func told(_ error: SpecError, _ place: String) -> RuntimeError {
        RuntimeError("\(place): \(error.field): \(error.reason)")
    }

    private static func explain(_ error: SysError, _ limits: CgroupLimits) -> RuntimeError {
        if error.code == EINVAL && limits.memory != nil && limits.memorySwap == nil && error.object.contains("memory.limit_in_bytes") {
            return RuntimeError("\(error): the limit of memory and swap is below it: give --memory-swap too")
        }
        if error.code == EBUSY && error.object.contains("memory.") {
            return RuntimeError("\(error): the container uses more, and not enough of it could be given back")
        }
        return RuntimeError(error)
    }
}
