import Foundation
import XCTest

@testable import Linux

/// Statistics as the kernel's files spell them, read from directories of sample texts.
final class CgroupStatsTests: XCTestCase {
    private var directory = ""

    override func setUpWithError() throws {
        directory = NSTemporaryDirectory() + "cgroup-stats-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
    }

    override func tearDownWithError() throws { try FileManager.default.removeItem(atPath: directory) }

    private func write(_ name: String, _ text: String) throws {
        let path = directory + "/" + name
        let parent = String(path[..<(path.lastIndex(of: "/") ?? path.startIndex)])
        try FileManager.default.createDirectory(atPath: parent, withIntermediateDirectories: true)
        try (text + "\n").write(toFile: path, atomically: false, encoding: .utf8)
    }

    func testVersion2() throws {
        try write(
            "cpu.stat",
            "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\nnr_periods 9\nnr_throttled 2\nthrottled_usec 7\nnr_bursts 1\nburst_usec 3")
        try write("cpu.pressure", "some avg10=1.50 avg60=0.25 avg300=0.00 total=12345\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=9")
        try write("memory.current", "4096000")
        try write("memory.max", "max")
        try write("memory.peak", "8192000")
        try write("memory.swap.current", "0")
        try write("memory.swap.max", "1048576")
        try write("memory.stat", "anon 100\nfile 200\ninactive_file 96000\nworkingset_refault_anon 5")
        try write("memory.events", "low 1\nhigh 2\nmax 3\noom 4\noom_kill 5\noom_group_kill 6")
        try write("pids.current", "3")
        try write("pids.max", "100")
        try write(
            "io.stat", "8:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n253:16 rbytes=1 wbytes=0 rios=1 wios=0 dbytes=5 dios=1")
        try write("rdma.current", "mlx4_0 hca_handle=2 hca_object=2000")
        try write("rdma.max", "mlx4_0 hca_handle=max hca_object=3000")
        let stats = try ContainerCgroup(v1: [], unified: directory).stats()
        XCTAssertTrue(stats.isVersion2)
        XCTAssertEqual(stats.cpu?.usage, 1_500_000)
        XCTAssertEqual(stats.cpu?.user, 1_000_000)
        XCTAssertEqual(stats.cpu?.kernel, 500_000)
        XCTAssertEqual(stats.cpu?.throttledTime, 7000)
        XCTAssertEqual(stats.cpu?.burstTime, 3000)
        XCTAssertEqual(stats.cpu?.pressure?.some.average10, 1.5)
        XCTAssertEqual(stats.cpu?.pressure?.some.total, 12345)
        XCTAssertEqual(stats.cpu?.pressure?.full.total, 9)
        let memory = try XCTUnwrap(stats.memory)
        XCTAssertEqual(memory.usage.usage, 4_096_000)
        XCTAssertTrue(CgroupStats.isUnlimited(memory.usage.limit))
        XCTAssertEqual(memory.usage.peak, 8_192_000)
        XCTAssertEqual(memory.swap?.limit, 1_048_576)
        XCTAssertEqual(memory.workingSet, 4_000_000)
        XCTAssertEqual(memory["workingset_refault_anon"], 5)
        XCTAssertEqual(memory["no such key"], 0)
        XCTAssertEqual(memory.details.map(\.key), ["anon", "file", "inactive_file", "workingset_refault_anon"])
        XCTAssertEqual(
            [memory.events.low, memory.events.high, memory.events.max, memory.events.oom, memory.events.oomKill], [1, 2, 3, 4, 5])
        XCTAssertNil(memory.kernel)
        XCTAssertNil(memory.pressure)
        XCTAssertEqual(stats.pids?.current, 3)
        XCTAssertEqual(stats.pids?.limit, 100)
        XCTAssertEqual(stats.blockIO.devices.map(\.minor), [0, 16])
        XCTAssertEqual(stats.blockIO.devices[1].discardBytes, 5)
        XCTAssertTrue(stats.blockIO.bytes == (4097, 8192))
        XCTAssertEqual(stats.rdma.current.first?.objects, 2000)
        XCTAssertEqual(stats.rdma.limit.first?.handles, CgroupStats.unlimited)
    }

    /// A version 2 group whose controllers are off counts time and nothing else.
    func testVersion2WithoutControllers() throws {
        try write("cpu.stat", "usage_usec 2\nuser_usec 1\nsystem_usec 1")
        let stats = try ContainerCgroup(v1: [], unified: directory).stats()
        XCTAssertEqual(stats.cpu?.usage, 2000)
        XCTAssertNil(stats.memory)
        XCTAssertNil(stats.pids)
        XCTAssertEqual(stats.blockIO, CgroupStats.BlockIO())
    }

