import Linux
import OCI

/// What is known of a container between two runs of the program: ROOT/ID/state.json.
struct ContainerState: Equatable {
    var id: String
    var bundle: String
    var rootfs: String
    /// RFC 3339.
    var created: String
    /// The kernel's id of the boot in which the container was made.
    var bootID: String
    /// The container's first process; nil until it is made.
    var initial: ProcessIdentity?
    /// The process that makes the container: while it lives and there is no first process, the container is being created.
    var creator: ProcessIdentity
    var cgroup: ContainerCgroup
    var annotations: [RuntimeSpec.KeyValue]
    var poststart: [RuntimeSpec.Hook]
    var poststop: [RuntimeSpec.Hook]
    /// Whether a compiled seccomp program lies beside this record, which every further process gets too.
    var hasSeccomp: Bool
    /// Whether further processes join the session keyring that was made for the first.
    var hasKeyring: Bool

    /// Largest file that is read.
    static let sizeLimit = 8 << 20

    func encoded() -> [UInt8] {
        let v1 = cgroup.v1.map { JSON.object([.init("controllers", .string($0.controllers)), .init("path", .string($0.path))]) }
        var members: [JSON.Member] = [
            .init("version", 1), .init("id", .string(id)), .init("bundle", .string(bundle)), .init("rootfs", .string(rootfs)),
            .init("created", .string(created)), .init("boot_id", .string(bootID)), .init("creator", Self.encode(creator)),
            .init("cgroup_v1", .array(v1)), .init("seccomp", .bool(hasSeccomp)), .init("keyring", .bool(hasKeyring)),
        ]
        if let unified = cgroup.unified { members.append(.init("cgroup_v2", .string(unified))) }
        if let initial { members.append(.init("init", Self.encode(initial))) }
        if !annotations.isEmpty { members.append(.init("annotations", .object(annotations.map { .init($0.key, .string($0.value)) }))) }
        if !poststart.isEmpty { members.append(.init("poststart", .array(poststart.map(Self.encode)))) }
        if !poststop.isEmpty { members.append(.init("poststop", .array(poststop.map(Self.encode)))) }
        return JSON.object(members).encoded()
    }

    /// Strict: a file that is not exactly one of ours is an error, never a default.
    init(parsing bytes: [UInt8]) throws(RuntimeError) {
        let damaged = RuntimeError("state.json is damaged")
        guard let document = try? JSON(parsing: bytes), document["version"]?.integerValue == 1, let id = document["id"]?.stringValue,
            let bundle = document["bundle"]?.stringValue, let rootfs = document["rootfs"]?.stringValue,
            let created = document["created"]?.stringValue, let bootID = document["boot_id"]?.stringValue,
            let creator = Self.identity(document["creator"]), let directories = document["cgroup_v1"]?.arrayValue
        else { throw damaged }
        // Release 0.1.0 did not say. Taken so, a further process is refused there for want of its filter, and everything else works.
        guard let hasSeccomp = (document["seccomp"] ?? .bool(true)).boolValue,
            let hasKeyring = (document["keyring"] ?? .bool(false)).boolValue
        else { throw damaged }
        self.id = id
        self.bundle = bundle
        self.rootfs = rootfs
        self.created = created
        self.bootID = bootID
        self.creator = creator
        self.hasSeccomp = hasSeccomp
        self.hasKeyring = hasKeyring
        var v1: [ContainerCgroup.Directory] = []
        for each in directories {
            guard let controllers = each["controllers"]?.stringValue, let path = each["path"]?.stringValue, path.hasPrefix("/") else {
                throw damaged
            }
            v1.append(ContainerCgroup.Directory(controllers: controllers, path: path))
        }
        cgroup = ContainerCgroup(v1: v1, unified: document["cgroup_v2"]?.stringValue)
        if let first = document["init"] {
            guard let identity = Self.identity(first) else { throw damaged }
            initial = identity
        }
        annotations = (document["annotations"]?.members ?? []).map { RuntimeSpec.KeyValue($0.key, $0.value.stringValue ?? "") }
        poststart = try Self.hooks(document["poststart"], damaged)
        poststop = try Self.hooks(document["poststop"], damaged)
    }

    init(
        id: String, bundle: String, rootfs: String, created: String, bootID: String, creator: ProcessIdentity, cgroup: ContainerCgroup,
        spec: RuntimeSpec, hasKeyring: Bool
    ) {
        self.id = id
        self.bundle = bundle
        self.rootfs = rootfs
        self.created = created
        self.bootID = bootID
        self.creator = creator
        self.cgroup = cgroup
        annotations = spec.annotations
        poststart = spec.hooks.poststart
        poststop = spec.hooks.poststop
        hasSeccomp = spec.linux.seccomp != nil
        self.hasKeyring = hasKeyring
    }

    private static func encode(_ process: ProcessIdentity) -> JSON {
        .object([.init("pid", .integer(Int64(process.pid))), .init("start_time", .unsigned(process.startTime))])
    }

    private static func identity(_ value: JSON?) -> ProcessIdentity? {
        guard let pid = value?["pid"]?.integerValue.flatMap({ Int32(exactly: $0) }), pid > 0, let time = value?["start_time"]?.unsignedValue
        else { return nil }
        return ProcessIdentity(pid: pid, startTime: time)
    }

    private static func encode(_ hook: RuntimeSpec.Hook) -> JSON {
        var members: [JSON.Member] = [
            .init("path", .string(hook.path)), .init("args", .array(hook.args.map { .string($0) })),
            .init("env", .array(hook.env.map { .string($0) })),
        ]
        if let timeout = hook.timeout { members.append(.init("timeout", .integer(timeout))) }
        return .object(members)
    }

    private static func hooks(_ value: JSON?, _ damaged: RuntimeError) throws(RuntimeError) -> [RuntimeSpec.Hook] {
        var hooks: [RuntimeSpec.Hook] = []
        for each in value?.arrayValue ?? [] {
            guard let path = each["path"]?.stringValue else { throw damaged }
            var hook = RuntimeSpec.Hook()
            hook.path = path
            hook.args = (each["args"]?.arrayValue ?? []).compactMap(\.stringValue)
            hook.env = (each["env"]?.arrayValue ?? []).compactMap(\.stringValue)
            hook.timeout = each["timeout"]?.integerValue
            hooks.append(hook)
        }
        return hooks
    }
}

/// The status of the OCI specification, and "paused" as every runtime adds it.
enum ContainerStatus: String {
    case creating, created, running, paused, stopped
}
