extension RuntimeSpec {
    mutating func readLinux(_ reader: SpecReader) throws(SpecError) {
        for each in try reader.objects("namespaces") {
            let type = try each.required("type", try each.string("type"))
            guard let kind = Namespace.Kind(rawValue: type) else { throw each.failure("type", "unknown namespace \"\(type)\"") }
            if linux.namespaces.contains(where: { $0.kind == kind }) { throw each.failure("type", "\(type) is given twice") }
            let path = try each.string("path").flatMap { $0.isEmpty ? nil : $0 }
            if let path, path.utf8.first != UInt8(ascii: "/") { throw each.failure("path", "must be an absolute path") }
            linux.namespaces.append(Namespace(kind, path: path))
        }
        for each in try reader.objects("devices") { linux.devices.append(try Self.device(each)) }
        linux.cgroupsPath = try reader.string("cgroupsPath").flatMap { $0.isEmpty ? nil : $0 }
        if let resources = try reader.object("resources") { try readResources(resources) }
        linux.sysctl = try reader.pairs("sysctl")
        linux.seccomp = try reader.object("seccomp")?.value
        linux.rootfsPropagation = try reader.string("rootfsPropagation").flatMap { $0.isEmpty ? nil : $0 }
        linux.maskedPaths = try reader.strings("maskedPaths")
        linux.readonlyPaths = try reader.strings("readonlyPaths")
        for (key, paths) in [("maskedPaths", linux.maskedPaths), ("readonlyPaths", linux.readonlyPaths)] {
            for path in paths where path.utf8.first != UInt8(ascii: "/") {
                throw reader.failure(key, "\"\(path)\" must be an absolute path")
            }
        }
        for key in ["intelRdt", "personality", "timeOffsets", "netDevices", "memoryPolicy"] where reader.has(key) {
            unsupported.append("linux.\(key)")
        }
        // Empty lists of mappings are how some encoders write "no user namespace".
        for key in ["uidMappings", "gidMappings"] where try !reader.objects(key).isEmpty { unsupported.append("linux.\(key)") }
        if let label = try reader.string("mountLabel"), !label.isEmpty { unsupported.append("linux.mountLabel") }
    }

    private static func device(_ reader: SpecReader) throws(SpecError) -> Device {
        let path = try reader.required("path", try reader.string("path"))
        guard path.utf8.first == UInt8(ascii: "/") else { throw reader.failure("path", "must be an absolute path") }
        let kind: Device.Kind
        switch try reader.required("type", try reader.string("type")) {
        case "c", "u": kind = .character
        case "b": kind = .block
        case "p": kind = .fifo
        case let other: throw reader.failure("type", "unknown device type \"\(other)\"")
        }
        let major = try reader.number("major", 0...UInt32(0xfff))
        let minor = try reader.number("minor", 0...UInt32(0xfffff))
        return Device(
            path: path, kind: kind, major: kind == .fifo ? 0 : try reader.required("major", major),
            minor: kind == .fifo ? 0 : try reader.required("minor", minor),
            // Encoders of other runtimes leave the file type in the mode.
            mode: (try reader.number("fileMode", 0...UInt32.max) ?? 0o666) & 0o7777, uid: try reader.number("uid", ids) ?? 0,
            gid: try reader.number("gid", ids) ?? 0)
    }

    /// A "resources" object alone, as `update` takes it, and what in it would be silently ignored.
    public static func resources(_ document: JSON) throws(SpecError) -> (resources: Resources, unsupported: [String]) {
        guard document.members != nil else { throw SpecError("document", "must be an object") }
        var spec = RuntimeSpec()
        try spec.readResources(SpecReader(value: document, path: "resources"))
        return (spec.linux.resources, spec.unsupported)
    }

