import Linux
import OCI

/// Statistics as `events` prints them: runc's object, whichever version of control groups counted.
enum StatsDocument {
    static func outOfMemory(id: String) -> [UInt8] {
        JSON.object([.init("type", "oom"), .init("id", .string(id))]).encoded() + [0x0a]
    }

    static func line(id: String, _ stats: CgroupStats) -> [UInt8] {
        JSON.object([.init("type", "stats"), .init("id", .string(id)), .init("data", data(stats))]).encoded() + [0x0a]
    }

    private static func data(_ stats: CgroupStats) -> JSON {
        .object([
            .init("cpu", cpu(stats.cpu ?? CgroupStats.CPU())), .init("memory", memory(stats.memory, stats.isVersion2)),
            .init("pids", pids(stats.pids)), .init("blkio", blockIO(stats.blockIO)), .init("hugetlb", hugepages(stats.hugepages)),
            .init("intel_rdt", .object([])), .init("network_interfaces", .null),
        ])
    }

    private static func number(_ value: UInt64) -> JSON { Int64(exactly: value).map { .integer($0) } ?? .unsigned(value) }

    /// Members that are 0 are left out, as runc does.
    private static func member(_ key: String, _ value: UInt64) -> [JSON.Member] { value == 0 ? [] : [.init(key, number(value))] }

    private static func list(_ key: String, _ values: [UInt64]) -> [JSON.Member] {
        values.isEmpty ? [] : [.init(key, .array(values.map(number)))]
    }

    private static func cpu(_ cpu: CgroupStats.CPU) -> JSON {
        let usage =
            member("total", cpu.usage) + list("percpu", cpu.perCPU) + list("percpu_kernel", cpu.perCPUKernel)
            + list("percpu_user", cpu.perCPUUser) + [.init("kernel", number(cpu.kernel)), .init("user", number(cpu.user))]
        let throttling =
            member("periods", cpu.periods) + member("throttledPeriods", cpu.throttledPeriods) + member("throttledTime", cpu.throttledTime)
        return .object([.init("usage", .object(usage)), .init("throttling", .object(throttling))])
    }

    private static func memory(_ memory: CgroupStats.Memory?, _ isVersion2: Bool) -> JSON {
        guard let memory else { return .object([]) }
        var members = member("cache", isVersion2 ? memory["file"] : memory["cache"])
        members.append(.init("usage", counter(memory.usage)))
        if var swap = memory.swap {
            if isVersion2 {
                // Version 1 counts memory and swap together, and so does who reads this.
                swap.usage &+= memory.usage.usage
                let unlimited = CgroupStats.isUnlimited(swap.limit) || CgroupStats.isUnlimited(memory.usage.limit)
                swap.limit = unlimited ? CgroupStats.unlimited : swap.limit &+ memory.usage.limit
            }
            members.append(.init("swap", counter(swap)))
        }
        // Version 2 has no such limits; runc tells them as 0 then.
        let none = isVersion2 ? CgroupStats.MemoryCounter() : nil
        if let kernel = memory.kernel ?? none { members.append(.init("kernel", counter(kernel))) }
        if let kernel = memory.kernelTCP ?? none { members.append(.init("kernelTCP", counter(kernel))) }
        members.append(.init("raw", .object(memory.details.map { .init($0.key, number($0.value)) })))
        return .object(members)
    }

    private static func counter(_ counter: CgroupStats.MemoryCounter) -> JSON {
        .object(
            [.init("limit", number(counter.limit))] + member("usage", counter.usage) + member("max", counter.peak)
                + [.init("failcnt", number(counter.failures))])
    }

    private static func pids(_ pids: CgroupStats.PIDs?) -> JSON {
        .object(member("current", pids?.current ?? 0) + member("limit", pids?.limit ?? 0))
    }

    private static func blockIO(_ io: CgroupStats.BlockIO) -> JSON {
        var bytes = io.serviceBytes
        var operations = io.serviced
        for device in io.devices {
            func add(_ entries: inout [CgroupStats.BlockIO.Entry], _ operation: String, _ value: UInt64) {
                entries.append(.init(major: device.major, minor: device.minor, operation: operation, value: value))
            }
            add(&bytes, "Read", device.readBytes)
            add(&bytes, "Write", device.writeBytes)
            add(&operations, "Read", device.readOperations)
            add(&operations, "Write", device.writeOperations)
        }
        let lists: [(String, [CgroupStats.BlockIO.Entry])] = [
            ("ioServiceBytesRecursive", bytes), ("ioServicedRecursive", operations), ("ioQueueRecursive", io.queued),
            ("ioServiceTimeRecursive", io.serviceTime), ("ioWaitTimeRecursive", io.waitTime), ("ioMergedRecursive", io.merged),
            ("ioTimeRecursive", io.time), ("sectorsRecursive", io.sectors),
        ]
        return .object(
            lists.filter { !$0.1.isEmpty }.map { (key, entries) in
                .init(key, .array(entries.map(entry)))
            })
    }

    private static func entry(_ entry: CgroupStats.BlockIO.Entry) -> JSON {
        var members = member("major", entry.major) + member("minor", entry.minor)
        if !entry.operation.isEmpty { members.append(.init("op", .string(entry.operation))) }
        return .object(members + member("value", entry.value))
    }

    private static func hugepages(_ pages: [CgroupStats.Hugepage]) -> JSON {
        .object(
            pages.map { page in
                .init(
                    page.pageSize,
                    .object(member("usage", page.usage) + member("max", page.peak) + [.init("failcnt", number(page.failures))]))
            })
    }
}
