/// Bytes in `text` as Docker reads them: a decimal number with the unit b, k, m, g, t or p (powers of 1024), also written kb or KiB.
func parseMemory(_ text: String) throws(Failure) -> Int64 {
    let problem = Failure(
        "invalid memory size \"\(text)\": use a number of bytes, or one with k, m or g, such as 512m", code: Failure.usage)
    var unit = text.lowercased()[...]
    let number = unit.prefix { $0.isASCII && ($0.isNumber || $0 == ".") }
    unit = unit.dropFirst(number.count)
    if unit.utf8.count == 3 && unit.hasSuffix("ib") {
        unit = unit.dropLast(2)
    } else if unit.utf8.count == 2 && unit.hasSuffix("b") {
        unit = unit.dropLast()
    }
    let shift: Int64
    switch unit {
    case "", "b": shift = 0
    case "k": shift = 10
    case "m": shift = 20
    case "g": shift = 30
    case "t": shift = 40
    case "p": shift = 50
    default: throw problem
    }
    guard let value = fixedPoint(number, fractionDigits: 9, exact: false) else { throw problem }
    let (bytes, overflow) = (value / 1_000_000_000).multipliedReportingOverflow(by: 1 << shift)
    // The fraction times the unit still fits: 1e9 * 2^50 does not, so it is scaled down first where the unit is large.
    let fraction = value % 1_000_000_000
    let rest = shift <= 30 ? (fraction << shift) / 1_000_000_000 : ((fraction << 30) / 1_000_000_000) << (shift - 30)
    let (total, overflowOfSum) = bytes.addingReportingOverflow(rest)
    if overflow || overflowOfSum { throw problem }
    return total
}

/// CPUs in billionths: "1.5" is 1 500 000 000.
func parseCPUs(_ text: String) throws(Failure) -> Int64 {
    guard let value = fixedPoint(text[...], fractionDigits: 9, exact: true) else {
        throw Failure(
            "invalid number of CPUs \"\(text)\": use a decimal number such as 1.5, with at most nine decimals", code: Failure.usage)
    }
    return value
}

/// A limit of processes; -1 and 0 are no limit, which the API writes as 0.
func parsePidsLimit(_ text: String) throws(Failure) -> Int64 {
    guard let value = Int64(text), value >= -1 else {
        throw Failure("invalid limit of processes \"\(text)\": use a whole number, or -1 for no limit", code: Failure.usage)
    }
    return max(0, value)
}

/// Seconds until SIGKILL as milliseconds; negative: without limit.
func parseTimeout(_ text: String) throws(Failure) -> Int64 {
    guard let value = Int64(text), value >= -1, value <= Int64.max / 1000 else {
        throw Failure("invalid timeout \"\(text)\": use whole seconds, or -1 to wait without limit", code: Failure.usage)
    }
    return value < 0 ? -1 : value * 1000
}

/// A decimal number without sign or exponent, times 10 to the `fractionDigits`; nil when it is none, too large, or with `exact` has
/// more decimals than that.
private func fixedPoint(_ text: Substring, fractionDigits: Int, exact: Bool) -> Int64? {
    let parts = text.split(separator: ".", maxSplits: 1, omittingEmptySubsequences: false)
    guard let whole = parts.first else { return nil }
    let fraction = parts.count == 2 ? parts[1] : ""
    let isDigit = { (byte: UInt8) in byte >= UInt8(ascii: "0") && byte <= UInt8(ascii: "9") }
    guard !(whole.isEmpty && fraction.isEmpty), whole.utf8.allSatisfy(isDigit), fraction.utf8.allSatisfy(isDigit) else { return nil }
    if exact && fraction.utf8.dropFirst(fractionDigits).contains(where: { $0 != UInt8(ascii: "0") }) { return nil }
    let padded = fraction.prefix(fractionDigits) + String(repeating: "0", count: max(0, fractionDigits - fraction.utf8.count))
    return Int64(String(whole) + padded)
}

/// Docker's weight of a container.
func parseShares(_ text: String) throws(Failure) -> UInt64 {
    guard let value = UInt64(text), !text.hasPrefix("+"), (2...262_144).contains(value) else {
        throw Failure("invalid weight \"\(text)\": use a number from 2 to 262144; 1024 is the usual one", code: Failure.usage)
    }
    return value
}

/// A list of numbers and ranges, as cpuset(7) takes it.
func parseSet(_ text: String) throws(Failure) -> String {
    let isList = text.split(separator: ",", omittingEmptySubsequences: false).allSatisfy { part in
        let ends = part.split(separator: "-", omittingEmptySubsequences: false)
        let numbers = ends.compactMap { end in end.utf8.allSatisfy { (0x30...0x39).contains($0) } ? UInt32(end) : nil }
        return numbers.count == ends.count && (numbers.count == 1 || numbers.count == 2 && numbers[0] <= numbers[1])
    }
    if !isList { throw Failure("invalid list \"\(text)\": use numbers and ranges such as 0-3,8", code: Failure.usage) }
    return text
}
