import Glibc

/// How limits become writes to the files of version 1 and version 2 (the kernel's admin-guide/cgroup-v1 and cgroup-v2).
extension CgroupLimits {
    /// Writes what version 1 hierarchies take; what none of them carries is left to `writeV2`.
    func writeV1(_ group: ContainerCgroup, _ writer: inout CgroupWriter) throws(SysError) {
        if let memory = group.directory("memory") { try writeMemoryV1(memory, &writer) }
        if let cpu = group.directory("cpu") {
            try writer.write(cpuShares, to: cpu + "/cpu.shares")
            // What both together ask for may be allowed where one with the other's old value is not.
            do throws(SysError) { try writer.write(cpuPeriod, to: cpu + "/cpu.cfs_period_us") } catch {
                guard error.code == EINVAL, cpuQuota != nil else { throw error }
                try writer.write(cpuQuota, to: cpu + "/cpu.cfs_quota_us")
                try writer.write(cpuPeriod, to: cpu + "/cpu.cfs_period_us")
            }
            try writer.write(cpuQuota, to: cpu + "/cpu.cfs_quota_us")
            try writer.write(cpuBurst, to: cpu + "/cpu.cfs_burst_us")
            try writer.write(cpuIdle, to: cpu + "/cpu.idle")
        }
        if let cpuset = group.directory("cpuset") {
            try writer.write(cpus, to: cpuset + "/cpuset.cpus")
            try writer.write(memoryNodes, to: cpuset + "/cpuset.mems")
        }
        if let directory = group.directory("pids") { try writer.write(pids.map(Self.processes), to: directory + "/pids.max") }
        if let blkio = group.directory("blkio") {
            if let weight = blockIOWeight {
                // CFQ's file is gone with CFQ; BFQ has its own name for it.
                let file = access(blkio + "/blkio.weight", F_OK) == 0 ? "blkio.weight" : "blkio.bfq.weight"
                try writer.write("\(weight)", to: "\(blkio)/\(file)")
            }
            for throttle in throttles {
                try writer.write("\(throttle.major):\(throttle.minor) \(throttle.rate)", to: "\(blkio)/\(throttle.fileV1)")
            }
        }
        if let hugetlb = group.directory("hugetlb") {
            for page in hugepages { try writer.write("\(page.limit)", to: "\(hugetlb)/hugetlb.\(page.size).limit_in_bytes") }
        }
        if let directory = group.directory("devices"), let devices { try Self.writeDevicesV1(directory, DeviceRule.reduced(devices)) }
    }

    private func writeMemoryV1(_ memory: String, _ writer: inout CgroupWriter) throws(SysError) {
        let limit = memory + "/memory.limit_in_bytes"
        let both = memory + "/memory.memsw.limit_in_bytes"
        let swap = memorySwap ?? (self.memory == -1 ? -1 : nil)
        if let swap, access(both, F_OK) == 0 {
            // The kernel keeps limit <= limit with swap at every moment; which write must come first depends on what is there.
            do throws(SysError) {
                try writer.write(self.memory, to: limit)
                try writer.write(swap, to: both)
            } catch {
                guard error.code == EINVAL, self.memory != nil else { throw error }
                try writer.write(swap, to: both)
                try writer.write(self.memory, to: limit)
            }
        } else if let swap = memorySwap, swap != -1, swap != self.memory {
            throw SysError("limit swap: this kernel does not account for it; write to", both, code: ENOTSUP)
        } else {
            try writer.write(self.memory, to: limit)
        }
        try writer.write(memoryReservation, to: memory + "/memory.soft_limit_in_bytes")
        try writer.write(memorySwappiness, to: memory + "/memory.swappiness")
        if disableOOMKiller { try Self.writeText(memory + "/memory.oom_control", "1") }
    }

