import Glibc
import Linux
import Logging

/// Writes each message as one line to standard error, with one write.
struct LineLogHandler: LogHandler {
    enum Format: String { case text, json }

    let format: Format
    var logLevel: Logger.Level
    var metadata: Logger.Metadata = [:]

    init(format: Format, level: Logger.Level) {
        self.format = format
        logLevel = level
    }

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        let pairs = metadata.merging(event.metadata ?? [:]) { $1 }.sorted { $0.key < $1.key }
        var line: String
        switch format {
        case .text:
            line = "\(Self.time()) \(event.level.rawValue) \(Self.flat("\(event.message)"))"
            for (key, value) in pairs { line += " \(key)=\(Self.quoted("\(value)"))" }
        case .json:
            line = "{\"time\":\"\(Self.time())\",\"level\":\"\(event.level.rawValue)\",\"message\":\(Self.json("\(event.message)"))"
            for (key, value) in pairs { line += ",\(Self.json(key)):\(Self.json("\(value)"))" }
            line += "}"
        }
        line += "\n"
        // What cannot be written is lost: logging never stops the manager.
        try? writeAll(2, Array(line.utf8), name: "log")
    }

    /// RFC 3339 in UTC with microseconds.
    private static func time() -> String {
        let (seconds, rest) = now(CLOCK_REALTIME).quotientAndRemainder(dividingBy: 1_000_000_000)
        var moment = time_t(seconds)
        var parts = tm()
        gmtime_r(&moment, &parts)
        func digits(_ value: Int, _ width: Int) -> String {
            let text = String(value)
            return String(repeating: "0", count: max(0, width - text.count)) + text
        }
        return "\(digits(Int(parts.tm_year) + 1900, 4))-\(digits(Int(parts.tm_mon) + 1, 2))-\(digits(Int(parts.tm_mday), 2))T"
            + "\(digits(Int(parts.tm_hour), 2)):\(digits(Int(parts.tm_min), 2)):\(digits(Int(parts.tm_sec), 2)).\(digits(Int(rest / 1000), 6))Z"
    }

    private static func flat(_ text: String) -> String {
        String(String.UnicodeScalarView(text.unicodeScalars.map { $0.value < 0x20 || $0.value == 0x7f ? " " : $0 }))
    }

    private static func quoted(_ text: String) -> String {
        let plain = !text.isEmpty && text.unicodeScalars.allSatisfy { $0.value > 0x20 && $0 != "\"" && $0 != "=" && $0.value != 0x7f }
        return plain ? text : json(text)
    }

    private static func json(_ text: String) -> String {
        var out = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": out += "\\\""
            case "\\": out += "\\\\"
            case "\n": out += "\\n"
            case "\t": out += "\\t"
            case _ where scalar.value < 0x20 || scalar.value == 0x7f:
                let hex = String(scalar.value, radix: 16)
                out += "\\u" + String(repeating: "0", count: 4 - hex.count) + hex
            default: out.unicodeScalars.append(scalar)
            }
        }
        return out + "\""
    }
}