    private mutating func readResources(_ reader: SpecReader) throws(SpecError) {
        var resources = Resources()
        for each in try reader.objects("devices") {
            let type = try each.string("type") ?? "a"
            guard ["", "a", "b", "c"].contains(type) else { throw each.failure("type", "unknown device type \"\(type)\"") }
            let access = try each.string("access") ?? ""
            guard access.utf8.allSatisfy({ "rwm".utf8.contains($0) }) else {
                throw each.failure("access", "\"\(access)\" is not made of r, w and m")
            }
            resources.devices.append(
                DeviceAccess(
                    allow: try each.bool("allow"), type: type.isEmpty ? "a" : type, major: try Self.deviceNumber(each, "major"),
                    minor: try Self.deviceNumber(each, "minor"), access: access.isEmpty ? "rwm" : access))
        }
        if let memory = try reader.object("memory") {
            resources.memoryLimit = try Self.limit(memory, "limit")
            resources.memoryReservation = try Self.limit(memory, "reservation")
            resources.memorySwap = try Self.limit(memory, "swap")
            resources.memorySwappiness = try memory.number("swappiness", 0...UInt64(200))
            resources.disableOOMKiller = try memory.bool("disableOOMKiller")
        }
        if let cpu = try reader.object("cpu") {
            resources.cpuShares = try cpu.unsigned("shares").flatMap { $0 == 0 ? nil : $0 }
            resources.cpuQuota = try cpu.signed("quota").flatMap { $0 == 0 ? nil : $0 }
            resources.cpuBurst = try cpu.unsigned("burst").flatMap { $0 == 0 ? nil : $0 }
            resources.cpuPeriod = try cpu.unsigned("period").flatMap { $0 == 0 ? nil : $0 }
            resources.cpuIdle = try cpu.number("idle", 0...Int64(1)).flatMap { $0 == 0 ? nil : $0 }
            resources.cpus = try cpu.string("cpus").flatMap { $0.isEmpty ? nil : $0 }
            resources.memoryNodes = try cpu.string("mems").flatMap { $0.isEmpty ? nil : $0 }
            for key in ["realtimeRuntime", "realtimePeriod"] where try (cpu.signed(key) ?? 0) != 0 {
                unsupported.append("linux.resources.cpu.\(key)")
            }
        }
        resources.pidsLimit = try reader.object("pids").flatMap { (pids) throws(SpecError) in try pids.signed("limit") }
        if let io = try reader.object("blockIO") { try Self.blockIO(io, &resources) }
        for each in try reader.objects("hugepageLimits") {
            let size = try each.required("pageSize", try each.string("pageSize"))
            guard size.utf8.allSatisfy({ $0 >= 0x30 && $0 <= 0x39 || $0 >= 0x41 && $0 <= 0x5a }), !size.isEmpty else {
                throw each.failure("pageSize", "\"\(size)\" is no page size such as 2MB")
            }
            resources.hugepages.append(Hugepage(size: size, limit: try each.required("limit", try each.unsigned("limit"))))
        }
        resources.unified = try reader.pairs("unified")
        for key in ["network", "rdma"] {
            if let members = try reader.object(key)?.value.members, !members.isEmpty { unsupported.append("linux.resources.\(key)") }
        }
        linux.resources = resources
    }

    /// Docker writes 0 and podman -1 for "no limit asked".
    private static func limit(_ reader: SpecReader, _ key: String) throws(SpecError) -> Int64? {
        guard let value = try reader.signed(key), value != 0 else { return nil }
        if value < -1 { throw reader.failure(key, "must be -1 or a number of bytes") }
        return value
    }

    /// Absent and -1 are every number.
    private static func deviceNumber(_ reader: SpecReader, _ key: String) throws(SpecError) -> UInt32? {
        guard let value = try reader.signed(key), value != -1 else { return nil }
        guard let number = UInt32(exactly: value) else { throw reader.failure(key, "is no device number") }
        return number
    }

    private static func blockIO(_ reader: SpecReader, _ resources: inout Resources) throws(SpecError) {
        resources.blockIOWeight = try reader.number("weight", 0...UInt64(1000)).flatMap { $0 == 0 ? nil : $0 }
        let kinds: [(String, Throttle.Kind)] = [
            ("throttleReadBpsDevice", .readBytes), ("throttleWriteBpsDevice", .writeBytes), ("throttleReadIOPSDevice", .readOperations),
            ("throttleWriteIOPSDevice", .writeOperations),
        ]
        for (key, kind) in kinds {
            for each in try reader.objects(key) {
                resources.throttles.append(
                    Throttle(
                        kind: kind, major: try each.required("major", try each.number("major", 0...UInt32(0xfff))),
                        minor: try each.required("minor", try each.number("minor", 0...UInt32(0xfffff))),
                        rate: try each.required("rate", try each.unsigned("rate"))))
            }
        }
    }
}