    private static func writeDevicesV1(_ directory: String, _ rules: [DeviceRule]) throws(SysError) {
        let allow = try Linux.open(directory + "/devices.allow", O_WRONLY)
        let deny = try Linux.open(directory + "/devices.deny", O_WRONLY)
        if rules.first?.kind != .all { try writeAll(deny.raw, [UInt8(ascii: "a")], name: "\"a\" to devices.deny") }
        var before: [DeviceRule] = []
        for rule in rules {
            if rule.kind == .all {
                try writeAll(allow.raw, [UInt8(ascii: "a")], name: "\"a\" to devices.allow")
            } else {
                // Version 1 forgets exceptions only by their exact device: a hole in a wider rule would silently stay open.
                if let other = before.first(where: {
                    $0.kind != .all && $0.allow != rule.allow && $0.overlaps(rule) && !$0.sameDevices(rule)
                }) {
                    throw SysError("express device rule \"\(rule.line)\" beside", "\"\(other.line)\"", code: EINVAL)
                }
                // One rule a write; the file does not mind being written again.
                try writeAll(rule.allow ? allow.raw : deny.raw, Array(rule.line.utf8), name: "device rule \"\(rule.line)\"")
            }
            before.append(rule)
        }
    }

    /// Writes what version 1 does not carry. Only here a missing controller can be told.
    ///
    /// Controllers that have to be turned on first, in directories that are not only the container's, come last and after a look at what they
    /// are asked for: what is refused leaves those directories as they were.
    func writeV2(_ group: ContainerCgroup, _ writer: inout CgroupWriter) throws(SysError) {
        let controllers = ["memory", "cpu", "cpuset", "pids", "hugetlb", "io"]
        var missing: [(controller: String, parents: [String])] = []
        for controller in controllers where demands(controller) {
            let parents = try Self.lacking(controller, group)
            if !parents.isEmpty { missing.append((controller, parents)) }
        }
        guard let path = group.unified else {
            if let first = unified.first { throw SysError("write", first.file, code: ENOTSUP) }
            return
        }
        for setting in unified where setting.file.utf8.contains(UInt8(ascii: "/")) || setting.file.isEmpty || setting.file.hasPrefix(".") {
            throw SysError("write", setting.file, code: EINVAL)
        }
        func isMissing(_ controller: String) -> Bool { missing.contains { $0.controller == controller } }
        for controller in controllers where !isMissing(controller) { try write(controller, group, path, &writer) }
        if group.directory("devices") == nil, let devices { try DeviceProgram(devices).attach(to: path) }
        func isLate(_ file: String) -> Bool { isMissing(String(file.prefix { $0 != "." })) }
        for setting in unified where !isLate(setting.file) { try writer.write(setting.value, to: "\(path)/\(setting.file)") }
        for (controller, _) in missing { try vet(controller, path) }
        for (controller, parents) in missing {
            for parent in parents { try Self.writeText("\(parent)/cgroup.subtree_control", "+\(controller)") }
            try write(controller, group, path, &writer)
        }
        for setting in unified where isLate(setting.file) { try writer.write(setting.value, to: "\(path)/\(setting.file)") }
    }

    /// Whether a limit needs `controller`.
    private func demands(_ controller: String) -> Bool {
        switch controller {
        case "memory": memory != nil || memoryReservation != nil || memorySwap != nil
        case "cpu": cpuShares != nil || cpuQuota != nil || cpuIdle != nil
        case "cpuset": cpus != nil || memoryNodes != nil
        case "pids": pids != nil
        case "hugetlb": !hugepages.isEmpty
        default: !throttles.isEmpty || blockIOWeight != nil
        }
    }

