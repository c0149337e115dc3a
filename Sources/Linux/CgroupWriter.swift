import Glibc

/// Writes limits to control files. One that remembers leaves alone what already is as wanted, and can take back what it wrote.
struct CgroupWriter {
    private let remembers: Bool
    /// What files held before they were written to, in that order.
    private var before: [(path: String, lines: [Substring], written: String)] = []

    init(remembering: Bool) { remembers = remembering }

    mutating func write<Value: CustomStringConvertible>(_ value: Value?, to path: String) throws(SysError) {
        guard let text = value?.description else { return }
        if !remembers { return try ContainerCgroup.writeText(path, text) }
        let lines = (try ContainerCgroup.readOptional(path) ?? "").split(separator: "\n")
        if Self.isSame(text, lines, isMemory: path.contains("/memory.")) { return }
        try ContainerCgroup.writeText(path, text)
        before.append((path, lines, text))
    }

    /// Puts back what was there before the first write. Which order the kernel takes depends on the values (a memory limit never may be
    /// above that of memory and swap), so the list is gone through until nothing more can be done. What stays behind is told.
    mutating func undo() -> [String] {
        var left = Array(before.reversed())
        before = []
        while !left.isEmpty {
            let count = left.count
            left.removeAll { entry in
                for line in Self.restoring(entry.lines, entry.written) {
                    do throws(SysError) { try ContainerCgroup.writeText(entry.path, line) } catch { return false }
                }
                return true
            }
            if left.count == count { break }
        }
        return left.map(\.path)
    }

    /// Whether a file with these lines already says `wanted`; memory is rounded down to pages.
    static func isSame(_ wanted: String, _ lines: [Substring], isMemory: Bool = false) -> Bool {
        let words = wanted.split(separator: " ")
        guard let first = words.first else { return false }
        if first.contains(":") || first == "default" {
            // A line a device; of "8:0 rbps=1 wbps=max" only the words that were given count.
            guard let line = lines.first(where: { $0.split(separator: " ").first == first }) else { return false }
            let there = line.split(separator: " ")
            return words.dropFirst().allSatisfy { there.contains($0) }
        }
        guard lines.count == 1 else { return false }
        let there = lines[0].split(separator: " ")
        // "50000" leaves the period of "50000 100000" as it is.
        guard there.count >= words.count else { return false }
        return zip(words, there).allSatisfy { isSame($0, $1) || isMemory && isSameInPages($0, $1) }
    }

    private static func isSame(_ wanted: Substring, _ there: Substring) -> Bool {
        if wanted == there { return true }
        if wanted == "-1" || wanted == "max" {
            return there == "max" || there == "-1" || UInt64(there).map(CgroupStats.isUnlimited) == true
        }
        return false
    }

    /// The kernel counts memory in pages, and shows what is left of a number then.
    private static func isSameInPages(_ wanted: Substring, _ there: Substring) -> Bool {
        guard let wanted = UInt64(wanted), let there = UInt64(there) else { return false }
        return wanted - wanted % UInt64(getpagesize()) == there
    }

    /// What to write so that a file holds `lines` again.
    static func restoring(_ lines: [Substring], _ written: String) -> [String] {
        guard let device = written.split(separator: " ").first, device.contains(":") else {
            // An empty list of processors is written as an empty line.
            return [lines.first.map(String.init) ?? "\n"]
        }
        if let line = lines.first(where: { $0.split(separator: " ").first == device }) { return [String(line)] }
        // The device had no line: version 1 takes 0 for that, version 2 "max" for each word.
        let words = written.split(separator: " ").dropFirst().map { word in
            word.firstIndex(of: "=").map { "\(word[..<$0])=max" } ?? "0"
        }
        return ["\(device) \(words.joined(separator: " "))"]
    }
}

extension ContainerCgroup {
    /// Changes the limits of a container that runs: what is nil stays, what already is so is not touched, and when the kernel refuses one the
    /// others are put back before the error is thrown. Devices cannot be changed this way.
    public func update(_ limits: CgroupLimits) throws(SysError) {
        var limits = limits
        limits.devices = nil
        if directory("memory") == nil, let unified, limits.memory == nil, limits.memorySwap ?? -1 > 0 {
            // Version 2 limits swap alone, and the caller means memory and swap together.
            limits.memory = try CgroupFiles(unified).number("memory.max").map { $0 > UInt64(Int64.max) ? -1 : Int64($0) }
        }
        if directory("cpu") == nil, let unified, limits.cpuQuota == nil, limits.cpuPeriod != nil {
            // Both are one file, and the period alone is not written.
            let quota = try CgroupFiles(unified).text("cpu.max")?.split(separator: " ").first
            limits.cpuQuota = quota.flatMap { Int64($0) } ?? -1
        }
        var writer = CgroupWriter(remembering: true)
        do throws(SysError) {
            try limits.writeV1(self, &writer)
            try limits.writeV2(self, &writer)
        } catch {
            let left = writer.undo()
            if left.isEmpty { throw error }
            throw SysError(
                "\(error.operation) \(error.object): \(error.cause); and not put back: \(left.joined(separator: " "))", code: error.code)
        }
    }
}
