import CtrProto
import Linux
import OCI

/// A container's limits: what it was made with, and what was changed since. Everywhere nil is "nobody said", and what would be 0 or less
/// for the user is nil here too.
struct ResourceLimits: Equatable, Sendable {
    static let memoryMinimum: Int64 = 6 << 20
    private static let period: Int64 = 100_000

    var memory: Int64?
    /// Memory and swap together; -1 is no limit. nil: none of it is swap.
    var memorySwap: Int64?
    var memoryReservation: Int64?
    var nanoCPUs: Int64?
    var cpuShares: UInt64?
    var cpusetCPUs: String?
    var cpusetMems: String?
    var pids: Int64?

    init() {}

    init(_ config: Ctr_V1_ContainerConfig, changed limits: Ctr_V1_Limits) {
        memory = Self.positive(config.memoryBytes)
        nanoCPUs = Self.positive(config.nanoCpus)
        pids = Self.positive(config.pidsLimit)
        change(limits)
    }

    private static func positive(_ value: Int64) -> Int64? { value > 0 ? value : nil }

    /// Takes over what `limits` says.
    mutating func change(_ limits: Ctr_V1_Limits) {
        if limits.hasMemoryBytes { memory = Self.positive(limits.memoryBytes) }
        if limits.hasMemorySwapBytes { memorySwap = limits.memorySwapBytes > 0 ? limits.memorySwapBytes : -1 }
        if limits.hasMemoryReservationBytes { memoryReservation = Self.positive(limits.memoryReservationBytes) }
        if limits.hasNanoCpus { nanoCPUs = Self.positive(limits.nanoCpus) }
        if limits.hasCpuShares { cpuShares = limits.cpuShares == 0 ? nil : limits.cpuShares }
        if limits.hasCpusetCpus { cpusetCPUs = limits.cpusetCpus.isEmpty ? nil : limits.cpusetCpus }
        if limits.hasCpusetMems { cpusetMems = limits.cpusetMems.isEmpty ? nil : limits.cpusetMems }
        if limits.hasPidsLimit { pids = Self.positive(limits.pidsLimit) }
    }

    /// Refuses what no container can have.
    func check() throws(SpecError) {
        if let memory, memory < Self.memoryMinimum { throw SpecError("memory limit", "it must be at least 6 MiB") }
        if let memorySwap, memorySwap > 0 {
            guard let memory else { throw SpecError("swap limit", "it needs a memory limit") }
            if memorySwap < memory {
                throw SpecError("swap limit", "memory and swap together (\(memorySwap)) must not be less than memory alone (\(memory))")
            }
        }
        if let memoryReservation {
            if memoryReservation < Self.memoryMinimum { throw SpecError("memory reservation", "it must be at least 6 MiB") }
            if let memory, memoryReservation > memory {
                throw SpecError("memory reservation", "it must not be more than the memory limit (\(memory))")
            }
        }
        if let nanoCPUs, nanoCPUs < 10_000_000 { throw SpecError("processor limit", "it must be at least 0.01") }
        if let cpuShares, !(2...262_144).contains(cpuShares) { throw SpecError("processor shares", "they must be 2 to 262144") }
        if let pids, pids < 1 { throw SpecError("process limit", "it must be at least 1") }
        for (what, list) in [("processors", cpusetCPUs), ("memory nodes", cpusetMems)] {
            if let list, Self.numbers(list) == nil { throw SpecError(what, "\"\(list.prefix(128))\" is no list such as 0-2,7") }
        }
    }

    /// Refuses what this host does not have; `processors` and `nodes` are what it has, as the kernel writes it ("0-3").
    func check(processors: String, nodes: String) throws(SpecError) {
        for (what, value, all) in [("processors", cpusetCPUs, processors), ("memory nodes", cpusetMems, nodes)] {
            guard let value, let wanted = Self.numbers(value), let there = Self.numbers(all), !wanted.subtracting(there).isEmpty else {
                continue
            }
            throw SpecError(what, "\"\(value.prefix(128))\" has some that this host does not have (it has \(all))")
        }
    }

