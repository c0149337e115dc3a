import CLinux
import Glibc
import Linux
import OCI

/// The device nodes of the host, for privileged containers.
enum HostDevices {
    private static let limit = 4096
    /// What a container has of its own.
    private static let own: Set<String> = ["pts", "shm", "mqueue", "fd", "console", "ptmx", ".lxc", ".lxd-mounts", "initctl", "log"]

    /// `linux.devices` of config.json; what cannot be looked at is left out. Blocking.
    static func all() -> [JSON] {
        var found: [JSON] = []
        collect("/dev", depth: 0, into: &found)
        return found
    }

    private static func collect(_ directory: String, depth: Int, into found: inout [JSON]) {
        for name in ((try? Rebuild.entries(directory)) ?? []).sorted() where depth > 0 || !own.contains(name) {
            let path = "\(directory)/\(name)"
            var status = stat()
            guard found.count < limit, lstat(path, &status) == 0 else { continue }
            let character = ctr_s_ischr(status.st_mode)
            if ctr_s_isdir(status.st_mode) && depth < 4 {
                collect(path, depth: depth + 1, into: &found)
            } else if character || status.st_mode & S_IFMT == S_IFBLK {
                found.append([
                    "path": .string(path), "type": character ? "c" : "b", "major": .integer(Int64(ctr_major(UInt64(status.st_rdev)))),
                    "minor": .integer(Int64(ctr_minor(UInt64(status.st_rdev)))), "fileMode": .integer(Int64(status.st_mode & 0o7777)),
                    "uid": .integer(Int64(status.st_uid)), "gid": .integer(Int64(status.st_gid)),
                ])
            }
        }
    }
}