    func testVersion1BesideVersion2() throws {
        try write("cpuacct/cpuacct.usage", "3000")
        try write("cpuacct/cpuacct.stat", "user 2\nsystem 1")
        try write("cpuacct/cpuacct.usage_percpu", "1000 2000 ")
        try write("cpuacct/cpuacct.usage_all", "cpu user system\n0 700 300\n1 1300 700")
        try write("cpu/cpu.stat", "nr_periods 4\nnr_throttled 3\nthrottled_time 99\nnr_bursts 0\nburst_time 0")
        try write("memory/memory.usage_in_bytes", "10000")
        try write("memory/memory.limit_in_bytes", "9223372036854771712")
        try write("memory/memory.max_usage_in_bytes", "20000")
        try write("memory/memory.failcnt", "7")
        try write("memory/memory.memsw.usage_in_bytes", "11000")
        try write("memory/memory.memsw.limit_in_bytes", "12000")
        try write("memory/memory.kmem.usage_in_bytes", "500")
        try write("memory/memory.use_hierarchy", "1")
        try write("memory/memory.stat", "cache 1\nrss 2\ninactive_file 3\ntotal_inactive_file 4000")
        try write("memory/memory.oom_control", "oom_kill_disable 1\nunder_oom 0\noom_kill 8")
        try write("pids/pids.current", "5")
        try write("pids/pids.max", "max")
        try write(
            "blkio/blkio.throttle.io_service_bytes_recursive",
            "254:0 Read 4096\n254:0 Write 512\n254:0 Sync 4608\n254:0 Async 0\n254:0 Total 4608\nTotal 4608")
        try write("blkio/blkio.bfq.time_recursive", "254:0 77")
        try write("unified/cpu.stat", "usage_usec 1\nuser_usec 1\nsystem_usec 0")
        try write("unified/memory.pressure", "some avg10=0.00 avg60=0.00 avg300=0.00 total=4")
        let v1 = ["cpu", "cpuacct", "memory", "pids", "blkio"].map {
            ContainerCgroup.Directory(controllers: $0, path: "\(directory)/\($0)")
        }
        let stats = try ContainerCgroup(v1: v1, unified: directory + "/unified").stats()
        XCTAssertFalse(stats.isVersion2)
        XCTAssertEqual(stats.cpu?.usage, 3000)
        XCTAssertEqual(stats.cpu?.user, 20_000_000)
        XCTAssertEqual(stats.cpu?.kernel, 10_000_000)
        XCTAssertEqual(stats.cpu?.perCPU, [1000, 2000])
        XCTAssertEqual(stats.cpu?.perCPUUser, [700, 1300])
        XCTAssertEqual(stats.cpu?.perCPUKernel, [300, 700])
        XCTAssertEqual(stats.cpu?.throttledPeriods, 3)
        XCTAssertEqual(stats.cpu?.throttledTime, 99)
        let memory = try XCTUnwrap(stats.memory)
        XCTAssertTrue(CgroupStats.isUnlimited(memory.usage.limit))
        XCTAssertEqual(memory.usage.failures, 7)
        XCTAssertEqual(memory.swap?.limit, 12000)
        XCTAssertEqual(memory.kernel?.usage, 500)
        XCTAssertNil(memory.kernelTCP)
        XCTAssertEqual(memory.workingSet, 6000)
        XCTAssertTrue(memory.usesHierarchy)
        XCTAssertTrue(memory.events.oomKillDisabled)
        XCTAssertEqual(memory.events.oomKill, 8)
        XCTAssertEqual(memory.pressure?.some.total, 4)
        XCTAssertEqual(
            stats.pids,
            {
                var pids = CgroupStats.PIDs(); pids.current = 5; return pids
            }())
        XCTAssertEqual(stats.blockIO.serviceBytes.map(\.operation), ["Read", "Write", "Sync", "Async", "Total"])
        XCTAssertEqual(stats.blockIO.time, [CgroupStats.BlockIO.Entry(major: 254, minor: 0, operation: "", value: 77)])
        XCTAssertTrue(stats.blockIO.bytes == (4096, 512))
    }

    func testNothingThere() {
        XCTAssertThrowsError(try ContainerCgroup(v1: [], unified: directory + "/gone").stats()) {
            XCTAssertEqual(($0 as? SysError)?.code, ENOENT)
        }
    }

    func testDamagedTexts() {
        XCTAssertEqual(CgroupStats.BlockIO.entries("8 Read 1\n8:x Read 1\n8:0 Read x\n8:0\n\nTotal 3"), [])
        XCTAssertEqual(CgroupStats.BlockIO.devices("(unknown) rbytes=1\n8:0 rbytes= =5 wbytes=7").map(\.writeBytes), [7])
        XCTAssertEqual(CgroupFiles.counters("a 1\nb\nc -1\nd 2 3\ne 18446744073709551616"), [CgroupStats.Counter("a", 1)])
        XCTAssertNil(CgroupStats.Pressure(""))
        XCTAssertNil(CgroupStats.Pressure("nothing of the kind"))
    }
}
