import Linux
import OCI

/// The process that `exec` is to run: the object of --process, or the container's first process with what the flags change. What the
/// object does not say it inherits from the container: limits, capabilities, AppArmor profile, memory killer's score.
struct ExecPlan {
    let launched: ProcessPlan

    init(_ options: Invocation.ExecOptions, _ saved: SavedConfiguration) throws(RuntimeError) {
        let first = try saved.firstProcess()
        if let file = options.processFile {
            var process = try Self.process(file)
            if process.capabilities == nil { process.capabilities = first.capabilities }
            if process.rlimits.isEmpty { process.rlimits = first.rlimits }
            process.apparmorProfile = process.apparmorProfile ?? first.apparmorProfile
            process.oomScoreAdjustment = process.oomScoreAdjustment ?? first.oomScoreAdjustment
            launched = try ProcessPlan(process, preservedDescriptors: options.preservedDescriptors, document: file)
        } else {
            let process = try Self.process(first, options)
            launched = try ProcessPlan(process, preservedDescriptors: options.preservedDescriptors, document: "exec")
        }
    }

    private static func process(_ file: String) throws(RuntimeError) -> RuntimeSpec.Process {
        let bytes = try attempt("process") { () throws(SysError) in try readFile(file, limit: RuntimeSpec.sizeLimit) }
        do throws(SpecError) {
            let (process, unsupported) = try RuntimeSpec.process(try RuntimeSpec.document(parsing: bytes))
            if let name = unsupported.first { throw SpecError(name, "is not supported") }
            return process
        } catch { throw RuntimeError("\(file): \(error.field): \(error.reason)") }
    }

    private static func process(
        _ first: RuntimeSpec.Process, _ options: Invocation.ExecOptions
    ) throws(RuntimeError) -> RuntimeSpec.Process {
        var process = first
        process.args = options.args
        process.terminal = options.terminal
        process.consoleSize = nil
        if let cwd = options.cwd {
            guard cwd.utf8.first == 0x2f else { throw RuntimeError("exec: --cwd \"\(cwd.prefix(64))\" must be an absolute path") }
            process.cwd = cwd
        }
        for variable in options.env {
            // getenv(3) takes the first of a name: an older value must go.
            let name = variable.utf8.prefix { $0 != UInt8(ascii: "=") }
            process.env.removeAll { $0.utf8.prefix { $0 != UInt8(ascii: "=") }.elementsEqual(name) }
            process.env.append(variable)
        }
        if let user = options.user {
            process.user.uid = user.uid
            process.user.gid = user.gid ?? process.user.gid
        }
        process.user.additionalGids += options.additionalGids
        if !options.capabilities.isEmpty {
            var sets = process.capabilities ?? RuntimeSpec.Capabilities()
            sets.bounding += options.capabilities
            sets.effective += options.capabilities
            sets.permitted += options.capabilities
            process.capabilities = sets
        }
        process.noNewPrivileges = options.noNewPrivileges ?? process.noNewPrivileges
        process.apparmorProfile = options.apparmorProfile ?? process.apparmorProfile
        return process
    }

    /// The directories that the process enters: the container's, or those below that were asked for, which must exist.
    static func group(_ wanted: [Invocation.ExecCgroup], below group: ContainerCgroup) throws(RuntimeError) -> ContainerCgroup {
        var v1 = group.v1
        var unified = group.unified
        for each in wanted {
            if each.controllers == nil, let path = group.unified {
                unified = "\(path)/\(each.path)"
                continue
            }
            var found = false
            for index in v1.indices {
                if let controllers = each.controllers, !v1[index].matches(controllers) { continue }
                v1[index] = ContainerCgroup.Directory(controllers: v1[index].controllers, path: "\(group.v1[index].path)/\(each.path)")
                found = true
            }
            guard found else {
                throw RuntimeError("exec: --cgroup \(each.controllers ?? ""):\(each.path): this host has no such version 1 hierarchy")
            }
        }
        return ContainerCgroup(v1: v1, unified: unified)
    }
}

extension ContainerCgroup.Directory {
    /// "memory" or "cpu,cpuacct": of several, each must be one of this hierarchy.
    fileprivate func matches(_ wanted: String) -> Bool {
        let own = controllers.split(separator: ",")
        return wanted.split(separator: ",").allSatisfy { own.contains($0) }
    }
}
