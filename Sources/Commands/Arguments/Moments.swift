import CLinux
import Glibc

/// A moment in ns since 1970 as `--since` and `--until` take it: RFC 3339 ("2026-03-01T12:00:00Z", also without zone: local time; also
/// only the date), seconds since 1970 with decimals, or how long ago ("90s", "1h30m", "2d"). `now` is CLOCK_REALTIME in ns.
func parseMoment(_ text: String, now: Int64) throws(Failure) -> Int64 {
    let problem = Failure(
        "invalid time \"\(text)\": use RFC 3339 such as 2026-03-01T12:00:00Z, seconds since 1970, or how long ago such as 10m",
        code: Failure.usage)
    if let seconds = decimal(text[...], unit: 1_000_000_000) { return seconds }
    if let ago = duration(text) {
        guard ago < now else { throw problem }
        return now - ago
    }
    guard let moment = calendar(text) else { throw problem }
    return moment
}

/// How many lines `--tail` asks for; nil is all of them.
func parseTail(_ text: String) throws(Failure) -> UInt64? {
    if text == "all" || text == "-1" { return nil }
    guard let lines = UInt64(text), !text.hasPrefix("+") else {
        throw Failure("invalid number of lines \"\(text)\": use a whole number, or \"all\"", code: Failure.usage)
    }
    return lines
}

/// Digits with at most nine decimals, times `unit` (at most 10^15); nil when it is something else or too large.
private func decimal(_ text: Substring, unit: Int64) -> Int64? {
    let parts = text.split(separator: ".", maxSplits: 1, omittingEmptySubsequences: false)
    let fraction = parts.count == 2 ? parts[1].utf8.prefix(9) : ""[...].utf8[...]
    guard let first = parts.first, !first.isEmpty, parts.allSatisfy({ $0.utf8.allSatisfy { (0x30...0x39).contains($0) } }),
        let whole = Int64(first)
    else { return nil }
    let (product, overflow) = whole.multipliedReportingOverflow(by: unit)
    var rest: Int64 = 0
    var place = unit
    for digit in fraction {
        place /= 10
        rest += Int64(digit - 0x30) * place
    }
    let (sum, overflowOfSum) = product.addingReportingOverflow(rest)
    return overflow || overflowOfSum ? nil : sum
}

/// Go's durations, with days as well; nil when it is none.
private func duration(_ text: String) -> Int64? {
    let units: [(String, Int64)] = [
        ("ns", 1), ("us", 1000), ("µs", 1000), ("ms", 1_000_000), ("s", 1_000_000_000), ("m", 60_000_000_000), ("h", 3_600_000_000_000),
        ("d", 86_400_000_000_000),
    ]
    var rest = text[...]
    var total: Int64 = 0
    if rest.isEmpty { return nil }
    while !rest.isEmpty {
        let number = rest.prefix { $0.isASCII && ($0.isNumber || $0 == ".") }
        rest = rest.dropFirst(number.count)
        let name = rest.prefix { !($0.isASCII && ($0.isNumber || $0 == ".")) }
        rest = rest.dropFirst(name.count)
        guard let unit = units.first(where: { $0.0 == name }), let value = decimal(number, unit: unit.1) else { return nil }
        let (sum, overflow) = total.addingReportingOverflow(value)
        if overflow { return nil }
        total = sum
    }
    return total
}

/// Date and time as RFC 3339 writes them, from which the end may be missing.
private func calendar(_ text: String) -> Int64? {
    var rest = Array(text.utf8)[...]
    func digits(_ count: Int) -> Int32? {
        guard rest.count >= count, rest.prefix(count).allSatisfy({ (0x30...0x39).contains($0) }) else { return nil }
        defer { rest = rest.dropFirst(count) }
        return rest.prefix(count).reduce(0) { $0 * 10 + Int32($1 - 0x30) }
    }
    func skip(_ characters: String) -> Bool {
        guard let first = rest.first, characters.utf8.contains(first) else { return false }
        rest = rest.dropFirst()
        return true
    }
    var time = tm()
    guard let year = digits(4), skip("-"), let month = digits(2), skip("-"), let day = digits(2) else { return nil }
    guard (1...12).contains(month), (1...31).contains(day) else { return nil }
    time.tm_year = year - 1900
    time.tm_mon = month - 1
    time.tm_mday = day
    var nanoseconds: Int64 = 0
    if skip("Tt ") {
        guard let hour = digits(2), skip(":"), let minute = digits(2), hour < 24, minute < 60 else { return nil }
        time.tm_hour = hour
        time.tm_min = minute
        if skip(":") {
            guard let second = digits(2), second <= 60 else { return nil }
            time.tm_sec = second
            if skip(".") {
                let fraction = rest.prefix { (0x30...0x39).contains($0) }
                if fraction.isEmpty { return nil }
                rest = rest.dropFirst(fraction.count)
                var place: Int64 = 100_000_000
                for digit in fraction.prefix(9) {
                    nanoseconds += Int64(digit - 0x30) * place
                    place /= 10
                }
            }
        }
    }
    var offset: Int64?
    if skip("Zz") {
        offset = 0
    } else if let sign = rest.first, skip("+-") {
        guard let hours = digits(2), skip(":"), let minutes = digits(2), hours < 24, minutes < 60 else { return nil }
        offset = Int64(hours * 3600 + minutes * 60) * (sign == UInt8(ascii: "-") ? -1 : 1)
    }
    guard rest.isEmpty else { return nil }
    time.tm_isdst = -1
    let seconds = Int64(offset == nil ? mktime(&time) : timegm(&time)) - (offset ?? 0)
    // mktime(3) makes the next month of a day that this one does not have.
    guard time.tm_mday == day, seconds >= 0, seconds < Int64.max / 1_000_000_000 else { return nil }
    return seconds * 1_000_000_000 + nanoseconds
}
