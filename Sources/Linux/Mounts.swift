import CLinux
import Glibc

/// Attributes of a mount, as mount_setattr(2) and fsmount(2) take them.
public struct MountAttributes: OptionSet, Sendable, Equatable {
    public let rawValue: UInt64
    public init(rawValue: UInt64) { self.rawValue = rawValue }
    public static let readOnly = MountAttributes(rawValue: 0x1)
    public static let noSUID = MountAttributes(rawValue: 0x2)
    public static let noDevices = MountAttributes(rawValue: 0x4)
    public static let noExecution = MountAttributes(rawValue: 0x8)
    public static let noAccessTime = MountAttributes(rawValue: 0x10)
    public static let strictAccessTime = MountAttributes(rawValue: 0x20)
    /// All bits that say how access times are kept; relative (the default) is none of them. They change only together.
    public static let accessTimeMask = MountAttributes(rawValue: 0x70)
    public static let noDirectoryAccessTime = MountAttributes(rawValue: 0x80)
    public static let noSymbolicLinks = MountAttributes(rawValue: 0x20_0000)
}

/// How mount events travel (mount_namespaces(7)); the values are those of mount(2).
public enum MountPropagation: UInt64, Sendable {
    case unbindable = 0x2_0000
    case `private` = 0x4_0000
    case slave = 0x8_0000
    case shared = 0x10_0000
}

/// Mounts by descriptor: made detached, changed while nobody sees them, attached to a place that was resolved once. No call here
/// takes a path that a container can influence.
public enum Mounts {
    private static let closeOnExec: UInt32 = 1  // FSOPEN_CLOEXEC, FSMOUNT_CLOEXEC
    private static let openTreeClone: UInt32 = 1
    private static let recursive: UInt32 = 0x8000  // AT_RECURSIVE
    private static let emptyPath: UInt32 = 0x1000  // AT_EMPTY_PATH
    private static let moveFromEmpty: UInt32 = 0x4  // MOVE_MOUNT_F_EMPTY_PATH
    private static let moveToEmpty: UInt32 = 0x40  // MOVE_MOUNT_T_EMPTY_PATH

    /// A new file system of `type`, detached. `options` are "key=value" or bare words of the file system's own. The error names what the
    /// kernel complained about. The descriptor works as a directory and is the caller's.
    public static func filesystem(
        _ type: String, source: String, options: [String] = [], attributes: MountAttributes = []
    ) throws(SysError) -> Descriptor {
        let context = Descriptor(owning: try check("mount", type, ctr_fsopen(type, closeOnExec)))
        if !source.isEmpty { try explain(type, context, ctr_fsconfig_string(context.raw, "source", source)) }
        for option in options {
            if let equals = option.utf8.firstIndex(of: UInt8(ascii: "=")) {
                let value = String(option[option.utf8.index(after: equals)...])
                try explain(type, context, ctr_fsconfig_string(context.raw, String(option[..<equals]), value), option)
            } else {
                try explain(type, context, ctr_fsconfig_flag(context.raw, option), option)
            }
        }
        try explain(type, context, ctr_fsconfig_create(context.raw))
        return Descriptor(owning: try check("mount", type, ctr_fsmount(context.raw, closeOnExec, UInt32(attributes.rawValue))))
    }

    /// Whether file system `type` takes any option for now and finds fault, in the kernel's log, only when it is made: overlay before Linux
    /// 6.5. Others refuse an unknown option at once and silently.
    public static func complainsLate(_ type: String) -> Bool {
        let context = ctr_fsopen(type, closeOnExec)
        if context < 0 { return false }
        defer { close(context) }
        return ctr_fsconfig_flag(context, "ctr") >= 0
    }

    /// Turns a failure into an error with the context's own messages ("e tmpfs: Bad value for 'size'"; fsopen(2)).
    private static func explain(_ type: String, _ context: borrowing Descriptor, _ result: Int32, _ option: String = "") throws(SysError) {
        guard result < 0 else { return }
        var text = [UInt8](repeating: 0, count: 512)
        let got = read(context.raw, &text, text.count)
        var object = option.isEmpty ? type : "\(type) with option \(option)"
        if got > 2 { object += " (" + String(decoding: text[2..<got].prefix { $0 != 0x0a }, as: UTF8.self) + ")" }
        throw SysError("mount", object, code: -result)
    }

    /// A detached copy of the mount at a path of the host, with all below it when `recursive`. Links are followed.
    public static func bind(_ path: String, recursive: Bool) throws(SysError) -> Descriptor {
        Descriptor(
            owning: try check(
                "bind", path, ctr_open_tree(AT_FDCWD, path, openTreeClone | UInt32(O_CLOEXEC) | (recursive ? Self.recursive : 0))))
    }

    /// The same of what a descriptor names, O_PATH or a mount's. It must be attached in this mount namespace (before Linux 6.15).
    public static func bind(_ place: borrowing Descriptor, name: String, recursive: Bool) throws(SysError) -> Descriptor {
        let flags = openTreeClone | UInt32(O_CLOEXEC) | emptyPath | (recursive ? Self.recursive : 0)
        return Descriptor(owning: try check("bind", name, ctr_open_tree(place.raw, "", flags)))
    }

    /// Changes a mount by its descriptor, with all below it when `recursive`; what is in `set` wins over `clear`.
    public static func change(
        _ mount: borrowing Descriptor, name: String, set: MountAttributes = [], clear: MountAttributes = [],
        propagation: MountPropagation? = nil, recursive: Bool = false
    ) throws(SysError) {
        if set.isEmpty && clear.isEmpty && propagation == nil { return }
        try check(
            "change mount", name,
            ctr_mount_setattr(
                mount.raw, "", emptyPath | (recursive ? Self.recursive : 0), set.rawValue, clear.rawValue, propagation?.rawValue ?? 0, -1))
    }

    /// Changes the propagation of every mount of this mount namespace.
    public static func setPropagationOfAll(_ propagation: MountPropagation, recursive: Bool = true) throws(SysError) {
        try check("change mount", "/", ctr_mount_setattr(AT_FDCWD, "/", recursive ? Self.recursive : 0, 0, 0, propagation.rawValue, -1))
    }

    /// Puts a detached mount onto what `place` names. The mount's descriptor stays valid.
    public static func attach(_ mount: borrowing Descriptor, to place: borrowing Descriptor, name: String) throws(SysError) {
        try check("attach mount to", name, ctr_move_mount(mount.raw, "", place.raw, "", moveFromEmpty | moveToEmpty))
    }

    /// Puts a detached mount onto `name`, one component of our own choosing in a directory that only we write.
    public static func attach(_ mount: borrowing Descriptor, to name: String, in directory: borrowing Descriptor) throws(SysError) {
        try check("attach mount to", name, ctr_move_mount(mount.raw, "", directory.raw, name, moveFromEmpty))
    }

    /// Puts a detached mount over the root directory of this process, where lookups do not see it until pivot_root or chroot.
    public static func attachOverRoot(_ mount: borrowing Descriptor) throws(SysError) {
        try check("attach mount to", "/", ctr_move_mount(mount.raw, "", AT_FDCWD, "/", moveFromEmpty))
    }

    /// Unmounts, lazily, what lies on top at the current directory: the old root after pivot_root(".", ".").
    public static func detachCurrentDirectory() throws(SysError) {
        try check("unmount", "old root", ctr_umount2(".", 2 /* MNT_DETACH */))
    }
}
