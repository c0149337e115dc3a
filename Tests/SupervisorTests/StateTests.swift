import CtrProto
import Store
import XCTest

@testable import Supervisor

final class StateTests: XCTestCase {
    func testAnEndIsAnEnd() {
        for next in TaskPhase.allCases { XCTAssertFalse(TaskPhase.stopped.canBecome(next), "stopped → \(next)") }
    }

    func testEveryPhaseHasItsSuccessors() {
        XCTAssertEqual(Set(TaskPhase.successors.keys), Set(TaskPhase.allCases))
        for phase in TaskPhase.allCases { XCTAssertFalse(phase.canBecome(phase), "\(phase) → itself") }
    }

    func testWhatMayFollowWhat() {
        let legal: [(TaskPhase, TaskPhase)] = [
            (.starting, .running), (.starting, .stopped), (.running, .paused), (.paused, .running), (.running, .stopped),
            (.paused, .stopped),
            (.running, .unknown), (.unknown, .stopped),
        ]
        for (from, to) in legal { XCTAssertTrue(from.canBecome(to), "\(from) → \(to)") }
        let illegal: [(TaskPhase, TaskPhase)] = [(.running, .starting), (.unknown, .running), (.paused, .starting), (.unknown, .starting)]
        for (from, to) in illegal { XCTAssertFalse(from.canBecome(to), "\(from) → \(to)") }
    }

    func testARowThatIsNotProvedIsShownAsUnknown() {
        var task = TaskState(row: TaskRow(container: "c", incarnation: 1, phase: .running, bootID: "b"), proved: false)
        XCTAssertEqual(task.status, .unknown)
        task.proved = true
        XCTAssertEqual(task.status, .running)
        task.row.phase = .stopped
        task.proved = false
        XCTAssertEqual(task.status, .stopped, "what the database says of an end was proved when it was written")
    }

    func testAnUnknownExitShowsNoNumber() {
        let exit = ExitRow(code: nil, source: "unknown", reason: "host rebooted", exited: 0).message
        XCTAssertEqual(exit.code, 0)
        XCTAssertEqual(exit.source, "unknown")
        XCTAssertEqual(exit.reason, "host rebooted")
        XCTAssertFalse(exit.hasExitedAt)
    }

    func testTimestampsBefore1970KeepTheirNanosPositive() {
        XCTAssertEqual((-1 as Int64).timestamp.seconds, -1)
        XCTAssertEqual((-1 as Int64).timestamp.nanos, 999_999_999)
        for value in [0, 1, -1, 1_500_000_000_123_456_789, -5_000_000_000] as [Int64] { XCTAssertEqual(value.timestamp.nanoseconds, value) }
    }
}
