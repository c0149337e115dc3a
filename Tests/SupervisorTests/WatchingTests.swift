import CtrProto
import Linux
import XCTest

@testable import Supervisor

final class WatchingTests: XCTestCase {
    // MARK: statistics

    private func memory(usage: UInt64, limit: UInt64, swap: UInt64?) -> CgroupStats.Memory {
        var memory = CgroupStats.Memory()
        (memory.usage.usage, memory.usage.limit) = (usage, limit)
        if let swap {
            var counter = CgroupStats.MemoryCounter()
            counter.usage = swap
            memory.swap = counter
        }
        return memory
    }

    func testSwapIsSwapAloneInBothVersions() {
        var stats = CgroupStats()
        stats.memory = memory(usage: 100, limit: 1 << 62, swap: 130)
        XCTAssertEqual(Ctr_V1_TaskStats(stats).memorySwapBytes, 30)
        stats.memory = memory(usage: 100, limit: 200, swap: 90)
        XCTAssertEqual(Ctr_V1_TaskStats(stats).memorySwapBytes, 0, "read a moment later, both together may be less than one was")
        stats.isVersion2 = true
        XCTAssertEqual(Ctr_V1_TaskStats(stats).memorySwapBytes, 90)
    }

    func testWhatIsNotCountedIsAbsent() {
        let none = Ctr_V1_TaskStats(CgroupStats())
        XCTAssertFalse(none.hasCpuUsageNs || none.hasMemoryUsageBytes || none.hasPids || none.hasIoReadBytes || none.hasOomKills)
        XCTAssertTrue(none.pressure.isEmpty)
        var stats = CgroupStats()
        stats.memory = memory(usage: 100, limit: 1 << 62, swap: nil)
        stats.pids = CgroupStats.PIDs()
        let message = Ctr_V1_TaskStats(stats)
        XCTAssertFalse(message.hasMemoryLimitBytes || message.hasMemorySwapBytes || message.hasPidsLimit)
        XCTAssertTrue(message.hasPids)
    }

    func testBlockIOOfBothVersions() {
        var one = CgroupStats()
        one.blockIO.serviceBytes = [
            .init(major: 8, minor: 0, operation: "Read", value: 10), .init(major: 8, minor: 16, operation: "Read", value: 5),
            .init(major: 8, minor: 0, operation: "Write", value: 7), .init(major: 8, minor: 0, operation: "Total", value: 22),
        ]
        one.blockIO.serviced = [.init(major: 8, minor: 0, operation: "Write", value: 2)]
        var two = CgroupStats()
        var device = CgroupStats.BlockIO.Device(major: 8, minor: 0)
        (device.readBytes, device.writeBytes, device.writeOperations) = (15, 7, 2)
        two.blockIO.devices = [device]
        for message in [Ctr_V1_TaskStats(one), Ctr_V1_TaskStats(two)] {
            XCTAssertEqual(
                [message.ioReadBytes, message.ioWriteBytes, message.ioReadOperations, message.ioWriteOperations], [15, 7, 0, 2])
        }
    }

    func testNetworkCounters() {
        let text = """
            Inter-|   Receive                                                |  Transmit
             face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
                lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0
              eth0:1234567     321    4    5    0     0          0         0      765     43    2    1    0     0       0          0
            broken: 1 2 3
            """
        let found = TaskSample.networks(text)
        XCTAssertEqual(found.map(\.interface), ["eth0"])
        XCTAssertEqual(found.first?.receivedBytes, 1_234_567)
        XCTAssertEqual(found.first?.receivedDropped, 5)
        XCTAssertEqual(found.first?.sentBytes, 765)
        XCTAssertEqual(found.first?.sentErrors, 2)
    }

    // MARK: ps

    func testRowsOfTheContainerAlone() throws {
        let table = try ProcessTable(
            parsing: """
                UID          PID    PPID  CMD
                root           1       0  /sbin/init  splash
                root          42       1  sh -c  a  b
                bob           43      42  sleep 600
                """)
        let message = table.message(of: [42, 43, 99])
        XCTAssertEqual(message.titles, ["UID", "PID", "PPID", "CMD"])
        XCTAssertEqual(message.rows.map(\.cells), [["root", "42", "1", "sh -c  a  b"], ["bob", "43", "42", "sleep 600"]])
    }

    func testThreadsBelongToTheProcessAboveThem() throws {
        let table = try ProcessTable(parsing: "PID LWP CMD\n42 - x\n- 42 -\n- 44 -\n50 - y\n- 50 -\n")
        XCTAssertEqual(table.message(of: [42]).rows.map { $0.cells[1] }, ["-", "42", "44"])
    }

    func testATableWithoutPIDsIsNone() {
        for text in ["", "CMD\nsleep\n", "PPID CMD\n1 x\n"] { XCTAssertThrowsError(try ProcessTable(parsing: text), text) }
    }

    func testShortRowsArePassedOver() throws {
        XCTAssertEqual(try ProcessTable(parsing: "A B PID\nx y\n1 2 3\n").message(of: [3]).rows.count, 1)
    }
}
