import CLinux
import Glibc
import Linux
import OCI

/// Rules about where in the root file system something may be mounted, and the one resolution of that place.
enum MountPlace {
    static let procMagic = 0x9fa0

    /// What may be put over single files of procfs: lxcfs and its like.
    private static let procFiles: Set<String> = [
        "/proc/cpuinfo", "/proc/diskstats", "/proc/meminfo", "/proc/stat", "/proc/swaps", "/proc/uptime", "/proc/loadavg", "/proc/slabinfo",
        "/proc/net/dev", "/proc/sys/kernel/ns_last_pid", "/proc/sys/crypto/fips_enabled",
    ]

    /// The path with "." and ".." taken out, by text alone; "/" stays "/".
    static func cleaned(_ path: String) -> String {
        var components: [Substring] = []
        for component in path.split(separator: "/") where component != "." {
            if component == ".." { _ = components.popLast() } else { components.append(component) }
        }
        return "/" + components.joined(separator: "/")
    }

    /// What is written to /proc and read from it later must be procfs: nothing else may lie there.
    static func check(_ entry: RuntimeSpec.Mount, _ options: MountOptions) throws(RuntimeError) {
        let place = cleaned(entry.destination)
        if place == "/" { throw RuntimeError("nothing can be mounted over the root file system") }
        if place == "/proc" && entry.type != "proc" && !options.bind { throw RuntimeError("only procfs can be mounted at /proc") }
        if place.hasPrefix("/proc/") && !procFiles.contains(place) { throw RuntimeError("nothing can be mounted inside /proc") }
    }

    /// Places whose meaning the runtime relies on: no component may be a link, and the last must be a directory.
    private static func isStrict(_ entry: RuntimeSpec.Mount) -> Bool {
        let place = cleaned(entry.destination)
        return ["proc", "sysfs", "cgroup", "cgroup2"].contains(entry.type) || place == "/dev" || place == "/proc" || place == "/sys"
    }

    /// Resolves the destination, once, making what is missing. The descriptor is O_PATH.
    static func open(
        _ entry: RuntimeSpec.Mount, isDirectory: Bool, in rootfs: borrowing RootFS
    ) throws(RuntimeError) -> Descriptor {
        let place = cleaned(entry.destination)
        if isStrict(entry) {
            do throws(SysError) { return try directory(place, in: rootfs) } catch {
                guard error.code == ENOENT else { throw error.code == ELOOP ? linked(place) : RuntimeError(error) }
            }
            _ = try attempt { () throws(SysError) in try rootfs.makeDirectories(place) }
            do throws(SysError) { return try directory(place, in: rootfs) } catch {
                throw error.code == ELOOP ? linked(place) : RuntimeError(error)
            }
        }
        let found = try attempt { () throws(SysError) in
            isDirectory ? try rootfs.makeDirectories(place) : try rootfs.makeFile(place)
        }
        // A link may lead where the text did not: into procfs.
        let magic = try attempt { () throws(SysError) in try Linux.check("look at", place, ctr_filesystem_magic(found.raw)) }
        if magic == procMagic && !procFiles.contains(place) { throw RuntimeError("nothing can be mounted inside /proc") }
        return found
    }

    private static func linked(_ place: String) -> RuntimeError {
        RuntimeError("\(place) in the root file system is, or lies behind, a symbolic link")
    }

    /// Opens a directory of the root file system with no link on the way; ELOOP when there is one.
    static func directory(_ path: String, in rootfs: borrowing RootFS) throws(SysError) -> Descriptor {
        let resolve = UInt64(RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS)
        return Descriptor(
            owning: try Linux.check(
                "open", path, ctr_openat2(rootfs.root.raw, path, UInt64(CTR_O_PATH | O_DIRECTORY | O_CLOEXEC), 0, resolve)))
    }
}
