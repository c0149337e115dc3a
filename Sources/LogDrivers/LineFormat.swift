import Logs

/// The text formats, byte for byte as their inventors write them.
enum LineFormat {
    /// `{"log":"…\n","stream":"stdout","time":"…"}`, a line each. Bytes that are no UTF-8 become U+FFFD, as with Docker.
    static func json(_ line: LogLine, to output: inout [UInt8]) {
        output += "{\"log\":\"".utf8
        escape(line.bytes, to: &output)
        if line.end == .newline { output += "\\n".utf8 }
        output += "\",\"stream\":\"".utf8
        output += name(line.stream).utf8
        output += "\",\"time\":\"".utf8
        time(line.time, to: &output)
        output += "\"}\n".utf8
    }

    /// `<RFC 3339 time> stdout F message`, P for a part of a line.
    static func cri(_ line: LogLine, to output: inout [UInt8]) {
        time(line.time, to: &output)
        output.append(0x20)
        output += name(line.stream).utf8
        output += (line.end == .partial ? " P " : " F ").utf8
        output += line.bytes
        output.append(0x0a)
    }

    static func name(_ stream: LogStream) -> String { stream == .stdout ? "stdout" : "stderr" }

    /// RFC 3339 in UTC, with as many digits of the second as are not zero.
    static func time(_ nanoseconds: Int64, to output: inout [UInt8]) {
        let seconds = nanoseconds >= 0 ? nanoseconds / 1_000_000_000 : (nanoseconds - 999_999_999) / 1_000_000_000
        var fraction = nanoseconds - seconds * 1_000_000_000
        let days = seconds >= 0 ? seconds / 86400 : (seconds - 86399) / 86400
        let rest = seconds - days * 86400
        // Days since 1970 to a date, counting years from March.
        let shifted = days + 719_468
        let era = (shifted >= 0 ? shifted : shifted - 146_096) / 146_097
        let dayOfEra = shifted - era * 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let month = (5 * dayOfYear + 2) / 153
        let day = dayOfYear - (153 * month + 2) / 5 + 1
        let civilMonth = month < 10 ? month + 3 : month - 9
        digits(yearOfEra + era * 400 + (civilMonth <= 2 ? 1 : 0), 4, to: &output)
        for (separator, value) in [("-", civilMonth), ("-", day), ("T", rest / 3600), (":", rest / 60 % 60), (":", rest % 60)] {
            output += separator.utf8
            digits(value, 2, to: &output)
        }
        if fraction > 0 {
            var width = 9
            while fraction % 10 == 0 {
                fraction /= 10
                width -= 1
            }
            output.append(0x2e)
            digits(fraction, width, to: &output)
        }
        output.append(0x5a)
    }

    private static func digits(_ value: Int64, _ width: Int, to output: inout [UInt8]) {
        let start = output.count
        var value = value
        for _ in 0..<width {
            output.append(UInt8(0x30 + value % 10))
            value /= 10
        }
        output[start...].reverse()
    }

    // MARK: JSON

    private static let hex = Array("0123456789abcdef".utf8)

    /// What Docker's encoder writes for a string: controls, quotes, <, > and & escaped, U+2028 and U+2029 too.
    static func escape(_ bytes: ArraySlice<UInt8>, to output: inout [UInt8]) {
        output.reserveCapacity(output.count + bytes.count)
        bytes.withUnsafeBufferPointer { text in
            var plain = 0
            var at = 0
            func flush(_ output: inout [UInt8], upTo end: Int) {
                if plain < end { output.append(contentsOf: UnsafeBufferPointer(rebasing: text[plain..<end])) }
            }
            while at < text.count {
                let byte = text[at]
                if byte < 0x80 {
                    if byte >= 0x20 && byte != 0x22 && byte != 0x5c && byte != 0x3c && byte != 0x3e && byte != 0x26 {
                        at += 1
                        continue
                    }
                    flush(&output, upTo: at)
                    switch byte {
                    case 0x22, 0x5c: output += [0x5c, byte]
                    case 0x0a: output += "\\n".utf8
                    case 0x0d: output += "\\r".utf8
                    case 0x09: output += "\\t".utf8
                    default: output += [0x5c, 0x75, 0x30, 0x30, hex[Int(byte >> 4)], hex[Int(byte & 15)]]
                    }
                    at += 1
                    plain = at
                    continue
                }
                let length = scalarLength(text, at)
                if length == 0 {
                    flush(&output, upTo: at)
                    output += "\\ufffd".utf8
                    at += 1
                    plain = at
                } else if length == 3 && byte == 0xe2 && text[at + 1] == 0x80 && text[at + 2] & 0xfe == 0xa8 {
                    flush(&output, upTo: at)
                    output += text[at + 2] == 0xa8 ? "\\u2028".utf8 : "\\u2029".utf8
                    at += 3
                    plain = at
                } else {
                    at += length
                }
            }
            flush(&output, upTo: text.count)
        }
    }

    /// Bytes of the well-formed character at `at`, 0 when there is none.
    private static func scalarLength(_ text: UnsafeBufferPointer<UInt8>, _ at: Int) -> Int {
        let first = text[at]
        let (length, low, high): (Int, UInt8, UInt8) =
            switch first {
            case 0xc2...0xdf: (2, 0x80, 0xbf)
            case 0xe0: (3, 0xa0, 0xbf)
            case 0xed: (3, 0x80, 0x9f)
            case 0xe1...0xef: (3, 0x80, 0xbf)
            case 0xf0: (4, 0x90, 0xbf)
            case 0xf1...0xf3: (4, 0x80, 0xbf)
            case 0xf4: (4, 0x80, 0x8f)
            default: (0, 0, 0)
            }
        guard length > 0, at + length <= text.count, text[at + 1] >= low, text[at + 1] <= high else { return 0 }
        for offset in 2..<max(length, 2) where text[at + offset] & 0xc0 != 0x80 { return 0 }
        return length
    }
}
