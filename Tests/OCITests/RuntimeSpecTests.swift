import OCI
import XCTest

final class RuntimeSpecTests: XCTestCase {
    private func spec(_ text: String) throws -> RuntimeSpec { try RuntimeSpec(parsing: Array(text.utf8)) }

    /// The message without its prefix, or nil when the document is taken.
    private func refusal(_ text: String) -> String? {
        do { _ = try spec(text) } catch let error as SpecError { return "\(error.field): \(error.reason)" } catch { return "\(error)" }
        return nil
    }

    private func refusal(process members: String) -> String? {
        refusal("{\"ociVersion\":\"1.0.2\",\"process\":{\"cwd\":\"/\",\(members)}}")
    }

    func testSmallestDocument() throws {
        let spec = try spec("{\"ociVersion\":\"1.2.0\"}")
        XCTAssertNil(spec.process)
        XCTAssertEqual(spec.unsupported, [])
    }

    func testFieldsArrive() throws {
        let spec = try spec(
            """
            {"ociVersion":"1.0.2","hostname":"h","annotations":{"a":"b"},"root":{"path":"r","readonly":true},
             "process":{"cwd":"/w","args":["x"],"env":["A=b"],"user":{"uid":1,"gid":2,"additionalGids":[3],"umask":18},"oomScoreAdj":-5,
               "rlimits":[{"type":"RLIMIT_NOFILE","soft":1,"hard":18446744073709551615}]},
             "linux":{"namespaces":[{"type":"network","path":"/n"}],"cgroupsPath":"/a/b",
               "resources":{"memory":{"limit":5,"swap":-1},"devices":[{"allow":true,"type":"c","major":1,"minor":-1,"access":"rw"}]}}}
            """)
        XCTAssertEqual(spec.root?.readOnly, true)
        XCTAssertEqual(spec.process?.user.additionalGids, [3])
        XCTAssertEqual(spec.process?.user.umask, 0o22)
        XCTAssertEqual(spec.process?.rlimits.first?.hard, .max)
        XCTAssertEqual(spec.linux.namespaces, [RuntimeSpec.Namespace(.network, path: "/n")])
        XCTAssertEqual(spec.linux.resources.memorySwap, -1)
        XCTAssertEqual(spec.linux.resources.devices.first?.major, 1)
        XCTAssertNil(spec.linux.resources.devices.first?.minor)
        XCTAssertEqual(spec.annotation("a"), "b")
    }

    func testNullIsAbsent() throws {
        XCTAssertNil(try spec("{\"ociVersion\":\"1.0.2\",\"process\":null,\"mounts\":null,\"linux\":{\"seccomp\":null}}").process)
    }

    func testUserIdsAreNeverWrapped() {
        for id in ["4294967295", "4294967296", "-1", "18446744073709551615", "1.5", "\"1\"", "true"] {
            XCTAssertNotNil(refusal(process: "\"user\":{\"uid\":\(id)}"), id)
            XCTAssertNotNil(refusal(process: "\"user\":{\"additionalGids\":[\(id)]}"), id)
        }
        XCTAssertNil(refusal(process: "\"user\":{\"uid\":4294967294}"))
    }

    func testKindsAreChecked() {
        XCTAssertEqual(refusal("[]"), "document: must be an object")
        XCTAssertEqual(refusal("{}"), "ociVersion: is missing")
        XCTAssertNotNil(refusal("{\"ociVersion\":\"2.0.0\"}"))
        XCTAssertEqual(refusal(process: "\"args\":\"sh\""), "process.args: must be an array")
        XCTAssertEqual(refusal(process: "\"args\":[1]"), "process.args: must be a string")
        XCTAssertEqual(refusal(process: "\"args\":[\"a\\u0000b\"]"), "process.args: contains a NUL byte")
        XCTAssertEqual(refusal(process: "\"oomScoreAdj\":1001"), "process.oomScoreAdj: must be a whole number from -1000 to 1000")
        XCTAssertNotNil(refusal("{\"ociVersion\":\"1.0.2\",\"linux\":{\"namespaces\":[{\"type\":\"pid\"},{\"type\":\"pid\"}]}}"))
        XCTAssertNotNil(refusal("{\"ociVersion\":\"1.0.2\",\"linux\":{\"maskedPaths\":[\"relative\"]}}"))
    }

    func testWhatIsNotDoneIsNamed() throws {
        let spec = try spec(
            "{\"ociVersion\":\"1.0.2\",\"linux\":{\"intelRdt\":{},\"uidMappings\":[]},\"process\":{\"cwd\":\"/\",\"selinuxLabel\":\"\"}}")
        XCTAssertEqual(spec.unsupported, ["linux.intelRdt"])
    }

    func testSizesAreBounded() {
        XCTAssertNotNil(refusal(String(repeating: " ", count: RuntimeSpec.sizeLimit + 1)))
        XCTAssertNotNil(refusal(process: "\"args\":[" + Array(repeating: "\"\"", count: 20_000).joined(separator: ",") + "]"))
    }
}
