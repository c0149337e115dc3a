extension RuntimeSpec {
    /// Largest config.json that is read.
    public static let sizeLimit = 4 << 20
    /// (uid_t)-1 and (gid_t)-1 mean "unchanged" to the kernel, so they are no ids.
    static let ids: ClosedRange<UInt32> = 0...0xffff_fffe

    /// Reads a document of at most ``sizeLimit`` bytes.
    public init(parsing bytes: [UInt8]) throws(SpecError) { try self.init(try Self.document(parsing: bytes)) }

    /// The tree of such a document, or of a part of one.
    public static func document(parsing bytes: [UInt8]) throws(SpecError) -> JSON {
        if bytes.count > sizeLimit { throw SpecError("document", "is larger than \(sizeLimit) bytes") }
        do throws(JSON.SyntaxError) { return try JSON(parsing: bytes) } catch { throw SpecError("document", "\(error)") }
    }

    public init(_ document: JSON) throws(SpecError) {
        self.init()
        guard document.members != nil else { throw SpecError("document", "must be an object") }
        let top = SpecReader(value: document, path: "")
        version = try top.required("ociVersion", try top.string("ociVersion"))
        guard version.hasPrefix("1.") else { throw SpecError("ociVersion", "\"\(version)\" is not a version 1 specification") }
        if let reader = try top.object("process") {
            process = try Self.process(reader)
            unsupported += Self.unsupported(inProcess: reader)
        }
        if let reader = try top.object("root") {
            var root = Root()
            root.path = try reader.required("path", try reader.string("path"))
            root.readOnly = try reader.bool("readonly")
            self.root = root
        }
        hostname = try top.string("hostname")
        domainname = try top.string("domainname")
        for reader in try top.objects("mounts") { mounts.append(try mount(reader)) }
        if let reader = try top.object("hooks") { hooks = try Self.hooks(reader) }
        annotations = try top.pairs("annotations")
        if let reader = try top.object("linux") { try readLinux(reader) }
        for key in ["solaris", "windows", "vm", "zos"] where top.has(key) { unsupported.append(key) }
    }

    /// An empty string is how some encoders write "nothing".
    private static func unsupported(inProcess reader: SpecReader) -> [String] {
        ["selinuxLabel", "scheduler", "ioPriority", "execCPUAffinity"].filter { reader.has($0) && reader.value[$0]?.stringValue != "" }
            .map { "process.\($0)" }
    }

    /// A "process" object alone, as `exec --process` takes it, and what in it would be silently ignored.
    public static func process(_ document: JSON) throws(SpecError) -> (process: Process, unsupported: [String]) {
        guard document.members != nil else { throw SpecError("document", "must be an object") }
        let reader = SpecReader(value: document, path: "process")
        return (try process(reader), unsupported(inProcess: reader))
    }

    private mutating func mount(_ reader: SpecReader) throws(SpecError) -> Mount {
        var mount = Mount()
        mount.destination = try reader.required("destination", try reader.string("destination"))
        if mount.destination.isEmpty { throw reader.failure("destination", "is empty") }
        mount.type = try reader.string("type") ?? ""
        mount.source = try reader.string("source") ?? ""
        mount.options = try reader.strings("options")
        for key in ["uidMappings", "gidMappings"] where reader.has(key) { unsupported.append("mounts of \(mount.destination): \(key)") }
        return mount
    }

    private static func process(_ reader: SpecReader) throws(SpecError) -> Process {
        var process = Process()
        process.terminal = try reader.bool("terminal")
        if let size = try reader.object("consoleSize") {
            let width = try size.number("width", 0...UInt16.max) ?? 0
            let height = try size.number("height", 0...UInt16.max) ?? 0
            if width > 0 || height > 0 { process.consoleSize = (width, height) }
        }
        if let user = try reader.object("user") {
            process.user.uid = try user.number("uid", ids) ?? 0
            process.user.gid = try user.number("gid", ids) ?? 0
            process.user.additionalGids = try user.numbers("additionalGids", ids)
            process.user.umask = try user.number("umask", 0...0o777)
            if process.user.additionalGids.count > 65536 { throw user.failure("additionalGids", "has more than 65536 elements") }
        }
        process.args = try reader.strings("args")
        process.env = try reader.strings("env")
        process.cwd = try reader.required("cwd", try reader.string("cwd"))
        guard process.cwd.utf8.first == UInt8(ascii: "/") else { throw reader.failure("cwd", "must be an absolute path") }
        if let sets = try reader.object("capabilities") {
            var capabilities = Capabilities()
            capabilities.bounding = try sets.strings("bounding")
            capabilities.effective = try sets.strings("effective")
            capabilities.inheritable = try sets.strings("inheritable")
            capabilities.permitted = try sets.strings("permitted")
            capabilities.ambient = try sets.strings("ambient")
            process.capabilities = capabilities
        }
        for limit in try reader.objects("rlimits") {
            var entry = ResourceLimit()
            entry.type = try limit.required("type", try limit.string("type"))
            entry.soft = try limit.required("soft", try limit.unsigned("soft"))
            entry.hard = try limit.required("hard", try limit.unsigned("hard"))
            if process.rlimits.contains(where: { $0.type == entry.type }) { throw limit.failure("type", "\(entry.type) is given twice") }
            process.rlimits.append(entry)
        }
        process.noNewPrivileges = try reader.bool("noNewPrivileges")
        process.oomScoreAdjustment = try reader.number("oomScoreAdj", -1000...1000)
        if let profile = try reader.string("apparmorProfile"), !profile.isEmpty { process.apparmorProfile = profile }
        return process
    }

    private static func hooks(_ reader: SpecReader) throws(SpecError) -> Hooks {
        var hooks = Hooks()
        hooks.prestart = try Self.hooks(reader, "prestart")
        hooks.createRuntime = try Self.hooks(reader, "createRuntime")
        hooks.createContainer = try Self.hooks(reader, "createContainer")
        hooks.startContainer = try Self.hooks(reader, "startContainer")
        hooks.poststart = try Self.hooks(reader, "poststart")
        hooks.poststop = try Self.hooks(reader, "poststop")
        return hooks
    }

    private static func hooks(_ reader: SpecReader, _ key: String) throws(SpecError) -> [Hook] {
        var hooks: [Hook] = []
        for each in try reader.objects(key) {
            var hook = Hook()
            hook.path = try each.required("path", try each.string("path"))
            guard hook.path.utf8.first == UInt8(ascii: "/") else { throw each.failure("path", "must be an absolute path") }
            hook.args = try each.strings("args")
            hook.env = try each.strings("env")
            hook.timeout = try each.number("timeout", 1...Int64(86_400))
            hooks.append(hook)
        }
        return hooks
    }
}
