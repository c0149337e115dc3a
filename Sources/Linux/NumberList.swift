/// Lists as cpuset(7) writes them: "0-2,7".
enum NumberList {
    /// Whether every number of `list` is in `other`. A list in a form that only the kernel knows ("all", "0-31:1/2") is left to it: true.
    static func isWithin(_ list: String, _ other: String) -> Bool {
        let plain = list.utf8.allSatisfy { $0 >= 0x30 && $0 <= 0x39 || [0x2c, 0x2d, 0x20, 0x0a].contains($0) }
        if !plain { return true }
        guard let wanted = ranges(list), let there = ranges(other) else { return false }
        return wanted.allSatisfy { range in
            range.upperBound < 1 << 16 && range.allSatisfy { number in there.contains { $0.contains(number) } }
        }
    }

    /// nil for what is no list.
    private static func ranges(_ list: String) -> [ClosedRange<Int>]? {
        var found: [ClosedRange<Int>] = []
        for part in list.split(whereSeparator: { $0 == "," || $0 == " " || $0 == "\n" }) {
            let ends = part.split(separator: "-", omittingEmptySubsequences: false).map { Int($0) }
            guard (1...2).contains(ends.count), let first = ends[0], let last = ends[ends.count - 1], first <= last else { return nil }
            found.append(first...last)
        }
        return found
    }

    /// The size of a page as control files name it ("64KB", "2MB", "1GB"); nil for no such name.
    static func kibibytes(hugepages size: String) -> UInt64? {
        let factor: UInt64
        switch size.suffix(2) {
        case "KB": factor = 1
        case "MB": factor = 1 << 10
        case "GB": factor = 1 << 20
        default: return nil
        }
        guard let number = UInt64(size.dropLast(2)) else { return nil }
        let (value, overflow) = number.multipliedReportingOverflow(by: factor)
        return overflow ? nil : value
    }
}
