import Glibc
import Linux
import SwiftProtobuf

/// How long something took or is ago, in Docker's words.
func humanDuration(seconds: Int64) -> String {
    let minutes = seconds / 60
    // Hours are rounded to the nearest, everything else down.
    let hours = (seconds + 1800) / 3600
    switch true {
    case seconds < 1: return "Less than a second"
    case seconds == 1: return "1 second"
    case seconds < 60: return "\(seconds) seconds"
    case minutes == 1: return "About a minute"
    case minutes < 60: return "\(minutes) minutes"
    case hours == 1: return "About an hour"
    case hours < 48: return "\(hours) hours"
    case hours < 24 * 7 * 2: return "\(hours / 24) days"
    case hours < 24 * 30 * 2: return "\(hours / 24 / 7) weeks"
    case hours < 24 * 365 * 2: return "\(hours / 24 / 30) months"
    default: return "\(hours / 24 / 365) years"
    }
}

/// Seconds from `time` to `now` (CLOCK_REALTIME, ns); a time in the future is now.
func seconds(since time: Google_Protobuf_Timestamp, now: Int64) -> Int64 {
    max(0, (now - time.seconds * 1_000_000_000 - Int64(time.nanos)) / 1_000_000_000)
}

/// RFC 3339 in UTC; the fraction only when there is one, without trailing zeros, or with nine digits always.
func rfc3339(_ time: Google_Protobuf_Timestamp, fixedFraction: Bool = false) -> String {
    let day = (time.seconds >= 0 ? time.seconds : time.seconds - 86399) / 86400
    let second = time.seconds - day * 86400
    // Days are counted from 0000-03-01, so that the leap day is the last of its year, in eras of 400 years.
    let shifted = day + 719_468
    let era = (shifted >= 0 ? shifted : shifted - 146_096) / 146_097
    let dayOfEra = shifted - era * 146_097
    let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36524 - dayOfEra / 146_096) / 365
    let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
    let monthFromMarch = (5 * dayOfYear + 2) / 153
    let dayOfMonth = dayOfYear - (153 * monthFromMarch + 2) / 5 + 1
    let month = monthFromMarch < 10 ? monthFromMarch + 3 : monthFromMarch - 9
    let year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)

    var fraction = ""
    if time.nanos > 0 || fixedFraction {
        fraction = digits(Int64(time.nanos), 9)
        while !fixedFraction && fraction.hasSuffix("0") { fraction.removeLast() }
        fraction = "." + fraction
    }
    return "\(digits(year, 4))-\(digits(month, 2))-\(digits(dayOfMonth, 2))"
        + "T\(digits(second / 3600, 2)):\(digits(second / 60 % 60, 2)):\(digits(second % 60, 2))\(fraction)Z"
}

/// `value` in decimal with zeros in front up to `width`.
private func digits(_ value: Int64, _ width: Int) -> String {
    let text = String(value)
    return String(repeating: "0", count: max(0, width - text.utf8.count)) + text
}

/// Bytes with three significant digits and decimal units, as Docker prints sizes of images: "4.26MB".
func humanSize(_ bytes: Int64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB", "PB", "EB"]
    var unit = 0
    var whole = max(0, bytes)
    var thousandths: Int64 = 0
    while whole >= 1000 && unit + 1 < units.count {
        thousandths = whole % 1000
        whole /= 1000
        unit += 1
    }
    if unit == 0 { return "\(whole)B" }
    // Three significant digits are what fits a column.
    var text: String
    switch whole {
    case 100...: text = "\(whole + (thousandths >= 500 ? 1 : 0))"
    case 10...:
        let tenths = whole * 10 + (thousandths + 50) / 100
        text = "\(tenths / 10).\(tenths % 10)"
    default:
        let hundredths = whole * 100 + (thousandths + 5) / 10
        text = "\(hundredths / 100).\(digits(hundredths % 100, 2))"
    }
    if text.contains(".") {
        while text.hasSuffix("0") { text.removeLast() }
        if text.hasSuffix(".") { text.removeLast() }
    }
    return text + units[unit]
}
