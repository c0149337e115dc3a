import CtrProto
import Glibc
import XCTest

@testable import Commands

/// Keys, positions and times as the user types them.
final class FrontTests: XCTestCase {
    func testDetachKeys() throws {
        let table: [(String, [UInt8])] = [
            ("ctrl-p,ctrl-q", [16, 17]), ("q", [0x71]), ("ctrl-a,d", [1, 0x64]), ("CTRL-A", [1]), ("ctrl-@", [0]), ("ctrl-[", [27]),
            ("ctrl-\\", [28]), ("ctrl-],ctrl-^,ctrl-_", [29, 30, 31]), ("", []),
        ]
        for (text, bytes) in table { XCTAssertEqual(try DetachKeys(text).bytes, bytes, text) }
        for text in ["ctrl-", "ctrl-1", "ctrl-pp", ",", "a,", "ab", "ö", "alt-x", "ctrl-p, q"] {
            XCTAssertThrowsError(try DetachKeys(text), text)
        }
        XCTAssertEqual(try DetachKeys("ctrl-p,x,ctrl-]").description, "ctrl-p,x,ctrl-]")
    }

    /// What reaches the container of `typed`, in reads of `size` bytes.
    private func pass(_ keys: String, _ typed: [UInt8], size: Int = .max) throws -> (bytes: [UInt8], detaches: Bool) {
        var filter = DetachFilter(try DetachKeys(keys))
        var result: [UInt8] = []
        var rest = typed[...]
        while !rest.isEmpty {
            let (bytes, detaches) = filter.pass(rest.prefix(size))
            rest = rest.dropFirst(size)
            result += bytes
            if detaches { return (result, true) }
        }
        return (result, false)
    }

    func testTheKeysAreFoundHoweverTheyArrive() throws {
        for size in [1, 2, 3, 100] {
            let found = try pass("ctrl-p,ctrl-q", Array("ls\n".utf8) + [16, 17, 0x78], size: size)
            XCTAssertEqual(found.bytes, Array("ls\n".utf8))
            XCTAssertTrue(found.detaches)
        }
    }

    func testBytesThatOnlyBeginTheKeysGoOn() throws {
        for size in [1, 2, 100] {
            XCTAssertEqual(try pass("ctrl-p,ctrl-q", [16, 16, 0x61, 16, 0x62], size: size).bytes, [16, 16, 0x61, 16, 0x62])
            // The second key begins the keys anew.
            let twice = try pass("ctrl-p,ctrl-q", [16, 16, 17], size: size)
            XCTAssertEqual(twice.bytes, [16])
            XCTAssertTrue(twice.detaches)
        }
        let nested = try pass("a,a,b", Array("aaaab".utf8), size: 1)
        XCTAssertEqual(nested.bytes, Array("aa".utf8))
        XCTAssertTrue(nested.detaches)
        let cut = try pass("a,b,a,c", Array("abababac".utf8), size: 1)
        XCTAssertEqual(cut.bytes, Array("abab".utf8))
        XCTAssertTrue(cut.detaches)
        // Held back until the next byte tells.
        XCTAssertEqual(try pass("ctrl-p,ctrl-q", [0x61, 16]).bytes, [0x61])
    }

    func testWithoutKeysEverythingPasses() throws {
        let all = Array(UInt8.min...UInt8.max)
        let passed = try pass("", all, size: 7)
        XCTAssertEqual(passed.bytes, all)
        XCTAssertFalse(passed.detaches)
    }

    func testPositionsAreReadAsTheyAreWritten() throws {
        for text in ["1/stdout:1:4096,stderr:1:0", "7/stdout:3:18446744073709551615", "4294967295/"] {
            XCTAssertEqual(try LogPosition(text).description, text)
        }
        XCTAssertEqual(try LogPosition("1/stderr:1:2,stdout:1:3").description, "1/stdout:1:3,stderr:1:2")
        for text in [
            "", "1", "/", "0/", "1/stdout", "1/stdout:1", "1/stdout:1:", "1/stdout:-1:0", "1/stdout:1:0,", "1/stdin:1:0",
            "1/stdout:1:0,stdout:1:1", "1/stdout:4294967296:0", "1/stdout:1:18446744073709551616", "1/stdout:1:0/", "+1/", "1/stdout:1:0:0",
        ] { XCTAssertThrowsError(try LogPosition(text), text) }
    }

