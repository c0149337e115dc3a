import XCTest

@testable import Commands

final class QuantityTests: XCTestCase {
    func testMemorySizesAreReadAsDockerReadsThem() throws {
        let table: [(String, Int64)] = [
            ("0", 0), ("1048576", 1 << 20), ("10b", 10), ("1k", 1024), ("1K", 1024), ("1kb", 1024), ("1KiB", 1024), ("512m", 512 << 20),
            ("1g", 1 << 30), ("1.5g", 3 << 29), (".5k", 512), ("2t", 2 << 40), ("1p", 1 << 50), ("0.25t", 1 << 38),
        ]
        for (text, bytes) in table { XCTAssertEqual(try parseMemory(text), bytes, text) }
    }

    func testMemorySizesThatAreNoneAreRefused() {
        for text in ["", "m", "-1", "1x", "1mm", "1 m", "1ib", "1.2.3m", "٣m", "9223372036854775807", "99999999p", "1e3", "+5", "0x10"] {
            XCTAssertThrowsError(try parseMemory(text), text) { error in
                XCTAssertEqual((error as? Failure)?.code, 125, text)
                XCTAssertEqual((error as? Failure)?.message.contains("\"\(text)\""), true, text)
            }
        }
    }

    func testCPUsAreDecimal() throws {
        let table: [(String, Int64)] = [
            ("1", 1_000_000_000), ("1.5", 1_500_000_000), (".5", 500_000_000), ("2.", 2_000_000_000), ("0.000000001", 1), ("0", 0),
            ("0.1000000000", 100_000_000),
        ]
        for (text, nano) in table { XCTAssertEqual(try parseCPUs(text), nano, text) }
        for text in ["", ".", "-1", "1,5", "a", "1.0000000001", "99999999999999", "1.5 "] {
            XCTAssertThrowsError(try parseCPUs(text), text)
        }
    }

    func testLimitsOfProcessesAndTimeouts() throws {
        XCTAssertEqual(try parsePidsLimit("100"), 100)
        XCTAssertEqual(try parsePidsLimit("-1"), 0)
        XCTAssertThrowsError(try parsePidsLimit("-2"))
        XCTAssertThrowsError(try parsePidsLimit("1.5"))
        XCTAssertEqual(try parseTimeout("10"), 10_000)
        XCTAssertEqual(try parseTimeout("0"), 0)
        XCTAssertEqual(try parseTimeout("-1"), -1)
        for text in ["-2", "", "9223372036854775807", "1s"] { XCTAssertThrowsError(try parseTimeout(text), text) }
    }

    func testSignalsByNameAndNumber() throws {
        let table: [(String, UInt32)] = [
            ("TERM", 15), ("SIGTERM", 15), ("sigterm", 15), ("term", 15), ("KILL", 9), ("9", 9), ("1", 1), ("64", 64), ("HUP", 1),
            ("WINCH", 28), ("RTMIN", 34), ("RTMIN+3", 37), ("SIGRTMAX-14", 50), ("RTMAX", 64), ("CLD", 17), ("IOT", 6), ("PWR", 30),
        ]
        for (text, number) in table { XCTAssertEqual(try Signals.number(text), number, text) }
        for text in ["", "0", "65", "-9", "FOO", "SIG", "SIG9", "RTMIN+31", "RTMAX-40", "9 "] {
            XCTAssertThrowsError(try Signals.number(text), text)
        }
    }
}
