import CtrProto
import XCTest

@testable import Commands

final class StatsTests: XCTestCase {
    private func sample(second: Int64, cpu: UInt64?, memory: UInt64? = nil, limit: UInt64? = nil) -> Ctr_V1_TaskStats {
        var sample = Ctr_V1_TaskStats()
        sample.containerID = String(repeating: "ab", count: 32)
        sample.containerName = "web"
        sample.time.seconds = second
        if let cpu { sample.cpuUsageNs = cpu }
        if let memory { sample.memoryWorkingSetBytes = memory }
        if let limit { sample.memoryLimitBytes = limit }
        return sample
    }

    func testCPUIsWhatTwoSamplesSay() {
        var row = StatsRow(sample(second: 1, cpu: 0))
        XCTAssertNil(row.cpuPercent)
        row.add(sample(second: 3, cpu: 3_000_000_000))
        XCTAssertEqual(row.cpuPercent, 150)
        // Another run of the container counts from the beginning.
        row.add(sample(second: 4, cpu: 5))
        XCTAssertNil(row.cpuPercent)
        row.add(sample(second: 4, cpu: 6))
        XCTAssertNil(row.cpuPercent)
        row.add(sample(second: 5, cpu: nil))
        XCTAssertNil(row.cpuPercent)
    }

    func testMemoryIsAgainstTheLimitOrTheHost() {
        XCTAssertEqual(StatsRow(sample(second: 0, cpu: 0, memory: 25, limit: 100)).memoryPercent(host: 1000), 25)
        XCTAssertEqual(StatsRow(sample(second: 0, cpu: 0, memory: 25)).memoryPercent(host: 1000), 2.5)
        XCTAssertEqual(StatsRow(sample(second: 0, cpu: 0, memory: 25, limit: 1 << 60)).memoryLimit(host: 1000), 1000)
        XCTAssertNil(StatsRow(sample(second: 0, cpu: 0)).memoryPercent(host: 1000))
    }

    func testCells() {
        var row = StatsRow(sample(second: 1, cpu: 0))
        var second = sample(second: 2, cpu: 5_000_000, memory: 1_572_864, limit: 64 << 20)
        second.pids = 3
        second.ioReadBytes = 1_230_000
        second.networks = [Ctr_V1_NetworkStats()]
        second.networks[0].receivedBytes = 999
        row.add(second)
        XCTAssertEqual(
            row.cells(full: false, host: 1 << 33).map(\.text),
            ["abababababab", "web", "0.50%", "1.5MiB / 64MiB", "2.34%", "999B / 0B", "1.23MB / 0B", "3"])
        XCTAssertEqual(
            StatsRow(id: "abc", name: "job").cells(full: true, host: 0).map(\.text),
            ["abc", "job", "--", "-- / --", "--", "--", "--", "--"])
    }

    func testSizes() {
        let binary: [(UInt64, String)] = [
            (0, "0B"), (1023, "1023B"), (1024, "1KiB"), (1536, "1.5KiB"), (1_234_567, "1.177MiB"), (123 << 20, "123MiB"),
            (8_123_456_789, "7.566GiB"), (.max, "16EiB"),
        ]
        for (bytes, text) in binary { XCTAssertEqual(binarySize(bytes), text) }
        let decimal: [(UInt64, String)] = [(999, "999B"), (1000, "1kB"), (1234, "1.23kB"), (12_345_678, "12.3MB"), (123_456, "123kB")]
        for (bytes, text) in decimal { XCTAssertEqual(decimalSize(bytes), text) }
        XCTAssertEqual([0, 0.005, 99.999, 200].map(percent), ["0.00%", "0.01%", "100.00%", "200.00%"])
    }

    func testOneObjectALine() throws {
        let text = String(decoding: StatsRow(sample(second: 0, cpu: 7)).document(host: 1).encoded(), as: UTF8.self)
        XCTAssertFalse(text.contains("\n"))
        XCTAssertTrue(text.contains("\"cpu_usage_ns\":7") && text.contains("\"pids\":null") && text.contains("\"cpu_percent\":null"))
    }

    func testTablesOfWhatTheManagerSays() {
        var table = Table(["PID", "CMD\n"])
        table.row([.init("1"), .init("sh"), .init("too many")])
        table.row([.init("2")])
        XCTAssertEqual(table.rendered(), "PID   CMD\\n\n1     sh\n2     \n")
    }
}