    /// The limits that `controller` keeps.
    private func write(_ controller: String, _ group: ContainerCgroup, _ path: String, _ writer: inout CgroupWriter) throws(SysError) {
        if group.directory(Self.nameV1(controller)) != nil { return }
        switch controller {
        case "memory":
            try writer.write(memory.map(Self.maximum), to: path + "/memory.max")
            try writer.write(memoryReservation.map(Self.maximum), to: path + "/memory.low")
            if let swap = memorySwap {
                // Version 2 counts swap alone, behind what the kernel, which counts in pages, makes of the limit of memory.
                let limit = max(0, memory ?? 0)
                let alone = swap == -1 ? "max" : "\(max(0, swap - (limit - limit % Int64(getpagesize()))))"
                do throws(SysError) { try writer.write(alone, to: path + "/memory.swap.max") } catch {
                    // A kernel that does not account for swap; where memory has no limit, or there is to be no swap, that is no loss to say.
                    if error.code != ENOENT || (alone != "max" && alone != "0") { throw error }
                }
            }
        case "cpu":
            if let shares = cpuShares, shares > 0 { try writer.write(Self.weight(shares: shares), to: path + "/cpu.weight") }
            if cpuQuota != nil || cpuPeriod != nil {
                let quota = cpuQuota.map { $0 > 0 ? "\($0)" : "max" } ?? "max"
                try writer.write(cpuPeriod.map { "\(quota) \($0)" } ?? quota, to: path + "/cpu.max")
            }
            try writer.write(cpuBurst, to: path + "/cpu.max.burst")
            try writer.write(cpuIdle, to: path + "/cpu.idle")
        case "cpuset":
            try writer.write(cpus, to: path + "/cpuset.cpus")
            try writer.write(memoryNodes, to: path + "/cpuset.mems")
        case "pids": try writer.write(pids.map(Self.processes), to: path + "/pids.max")
        case "hugetlb":
            for page in hugepages { try writer.write("\(page.limit)", to: Self.hugepageFile(path, page.size)) }
        default:
            try writer.write(blockIOWeight.map { "default \(Self.ioWeight($0))" }, to: path + "/io.weight")
            for throttle in throttles {
                try writer.write("\(throttle.major):\(throttle.minor) \(throttle.keyV2)=\(throttle.rate)", to: path + "/io.max")
            }
        }
    }

    private static func nameV1(_ controller: String) -> String { controller == "io" ? "blkio" : controller }

    private static func hugepageFile(_ path: String, _ size: String) -> String { "\(path)/hugetlb.\(size).max" }

    /// The directories, from the top down to the parent of the container's, in which `controller` is to be turned on; none when it is there or
    /// version 1 has it. ENOTSUP where the host does not offer it, EBUSY where processes in one of the directories are in the way.
    private static func lacking(_ controller: String, _ group: ContainerCgroup) throws(SysError) -> [String] {
        if group.directory(nameV1(controller)) != nil { return [] }
        guard let path = group.unified else { throw SysError("limit by controller", controller, code: ENOTSUP) }
        if hasController(controller, path) { return [] }
        var missing: [String] = []
        var at = path[...]
        repeat {
            guard let slash = at.lastIndex(of: "/"), slash > at.startIndex else {
                throw SysError("limit by controller", controller, code: ENOTSUP)
            }
            at = at[..<slash]
            // Above the mount point there is no such file: the host does not offer the controller.
            if access("\(at)/cgroup.controllers", F_OK) < 0 { throw SysError("limit by controller", controller, code: ENOTSUP) }
            missing.append(String(at))
        } while !hasController(controller, String(at))
        missing.reverse()
        // What the kernel would say of the lowest, after it had let the others change. The root of all has no type, and may hold processes.
        for directory in missing where access("\(directory)/cgroup.type", F_OK) == 0 {
            if (try? ContainerCgroup.readText("\(directory)/cgroup.procs"))?.isEmpty == false {
                throw SysError("write", "\"+\(controller)\" to \(directory)/cgroup.subtree_control", code: EBUSY)
            }
        }
        return missing
    }

