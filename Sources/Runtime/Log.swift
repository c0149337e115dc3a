import Glibc
import Linux

/// Where messages go: errors to standard error as one line, and everything to the file of --log, appended, one write a line.
struct Log {
    private let descriptor: Int32
    private let format: CommandLine.LogFormat
    private let debugging: Bool

    /// Without a file only errors are shown.
    init(_ line: CommandLine) throws(RuntimeError) {
        format = line.logFormat
        debugging = line.debug
        guard let file = line.logFile else {
            descriptor = -1
            return
        }
        descriptor = try attempt { () throws(SysError) in try Linux.open(file, O_WRONLY | O_APPEND | O_CREAT | O_NOCTTY, mode: 0o600).release() }
    }

    /// Before the command line is understood.
    init() {
        descriptor = -1
        format = .text
        debugging = false
    }

    func error(_ message: String) {
        let line = Self.oneLine(message)
        Self.put(STDERR_FILENO, "ctrun: \(line)\n")
        record("error", line)
    }

    func warning(_ message: String) { record("warning", Self.oneLine(message)) }

    func debug(_ message: @autoclosure () -> String) {
        if debugging { record("debug", Self.oneLine(message())) }
    }

    private func record(_ level: String, _ message: String) {
        guard descriptor >= 0 else { return }
        let time = Timestamp.now()
        switch format {
        case .json:
            let line = JSONLine.object([("level", level), ("msg", message), ("time", time)])
            Self.put(descriptor, line + "\n")
        case .text: Self.put(descriptor, "time=\"\(time)\" level=\(level) msg=\(JSONLine.quoted(message))\n")
        }
    }

    private static func oneLine(_ message: String) -> String {
        String(decoding: message.utf8.prefix(4096).map { $0 < 0x20 ? 0x20 : $0 }, as: UTF8.self)
    }

    /// A log that cannot be written is no reason to fail.
    private static func put(_ descriptor: Int32, _ text: String) { try? writeAll(descriptor, Array(text.utf8), name: "log") }
}

/// RFC 3339 times in UTC.
enum Timestamp {
    static func now() -> String { text(nanoseconds: Linux.now(CLOCK_REALTIME)) }

    static func text(nanoseconds: Int64) -> String {
        var seconds = time_t(nanoseconds / 1_000_000_000)
        var parts = tm()
        gmtime_r(&seconds, &parts)
        let fraction = padded(Int(nanoseconds % 1_000_000_000), 9)
        let date = "\(padded(Int(parts.tm_year) + 1900, 4))-\(padded(Int(parts.tm_mon) + 1, 2))-\(padded(Int(parts.tm_mday), 2))"
        return "\(date)T\(padded(Int(parts.tm_hour), 2)):\(padded(Int(parts.tm_min), 2)):\(padded(Int(parts.tm_sec), 2)).\(fraction)Z"
    }

    private static func padded(_ number: Int, _ width: Int) -> String {
        let digits = "\(number)"
        return String(repeating: "0", count: max(0, width - digits.utf8.count)) + digits
    }
}
