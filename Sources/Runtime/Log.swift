import Glibc
import Linux

/// Where messages go: errors to standard error as one line, and everything to the file of --log, appended, one write a line.
struct Log {
    private let descriptor: Int32
    private let format: Invocation.LogFormat
    private let debugging: Bool

    /// Without a file only errors are shown.
    init(_ line: Invocation) throws(RuntimeError) {
        format = line.logFormat
        debugging = line.debug
        guard let file = line.logFile else {
            descriptor = -1
            return
        }
        descriptor = try attempt { () throws(SysError) in
            try Linux.open(file, O_WRONLY | O_APPEND | O_CREAT | O_NOCTTY, mode: 0o600).release()
        }
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
        let seconds = Int(nanoseconds / 1_000_000_000)
        let (year, month, day) = date(days: seconds / 86_400)
        let clock = seconds % 86_400
        let date = "\(padded(year, 4))-\(padded(month, 2))-\(padded(day, 2))"
        let time = "\(padded(clock / 3600, 2)):\(padded(clock / 60 % 60, 2)):\(padded(clock % 60, 2))"
        return "\(date)T\(time).\(padded(Int(nanoseconds % 1_000_000_000), 9))Z"
    }

    /// The Gregorian date of a day since 1970. The C library would read the time zone from a file first.
    private static func date(days: Int) -> (year: Int, month: Int, day: Int) {
        // Years begin in March here, so that the leap day is the last; 719,468 days lie between 0000-03-01 and 1970-01-01.
        let shifted = days + 719_468
        let era = shifted / 146_097
        let dayOfEra = shifted % 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let monthFromMarch = (5 * dayOfYear + 2) / 153
        let month = monthFromMarch < 10 ? monthFromMarch + 3 : monthFromMarch - 9
        return (yearOfEra + era * 400 + (month <= 2 ? 1 : 0), month, dayOfYear - (153 * monthFromMarch + 2) / 5 + 1)
    }

    private static func padded(_ number: Int, _ width: Int) -> String {
        let digits = "\(number)"
        return String(repeating: "0", count: max(0, width - digits.utf8.count)) + digits
    }
}
