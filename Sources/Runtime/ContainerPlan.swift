import CLinux
import Glibc
import Linux
import OCI

/// Everything that is to be done for one container, checked before anything is touched.
struct ContainerPlan {
    enum Root: Equatable {
        /// A detached mount that the caller of the program opened.
        case descriptor(Int32)
        /// Absolute path of a directory.
        case path(String)
    }

    let id: String
    /// Absolute path.
    let bundle: String
    let spec: RuntimeSpec
    let process: RuntimeSpec.Process
    let options: Invocation.CreateOptions
    let root: Root
    let rootReadOnly: Bool
    let mounts: [(entry: RuntimeSpec.Mount, options: MountOptions)]
    /// CLONE_NEW* of the namespaces to make, without the control group's, which comes after entering it.
    let cloneFlags: UInt64
    let rootPropagation: (MountPropagation, recursive: Bool)?
    let cgroup: CgroupPlan
    let launched: ProcessPlan
    /// What `exec` and `update` need of the document later.
    let saved: SavedConfiguration

    /// This annotation says that a descriptor is the root file system; see docs/architecture.md.
    static let rootDescriptorAnnotation = "org.ctrd.rootfs.fd"

    init(id: String, options: Invocation.CreateOptions) throws(RuntimeError) {
        self.id = id
        self.options = options
        bundle = try Self.absolute(options.bundle)
        let text = try attempt { () throws(SysError) in try readFile(options.bundle + "/config.json", limit: RuntimeSpec.sizeLimit) }
        do throws(SpecError) {
            let document = try RuntimeSpec.document(parsing: text)
            spec = try RuntimeSpec(document)
            saved = SavedConfiguration(of: document)
        } catch { throw RuntimeError(error) }
        guard let process = spec.process else { throw RuntimeError("config.json: process: is missing") }
        self.process = process
        if let first = spec.unsupported.first { throw RuntimeError("config.json: \(first) is not supported") }
        launched = try ProcessPlan(process, preservedDescriptors: options.preservedDescriptors, document: "config.json")
        try Self.check(spec)
        (root, rootReadOnly) = try Self.root(spec, bundle: bundle, options)
        mounts = try Self.mounts(spec)
        cloneFlags = spec.linux.namespaces.reduce(0) { $1.path == nil && $1.kind != .cgroup ? $0 | $1.kind.cloneFlag : $0 }
        rootPropagation = try spec.linux.rootfsPropagation.map { (word) throws(RuntimeError) in try Self.propagation(word) }
        cgroup = try CgroupPlan(id: id, spec.linux)
    }

    func namespace(_ kind: RuntimeSpec.Namespace.Kind) -> RuntimeSpec.Namespace? { spec.linux.namespaces.first { $0.kind == kind } }

    static func absolute(_ path: String) throws(RuntimeError) -> String {
        guard let resolved = realpath(path, nil) else { throw RuntimeError(SysError("open bundle", path, code: errno)) }
        defer { free(resolved) }
        return String(cString: resolved)
    }

    // MARK: checks

    private static func check(_ spec: RuntimeSpec) throws(RuntimeError) {
        func namespace(_ kind: RuntimeSpec.Namespace.Kind) -> RuntimeSpec.Namespace? { spec.linux.namespaces.first { $0.kind == kind } }
        for kind in [RuntimeSpec.Namespace.Kind.user, .time] where namespace(kind) != nil {
            throw RuntimeError("config.json: linux.namespaces: a \(kind.rawValue) namespace is not supported")
        }
        guard let mount = namespace(.mount), mount.path == nil else {
            throw RuntimeError("config.json: linux.namespaces: the container needs a mount namespace of its own")
        }
        if spec.hostname != nil && namespace(.uts) == nil { throw RuntimeError("config.json: hostname: needs a uts namespace") }
        if spec.domainname != nil && namespace(.uts) == nil { throw RuntimeError("config.json: domainname: needs a uts namespace") }
        for setting in spec.linux.sysctl {
            try Sysctl.check(setting, ipc: namespace(.ipc) != nil, network: namespace(.network) != nil, uts: namespace(.uts) != nil)
        }
    }

    private static func root(
        _ spec: RuntimeSpec, bundle: String, _ options: Invocation.CreateOptions
    ) throws(RuntimeError) -> (Root, Bool) {
        if let text = spec.annotation(rootDescriptorAnnotation) {
            guard text == "3" else { throw RuntimeError("config.json: annotation \(rootDescriptorAnnotation) must be \"3\"") }
            if options.preservedDescriptors > 0 {
                throw RuntimeError("--preserve-fds cannot be used when descriptor 3 is the root file system")
            }
            var status = stat()
            guard fstat(3, &status) == 0, ctr_s_isdir(status.st_mode) else {
                throw RuntimeError("annotation \(rootDescriptorAnnotation): descriptor 3 is no directory")
            }
            // Ours alone from here on: no hook and no helper inherits it.
            try attempt { () throws(SysError) in try Linux.check("protect descriptor", "3", ctr_fcntl_int(3, F_SETFD, FD_CLOEXEC)) }
            return (.descriptor(3), spec.root?.readOnly ?? false)
        }
        guard let root = spec.root else { throw RuntimeError("config.json: root: is missing") }
        let path = root.path.hasPrefix("/") ? root.path : "\(bundle)/\(root.path)"
        var status = stat()
        guard stat(path, &status) == 0 else { throw RuntimeError(SysError("open root file system", path, code: errno)) }
        guard ctr_s_isdir(status.st_mode) else { throw RuntimeError(SysError("open root file system", path, code: ENOTDIR)) }
        return (.path(path), root.readOnly)
    }

    private static func mounts(_ spec: RuntimeSpec) throws(RuntimeError) -> [(RuntimeSpec.Mount, MountOptions)] {
        var result: [(RuntimeSpec.Mount, MountOptions)] = []
        for entry in spec.mounts {
            do throws(RuntimeError) {
                var options = try MountOptions(entry.options)
                if entry.type == "bind" { options.bind = true }
                if options.copyUp { throw RuntimeError("mount option \"tmpcopyup\" is not supported") }
                if !options.bind && entry.type.isEmpty { throw RuntimeError("has no type") }
                if options.bind && entry.source.isEmpty { throw RuntimeError("has no source") }
                try MountPlace.check(entry, options)
                result.append((entry, options))
            } catch { throw error.during("config.json: mount of \(entry.destination)") }
        }
        return result
    }

    private static func propagation(_ word: String) throws(RuntimeError) -> (MountPropagation, recursive: Bool) {
        guard let last = try MountOptions([word]).propagations.last else {
            throw RuntimeError("config.json: linux.rootfsPropagation: unknown value \"\(word.prefix(64))\"")
        }
        return last
    }
}

extension RuntimeSpec.Namespace.Kind {
    /// The flag of clone(2), unshare(2) and setns(2).
    var cloneFlag: UInt64 {
        switch self {
        case .mount: CTR_CLONE_NEWNS
        case .pid: CTR_CLONE_NEWPID
        case .uts: CTR_CLONE_NEWUTS
        case .ipc: CTR_CLONE_NEWIPC
        case .network: CTR_CLONE_NEWNET
        case .cgroup: CTR_CLONE_NEWCGROUP
        case .user: CTR_CLONE_NEWUSER
        case .time: CTR_CLONE_NEWTIME
        }
    }
}
