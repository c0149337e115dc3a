import CtrProto
import Linux
import SwiftProtobuf
import TTRPC
import XCTest

@testable import Supervisor

final class ErrorTests: XCTestCase {
    func testRuntimeMessagesBecomeExitCodes() {
        let cases: [(String, UInt32)] = [
            (#"exec: "foo": executable file not found in $PATH"#, 127),
            (#"exec: "/no/such": stat /no/such: no such file or directory"#, 127),
            (#"exec: "/etc/passwd": permission denied"#, 126),
            (#"exec: "/bin/x": exec format error"#, 126),
            ("cannot create control group: no space left on device", 125),
            ("mount /proc: permission denied", 125),
        ]
        for (message, code) in cases { XCTAssertEqual(SupervisorError.exitCode(ofRuntimeMessage: message), code, message) }
    }

    func testAStartFailureIsOneLineWithTheCause() {
        let status = Status(
            .invalidArgument,
            "container_linux.go:380: starting container process caused: exec: \"foo\": executable file not found in $PATH\n")
        let error = SupervisorError.startFailure(container: "web", status)
        XCTAssertEqual(error.message, "cannot start container web: exec: \"foo\": executable file not found in $PATH")
        XCTAssertEqual(error.exitCode, 127)
        XCTAssertEqual(error.code, .invalidArgument)
    }

    func testEveryErrorCarriesErrorInfo() throws {
        let status = SupervisorError(.notFound, "inspect container", "x", "no such container: x", exitCode: 125).status
        XCTAssertEqual(status.details.map(\.typeURL), ["ctr.v1.ErrorInfo"])
        let info = try Ctr_V1_ErrorInfo(serializedBytes: status.details[0].value)
        XCTAssertEqual([info.operation, info.object], ["inspect container", "x"])
        XCTAssertEqual(info.exitCode, 125)
    }

    func testAFullDiskIsSaidSo() {
        XCTAssertEqual(SupervisorError.wrapping(SysError("write", "x", code: 28), "start task", "c").code, .resourceExhausted)
        XCTAssertEqual(SupervisorError.wrapping(SysError("write", "x", code: 5), "start task", "c").code, .internal)
    }

    func testRequestsAreCheckedBeforeAnythingIsMade() {
        func refusal(_ change: (inout Ctr_V1_CreateContainerRequest) -> Void) -> String? {
            var request = Ctr_V1_CreateContainerRequest()
            request.namespace = "default"
            request.image = "box"
            change(&request)
            do { try RequestChecks(request: request).check() } catch { return error.message }
            return nil
        }
        XCTAssertNil(
            refusal {
                $0.name = "fine"; $0.config.env = ["A=", "B=1=2"]; $0.config.memoryBytes = 6 << 20
            })
        let bad: [(String, (inout Ctr_V1_CreateContainerRequest) -> Void)] = [
            ("name", { $0.name = "a/b" }), ("id", { $0.id = "ABC" }), ("namespace", { $0.namespace = ".." }), ("image", { $0.image = "" }),
            ("environment", { $0.config.env = ["=x"] }), ("environment", { $0.config.env = ["novalue"] }),
            ("working directory", { $0.config.cwd = "relative" }), ("memory", { $0.config.memoryBytes = 1024 }),
            ("memory", { $0.config.memoryBytes = -1 }), ("cpu", { $0.config.nanoCpus = -1 }), ("pids", { $0.config.pidsLimit = -1 }),
            ("network", { $0.config.network = "moon" }), ("host name", { $0.config.hostname = String(repeating: "x", count: 64) }),
            ("NUL", { $0.config.args = ["a\0b"] }), ("stop signal", { $0.config.stopSignal = "NOSUCH" }),
            ("runtime", { $0.config.runtime = "relative" }),
            (
                "mount",
                {
                    $0.config.mounts = [
                        .with {
                            $0.source = "rel"; $0.destination = "/x"
                        }
                    ]
                }
            ),
            (
                "root directory",
                {
                    $0.config.mounts = [
                        .with {
                            $0.source = "/x"; $0.destination = "//"
                        }
                    ]
                }
            ),
            (
                "..",
                {
                    $0.config.mounts = [
                        .with {
                            $0.source = "/x"; $0.destination = "/a/../b"
                        }
                    ]
                }
            ),
        ]
        for (word, change) in bad {
            let message = refusal(change) ?? "accepted"
            XCTAssertTrue(message.contains(word), "\(word): \(message)")
            XCTAssertFalse(message.contains("\n"))
        }
    }
}
