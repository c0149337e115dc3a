import Linux
import OCI
import XCTest

@testable import Runtime

final class ContainerStateTests: XCTestCase {
    private func state() throws -> ContainerState {
        var spec = RuntimeSpec()
        spec.annotations = [RuntimeSpec.KeyValue("k", "v\n\"")]
        var hook = RuntimeSpec.Hook()
        hook.path = "/h"
        hook.args = ["h", "x"]
        hook.timeout = 3
        spec.hooks.poststop = [hook]
        let group = ContainerCgroup(v1: [.init(controllers: "cpu,cpuacct", path: "/sys/a")], unified: "/sys/u")
        return ContainerState(
            id: "c", bundle: "/b", rootfs: "", created: "now", bootID: "boot", creator: ProcessIdentity(pid: 5, startTime: .max),
            cgroup: group, spec: spec, hasKeyring: true)
    }

    func testRoundTrip() throws {
        var state = try state()
        XCTAssertEqual(try ContainerState(parsing: state.encoded()), state)
        state.initial = ProcessIdentity(pid: 7, startTime: 8)
        XCTAssertEqual(try ContainerState(parsing: state.encoded()), state)
    }

    func testAStateOfTheFirstReleaseIsUnderstood() throws {
        var text = String(decoding: try state().encoded(), as: UTF8.self)
        for member in [",\"seccomp\":false", ",\"keyring\":true"] {
            XCTAssertTrue(text.contains(member), member)
            text = text.replacingOccurrences(of: member, with: "")
        }
        let found = try ContainerState(parsing: Array(text.utf8))
        XCTAssertTrue(found.hasSeccomp, "a further process without the filter of the first")
        XCTAssertFalse(found.hasKeyring)
    }

    func testDamageIsAnError() throws {
        let bytes = try state().encoded()
        for length in stride(from: 0, to: bytes.count, by: 7) { XCTAssertThrowsError(try ContainerState(parsing: Array(bytes[..<length]))) }
        let text = String(decoding: bytes, as: UTF8.self)
        for (from, to) in [("\"version\":1", "\"version\":2"), ("\"pid\":5", "\"pid\":0"), ("\"/sys/a\"", "\"relative\"")] {
            XCTAssertThrowsError(try ContainerState(parsing: Array(text.replacingOccurrences(of: from, with: to).utf8)), from)
        }
    }
}
