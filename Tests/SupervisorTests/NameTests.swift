import XCTest

@testable import Supervisor

final class NameTests: XCTestCase {
    func testNames() {
        for good in ["a", "A9", "web_1", "x.y-z", "0", String(repeating: "x", count: 128), "abcdef"] {
            XCTAssertTrue(Names.isName(good), good)
        }
        let bad = ["", "-x", ".x", "_x", "a/b", "a b", "ä", "a\n", String(repeating: "x", count: 129), String(repeating: "ab", count: 32)]
        for name in bad { XCTAssertFalse(Names.isName(name), name) }
    }

    func testIdsAreLowerCase() {
        XCTAssertTrue(Names.isID(String(repeating: "0f", count: 32)))
        for bad in [String(repeating: "0F", count: 32), String(repeating: "0", count: 63), String(repeating: "0", count: 65), ""] {
            XCTAssertFalse(Names.isID(bad), bad)
        }
        XCTAssertTrue(Names.isID(Names.makeID()))
        XCTAssertNotEqual(Names.makeID(), Names.makeID())
    }

    func testInventedNamesAreFreeAndLegal() {
        var taken: Set<String> = []
        for _ in 0..<3000 {
            let name = Names.invent { !taken.contains($0) }
            XCTAssertTrue(Names.isName(name), name)
            XCTAssertTrue(taken.insert(name).inserted)
        }
        XCTAssertTrue(Names.isName(Names.invent { _ in false }), "even when all seem taken")
    }

    func testSocketNamesAreThoseOfTheShim() {
        // FNV-1a 64, as docs/architecture.md has it; computed by hand elsewhere.
        XCTAssertEqual(Names.socketName(namespace: "", id: "", incarnation: 0).count, 16)
        var hash: UInt64 = 14_695_981_039_346_656_037
        for byte in "default/abc/7".utf8 {
            hash ^= UInt64(byte)
            hash = hash &* 1_099_511_628_211
        }
        XCTAssertEqual(UInt64(Names.socketName(namespace: "default", id: "abc", incarnation: 7), radix: 16), hash)
    }

    func testSignals() {
        let known: [(String, Int32)] = [
            ("TERM", 15), ("SIGTERM", 15), ("sigkill", 9), ("9", 9), ("RTMIN+3", 37), ("SIGRTMAX-1", 63), ("64", 64), ("usr1", 10),
        ]
        for (text, number) in known { XCTAssertEqual(Signals.number(text), number, text) }
        for bad in ["", "SIG", "0", "65", "-1", "NOSUCH", "RTMIN+31", "RTMIN+", "RTMAX--1"] { XCTAssertNil(Signals.number(bad), bad) }
    }

    func testWhatIsShownIsOneBoundedLine() {
        XCTAssertEqual("a\nb\u{7f}".shown, "a?b?")
        XCTAssertEqual(String(repeating: "x", count: 500).shown.count, 129)
    }
}
