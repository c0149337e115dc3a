import Logs
import Testing

@testable import LogDrivers

@Suite struct FormatTests {
    private func line(_ bytes: [UInt8], _ end: LogLine.End = .newline, _ time: Int64 = 0) -> LogLine {
        LogLine(stream: .stdout, bytes: bytes[...], end: end, time: time)
    }

    private func json(_ bytes: [UInt8], _ end: LogLine.End = .newline) -> String {
        var output: [UInt8] = []
        LineFormat.json(line(bytes, end, 1_700_000_000_123_456_789), to: &output)
        return String(decoding: output, as: UTF8.self)
    }

    private func time(_ nanoseconds: Int64) -> String {
        var output: [UInt8] = []
        LineFormat.time(nanoseconds, to: &output)
        return String(decoding: output, as: UTF8.self)
    }

    @Test func jsonIsDockers() {
        let suffix = "\",\"stream\":\"stdout\",\"time\":\"2023-11-14T22:13:20.123456789Z\"}\n"
        #expect(json(Array("hello".utf8)) == "{\"log\":\"hello\\n" + suffix)
        #expect(json([], .newline) == "{\"log\":\"\\n" + suffix)
        #expect(json(Array("part".utf8), .partial) == "{\"log\":\"part" + suffix)
        #expect(
            json(Array("a\"b\\c<d>&\u{1}\t\r\u{7f}".utf8)) == "{\"log\":\"a\\\"b\\\\c\\u003cd\\u003e\\u0026\\u0001\\t\\r\u{7f}\\n" + suffix)
        #expect(json(Array("é€😀".utf8)) == "{\"log\":\"é€😀\\n" + suffix)
        #expect(json(Array("\u{2028}\u{2029}".utf8)) == "{\"log\":\"\\u2028\\u2029\\n" + suffix)
    }

    /// Each byte that is no character becomes one replacement, as Go's decoder has it.
    @Test func whatIsNoTextIsReplaced() {
        for (bytes, expected) in [
            ([0xff], "\\ufffd"), ([0xc3], "\\ufffd"), ([0xe2, 0x82], "\\ufffd\\ufffd"), ([0xc0, 0x80], "\\ufffd\\ufffd"),
            ([0xed, 0xa0, 0x80], "\\ufffd\\ufffd\\ufffd"), ([0xf4, 0x90, 0x80, 0x80], "\\ufffd\\ufffd\\ufffd\\ufffd"),
            ([0x61, 0xf0, 0x9f, 0x98, 0x62], "a\\ufffd\\ufffd\\ufffdb"), ([0x00], "\\u0000"),
        ] as [([UInt8], String)] {
            #expect(json(bytes).hasPrefix("{\"log\":\"\(expected)\\n\""), "\(bytes): \(json(bytes))")
        }
    }

    @Test func timesAreDates() {
        #expect(time(0) == "1970-01-01T00:00:00Z")
        #expect(time(1) == "1970-01-01T00:00:00.000000001Z")
        #expect(time(1_709_164_800_000_000_000) == "2024-02-29T00:00:00Z")
        #expect(time(1_709_251_199_500_000_000) == "2024-02-29T23:59:59.5Z")
        #expect(time(4_102_444_800_000_000_000) == "2100-01-01T00:00:00Z")
        #expect(time(-1_000_000_000) == "1969-12-31T23:59:59Z")
    }

    @Test func criMarksParts() {
        var output: [UInt8] = []
        LineFormat.cri(line(Array("whole".utf8), .newline, 1_000_000_000), to: &output)
        LineFormat.cri(line(Array("part".utf8), .partial, 1_500_000_000), to: &output)
        #expect(String(decoding: output, as: UTF8.self) == "1970-01-01T00:00:01Z stdout F whole\n1970-01-01T00:00:01.5Z stdout P part\n")
    }

    @Test func optionsAreDockers() throws {
        let options = try LogOptions(driver: "json-file", options: ["max-size": "10m", "max-file": "3"])
        #expect(options.maxSize == 10_000_000 && options.maxFile == 3 && options.segmentBytes == 10_000_000 && options.segmentCount == 3)
        #expect(try LogOptions(driver: "", options: [:]).segmentCount == 0)
        #expect(try LogOptions(driver: "", options: ["max-size": "1.5kb"]).segmentBytes == 1500)
        #expect(try LogOptions(driver: "", options: ["max-size": "2k"]).segmentCount == 1)
        #expect(try LogOptions(driver: "journald", options: ["max-size": "2k"]).segmentCount == 2)
        for (driver, options) in [
            ("syslog", [:]), ("", ["max-size": "10x"]), ("", ["max-size": "-1m"]), ("", ["max-size": "12"]), ("", ["max-size": ""]),
            ("", ["max-size": "nan"]), ("", ["max-size": "1e9k"]), ("", ["max-file": "0"]), ("", ["max-file": "x"]), ("", ["path": "/x"]),
            ("json-file", ["path": "x"]), ("json-file", ["tag": "x"]), ("none", ["labels": "x"]), ("journald", ["socket": "x"]),
        ] as [(String, [String: String])] {
            #expect(throws: LogOptionError.self, "\(driver) \(options)") { _ = try LogOptions(driver: driver, options: options) }
        }
    }

    // MARK: lines

    /// All lines of `text`, fed in the given pieces.
    private func lines(_ text: [UInt8], pieces: [Int], limit: Int, docker: Bool) -> [LogLine] {
        var assembler = LineAssembler(stream: .stdout, limit: limit, cutsFullParts: docker)
        var result: [LogLine] = []
        var at = 0
        var consumed = 0
        for piece in pieces + [text.count] where at < text.count {
            let end = min(at + piece, text.count)
            assembler.feed(text[at..<end], time: 7) { line, count in
                result.append(LogLine(stream: line.stream, bytes: Array(line.bytes)[...], end: line.end, time: line.time))
                consumed = at + count
                // What was given and what is said to be behind it are the same bytes.
                #expect(result.reduce(0) { $0 + $1.bytes.count + ($1.end == .newline ? 1 : 0) } == consumed)
            }
            at = end
        }
        if let last = assembler.finish(.output, time: 7) {
            result.append(LogLine(stream: last.stream, bytes: Array(last.bytes)[...], end: last.end, time: last.time))
        }
        return result
    }

    @Test func linesDoNotDependOnHowTheyArrive() {
        var seed: UInt64 = 99
        func random(_ below: Int) -> Int {
            seed = seed &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int((seed >> 33) % UInt64(below))
        }
        for round in 0..<300 {
            let text = (0..<random(400)).map { _ in random(round % 7 + 2) == 0 ? UInt8(10) : UInt8(97 + random(26)) }
            let limit = 1 + random(20)
            for docker in [false, true] {
                let whole = lines(text, pieces: [], limit: limit, docker: docker)
                let cut = lines(text, pieces: (0..<400).map { _ in 1 + random(9) }, limit: limit, docker: docker)
                #expect(whole == cut)
                let joined: [UInt8] = whole.flatMap { line -> [UInt8] in Array(line.bytes) + (line.end == .newline ? [10] : []) }
                #expect(joined == text)
                #expect(whole.allSatisfy { $0.bytes.count <= limit })
                #expect(whole.filter { $0.end == .partial }.allSatisfy { $0.bytes.count == limit })
            }
        }
    }

    @Test func aFullPartIsCutAsItsInventorDoes() {
        let text = [UInt8](repeating: 97, count: 8) + [10, 98, 10]
        let docker = lines(text, pieces: [], limit: 8, docker: true)
        #expect(docker.map(\.end) == [.partial, .newline, .newline] && docker[1].bytes.isEmpty)
        let cri = lines(text, pieces: [], limit: 8, docker: false)
        #expect(cri.map(\.end) == [.newline, .newline] && cri[0].bytes.count == 8)
        #expect(lines([97, 98], pieces: [], limit: 8, docker: true).map(\.end) == [.output])
    }
}
