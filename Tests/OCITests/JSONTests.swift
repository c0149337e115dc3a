import OCI
import XCTest

final class JSONTests: XCTestCase {
    private func parse(_ text: String) throws -> JSON { try JSON(parsing: Array(text.utf8)) }

    func testValues() throws {
        XCTAssertEqual(
            try parse(" { \"a\" : [ 1 , -2, 3.5, 18446744073709551615, true, null, \"\\u00e9\\ud83d\\ude00\\n\" ] } "),
            ["a": .array([1, -2, .double(3.5), .unsigned(.max), true, .null, "é😀\n"])])
    }

    func testRefusals() {
        for text in [
            "", "{", "[1,]", "{\"a\":1,}", "{\"a\":1,\"a\":2}", "01", "1.", "-", "+1", "nul", "\"\u{1}\"", "\"\\x\"", "\"\\ud800\"",
            "\"\\udc00\"", "1 2", "'a'",
            "{\"a\" 1}", "{a:1}", "1e999", "[\"\\u12\"]",
        ] { XCTAssertThrowsError(try parse(text), text) }
        XCTAssertThrowsError(try JSON(parsing: [0x22, 0xff, 0x22]))
        XCTAssertThrowsError(try parse(String(repeating: "[", count: 100) + String(repeating: "]", count: 100)))
        let many = (0..<20).map { "\"k\($0)\":0" } + ["\"k3\":1"]
        XCTAssertThrowsError(try parse("{" + many.joined(separator: ",") + "}"))
    }

    func testWhatIsWrittenIsReadBack() throws {
        let value: JSON = [
            "s": "\"\\\u{7f}\u{1}\t/é", "n": .integer(.min), "u": .unsigned(.max), "list": [[], [:], .null], "d": .double(0.1),
        ]
        XCTAssertEqual(try JSON(parsing: value.encoded()), value)
        XCTAssertEqual(try JSON(parsing: value.encoded(pretty: true)), value)
    }
}
