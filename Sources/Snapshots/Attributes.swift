import CLinux
import Content
import Glibc
import Linux

extension LayerWriter {
    /// Owner, then mode (chown clears set-user-id), then extended attributes (chown clears capabilities).
    static func setAttributes(of descriptor: Int32, _ entry: TarEntry) throws {
        if fchown(descriptor, entry.uid, entry.gid) < 0 { throw SnapshotError("set owner", "", code: errno) }
        if fchmod(descriptor, entry.mode) < 0 { throw SnapshotError("set mode", "", code: errno) }
        for attribute in entry.attributes where isAllowed(attribute.name) {
            let result = ctr_fsetxattr(descriptor, Name(attribute.name).chars, attribute.value, attribute.value.count)
            if result == -EOPNOTSUPP && attribute.name != capability { continue }
            if result < 0 { throw SnapshotError("set attribute", printable(attribute.name), code: -result) }
        }
    }

    /// Everything that a layer's directory takes over from the one below it.
    static func copyAttributes(of status: stat, from source: OpenDirectory, to target: OpenDirectory) throws {
        try copyAttributes(of: status, from: source.raw, to: target.raw)
    }

    static func copyAttributes(of status: stat, from source: Int32, to target: Int32) throws {
        if fchown(target, status.st_uid, status.st_gid) < 0 { throw SnapshotError("set owner", "", code: errno) }
        if fchmod(target, status.st_mode & 0o7777) < 0 { throw SnapshotError("set mode", "", code: errno) }
        var list = [CChar](repeating: 0, count: 65536)
        let length = ctr_flistxattr(source, &list, list.count)
        guard length > 0 else { return }
        for name in list.prefix(length).split(separator: 0).map({ Name($0.map { UInt8(bitPattern: $0) }) }) where isAllowed(name.bytes) {
            var value = [UInt8](repeating: 0, count: 65536)
            let size = ctr_fgetxattr(source, name.chars, &value, value.count)
            if size < 0 { throw SnapshotError("read attribute", "\(name)", code: Int32(-size)) }
            let result = ctr_fsetxattr(target, name.chars, value, size)
            if result < 0 { throw SnapshotError("set attribute", "\(name)", code: -result) }
        }
    }

    static func setTimes(_ descriptor: Int32, _ modified: timespec) throws {
        if futimens(descriptor, [modified, modified]) < 0 { throw SnapshotError("set times", "", code: errno) }
    }

    private static let capability = Array("security.capability".utf8)
    private static let user = Array("user.".utf8)
    /// overlayfs reads these from unprivileged mounts.
    private static let userOverlay = Array("user.overlay.".utf8)

    /// Attributes that an image may set. Not among them: trusted.overlay.*, which would let a layer redirect lookups, and labels of the
    /// host's policy.
    static func isAllowed(_ name: [UInt8]) -> Bool {
        name == capability || (name.starts(with: user) && !name.starts(with: userOverlay))
    }
}

extension timespec {
    init(_ time: TarTime) { self.init(tv_sec: Int(time.seconds), tv_nsec: Int(time.nanoseconds)) }
}
