import XCTest

@testable import Content

final class TarReaderTests: XCTestCase {
    private func entries(_ bytes: [UInt8]) throws -> [TarEntry] {
        let reader = TarReader(MemorySource(bytes))
        var found: [TarEntry] = []
        while let entry = try reader.next() { found.append(entry) }
        try reader.drain()
        return found
    }

    private func entries(_ build: (inout TarBuilder) -> Void) throws -> [TarEntry] {
        var tar = TarBuilder()
        build(&tar)
        return try entries(tar.finished)
    }

    private func assertRefused(
        _ cause: String, file: StaticString = #filePath, line: UInt = #line, _ build: (inout TarBuilder) -> Void
    ) {
        XCTAssertThrowsError(try entries(build), file: file, line: line) { error in
            XCTAssertTrue("\(error)".contains(cause), "\(error)", file: file, line: line)
        }
    }

    func testUstarPrefixJoinsTheName() throws {
        let found = try entries { tar in
            var header = TarBuilder.Header("name")
            header.prefix = Array("some/long/prefix".utf8)
            tar.add(header)
        }
        XCTAssertEqual(found.map { printable($0.path) }, ["some/long/prefix/name"])
    }

    func testContentOfEachEntry() throws {
        var tar = TarBuilder()
        tar.file("a", "hello")
        tar.file("b", String(repeating: "x", count: 1024))
        tar.file("c")
        let reader = TarReader(MemorySource(tar.finished))
        XCTAssertEqual(try reader.next()?.size, 5)
        XCTAssertEqual(try reader.content(limit: 5), Array("hello".utf8))
        XCTAssertEqual(try reader.next()?.size, 1024)
        XCTAssertThrowsError(try reader.content(limit: 1023))
        XCTAssertEqual(try reader.next()?.size, 0)
        XCTAssertEqual(try reader.content(limit: 5), [])
        XCTAssertNil(try reader.next())
        XCTAssertNil(try reader.next())
    }

    func testPaxOverridesTheHeader() throws {
        let name = String(repeating: "long/", count: 60) + "né"
        let found = try entries { tar in
            tar.pax([
                ("path", name), ("uid", "2000000"), ("gid", "7"), ("mtime", "1234567890.123456789"), ("SCHILY.xattr.user.a", "v"),
                ("comment", ""), ("gname", "somebody"),
            ])
            tar.file("short")
            tar.file("next")
        }
        XCTAssertEqual(found.map { String(decoding: $0.path, as: UTF8.self) }, [name, "next"])
        XCTAssertEqual(found[0].uid, 2_000_000)
        XCTAssertEqual(found[0].gid, 7)
        XCTAssertEqual(found[0].modified, TarTime(seconds: 1_234_567_890, nanoseconds: 123_456_789))
        XCTAssertEqual(found[0].attributes.map { printable($0.name) }, ["user.a"])
        XCTAssertEqual(found[1].uid, 0)
        XCTAssertTrue(found[1].attributes.isEmpty)
    }

    /// The size in the PAX header decides; a reader that believed the other would see an entry inside the content (CVE-2025-62518).
    func testPaxSizeWins() throws {
        var inner = TarBuilder()
        inner.file("smuggled", "evil")
        var tar = TarBuilder()
        tar.pax([("size", "\(inner.bytes.count)")])
        tar.add(TarBuilder.Header("outer", size: 0), inner.bytes)
        tar.file("after")
        XCTAssertEqual(try entries(tar.finished).map { printable($0.path) }, ["outer", "after"])
    }

    func testGlobalHeaderGivesOwners() throws {
        let found = try entries { tar in
            tar.pax([("uid", "5"), ("comment", "from git")], type: "g")
            tar.file("a", uid: 1)
            tar.pax([("uid", "6")])
            tar.file("b", uid: 1)
        }
        XCTAssertEqual(found.map(\.uid), [5, 6])
        assertRefused("global") { $0.pax([("path", "x")], type: "g") }
        assertRefused("global") { $0.pax([("size", "4")], type: "g") }
        assertRefused("global") { $0.pax([("linkpath", "4")], type: "g") }
        assertRefused("global") { $0.pax([("SCHILY.xattr.user.x", "4")], type: "g") }
    }