    /// What the kernel will refuse of limits whose controller is still to be turned on.
    private func vet(_ controller: String, _ path: String) throws(SysError) {
        switch controller {
        case "cpuset":
            for (list, file, place) in [(cpus, "cpuset.cpus", "cpu"), (memoryNodes, "cpuset.mems", "node")] {
                guard let list, let there = try ContainerCgroup.readOptional("/sys/devices/system/\(place)/possible") else { continue }
                if !NumberList.isWithin(list, there) { throw SysError("write", "\"\(list)\" to \(path)/\(file)", code: EINVAL) }
            }
        case "hugetlb":
            guard access("/sys/kernel/mm/hugepages", F_OK) == 0 else { return }
            for page in hugepages {
                let file = NumberList.kibibytes(hugepages: page.size).map { "/sys/kernel/mm/hugepages/hugepages-\($0)kB" }
                if file.map({ access($0, F_OK) == 0 }) != true {
                    throw SysError("open", Self.hugepageFile(path, page.size), code: ENOENT)
                }
            }
        default: break
        }
    }

    private static func hasController(_ controller: String, _ path: String) -> Bool {
        guard let text = try? ContainerCgroup.readText(path + "/cgroup.controllers") else { return false }
        return text.split(separator: " ").contains(controller[...])
    }

    /// cpu.shares (2...262144) to cpu.weight (1...10000), as systemd and the other runtimes convert.
    static func weight(shares: UInt64) -> UInt64 { 1 + (min(max(shares, 2), 262_144) - 2) * 9999 / 262_142 }

    /// blkio.weight (10...1000) to io.weight (1...10000).
    static func ioWeight(_ weight: UInt64) -> UInt64 { 1 + (min(max(weight, 10), 1000) - 10) * 9999 / 990 }

    private static func maximum(_ value: Int64) -> String { value < 0 ? "max" : "\(value)" }

    /// Nothing could run with none: 0 is no limit too, as other engines write it.
    private static func processes(_ value: Int64) -> String { value <= 0 ? "max" : "\(value)" }

    private static func writeText(_ path: String, _ text: String) throws(SysError) { try ContainerCgroup.writeText(path, text) }
}

extension ContainerCgroup {
    /// Turns on what counts, from the mount point down to the parent of the directory. A host, or a group with processes on the way, that does
    /// not let us is no error: then it is not counted, and a limit says so by itself.
    func turnOnCounting() {
        guard let unified else { return }
        let wanted = [("cpu", "cpu"), ("io", "blkio"), ("memory", "memory"), ("pids", "pids")].filter { directory($0.1) == nil }.map(\.0)
        func missing(_ path: String, _ file: String) -> [String] {
            let there = ((try? Self.readText("\(path)/\(file)")) ?? "").split(separator: " ")
            return wanted.filter { !there.contains($0[...]) }
        }
        if wanted.isEmpty || missing(unified, "cgroup.controllers").isEmpty { return }
        var parents: [String] = []
        var at = unified[...]
        while let slash = at.lastIndex(of: "/"), slash > at.startIndex {
            at = at[..<slash]
            // Above the mount point there is no such file.
            if access("\(at)/cgroup.controllers", F_OK) < 0 { break }
            parents.append(String(at))
        }
        for parent in parents.reversed() {
            let unavailable = missing(parent, "cgroup.controllers")
            let off = missing(parent, "cgroup.subtree_control").filter { !unavailable.contains($0) }
            if off.isEmpty { continue }
            // All in one write, or where the kernel refuses one of them, the others.
            let all = off.map { "+\($0)" }
            if (try? Self.writeText(parent + "/cgroup.subtree_control", all.joined(separator: " "))) != nil { continue }
            for each in all { try? Self.writeText(parent + "/cgroup.subtree_control", each) }
        }
    }
}

extension CgroupLimits.Throttle {
    var fileV1: String {
        switch kind {
        case .readBytes: "blkio.throttle.read_bps_device"
        case .writeBytes: "blkio.throttle.write_bps_device"
        case .readOperations: "blkio.throttle.read_iops_device"
        case .writeOperations: "blkio.throttle.write_iops_device"
        }
    }

    var keyV2: String {
        switch kind {
        case .readBytes: "rbps"
        case .writeBytes: "wbps"
        case .readOperations: "riops"
        case .writeOperations: "wiops"
        }
    }
}
