import Linux
import OCI

/// Where a container's control groups are, and what they limit.
struct CgroupPlan {
    let group: ContainerCgroup
    let limits: CgroupLimits

    init(id: String, _ linux: RuntimeSpec.Linux) throws(RuntimeError) {
        let hierarchies = try attempt { () throws(SysError) in try CgroupHierarchies() }
        let path = linux.cgroupsPath ?? id
        if path.utf8.first == UInt8(ascii: "/") {
            group = try attempt { () throws(SysError) in try ContainerCgroup(path, in: hierarchies) }
        } else {
            // The specification: a relative path is below the runtime's own group, in each hierarchy another.
            if path.contains(":") { throw RuntimeError("linux.cgroupsPath \"\(path)\" is systemd's form: give a path such as /parent/id") }
            group = try attempt { () throws(SysError) in try Self.relative(path, hierarchies) }
        }
        limits = try Self.limits(linux)
    }

    private static func relative(_ path: String, _ hierarchies: CgroupHierarchies) throws(SysError) -> ContainerCgroup {
        try ContainerCgroup.validate("/" + path)
        func join(_ mountPoint: String, _ own: String) -> String { "\(mountPoint)\(own == "/" ? "" : own)/\(path)" }
        var v1: [ContainerCgroup.Directory] = []
        for each in hierarchies.v1 {
            let own = try CgroupHierarchies.own(each.controllers)
            v1.append(ContainerCgroup.Directory(controllers: each.controllers, path: join(each.mountPoint, own)))
        }
        var unified: String?
        if let mountPoint = hierarchies.unified { unified = join(mountPoint, try CgroupHierarchies.own(nil)) }
        return ContainerCgroup(v1: v1, unified: unified)
    }

    /// The devices that the runtime makes itself and a terminal needs; everything else is denied unless the document allows it.
    private static let defaultDevices: [(UInt32, UInt32?)] = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (136, nil)]

    static func limits(_ linux: RuntimeSpec.Linux) throws(RuntimeError) -> CgroupLimits {
        var limits = limits(linux.resources)
        limits.devices = try devices(linux)
        return limits
    }

    /// All but devices.
    static func limits(_ resources: RuntimeSpec.Resources) -> CgroupLimits {
        var limits = CgroupLimits()
        limits.memory = resources.memoryLimit
        limits.memoryReservation = resources.memoryReservation
        limits.memorySwap = resources.memorySwap
        limits.memorySwappiness = resources.memorySwappiness
        limits.disableOOMKiller = resources.disableOOMKiller
        limits.cpuShares = resources.cpuShares
        limits.cpuQuota = resources.cpuQuota
        limits.cpuPeriod = resources.cpuPeriod
        limits.cpuBurst = resources.cpuBurst
        limits.cpuIdle = resources.cpuIdle
        limits.cpus = resources.cpus
        limits.memoryNodes = resources.memoryNodes
        limits.pids = resources.pidsLimit
        limits.blockIOWeight = resources.blockIOWeight
        limits.hugepages = resources.hugepages.map { ($0.size, $0.limit) }
        limits.unified = resources.unified.map { ($0.key, $0.value) }
        limits.throttles = resources.throttles.map { throttle in
            let kind: CgroupLimits.Throttle.Kind =
                switch throttle.kind {
                case .readBytes: .readBytes
                case .writeBytes: .writeBytes
                case .readOperations: .readOperations
                case .writeOperations: .writeOperations
                }
            return CgroupLimits.Throttle(kind: kind, major: throttle.major, minor: throttle.minor, rate: throttle.rate)
        }
        return limits
    }

    private static func devices(_ linux: RuntimeSpec.Linux) throws(RuntimeError) -> [DeviceRule] {
        var rules: [DeviceRule] = []
        for entry in linux.resources.devices {
            guard let access = DeviceRule.Access(text: entry.access) else {
                throw RuntimeError("device access \"\(entry.access)\" is not made of r, w and m")
            }
            if entry.type == "a" && (entry.major != nil || entry.minor != nil || access != .all) {
                for kind in [DeviceRule.Kind.character, .block] {
                    rules.append(DeviceRule(allow: entry.allow, kind: kind, major: entry.major, minor: entry.minor, access: access))
                }
                continue
            }
            let kind: DeviceRule.Kind = entry.type == "a" ? .all : entry.type == "b" ? .block : .character
            rules.append(DeviceRule(allow: entry.allow, kind: kind, major: entry.major, minor: entry.minor, access: access))
        }
        // The runtime makes the nodes from inside the group.
        for device in linux.devices where device.kind != .fifo {
            rules.append(
                DeviceRule(
                    allow: true, kind: device.kind == .block ? .block : .character, major: device.major, minor: device.minor, access: .make)
            )
        }
        for (major, minor) in defaultDevices {
            rules.append(DeviceRule(allow: true, kind: .character, major: major, minor: minor, access: .all))
        }
        return rules
    }
}
