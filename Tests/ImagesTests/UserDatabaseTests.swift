import XCTest

@testable import Images

final class UserDatabaseTests: XCTestCase {
    private static let passwd = """
        root:x:0:0:root:/root:/bin/sh
        bob:x:1000:1001:Bob:/home/bob:/bin/sh
        1000:x:0:0:trap:/:/bin/sh
        99999999999:x:0:0:trap:/:/bin/sh
        broken:x:abc:0::/:
        minus:x:-1:0::/:
        wrap:x:4294967296:0::/:
        short:x:5
        relative:x:1003:1003::home:/bin/sh
        :x:0:0::/:
        bad\u{1}home:x:1004:1004::/a\u{7}b:/bin/sh
        dup:x:1005:1005::/one:
        dup:x:1006:1006::/two:
        """
    private static let group = """
        root:x:0:
        wheel:x:10:root,bob
        bob:x:1001:
        users:x:100:bob,carol
        again:x:1001:bob
        2000:x:0:
        broken:x:x:bob
        big:x:4294967295:bob
        named:x:77:
        """
    private let database = UserDatabase(passwd: Array(passwd.utf8), group: Array(group.utf8))

    private func resolved(_ text: String) throws -> ResolvedUser { try database.resolve(text) }

    func testTheTable() throws {
        let table: [(text: String, uid: UInt32, gid: UInt32, groups: [UInt32], home: String)] = [
            ("", 0, 0, [0, 10], "/root"),
            ("root", 0, 0, [0, 10], "/root"),
            ("0", 0, 0, [0, 10], "/root"),
            ("bob", 1000, 1001, [1001, 10, 100], "/home/bob"),
            // Digits are a number, whatever names there are.
            ("1000", 1000, 1001, [1001, 10, 100], "/home/bob"),
            ("1", 1, 0, [0], "/"),
            ("1:2", 1, 2, [2], "/"),
            ("1:", 1, 0, [0], "/"),
            (":2", 0, 2, [2], "/root"),
            ("bob:2", 1000, 2, [2], "/home/bob"),
            ("bob:named", 1000, 77, [77], "/home/bob"),
            ("bob:2000", 1000, 2000, [2000], "/home/bob"),
            ("1:named", 1, 77, [77], "/"),
            ("00001", 1, 0, [0], "/"),
            ("2147483647", 2_147_483_647, 0, [0], "/"),
            ("relative", 1003, 1003, [1003], "/"),
            ("1004", 1004, 1004, [1004], "/"),
            ("dup", 1005, 1005, [1005], "/one"),
        ]
        for row in table {
            let user = try resolved(row.text)
            XCTAssertEqual(user, ResolvedUser(uid: row.uid, gid: row.gid, additionalGids: row.groups, home: row.home), row.text)
        }
    }

    func testWhatIsRefused() {
        for text in [
            "-1", "+1", "2147483648", "4294967295", "4294967296", "18446744073709551616", "99999999999", "nobody", "broken", "minus",
            "wrap", "short",
            "bob:nogroup", "bob:-1", "bob:4294967296", "a:b:c", "bob\nroot", "bob\u{0}", " root", "root ", "0x0", "１", "bob:broken",
            String(repeating: "9", count: 5000), String(repeating: "a", count: 5000),
        ] {
            XCTAssertThrowsError(try resolved(text), text) { XCTAssertFalse("\($0)".contains("\n")) }
        }
    }

    func testFilesOfAnyShape() throws {
        for bytes in [[], [0x0a], [UInt8](repeating: 0x3a, count: 100_000), [UInt8](repeating: 0x0a, count: 100_000), [0xff, 0xfe, 0x3a]]
            as [[UInt8]]
        {
            let database = UserDatabase(passwd: bytes, group: bytes)
            XCTAssertEqual(try database.resolve("5:6").additionalGids, [6])
            XCTAssertThrowsError(try database.resolve("bob"))
        }
        let crowd = UserDatabase(
            passwd: Array("u:x:1:1::/:".utf8), group: Array((0..<70000).map { "g\($0):x:\($0):u\n" }.joined().utf8))
        XCTAssertEqual(try crowd.resolve("u").additionalGids.count, 65536)
    }
}
