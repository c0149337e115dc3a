import CtrProto
import OCI
import XCTest

@testable import Supervisor

final class LimitTests: XCTestCase {
    private let mib: Int64 = 1 << 20

    private func limits(_ change: (inout Ctr_V1_Limits) -> Void) -> Ctr_V1_Limits {
        var limits = Ctr_V1_Limits()
        change(&limits)
        return limits
    }

    private func made(memory: Int64 = 0, cpus: Int64 = 0, pids: Int64 = 0) -> ResourceLimits {
        var config = Ctr_V1_ContainerConfig()
        (config.memoryBytes, config.nanoCpus, config.pidsLimit) = (memory, cpus, pids)
        return ResourceLimits(config, changed: Ctr_V1_Limits())
    }

    /// What the runtime is told of `change`, on a container with a memory limit of 64 MiB.
    private func told(swap: Bool = true, _ change: (inout Ctr_V1_Limits) -> Void) -> JSON {
        let limits = limits(change)
        var after = made(memory: 64 * mib)
        after.change(limits)
        return after.change(by: limits, hostLimitsSwap: swap)
    }

    func testOnlyWhatChangesIsTold() {
        XCTAssertEqual(told { $0.pidsLimit = 5 }, ["pids": ["limit": 5]])
        XCTAssertEqual(told { $0.nanoCpus = 1_500_000_000 }, ["cpu": ["quota": 150_000, "period": 100_000]])
        XCTAssertEqual(told { $0.cpusetCpus = "0-1" }, ["cpu": ["cpus": "0-1"]])
    }

    func testMemoryTakesSwapAlong() {
        XCTAssertEqual(told { $0.memoryBytes = 96 << 20 }, ["memory": ["limit": .integer(96 * mib), "swap": .integer(96 * mib)]])
        XCTAssertEqual(told(swap: false) { $0.memoryBytes = 96 << 20 }, ["memory": ["limit": .integer(96 * mib)]])
        XCTAssertEqual(
            told {
                $0.memoryBytes = 96 << 20; $0.memorySwapBytes = -1
            }, ["memory": ["limit": .integer(96 * mib), "swap": -1]])
    }

    func testNoLimitHasAWordOfItsOwn() {
        XCTAssertEqual(told { $0.memoryBytes = 0 }, ["memory": ["limit": -1, "swap": -1]])
        XCTAssertEqual(told { $0.pidsLimit = -1 }, ["pids": ["limit": -1]])
        XCTAssertEqual(told { $0.nanoCpus = 0 }, ["cpu": ["quota": -1, "period": 100_000]])
        XCTAssertEqual(told { $0.cpuShares = 0 }, ["cpu": ["shares": 1024]])
    }

    func testTheNextStartHasWhatWasChangedAndTheRest() {
        var config = Ctr_V1_ContainerConfig()
        (config.memoryBytes, config.pidsLimit) = (64 * mib, 10)
        var changed = limits { $0.pidsLimit = 20 }
        changed.overlay(limits { $0.cpuShares = 512 })
        changed.overlay(limits { $0.pidsLimit = 0 })
        let next = ResourceLimits(config, changed: changed)
        XCTAssertEqual(
            JSON.object(next.resources(hostLimitsSwap: true)),
            ["memory": ["limit": .integer(64 * mib), "swap": .integer(64 * mib)], "cpu": ["shares": 512]])
    }

    func testWhatCannotBeIsRefusedInOneLine() {
        let table: [(inout Ctr_V1_Limits) -> Void] = [
            { $0.memoryBytes = 1 << 20 }, { $0.memorySwapBytes = 32 << 20 }, { $0.memoryReservationBytes = 65 << 20 },
            { $0.memoryReservationBytes = 1 }, { $0.nanoCpus = 1 }, { $0.cpuShares = 1 }, { $0.cpuShares = 1 << 20 },
            { $0.cpusetCpus = "0-" }, { $0.cpusetCpus = "a\nb" }, { $0.cpusetMems = "3-1" },
            {
                $0.memoryBytes = 0; $0.memorySwapBytes = 128 << 20
            },
        ]
        for (index, change) in table.enumerated() {
            var after = made(memory: 64 * mib)
            after.change(limits(change))
            XCTAssertThrowsError(try after.check(), "\(index)") { XCTAssertFalse("\($0)".contains("\n")) }
        }
    }

    func testProcessorsThatTheHostDoesNotHave() throws {
        var after = made()
        after.cpusetCPUs = "0,2-3"
        XCTAssertNoThrow(try after.check(processors: "0-3", nodes: "0"))
        XCTAssertThrowsError(try after.check(processors: "0-2", nodes: "0"))
    }

    func testListsOfNumbers() {
        XCTAssertEqual(ResourceLimits.numbers("0-2,7"), [0, 1, 2, 7])
        for text in ["", ",", "1,", "-1", "1--2", "2-1", "x", "1-999999", " 1", "+1", "1-2-3", "١"] {
            XCTAssertNil(ResourceLimits.numbers(text), text)
        }
    }
}
