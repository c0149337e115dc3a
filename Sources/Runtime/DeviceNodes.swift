import CLinux
import Glibc
import Linux
import OCI

/// Device nodes and the usual links below /dev.
enum DeviceNodes {
    private static let nodes: [(name: String, major: UInt32, minor: UInt32)] = [
        ("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0),
    ]
    private static let links: [(name: String, target: String)] = [
        ("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("stdout", "/proc/self/fd/1"), ("stderr", "/proc/self/fd/2"),
    ]

    /// Makes the standard nodes and those of `extra`. An existing node with the right numbers is taken; anything else in the way is an
    /// error, never followed. Needs umask 0.
    static func make(_ extra: [RuntimeSpec.Device], in rootfs: borrowing RootFS) throws(RuntimeError) {
        let dev = try openDev(rootfs)
        try attempt { () throws(SysError) in
            for node in nodes {
                try make(node.name, S_IFCHR | 0o666, ctr_makedev(node.major, node.minor), uid: 0, gid: 0, in: dev)
            }
            for device in extra {
                let (directory, name) = try RootFS.split(device.path)
                let kind = device.kind == .block ? S_IFBLK : device.kind == .fifo ? S_IFIFO : S_IFCHR
                let number = device.kind == .fifo ? 0 : ctr_makedev(device.major, device.minor)
                let parent = try rootfs.makeDirectories(directory)
                try make(name, kind | device.mode, number, uid: device.uid, gid: device.gid, in: parent)
            }
            for link in links { try self.link(link.name, link.target, in: dev) }
            if access("/proc/kcore", F_OK) == 0 { try link("core", "/proc/kcore", in: dev) }
            try link("ptmx", "pts/ptmx", in: dev)
        }
    }

    /// /dev itself: a directory with no link on the way.
    private static func openDev(_ rootfs: borrowing RootFS) throws(RuntimeError) -> Descriptor {
        do throws(SysError) { return try MountPlace.directory("/dev", in: rootfs) } catch {
            if error.code == ELOOP { throw RuntimeError("/dev in the root file system is a symbolic link") }
            guard error.code == ENOENT else { throw RuntimeError(error) }
        }
        return try attempt { () throws(SysError) in try rootfs.makeDirectories("/dev") }
    }

    private static func make(
        _ name: String, _ mode: mode_t, _ number: UInt64, uid: UInt32, gid: UInt32, in directory: borrowing Descriptor
    ) throws(SysError) {
        if mknodat(directory.raw, name, mode, UInt(number)) < 0 {
            guard errno == EEXIST else { throw SysError("make device", name, code: errno) }
            var status = stat()
            try checkErrno("look at device", name, fstatat(directory.raw, name, &status, AT_SYMLINK_NOFOLLOW))
            guard status.st_mode & S_IFMT == mode & S_IFMT, mode & S_IFMT == S_IFIFO || UInt64(status.st_rdev) == number else {
                throw SysError("make device: something else is at", name, code: EEXIST)
            }
        }
        if uid != 0 || gid != 0 {
            try checkErrno("set owner of device", name, fchownat(directory.raw, name, uid, gid, AT_SYMLINK_NOFOLLOW))
        }
    }

    /// What an image has under the name stays.
    private static func link(_ name: String, _ target: String, in directory: borrowing Descriptor) throws(SysError) {
        if symlinkat(target, directory.raw, name) < 0 && errno != EEXIST { throw SysError("create link", name, code: errno) }
    }
}
