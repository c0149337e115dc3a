import Glibc
import OCI

/// Mounts, masked and read-only paths of a container: what Docker 28 gives one that was asked for nothing special.
enum SpecMounts {
    private static let defaults: [(destination: String, type: String, source: String, options: [String])] = [
        ("/proc", "proc", "proc", ["nosuid", "noexec", "nodev"]),
        ("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        ("/dev/pts", "devpts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        ("/sys", "sysfs", "sysfs", ["nosuid", "noexec", "nodev", "ro"]),
        ("/sys/fs/cgroup", "cgroup", "cgroup", ["ro", "nosuid", "noexec", "nodev"]),
        ("/dev/mqueue", "mqueue", "mqueue", ["nosuid", "noexec", "nodev"]),
        ("/dev/shm", "tmpfs", "shm", ["nosuid", "noexec", "nodev", "mode=1777", "size=67108864"]),
    ]

    /// The defaults, without those that a mount of the user's replaces, then the user's, parents before what lies in them.
    /// A privileged container may write to /sys and to its control groups.
    static func mounts(_ user: [SpecBindMount], privileged: Bool = false) throws(SpecError) -> JSON {
        var cleaned: [(parts: [Substring], mount: SpecBindMount)] = []
        for mount in user {
            let shown = "\"\(mount.destination.prefix(128))\""
            guard mount.source.utf8.first == UInt8(ascii: "/"), SpecRequest.cleanComponents(mount.source) != nil else {
                throw SpecError("mount", "source \"\(mount.source.prefix(128))\" is no absolute path")
            }
            guard mount.destination.utf8.first == UInt8(ascii: "/"), let parts = SpecRequest.cleanComponents(mount.destination) else {
                throw SpecError("mount", "destination \(shown) is no absolute path")
            }
            if parts.isEmpty { throw SpecError("mount", "destination must not be \"/\"") }
            // The runtime writes through /proc; it has to be the kernel's.
            if parts.first == "proc" { throw SpecError("mount", "destination \(shown) lies in /proc") }
            if cleaned.contains(where: { $0.parts == parts }) { throw SpecError("mount", "destination \(shown) is given twice") }
            cleaned.append((parts, mount))
        }
        var result: [JSON] = []
        for mount in defaults where !cleaned.contains(where: { "/" + $0.parts.joined(separator: "/") == mount.destination }) {
            let options = privileged ? mount.options.filter { $0 != "ro" } : mount.options
            result.append(json(mount.destination, mount.type, mount.source, options))
        }
        // Sorting by depth keeps the user's order where it does not matter.
        for (_, element) in cleaned.enumerated().sorted(by: { ($0.element.parts.count, $0.offset) < ($1.element.parts.count, $1.offset) }) {
            let options = ["rbind", "rprivate"] + (element.mount.readOnly ? ["ro"] : [])
            result.append(json("/" + element.parts.joined(separator: "/"), "bind", element.mount.source, options))
        }
        return .array(result)
    }

    private static func json(_ destination: String, _ type: String, _ source: String, _ options: [String]) -> JSON {
        [
            "destination": .string(destination), "type": .string(type), "source": .string(source),
            "options": .array(options.map { .string($0) }),
        ]
    }

    /// Paths that show more of the host than a container should see. Those of the processors' temperature exist on real hardware only.
    static let masked: JSON = {
        var paths = [
            "/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
            "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
        ]
        for processor in 0..<max(0, min(sysconf(Int32(_SC_NPROCESSORS_CONF)), 4096)) {
            let path = "/sys/devices/system/cpu/cpu\(processor)/thermal_throttle"
            if access(path, F_OK) == 0 { paths.append(path) }
        }
        return .array(paths.map { .string($0) })
    }()

    static let readOnly: JSON = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
}
