import XCTest

@testable import OCI

final class ReferenceTests: XCTestCase {
    private static let hex = String(repeating: "ab", count: 32)

    func testNamesAreNormalisedAsDockerDoes() throws {
        let digest = "sha256:" + Self.hex
        let table: [(typed: String, whole: String, familiar: String)] = [
            ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
            ("bar/bb:latest", "docker.io/bar/bb:latest", "bar/bb:latest"),
            ("docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            ("docker.io/library/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            ("index.docker.io/library/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            ("docker.io/library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
            ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
            ("localhost:5000/x:1", "localhost:5000/x:1", "localhost:5000/x:1"),
            ("quay.io/a/b/c:T_1.x-y", "quay.io/a/b/c:T_1.x-y", "quay.io/a/b/c:T_1.x-y"),
            ("Registry/x", "Registry/x:latest", "Registry/x:latest"),
            ("[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x:latest"),
            ("a.b/c", "a.b/c:latest", "a.b/c:latest"),
            ("a_b__c-d---e.f", "docker.io/library/a_b__c-d---e.f:latest", "a_b__c-d---e.f:latest"),
            ("busybox@\(digest)", "docker.io/library/busybox@\(digest)", "busybox@\(digest)"),
            ("busybox:1@\(digest)", "docker.io/library/busybox:1@\(digest)", "busybox:1@\(digest)"),
            ("h:1/x@\(digest)", "h:1/x@\(digest)", "h:1/x@\(digest)"),
        ]
        for row in table {
            let reference = try Reference(parsing: row.typed)
            XCTAssertEqual(reference.description, row.whole, row.typed)
            XCTAssertEqual(reference.familiar, row.familiar, row.typed)
            XCTAssertEqual(try Reference(parsing: reference.description), reference)
            XCTAssertEqual(try Reference(parsing: reference.familiar), reference)
        }
    }

    func testWhatIsNoNameIsRefused() {
        let table = [
            "", ":", "/", "a//b", "a/", "/a", "UPPER", "a/Upper", "a:", "a:-x", "a:" + String(repeating: "t", count: 129), "a b", "a\u{0}b",
            "..", "a/../b", "a/./b", "-a", "a-", "a._b", "a___b", "a..b", "é", "a@sha256:12", "a@sha512:" + Self.hex, "a@" + Self.hex,
            Self.hex,
            "a@sha256:" + Self.hex.uppercased(), "host:/x", "host:123456/x", "host:x1/x", "-h.x/a", "[::1/x", "[gg]/x", "a.-b.c/x",
            "https://x/y", String(repeating: "a", count: 300), String(repeating: "a", count: 5000),
        ]
        for text in table { XCTAssertThrowsError(try Reference(parsing: text), text) }
    }

    func testDigests() throws {
        let hex = Self.hex
        XCTAssertEqual(try XCTUnwrap(Digest("sha256:" + hex)).description, "sha256:" + hex)
        XCTAssertEqual(try XCTUnwrap(Digest(bytes: [UInt8](repeating: 0xab, count: 32))).hex, hex)
        XCTAssertEqual(try XCTUnwrap(Digest(hex: hex)).short, "abababababab")
        for text in [
            "", hex, "sha256:" + hex.uppercased(), "sha256:" + hex + "0", "sha256:" + hex.dropLast(), "sha512:" + hex,
            "sha256:../../" + hex.dropLast(6),
        ] {
            XCTAssertNil(Digest(text), text)
        }
        XCTAssertNil(Digest(hex: hex.dropLast() + "g"))
        XCTAssertNil(Digest(bytes: [1, 2, 3]))
        XCTAssertNil(Digest(bytes: [UInt8](repeating: 0, count: 33)))
    }
}