    func testOldDirectoriesEndWithASlash() throws {
        let found = try entries { tar in
            var header = TarBuilder.Header("d/")
            header.type = 0
            header.magic = []
            tar.add(header)
        }
        XCTAssertEqual(found.map(\.kind), [.directory])
    }

    func testGNULongNames() throws {
        let name = String(repeating: "n", count: 300)
        let found = try entries { tar in
            tar.long("K", "target/" + name)
            tar.long("L", name)
            tar.link("short", to: "t")
        }
        XCTAssertEqual(found.map { printable($0.path) }, [name])
        XCTAssertEqual(printable(found[0].link), "target/" + name)
        assertRefused("differ") { tar in
            tar.long("L", "one")
            tar.pax([("path", "two")])
            tar.file("x")
        }
        assertRefused("two long") { tar in
            tar.long("L", "one")
            tar.long("L", "two")
            tar.file("x")
        }
        assertRefused("two PAX") { tar in
            tar.pax([("path", "one")])
            tar.pax([("path", "two")])
            tar.file("x")
        }
        assertRefused("extension header") { $0.long("L", "one") }
        assertRefused("extension header") { $0.pax([("path", "one")]) }
        assertRefused("extension header") { tar in
            var header = TarBuilder.Header("x", size: 2 << 20)
            header.type = UInt8(ascii: "L")
            tar.add(header, [UInt8](repeating: 65, count: 2 << 20))
        }
    }

    func testNumbers() throws {
        let found = try entries { tar in
            var header = TarBuilder.Header("base-256")
            header.uid = [0x80, 0, 0, 0, 0, 0x1e, 0x84, 0x80]
            header.modified = [0xff] + [UInt8](repeating: 0xff, count: 11)
            tar.add(header)
            header = TarBuilder.Header("spaces")
            header.uid = Array("  17 \u{0}\u{0}\u{0}".utf8)
            header.gid = [UInt8](repeating: 0, count: 8)
            tar.add(header)
        }
        XCTAssertEqual(found.map(\.uid), [2_000_000, 0o17])
        XCTAssertEqual(found[0].modified.seconds, -1)

        func refuse(_ cause: String, _ change: (inout TarBuilder.Header) -> Void) {
            assertRefused(cause) { tar in
                var header = TarBuilder.Header("x")
                change(&header)
                tar.add(header)
            }
        }
        refuse("octal") { $0.size = Array("12a45678901\u{0}".utf8) }
        refuse("octal") { $0.size = Array("12 34567890\u{0}".utf8) }
        refuse("octal") { $0.size = Array("-1\u{0}".utf8) }
        refuse("octal") { $0.uid = Array("9\u{0}".utf8) }
        refuse("negative") { $0.size = [UInt8](repeating: 0xff, count: 12) }
        refuse("too large") { $0.size = [0x80, 1] + [UInt8](repeating: 0, count: 10) }
        refuse("out of range") { $0.uid = [0x80, 0, 0, 0, 0x80, 0, 0, 0] }
        refuse("out of range") { $0.gid = [UInt8](repeating: 0xff, count: 8) }
        refuse("truncated") { $0.size = TarBuilder.octal(1 << 30, 12) }
        refuse("an entry of") { $0.size = [0x80, 0, 0, 0, 0x7f] + [UInt8](repeating: 0xff, count: 7) }
        for size in [Int64.max, Int64.max - 511, 1 << 51] {
            assertRefused("an entry of") { tar in
                tar.pax([("size", "\(size)")])
                tar.file("x")
            }
        }
    }

