import CtrProto
import Linux
import SwiftProtobuf
import TTRPC
import Testing

@testable import Shim

/// What containerd gets of a container's use: one kind of message on hosts where version 1 has the controllers, another for version 2.
@Suite struct MetricsTests {
    private static func stats(version2: Bool) -> CgroupStats {
        var stats = CgroupStats()
        stats.isVersion2 = version2
        var cpu = CgroupStats.CPU()
        (cpu.usage, cpu.user, cpu.kernel) = (9_000, 5_000, 4_000)
        (cpu.periods, cpu.throttledPeriods, cpu.throttledTime) = (7, 3, 2_000)
        cpu.perCPU = [4_000, 5_000]
        stats.cpu = cpu
        var memory = CgroupStats.Memory()
        (memory.usage.usage, memory.usage.limit, memory.usage.peak, memory.usage.failures) = (1 << 20, CgroupStats.unlimited, 2 << 20, 6)
        var swap = CgroupStats.MemoryCounter()
        (swap.usage, swap.limit) = (4096, 8192)
        memory.swap = swap
        memory.details = [
            .init("anon", 11), .init("rss", 12), .init("total_rss", 13), .init("workingset_refault_anon", 3),
            .init("workingset_refault_file", 4),
        ]
        (memory.events.oom, memory.events.oomKill, memory.events.underOOM) = (2, 1, true)
        stats.memory = memory
        var pids = CgroupStats.PIDs()
        pids.current = 3
        stats.pids = pids
        var device = CgroupStats.BlockIO.Device(major: 8, minor: 1)
        (device.readBytes, device.writeOperations) = (512, 2)
        if version2 { stats.blockIO.devices = [device] }
        if !version2 { stats.blockIO.serviceBytes = [.init(major: 8, minor: 1, operation: "Read", value: 512)] }
        var page = CgroupStats.Hugepage(pageSize: "2MB")
        (page.usage, page.limit, page.peak) = (1, 2, 3)
        stats.hugepages = [page]
        return stats
    }

    @Test func hostsOfVersion2GetItsMessage() throws {
        let sent = MetricsMessages.metrics(Self.stats(version2: true))
        #expect(sent.typeURL == "io.containerd.cgroups.v2.Metrics")
        let message = try Io_Containerd_Cgroups_V2_Metrics(serializedBytes: sent.value)
        #expect(message.cpu.usageUsec == 9 && message.cpu.userUsec == 5 && message.cpu.systemUsec == 4)
        #expect(message.cpu.nrPeriods == 7 && message.cpu.nrThrottled == 3 && message.cpu.throttledUsec == 2)
        #expect(message.memory.usage == 1 << 20 && message.memory.usageLimit == .max && message.memory.maxUsage == 2 << 20)
        #expect(message.memory.swapUsage == 4096 && message.memory.swapLimit == 8192 && message.memory.anon == 11)
        #expect(message.memory.workingsetRefault == 7)
        #expect(message.memoryEvents.oom == 2 && message.memoryEvents.oomKill == 1)
        #expect(message.pids.current == 3 && message.pids.limit == .max)
        #expect(message.io.usage.map(\.major) == [8] && message.io.usage[0].rbytes == 512 && message.io.usage[0].wios == 2)
        #expect(message.hugetlb.map(\.pagesize) == ["2MB"] && message.hugetlb[0].max == 2)
        #expect(message.unknownFields.data.isEmpty && !message.hasRdma)
    }

    @Test func hostsOfVersion1GetTheirs() throws {
        let sent = MetricsMessages.metrics(Self.stats(version2: false))
        #expect(sent.typeURL == "io.containerd.cgroups.v1.Metrics")
        let message = try Io_Containerd_Cgroups_V1_Metrics(serializedBytes: sent.value)
        #expect(
            message.cpu.usage.total == 9_000 && message.cpu.usage.perCpu == [4_000, 5_000] && message.cpu.throttling.throttledTime == 2_000)
        #expect(message.memory.usage.usage == 1 << 20 && message.memory.usage.failcnt == 6 && message.memory.rss == 12)
        #expect(message.memory.totalRss == 13 && message.memory.swap.limit == 8192)
        // Readers look into these without asking whether they are there.
        #expect(message.memory.hasKernel && message.memory.hasKernelTcp)
        #expect(message.memoryOomControl.oomKill == 1 && message.memoryOomControl.underOom == 1)
        // In version 1 no limit of processes is 0.
        #expect(message.pids.current == 3 && message.pids.limit == 0)
        #expect(message.blkio.ioServiceBytesRecursive.map(\.op) == ["Read"] && message.hugetlb.map(\.max) == [3])
    }

    /// The numbers of the fields as containerd's own metrics.proto has them, not as ours does.
    @Test func theNumbersOfTheFieldsAreContainerds() {
        var stats = CgroupStats()
        stats.isVersion2 = true
        var pids = CgroupStats.PIDs()
        pids.current = 3
        stats.pids = pids
        stats.cpu = CgroupStats.CPU()
        stats.cpu?.usage = 1000
        stats.memory = CgroupStats.Memory()
        stats.memory?.usage.usage = 5
        stats.memory?.usage.limit = 6
        stats.memory?.usage.peak = 7
        stats.memory?.events.oomKill = 8
        let all: [UInt8] = Array(repeating: 0xff, count: 9) + [1]
        let pidsBytes: [UInt8] = [0x0a, 13, 0x08, 3, 0x10] + all
        let rest: [UInt8] = [
            0x12, 2, 0x08, 1,  // cpu 2: usage_usec 1
            0x22, 9, 0x80, 2, 5, 0x88, 2, 6, 0xa0, 2, 7,  // memory 4: usage 32, usage_limit 33, max_usage 36
            0x32, 0,  // io 6
            0x42, 2, 0x28, 8,  // memory_events 8: oom_kill 5
        ]
        #expect(MetricsMessages.metrics(stats).value == pidsBytes + rest)
    }
}
