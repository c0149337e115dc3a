import CLinux
import Glibc
import Linux

/// Masked paths and read-only paths. A path that does not exist is fine: kernels differ.
enum PathMasks {
    static func apply(readOnly: [String], masked: [String], in rootfs: borrowing RootFS) throws(RuntimeError) {
        for path in readOnly {
            do throws(SysError) { try makeReadOnly(path, rootfs) } catch { throw RuntimeError(error).during("read-only path \(path)") }
        }
        if masked.isEmpty { return }
        do throws(SysError) {
            let null = try openNull()
            var empty: Descriptor?
            for path in masked { try mask(path, null, &empty, rootfs) }
        } catch { throw RuntimeError(error).during("masked path") }
    }

    /// The place, or nil when there is none.
    private static func find(_ path: String, _ rootfs: borrowing RootFS) throws(SysError) -> Descriptor? {
        do throws(SysError) { return try rootfs.open(path, CTR_O_PATH) } catch {
            if error.code == ENOENT || error.code == ENOTDIR { return nil }
            throw error
        }
    }

    /// Copied, changed and put back by one descriptor: there is no second look at the path that could find something else.
    private static func makeReadOnly(_ path: String, _ rootfs: borrowing RootFS) throws(SysError) {
        guard let place = try find(path, rootfs) else { return }
        let copy = try Mounts.bind(place, name: path, recursive: true)
        try Mounts.change(copy, name: path, set: .readOnly, recursive: true)
        try Mounts.attach(copy, to: place, name: path)
    }

    /// The mask of files is the host's null device, seen to be that: never a node of the container's.
    private static func openNull() throws(SysError) -> Descriptor {
        let null = try Linux.open("/dev/null", CTR_O_PATH | O_NOFOLLOW)
        var status = stat()
        try checkErrno("look at", "/dev/null", fstat(null.raw, &status))
        guard ctr_s_ischr(status.st_mode), status.st_rdev == ctr_makedev(1, 3) else {
            throw SysError("use as null device", "/dev/null", code: ENODEV)
        }
        return null
    }

    /// All directories share one empty tmpfs; copies of it can be made once the first is attached.
    private static func mask(
        _ path: String, _ null: borrowing Descriptor, _ empty: inout Descriptor?, _ rootfs: borrowing RootFS
    ) throws(SysError) {
        guard let place = try find(path, rootfs) else { return }
        var status = stat()
        try checkErrno("look at", path, fstat(place.raw, &status))
        guard ctr_s_isdir(status.st_mode) else {
            // Where the host shares its mounts a copy would go on hearing of them.
            let copy = try Mounts.bind(null, name: path, recursive: false)
            try Mounts.change(copy, name: path, propagation: .private)
            return try Mounts.attach(copy, to: place, name: path)
        }
        if let first = empty.take() {
            let copy = try Mounts.bind(first, name: path, recursive: false)
            try Mounts.attach(copy, to: place, name: path)
            empty = consume first
            return
        }
        let flags: MountAttributes = [.readOnly, .noSUID, .noDevices, .noExecution]
        let first = try Mounts.filesystem("tmpfs", source: "tmpfs", options: ["nr_inodes=2", "mode=755"], attributes: flags)
        try Mounts.attach(first, to: place, name: path)
        empty = consume first
    }
}