    /// The members of a cpuset(7) list such as "0-2,7"; nil when it is none.
    static func numbers(_ list: String) -> Set<Int>? {
        guard !list.isEmpty, list.utf8.count <= 4096 else { return nil }
        var found: Set<Int> = []
        for part in list.split(separator: ",", omittingEmptySubsequences: false) {
            let ends = part.split(separator: "-", omittingEmptySubsequences: false)
            let values = ends.compactMap { end in end.utf8.allSatisfy { $0 & 0xf0 == 0x30 && $0 < 0x3a } ? Int(end) : nil }
            guard values.count == ends.count, (1...2).contains(values.count), let first = values.first, let last = values.last,
                first <= last, last < 1 << 16
            else { return nil }
            found.formUnion(first...last)
        }
        return found
    }

    // MARK: the runtime's words

    /// `linux.resources` without devices, of what is limited.
    func resources(hostLimitsSwap: Bool) -> [JSON.Member] { members(of: self, hostLimitsSwap: hostLimitsSwap, all: nil) }

    /// The same of what `limits` changes, with the words for "no limit" where there is none any more.
    func change(by limits: Ctr_V1_Limits, hostLimitsSwap: Bool) -> JSON {
        .object(members(of: self, hostLimitsSwap: hostLimitsSwap, all: limits))
    }

    private func members(of value: ResourceLimits, hostLimitsSwap: Bool, all limits: Ctr_V1_Limits?) -> [JSON.Member] {
        func number(_ key: String, _ value: Int64?, _ asked: Bool?, none: Int64 = -1) -> [JSON.Member] {
            guard asked ?? (value != nil) else { return [] }
            return [JSON.Member(key, .integer(value ?? none))]
        }
        var memory = number("limit", value.memory, limits?.hasMemoryBytes)
        let swap = value.memorySwap ?? (hostLimitsSwap ? value.memory : nil)
        // Memory and swap together: so none of it is swap unless somebody said otherwise.
        memory += number("swap", swap, limits.map { $0.hasMemorySwapBytes || $0.hasMemoryBytes && (hostLimitsSwap || swap != nil) })
        memory += number("reservation", value.memoryReservation, limits?.hasMemoryReservationBytes)
        var cpu: [JSON.Member] = []
        if limits?.hasNanoCpus ?? (value.nanoCPUs != nil) {
            let quota = value.nanoCPUs.map { max(1000, $0 / (1_000_000_000 / Self.period)) }
            cpu += [JSON.Member("quota", .integer(quota ?? -1)), JSON.Member("period", .integer(Self.period))]
        }
        cpu += number("shares", value.cpuShares.map { Int64(clamping: $0) }, limits?.hasCpuShares, none: 1024)
        if let cpus = value.cpusetCPUs, limits?.hasCpusetCpus ?? true { cpu.append(JSON.Member("cpus", .string(cpus))) }
        if let mems = value.cpusetMems, limits?.hasCpusetMems ?? true { cpu.append(JSON.Member("mems", .string(mems))) }
        var members: [JSON.Member] = []
        if !memory.isEmpty { members.append(JSON.Member("memory", .object(memory))) }
        if !cpu.isEmpty { members.append(JSON.Member("cpu", .object(cpu))) }
        let pids = number("limit", value.pids, limits?.hasPidsLimit)
        if !pids.isEmpty { members.append(JSON.Member("pids", .object(pids))) }
        return members
    }
}

extension Ctr_V1_Limits {
    /// Takes over what `other` says.
    mutating func overlay(_ other: Ctr_V1_Limits) {
        if other.hasMemoryBytes { memoryBytes = other.memoryBytes }
        if other.hasMemorySwapBytes { memorySwapBytes = other.memorySwapBytes }
        if other.hasMemoryReservationBytes { memoryReservationBytes = other.memoryReservationBytes }
        if other.hasNanoCpus { nanoCpus = other.nanoCpus }
        if other.hasCpuShares { cpuShares = other.cpuShares }
        if other.hasCpusetCpus { cpusetCpus = other.cpusetCpus }
        if other.hasCpusetMems { cpusetMems = other.cpusetMems }
        if other.hasPidsLimit { pidsLimit = other.pidsLimit }
    }
}
