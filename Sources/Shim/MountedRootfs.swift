import CLinux
import Glibc
import Linux

/// The root file system at BUNDLE/rootfs, for runtimes that take it by its path and for containerd, in a mount namespace of the shim's own: only
/// runtimes that it starts see it, and it goes with the shim.
extension Container {
    /// One mount on the other, as containerd lists them; none is what lies there already.
    func mount(_ mounts: [MountRequest]) throws(SysError) {
        guard let first = mounts.first else { return }
        if mounts.count > Rootfs.mountLimit { throw SysError("mount", "root file system from \(mounts.count) mounts", code: EINVAL) }
        if !mounted {
            try check("unshare mount namespace", "", ctr_unshare(Int32(CTR_CLONE_NEWNS)))
            try Mounts.setPropagationOfAll(.slave)
            mounted = true
        }
        try Rootfs.attach(try makeRootfs([first]).raw, at: first.target, in: place.bundle)
        for mount in mounts.dropFirst() {
            let made = try Rootfs.make([mount], bundle: place.bundle)
            try Rootfs.attach(made.raw, at: mount.target, in: place.bundle)
        }
    }
}

extension Rootfs {
    static let mountLimit = 64
    private static let moveFromEmpty: UInt32 = 0x4  // MOVE_MOUNT_F_EMPTY_PATH
    private static let moveToEmpty: UInt32 = 0x40  // MOVE_MOUNT_T_EMPTY_PATH

    /// Puts a detached mount on top of `bundle`/rootfs, or of `target` as the root file system itself has it: its links lead nowhere outside.
    static func attach(_ mount: Int32, at target: String, in bundle: String) throws(SysError) {
        let root = try Linux.open(bundle + "/rootfs", O_DIRECTORY | CTR_O_PATH)
        if target.isEmpty || target == "/" {
            try check("attach mount to", bundle + "/rootfs", ctr_move_mount(mount, "", root.raw, "", moveFromEmpty | moveToEmpty))
            return
        }
        // RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
        let place = Descriptor(
            owning: try check("find mount target", target, ctr_openat2(root.raw, target, UInt64(CTR_O_PATH | O_CLOEXEC), 0, 0x10 | 0x02)))
        try check("attach mount to", target, ctr_move_mount(mount, "", place.raw, "", moveFromEmpty | moveToEmpty))
    }

    /// Whatever is mounted at `bundle`/rootfs, one on the other.
    static func unmountAll(_ bundle: String) {
        // MNT_DETACH | UMOUNT_NOFOLLOW
        for _ in 0..<mountLimit where ctr_umount2(bundle + "/rootfs", 2 | 8) < 0 { return }
    }
}
