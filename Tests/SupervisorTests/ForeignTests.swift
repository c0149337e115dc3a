import CtrProto
import XCTest

@testable import Supervisor

/// Names and answers of shims of others: foreign input, both.
final class ForeignTests: XCTestCase {
    func testNamesAreResolvedAsContainerdDoes() throws {
        XCTAssertEqual(ForeignRuntime("io.containerd.runc.v2")?.file, "containerd-shim-runc-v2")
        XCTAssertEqual(ForeignRuntime("kata.v2")?.file, "containerd-shim-kata-v2")
        XCTAssertEqual(ForeignRuntime("/opt/containerd-shim-x-v1")?.file, "containerd-shim-x-v1")
        XCTAssertEqual(ForeignRuntime("io.containerd.runc.v2")?.isRunc, true)
        XCTAssertEqual(ForeignRuntime("io.containerd.kata.v2")?.isRunc, false)
    }

    func testOCIRuntimesAndNonsenseAreNoNames() {
        for text in [
            "", "runc", "/usr/sbin/runc", "/usr/bin/containerd-shim/runc", ".v2", "io..v2", "io.containerd.a/b.v2",
            "io.containerd.\u{0}.v2", "a. b",
        ] {
            XCTAssertNil(ForeignRuntime(text), text)
        }
    }

    func testTheAnswerIsUnderstoodInItsThreeForms() throws {
        let json = try ForeignAnswer(Array(#"{"version":3,"address":"unix:///run/x","protocol":"ttrpc"}"#.utf8))
        XCTAssertEqual(json.address, "unix:///run/x")
        XCTAssertEqual(json.version, 3)
        let plain = try ForeignAnswer(Array("unix:///run/y\n".utf8))
        XCTAssertEqual(plain.address, "unix:///run/y")
        XCTAssertEqual(plain.version, 2)
        var message = Containerd_Runtime_Bootstrap_V1_BootstrapResult()
        message.version = 3
        message.address = "unix:///run/z"
        message.protocol = "ttrpc"
        let binary = try ForeignAnswer(try message.serializedBytes())
        XCTAssertEqual(binary.address, "unix:///run/z")
        XCTAssertEqual(binary.version, 3)
    }

    func testWhatIsNoAnswerIsRefused() {
        let bad = [
            "", "hello", "{", #"{"version":2}"#, #"{"version":4,"address":"unix:///x"}"#,
            #"{"version":2,"address":"unix:///x","protocol":"grpc"}"#,
        ]
        for text in bad { XCTAssertThrowsError(try ForeignAnswer(Array(text.utf8)), text) }
        XCTAssertThrowsError(try ForeignAnswer([UInt8](repeating: 0xff, count: 4096)))
    }

    func testPathsAreEscapedForAURI() {
        XCTAssertEqual(ForeignShim.escaped("/a b/c&d=ü%"), "/a%20b/c%26d%3D%C3%BC%25")
    }
}
