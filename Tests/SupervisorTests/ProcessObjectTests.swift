import CtrProto
import Images
import OCI
import XCTest

@testable import Supervisor

final class ProcessObjectTests: XCTestCase {
    private let container: JSON = [
        "terminal": true, "consoleSize": ["height": 5, "width": 6], "user": ["uid": 7, "gid": 8, "additionalGids": [8]],
        "args": ["/bin/sleep"], "env": ["PATH=/bin", "HOME=/home/seven", "K=1"], "cwd": "/srv",
        "capabilities": ["bounding": ["CAP_KILL"]], "noNewPrivileges": true, "oomScoreAdj": 0, "apparmorProfile": "p",
        "rlimits": [["type": "RLIMIT_NOFILE", "soft": 1, "hard": 2]],
    ]
    private let eve = ResolvedUser(uid: 1234, gid: 1235, additionalGids: [1235, 77], home: "/home/eve")

    private func make(
        user: ResolvedUser? = nil, keepsHome: Bool = true, _ change: (inout Ctr_V1_ExecConfig) -> Void = { _ in }
    ) throws -> JSON {
        var config = Ctr_V1_ExecConfig()
        config.args = ["/bin/sh", "-c", "true"]
        change(&config)
        return try ProcessObject.make(
            container: container, config, user: user, keepsHome: keepsHome, capabilities: ProcessObject.allCapabilities(last: 40))
    }

    private func texts(_ json: JSON?) -> [String] { (json?.arrayValue ?? []).compactMap(\.stringValue) }

    func testWhatIsNotAskedForIsTheContainersOwn() throws {
        let process = try make()
        for key in ["user", "env", "cwd", "capabilities", "noNewPrivileges", "oomScoreAdj", "apparmorProfile", "rlimits"] {
            XCTAssertEqual(process[key], container[key], key)
        }
        XCTAssertEqual(texts(process["args"]), ["/bin/sh", "-c", "true"])
        XCTAssertEqual(process["terminal"], false, "an exec has a terminal only when it asks for one")
        XCTAssertNil(process["consoleSize"])
    }

    func testWhatIsAskedFor() throws {
        let process = try make(user: eve, keepsHome: false) {
            $0.env = ["K=2", "L=3"]
            $0.cwd = "/tmp/../var/"
            $0.privileged = true
            $0.terminal = true
            $0.terminalWidth = 80
            $0.terminalHeight = 24
        }
        XCTAssertEqual(process["user"], ["uid": 1234, "gid": 1235, "additionalGids": [1235, 77]])
        XCTAssertEqual(texts(process["env"]), ["PATH=/bin", "HOME=/home/eve", "K=2", "TERM=xterm", "L=3"])
        XCTAssertEqual(process["cwd"], "/var")
        XCTAssertEqual(texts(process["capabilities"]?["effective"]).count, 41)
        XCTAssertNil(process["capabilities"]?["inheritable"])
        XCTAssertEqual(process["consoleSize"], ["height": 24, "width": 80])
        XCTAssertEqual(process["noNewPrivileges"], true)
    }

    func testAHomeThatSomebodyChoseStays() throws {
        XCTAssertTrue(texts(try make(user: eve, keepsHome: true)["env"]).contains("HOME=/home/seven"))
        XCTAssertTrue(texts(try make(user: eve, keepsHome: false) { $0.env = ["HOME=/x"] }["env"]).contains("HOME=/x"))
    }

    func testWhatCannotBeIsRefusedInOneLine() {
        let table: [(inout Ctr_V1_ExecConfig) -> Void] = [
            { $0.args = [] }, { $0.args = [""] }, { $0.args = ["a\u{0}"] }, { $0.env = ["A"] }, { $0.env = ["=A"] }, { $0.cwd = "rel" },
            { $0.cwd = "/proc/self/fd/7" }, { $0.user = "\u{0}" }, { $0.terminalWidth = 70000 },
        ]
        for (index, change) in table.enumerated() {
            XCTAssertThrowsError(try make(change), "\(index)") { XCTAssertFalse("\($0)".contains("\n")) }
        }
    }

    func testAllCapabilitiesOfAKernel() {
        XCTAssertEqual(ProcessObject.allCapabilities(last: 0), ["CAP_CHOWN"])
        XCTAssertEqual(ProcessObject.allCapabilities(last: 40).last, "CAP_CHECKPOINT_RESTORE")
        XCTAssertEqual(ProcessObject.allCapabilities(last: 99).count, 41, "what has no name here cannot be asked for")
    }
}
