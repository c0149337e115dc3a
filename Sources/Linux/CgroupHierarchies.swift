import Glibc

/// Where this host's control groups are: the version 1 hierarchies, and the version 2 ("unified") one (cgroups(7)).
/// A hybrid host has both; there version 2 carries no controllers, but still tracks, tells of emptiness and kills.
public struct CgroupHierarchies: Sendable, Equatable {
    /// One mounted version 1 hierarchy.
    public struct Hierarchy: Sendable, Equatable {
        /// Its controllers as the kernel spells them, comma separated: "memory", "cpu,cpuacct", "name=systemd".
        public let controllers: String
        public let mountPoint: String

        public init(controllers: String, mountPoint: String) {
            self.controllers = controllers
            self.mountPoint = mountPoint
        }
    }

    public let v1: [Hierarchy]
    /// Mount point of version 2; nil when the host has none.
    public let unified: String?

    public init(v1: [Hierarchy], unified: String?) {
        self.v1 = v1
        self.unified = unified
    }

    /// Reads /proc/self/mountinfo (proc(5)) once. ENOENT when no control groups are mounted.
    public init() throws(SysError) {
        self.init(mountinfo: try readFile("/proc/self/mountinfo", limit: 16 << 20))
        if v1.isEmpty && unified == nil { throw SysError("find control groups in", "/proc/self/mountinfo", code: ENOENT) }
    }

    /// The same from a text; of several mounts of one hierarchy the first counts.
    public init(mountinfo: [UInt8]) {
        var v1: [Hierarchy] = []
        var unified: String?
        for line in mountinfo.split(separator: 0x0a) {
            // Most lines are other file systems: one look at the bytes after " - " decides.
            guard let dash = Self.separator(in: line), Self.hasPrefix(line[(dash + 3)...], "cgroup") else { continue }
            let fields = line[..<dash].split(separator: 0x20)
            let tail = line[(dash + 3)...].split(separator: 0x20)
            guard fields.count >= 6, tail.count >= 3 else { continue }
            let mountPoint = Self.unescaped(fields[4])
            if Self.hasPrefix(tail[0], "cgroup2") {
                if unified == nil { unified = mountPoint }
                continue
            }
            let controllers = String(decoding: tail[2], as: UTF8.self).split(separator: ",").filter(Self.isController).joined(
                separator: ",")
            if controllers.isEmpty || v1.contains(where: { $0.controllers == controllers }) { continue }
            v1.append(Hierarchy(controllers: controllers, mountPoint: mountPoint))
        }
        self.init(v1: v1, unified: unified)
    }

    private static let known: [Substring] = [
        "cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "net_cls", "net_prio", "perf_event", "hugetlb", "rdma",
        "misc",
    ]

    private static func isController(_ option: Substring) -> Bool { known.contains(option) || option.hasPrefix("name=") }

    private static func separator(in line: ArraySlice<UInt8>) -> Int? {
        var index = line.startIndex
        while index + 2 < line.endIndex {
            if line[index] == 0x20 && line[index + 1] == UInt8(ascii: "-") && line[index + 2] == 0x20 { return index }
            index += 1
        }
        return nil
    }

    private static func hasPrefix(_ bytes: ArraySlice<UInt8>, _ prefix: StaticString) -> Bool {
        guard bytes.count >= prefix.utf8CodeUnitCount else { return false }
        for offset in 0..<prefix.utf8CodeUnitCount where bytes[bytes.startIndex + offset] != prefix.utf8Start[offset] { return false }
        return true
    }

    /// mountinfo writes space, tab, newline and backslash as three octal digits.
    static func unescaped(_ field: ArraySlice<UInt8>) -> String {
        guard field.contains(UInt8(ascii: "\\")) else { return String(decoding: field, as: UTF8.self) }
        var bytes: [UInt8] = []
        var index = field.startIndex
        while index < field.endIndex {
            let byte = field[index]
            let digits = index + 3 < field.endIndex ? field[(index + 1)...(index + 3)] : []
            if byte == UInt8(ascii: "\\"), digits.count == 3, digits.allSatisfy({ $0 >= 0x30 && $0 <= 0x37 }) {
                bytes.append(digits.reduce(0) { $0 &* 8 &+ ($1 - 0x30) })
                index += 4
            } else {
                bytes.append(byte)
                index += 1
            }
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// The control group that this process itself is in, for a version 1 hierarchy or (nil) version 2: "/" or "/a/b".
    /// ENOENT when the hierarchy is not in /proc/self/cgroup.
    public static func own(_ controllers: String?) throws(SysError) -> String {
        let text = String(decoding: try readFile("/proc/self/cgroup", limit: 1 << 20), as: UTF8.self)
        for line in text.split(separator: "\n") {
            let fields = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
            if fields.count == 3, fields[1] == (controllers ?? "")[...] { return String(fields[2]) }
        }
        throw SysError("find own control group of", controllers ?? "version 2", code: ENOENT)
    }
}
