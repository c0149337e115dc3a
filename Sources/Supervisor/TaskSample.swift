import CtrProto
import Glibc
import Linux

/// One sample of one container's use of the host, read from the kernel's files: nobody is asked who could be slow.
struct TaskSample: Sendable {
    let container: String
    let name: String
    let process: ProcessIdentity
    let cgroup: ContainerCgroup
    /// The interfaces are its own, not the host's.
    let hasNetwork: Bool

    /// nil when the container has ended. Blocking.
    func take(processors: UInt32) -> Ctr_V1_TaskStats? {
        guard let stats = try? cgroup.stats() else { return nil }
        let networks = hasNetwork ? (try? readFile("/proc/\(process.pid)/net/dev", limit: 1 << 20)) ?? [] : []
        // What was read was the container's when its process still has its number.
        guard process.exists else { return nil }
        var message = Ctr_V1_TaskStats(stats)
        message.containerID = container
        message.containerName = name
        message.time = now(CLOCK_REALTIME).timestamp
        message.networks = Self.networks(String(decoding: networks, as: UTF8.self))
        message.onlineCpus = processors
        return message
    }

    /// Interfaces of /proc/PID/net/dev (proc(5)) without the loopback.
    static func networks(_ text: String) -> [Ctr_V1_NetworkStats] {
        text.split(separator: "\n").compactMap { line in
            guard let colon = line.firstIndex(of: ":") else { return nil }
            let name = line[..<colon].drop { $0 == " " }
            let numbers = line[line.index(after: colon)...].split(separator: " ").compactMap { UInt64($0) }
            guard numbers.count >= 16, name != "lo" else { return nil }
            var message = Ctr_V1_NetworkStats()
            message.interface = String(name)
            message.receivedBytes = numbers[0]
            message.receivedPackets = numbers[1]
            message.receivedErrors = numbers[2]
            message.receivedDropped = numbers[3]
            message.sentBytes = numbers[8]
            message.sentPackets = numbers[9]
            message.sentErrors = numbers[10]
            message.sentDropped = numbers[11]
            return message
        }
    }
}

extension Ctr_V1_TaskStats {
    /// What the kernel counts; what it does not count stays absent.
    init(_ stats: CgroupStats) {
        self.init()
        if let cpu = stats.cpu { set(cpu) }
        if let memory = stats.memory { set(memory, isVersion2: stats.isVersion2) }
        if let count = stats.pids {
            pids = count.current
            if let limit = count.limit, !CgroupStats.isUnlimited(limit) { pidsLimit = limit }
        }
        set(stats.blockIO)
        for (resource, pressure) in [
            ("cpu", stats.cpu?.pressure), ("memory", stats.memory?.pressure), ("io", stats.blockIO.pressure),
        ] {
            if let pressure { self.pressure.append(Ctr_V1_Pressure(resource, pressure)) }
        }
    }

    private mutating func set(_ cpu: CgroupStats.CPU) {
        cpuUsageNs = cpu.usage
        cpuUserNs = cpu.user
        cpuSystemNs = cpu.kernel
        cpuPeriods = cpu.periods
        cpuThrottledPeriods = cpu.throttledPeriods
        cpuThrottledNs = cpu.throttledTime
    }

    private mutating func set(_ memory: CgroupStats.Memory, isVersion2: Bool) {
        memoryUsageBytes = memory.usage.usage
        memoryWorkingSetBytes = memory.workingSet
        if memory.usage.limit != 0 && !CgroupStats.isUnlimited(memory.usage.limit) { memoryLimitBytes = memory.usage.limit }
        if memory.usage.peak != 0 { memoryPeakBytes = memory.usage.peak }
        if let swap = memory.swap {
            // Version 1 counts memory and swap together.
            memorySwapBytes = isVersion2 ? swap.usage : swap.usage - min(swap.usage, memory.usage.usage)
        }
        oomKills = memory.events.oomKill
    }

    private mutating func set(_ io: CgroupStats.BlockIO) {
        guard !io.devices.isEmpty || !io.serviceBytes.isEmpty else { return }
        (ioReadBytes, ioWriteBytes) = io.bytes
        if io.devices.isEmpty {
            func sum(_ operation: String) -> UInt64 { io.serviced.reduce(0) { $1.operation == operation ? $0 &+ $1.value : $0 } }
            (ioReadOperations, ioWriteOperations) = (sum("Read"), sum("Write"))
        } else {
            ioReadOperations = io.devices.reduce(0) { $0 &+ $1.readOperations }
            ioWriteOperations = io.devices.reduce(0) { $0 &+ $1.writeOperations }
        }
    }
}

extension Ctr_V1_Pressure {
    init(_ resource: String, _ pressure: CgroupStats.Pressure) {
        self.init()
        self.resource = resource
        (some10, some60, some300) = (pressure.some.average10, pressure.some.average60, pressure.some.average300)
        someTotalUs = pressure.some.total
        (full10, full60, full300) = (pressure.full.average10, pressure.full.average60, pressure.full.average300)
        fullTotalUs = pressure.full.total
    }
}
