import XCTest

@testable import Commands

final class SettingsTests: XCTestCase {
    func testVolumes() throws {
        var mount = try parseVolume("/srv:/data")
        XCTAssertEqual([mount.source, mount.destination], ["/srv", "/data"])
        XCTAssertFalse(mount.readOnly)
        XCTAssertTrue(try parseVolume("/srv:/data:ro").readOnly)
        XCTAssertFalse(try parseVolume("/srv:/data:rw").readOnly)
        mount = try parseVolume("./here:/data")
        XCTAssertTrue(mount.source.hasPrefix("/"))
        XCTAssertTrue(mount.source.hasSuffix("/./here"))
    }

    func testVolumesThatAreNoneAreRefused() {
        for text in ["", "/srv", "data:/data", ":/data", "/srv:", "/srv:data", "/srv:/", "/srv://", "/a:/b:ro:rw", "/a:/b:", "/a:/b:z"] {
            XCTAssertThrowsError(try parseVolume(text), text)
        }
    }

    func testVariablesComeFromTheEnvironmentWhenTheyHaveNoValue() throws {
        let lookup: (String) -> String? = { $0 == "HOME" ? "/root" : nil }
        XCTAssertEqual(try parseEnvironment("A=b", lookup: lookup), "A=b")
        XCTAssertEqual(try parseEnvironment("A=", lookup: lookup), "A=")
        XCTAssertEqual(try parseEnvironment("A=b=c", lookup: lookup), "A=b=c")
        XCTAssertEqual(try parseEnvironment("HOME", lookup: lookup), "HOME=/root")
        XCTAssertNil(try parseEnvironment("MISSING", lookup: lookup))
        XCTAssertThrowsError(try parseEnvironment("", lookup: lookup))
        XCTAssertThrowsError(try parseEnvironment("=b", lookup: lookup))
    }

    func testEnvironmentFiles() throws {
        let text = "# comment\nA=1\n\n  B=two words \r\nHOME\nMISSING\nC==\n"
        let result = try parseEnvironmentFile(Array(text.utf8), name: "file") { $0 == "HOME" ? "/root" : nil }
        XCTAssertEqual(result, ["A=1", "B=two words ", "HOME=/root", "C=="])
        XCTAssertThrowsError(try parseEnvironmentFile(Array("A=1\nB C=2\n".utf8), name: "file")) { error in
            XCTAssertEqual((error as? Failure)?.message, "file, line 2: the name contains white space")
        }
        XCTAssertThrowsError(try parseEnvironmentFile([0x41, 0x3d, 0xff], name: "file"))
        XCTAssertThrowsError(try parseEnvironmentFile(Array("=x".utf8), name: "file"))
    }

    func testLabelsUsersAndNetworks() throws {
        XCTAssertTrue(try parseLabel("a.b=c=d") == ("a.b", "c=d"))
        XCTAssertTrue(try parseLabel("a") == ("a", ""))
        XCTAssertThrowsError(try parseLabel("=x"))
        for user in ["root", "0", "1000:1000", "www-data:adm"] { XCTAssertEqual(try parseUser(user), user) }
        for user in ["", ":", "a:", ":b", "a:b:c", "a b", "a\n"] { XCTAssertThrowsError(try parseUser(user), user) }
        XCTAssertEqual(try parseNetwork("host"), "host")
        XCTAssertThrowsError(try parseNetwork("bridge"))
    }

    func testIdsAreLongAndNeverTheSame() throws {
        let id = try newContainerID()
        XCTAssertEqual(id.utf8.count, 64)
        XCTAssertTrue(id.allSatisfy { "0123456789abcdef".contains($0) })
        XCTAssertNotEqual(id, try newContainerID())
    }
}
