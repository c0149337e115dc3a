import Linux
import XCTest

@testable import Runtime

final class InvocationTests: XCTestCase {
    private func parse(_ text: String) throws -> Invocation { try Invocation(text.split(separator: " ").map(String.init)) }

    func testFlagsInAllTheirForms() throws {
        let line = try parse(
            "--root /r --log=/l --log-format json --debug create --bundle=/b --pid-file p --preserve-fds 2 --no-pivot=false id")
        XCTAssertEqual(line.root, "/r")
        XCTAssertEqual(line.logFile, "/l")
        XCTAssertEqual(line.logFormat, .json)
        XCTAssertEqual(line.id, "id")
        var options = Invocation.CreateOptions()
        options.bundle = "/b"
        options.pidFile = "p"
        options.preservedDescriptors = 2
        XCTAssertEqual(line.command, .create(options))
    }

    func testCommands() throws {
        XCTAssertEqual(try parse("kill c").command, .kill(signal: SIGTERM, all: false))
        XCTAssertEqual(try parse("kill --all c sigusr1").command, .kill(signal: SIGUSR1, all: true))
        XCTAssertEqual(try parse("kill c 9").command, .kill(signal: SIGKILL, all: false))
        XCTAssertEqual(try parse("delete -f c").command, .delete(force: true))
        XCTAssertEqual(try parse("list -f json -q").command, .list(quiet: true, json: true))
        XCTAssertEqual(try parse("run -d c").command, .run(Invocation.CreateOptions(), detach: true))
        XCTAssertEqual(try parse("state -- c").id, "c")
        XCTAssertEqual(try parse("").command, .help(nil))
        XCTAssertEqual(try parse("create --help").command, .help("create"))
    }

    func testRefusals() {
        for text in [
            "odd", "create", "create a b", "create --odd a", "state ../a", "state .a", "state a/b", "kill a 0", "kill a 65", "kill a WHAT",
            "--root", "create --bundle",
            "--log-format x list", "--systemd-cgroup create a", "list -f yaml", "create --preserve-fds -1 a", "start --force a",
            "delete --force=maybe a",
        ] { XCTAssertThrowsError(try parse(text), text) }
    }

    func testSignals() {
        XCTAssertEqual(SignalName.number("RTMIN+3"), 37)
        XCTAssertEqual(SignalName.number("sigrtmax"), 64)
        XCTAssertEqual(SignalName.number("SYS"), 31)
        XCTAssertNil(SignalName.number("-9"))
        XCTAssertNil(SignalName.number(""))
    }

    func testTimes() {
        XCTAssertEqual(Timestamp.text(nanoseconds: 0), "1970-01-01T00:00:00.000000000Z")
        XCTAssertEqual(Timestamp.text(nanoseconds: 951_782_399_000_000_007), "2000-02-28T23:59:59.000000007Z")
        XCTAssertEqual(Timestamp.text(nanoseconds: 951_782_400_000_000_000), "2000-02-29T00:00:00.000000000Z")
        XCTAssertEqual(Timestamp.text(nanoseconds: 1_798_761_599_000_000_000), "2026-12-31T23:59:59.000000000Z")
    }
}
