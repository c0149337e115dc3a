/// Numbers with units as the command line takes them.
enum Quantity {
    /// Bytes: "1073741824", "512m", "1.5g", "10KiB", in powers of 1024; -1 is without limit. nil for anything else.
    static func bytes(_ text: String) -> Int64? {
        if text == "-1" { return -1 }
        let lower = text.lowercased()
        let number = lower.prefix { $0.isASCII && ($0.isNumber || $0 == ".") }
        let powers: [(Substring, Int)] = [("", 0), ("b", 0), ("k", 1), ("m", 2), ("g", 3), ("t", 4), ("p", 5)]
        var unit = lower[number.endIndex...]
        if unit.count > 1 {
            if unit.hasSuffix("ib") { unit = unit.dropLast(2) } else if unit.hasSuffix("b") { unit = unit.dropLast() }
            if unit.isEmpty || unit == "b" { return nil }
        }
        guard let power = powers.first(where: { $0.0 == unit })?.1, number.utf8.count <= 32 else { return nil }
        if let whole = Int64(number) {
            let (value, overflow) = whole.multipliedReportingOverflow(by: 1 << (10 * power))
            return overflow ? nil : value
        }
        guard number.first != ".", number.last != ".", let value = Double(number) else { return nil }
        return Int64(exactly: (value * Double(1 << (10 * power))).rounded(.down))
    }

    /// Nanoseconds: "5s", "500ms", "1m30s". nil for anything else, 0 and less.
    static func duration(_ text: String) -> Int64? {
        let units: [(Substring, Double)] = [("ns", 1), ("us", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9), ("h", 3600e9)]
        var rest = text[...]
        var total = 0.0
        while !rest.isEmpty {
            let number = rest.prefix { $0.isASCII && ($0.isNumber || $0 == ".") }
            rest = rest[number.endIndex...]
            let name = rest.prefix { $0.isASCII && $0.isLetter }
            rest = rest[name.endIndex...]
            guard number.first != ".", number.last != ".", let value = Double(number), let unit = units.first(where: { $0.0 == name })?.1
            else { return nil }
            total += value * unit
        }
        guard total >= 1, total <= 9e18 else { return nil }
        return Int64(total)
    }
}