    func testMalformedHeadersAreRefused() {
        XCTAssertThrowsError(try entries([UInt8](repeating: 0x41, count: 512)))
        XCTAssertThrowsError(try entries([UInt8](repeating: 0x41, count: 100)))
        assertRefused("checksum") { tar in
            tar.file("a")
            tar.bytes[0] = UInt8(ascii: "b")
        }
        assertRefused("unknown tar format") { tar in
            var header = TarBuilder.Header("a")
            header.magic = Array("usfar\u{0}00".utf8)
            tar.add(header)
        }
        assertRefused("unknown entry type") { $0.node("a", type: "V") }
        assertRefused("sparse") { $0.node("a", type: "S") }
        assertRefused("mode") { tar in
            var header = TarBuilder.Header("a")
            header.mode = 0o77_777_777
            tar.add(header)
        }
        assertRefused("without a name") { $0.file("") }
        assertRefused("name of a directory") { $0.file("d/") }
        assertRefused("name of a directory") { tar in
            tar.long("L", "file")
            tar.file("d/")
        }
        assertRefused("without a name") { tar in
            var header = TarBuilder.Header("")
            header.prefix = [0x62]
            tar.add(header)
        }
        for magic in ["ustar  \u{0}", "\u{0}"] {
            assertRefused("name prefix") { tar in
                var header = TarBuilder.Header("a")
                header.magic = Array(magic.utf8)
                header.prefix = [0x62]
                tar.add(header)
            }
        }
        assertRefused("without a target") { $0.link("a", to: "") }
        assertRefused("single zero block") { tar in
            tar.bytes += [UInt8](repeating: 0, count: 512)
            tar.file("a")
        }
        for type: Unicode.Scalar in ["1", "2", "3", "4", "5", "6"] {
            assertRefused("content behind") { tar in
                var header = TarBuilder.Header("a", size: 512)
                header.type = UInt8(ascii: type)
                header.link = [0x62]
                tar.add(header, [UInt8](repeating: 0x41, count: 512))
            }
        }
    }

    func testMalformedPaxIsRefused() {
        for raw in [
            "6 a=b\nx", "06 a=b\n", "6 a=b ", "6  a=b", "6 ab\n\n", "4 =\n", "99 a=b\n", "x", "-6 a=b\n", "6 a=b\n\u{0}\u{0}",
            "99999999999 a=b\n", "12 path=a\u{0}bc\n", "12 size=-123\n", "8 size=\n", "8 path=\n", "9 uid=1x\n", "11 mtime=1-\n",
            "13 mtime=1.x5\n",
            "22 GNU.sparse.major=1\n", "16 SCHILY.xattr.=\n", "9 uid=1\n9 uid=2\n",
        ] {
            var tar = TarBuilder()
            tar.pax(raw: Array(raw.utf8))
            tar.file("a")
            XCTAssertThrowsError(try entries(tar.finished), raw)
        }
    }

    func testTheEnd() throws {
        var tar = TarBuilder()
        tar.file("a")
        XCTAssertEqual(try entries(tar.bytes).count, 1, "without end blocks")
        XCTAssertEqual(try entries(tar.bytes + [UInt8](repeating: 0, count: 512)).count, 1, "with one")
        XCTAssertEqual(try entries(tar.finished + [1, 2, 3]).count, 1, "with bytes behind")
        XCTAssertEqual(try entries([]).count, 0)
        XCTAssertThrowsError(try entries(Array(tar.bytes.dropLast(100))))

        let hashed = try HashingSource(MemorySource(tar.finished + [1, 2, 3]))
        let reader = TarReader(hashed)
        while try reader.next() != nil {}
        try reader.drain()
        XCTAssertEqual(try hashed.finish(), try SHA256.digest(of: tar.finished + [1, 2, 3]))
    }

    func testPathsAreCleanedAndNeverLeaveTheRoot() throws {
        func clean(_ text: String) throws -> String { try TreePath(cleaning: text.utf8).description }
        XCTAssertEqual(try clean("./a//b/./c/"), "/a/b/c")
        XCTAssertEqual(try clean("/a/../b"), "/b")
        XCTAssertEqual(try clean("./"), "/")
        XCTAssertEqual(try clean("/"), "/")
        XCTAssertEqual(try clean("..a/b.."), "/..a/b..")
        for text in [
            "..", "../x", "a/../../x", "/..", "a\u{0}b", String(repeating: "n", count: 256), String(repeating: "a/", count: 256) + "b",
        ] {
            XCTAssertThrowsError(try clean(text), text)
        }
        XCTAssertThrowsError(try clean(String(repeating: "a/b/", count: 1025)))
    }

    func testMessagesAreOneLine() {
        XCTAssertEqual(printable(Array("a\nb\u{1b}[31m".utf8)), "a?b?[31m")
        XCTAssertEqual(printable([0xff, 0x41]), "\u{fffd}A")
    }
}
