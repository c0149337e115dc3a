/// The records of a PAX extended header (pax(1), "pax Extended Header"): those that matter, each at most once.
struct PaxRecords {
    var path: [UInt8]?
    var link: [UInt8]?
    var size: Int64?
    var uid: Int64?
    var gid: Int64?
    var modified: TarTime?
    var attributes: [(name: [UInt8], value: [UInt8])] = []

    typealias Malformed = TarHeader.Malformed

    init() {}

    /// Reads `<length> <key>=<value>\n` records until the last byte.
    init(parsing bytes: [UInt8]) throws(Malformed) {
        var rest = bytes[...]
        var seen: Set<[UInt8]> = []
        while let first = rest.first {
            guard first >= UInt8(ascii: "1"), first <= UInt8(ascii: "9"), let space = rest.prefix(10).firstIndex(of: 0x20),
                let length = Self.decimal(rest[rest.startIndex..<space]), length <= Int64(rest.count)
            else { throw Malformed(cause: "malformed length of a PAX record") }
            let end = rest.startIndex + Int(length)
            guard end > space + 1, rest[end - 1] == 0x0a, let equals = rest[(space + 1)..<(end - 1)].firstIndex(of: UInt8(ascii: "=")),
                equals > space + 1
            else { throw Malformed(cause: "malformed PAX record") }
            let key = Array(rest[(space + 1)..<equals])
            let value = Array(rest[(equals + 1)..<(end - 1)])
            // Readers disagree about which of two counts, so an archive that depends on it is refused.
            guard seen.insert(key).inserted else { throw Malformed(cause: "PAX key \(printable(key.prefix(64))) appears twice") }
            try take(key, value)
            rest = rest[end...]
        }
    }

    private mutating func take(_ key: [UInt8], _ value: [UInt8]) throws(Malformed) {
        let name = String(decoding: key, as: UTF8.self)
        let xattr = Array("SCHILY.xattr.".utf8)
        if key.starts(with: xattr) {
            let attribute = Array(key.dropFirst(xattr.count))
            guard !attribute.isEmpty, !attribute.contains(0) else { throw Malformed(cause: "malformed name of an extended attribute") }
            attributes.append((attribute, value))
            return
        }
        if name.hasPrefix("GNU.sparse.") { throw Malformed(cause: "sparse files are not supported") }
        // By pax(1) an empty value takes the record back; not every reader knows, and here it would matter.
        if value.isEmpty {
            if ["path", "linkpath", "size"].contains(name) { throw Malformed(cause: "PAX \(name) is empty") }
            return
        }
        switch name {
        case "path": path = try Self.text(value, name)
        case "linkpath": link = try Self.text(value, name)
        case "size": size = try Self.number(value, name)
        case "uid": uid = try Self.number(value, name)
        case "gid": gid = try Self.number(value, name)
        case "mtime": modified = try Self.time(value)
        default: break
        }
    }

    private static func text(_ value: [UInt8], _ name: String) throws(Malformed) -> [UInt8] {
        if value.contains(0) { throw Malformed(cause: "PAX \(name) contains a NUL byte") }
        return value
    }

    private static func number(_ value: [UInt8], _ name: String) throws(Malformed) -> Int64 {
        guard let number = decimal(value[...]) else { throw Malformed(cause: "PAX \(name) is no number") }
        return number
    }

    /// Digits alone; nil for anything else and for what does not fit.
    private static func decimal(_ digits: ArraySlice<UInt8>) -> Int64? {
        guard !digits.isEmpty else { return nil }
        var value: Int64 = 0
        for byte in digits {
            guard byte >= UInt8(ascii: "0"), byte <= UInt8(ascii: "9") else { return nil }
            let (scaled, overflow) = value.multipliedReportingOverflow(by: 10)
            let (sum, carry) = scaled.addingReportingOverflow(Int64(byte - UInt8(ascii: "0")))
            if overflow || carry { return nil }
            value = sum
        }
        return value
    }

    /// `[-]seconds[.fraction]`, with what is finer than a nanosecond cut off.
    private static func time(_ value: [UInt8]) throws(Malformed) -> TarTime {
        let malformed = Malformed(cause: "PAX mtime is no time")
        let negative = value.first == UInt8(ascii: "-")
        let parts = value.dropFirst(negative ? 1 : 0).split(separator: UInt8(ascii: "."), maxSplits: 1, omittingEmptySubsequences: false)
        guard let whole = parts.first, let seconds = decimal(whole) else { throw malformed }
        var nanoseconds: Int64 = 0
        if parts.count == 2 {
            guard parts[1].allSatisfy({ $0 >= UInt8(ascii: "0") && $0 <= UInt8(ascii: "9") }) else { throw malformed }
            for index in 0..<9 {
                let digit = index < parts[1].count ? parts[1][parts[1].startIndex + index] - UInt8(ascii: "0") : 0
                nanoseconds = nanoseconds * 10 + Int64(digit)
            }
        }
        guard negative else { return TarTime(seconds: seconds, nanoseconds: nanoseconds) }
        // The nanoseconds of timespec count forward, also before 1970.
        return nanoseconds == 0 ? TarTime(seconds: -seconds) : TarTime(seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds)
    }
}