    func testMoments() throws {
        let now: Int64 = 1_000_000_000_000_000_000
        let table: [(String, Int64)] = [
            ("0", 0), ("1.5", 1_500_000_000), ("1136073845.000000001", 1_136_073_845_000_000_001), ("10m", now - 600_000_000_000),
            ("1h30m", now - 5_400_000_000_000), ("1.5s", now - 1_500_000_000), ("2d", now - 172_800_000_000_000),
            ("300ms", now - 300_000_000),
            ("1970-01-01T00:00:01Z", 1_000_000_000), ("1970-01-01T01:00:01.25+01:00", 1_250_000_000),
            ("2000-02-29T12:30:00Z", 951_827_400_000_000_000), ("1970-01-01t00:00:00.000000001z", 1),
            ("1969-12-31T23:00:00-01:00", 0), ("2026-11-24T08:30:03.12Z", 1_795_509_003_120_000_000),
        ]
        for (text, expected) in table { XCTAssertEqual(try parseMoment(text, now: now), expected, text) }
        for text in [
            "", "x", "-1", "10x", "1h30", "m", ".", "1..5s", "2001-02-29T00:00:00Z", "2001-13-01", "2001-1-1", "2001-01-01T25:00:00Z",
            "2001-01-01T00:00:00Zx", "2001-01-01T00:00:00.Z", "1960-01-01T00:00:00Z", "99999999999999", "40000d",
            "2001-01-01T00:00:00+1:00",
        ] { XCTAssertThrowsError(try parseMoment(text, now: now), text) }
    }

    func testTimesWithoutZoneAreLocal() throws {
        setenv("TZ", "UTC-3", 1)
        tzset()
        defer {
            unsetenv("TZ")
            tzset()
        }
        XCTAssertEqual(try parseMoment("1970-01-02T00:00:00", now: 0), 75_600_000_000_000)
        XCTAssertEqual(try parseMoment("1970-01-02", now: 0), 75_600_000_000_000)
        XCTAssertEqual(try parseMoment("1970-01-02 00:00", now: 0), 75_600_000_000_000)
    }

    func testTails() throws {
        XCTAssertNil(try parseTail("all"))
        XCTAssertNil(try parseTail("-1"))
        XCTAssertEqual(try parseTail("0"), 0)
        XCTAssertEqual(try parseTail("25"), 25)
        for text in ["", "x", "-2", "1.5", "+1"] { XCTAssertThrowsError(try parseTail(text), text) }
    }

    func testSelectionOfLogs() throws {
        func selection(_ words: String...) throws -> LogSelection {
            try XCTUnwrap(Logs.parseAsRoot(words + ["web"]) as? Logs).selection(now: 1_000_000_000_000)
        }
        XCTAssertEqual(try selection(), LogSelection())
        let some = try selection("-t", "--since", "100s", "--until", "950", "-n", "5", "--stderr")
        XCTAssertEqual(some.sinceNs, 900_000_000_000)
        XCTAssertEqual(some.untilNs, 950_000_000_000)
        XCTAssertEqual(some.tail, 5)
        XCTAssertEqual(some.streams, [.stderr])
        XCTAssertTrue(some.timestamps)
        XCTAssertEqual(try selection("--stdout", "--stderr").streams, [])
        XCTAssertEqual(try selection("--since", "2/stdout:1:5").position, try LogPosition("2/stdout:1:5"))
        XCTAssertThrowsError(try selection("--since", "2/stdout:1:5", "--tail", "1"))
    }
}
