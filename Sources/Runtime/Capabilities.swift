import CLinux
import Glibc
import OCI

/// Capability names and numbers (capabilities(7)), and sets of them as bits.
enum Capability {
    private static let names = [
        "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "LINUX_IMMUTABLE",
        "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT",
        "SYS_PTRACE",
        "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE",
        "AUDIT_CONTROL",
        "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
        "CHECKPOINT_RESTORE",
    ]

    static let sysResource: UInt64 = 1 << 24

    /// The bit of "CAP_CHOWN" or "chown"; nil for an unknown name.
    static func bit(_ name: String) -> UInt64? {
        let upper = name.uppercased()
        let bare = upper.hasPrefix("CAP_") ? String(upper.dropFirst(4)) : upper
        return names.firstIndex(of: bare).map { 1 << UInt64($0) }
    }

    static func name(_ number: Int) -> String { number < names.count ? "CAP_\(names[number])" : "\(number)" }
}

/// The five sets that a process gets. What the document does not list is not there: no set is ever derived from another.
struct CapabilitySets: Equatable {
    var bounding: UInt64 = 0
    var effective: UInt64 = 0
    var inheritable: UInt64 = 0
    var permitted: UInt64 = 0
    var ambient: UInt64 = 0

    init() {}

    init(_ lists: RuntimeSpec.Capabilities) throws(RuntimeError) {
        bounding = try Self.bits(lists.bounding)
        effective = try Self.bits(lists.effective)
        inheritable = try Self.bits(lists.inheritable)
        permitted = try Self.bits(lists.permitted)
        ambient = try Self.bits(lists.ambient)
    }

    private static func bits(_ names: [String]) throws(RuntimeError) -> UInt64 {
        var bits: UInt64 = 0
        for name in names {
            guard let bit = Capability.bit(name) else { throw RuntimeError("unknown capability \"\(name.prefix(64))\"") }
            bits |= bit
        }
        return bits
    }

    /// Takes away what this process does not have itself and so cannot give; returns that.
    mutating func limit(to available: UInt64) -> UInt64 {
        let missing = (bounding | effective | inheritable | permitted | ambient) & ~available
        bounding &= available
        effective &= available
        inheritable &= available
        permitted &= available
        ambient &= available
        return missing
    }
}
