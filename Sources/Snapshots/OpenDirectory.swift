import CLinux
import Content
import Glibc
import Linux

/// A directory that is held open and shared. Below it, names are single components in bytes and are never followed: so nothing that a layer
/// contains can lead out of it, and names that are no UTF-8 stay as they are.
final class OpenDirectory: Sendable {
    private let descriptor: Descriptor

    init(_ descriptor: consuming Descriptor) { self.descriptor = descriptor }

    var raw: Int32 { descriptor.raw }

    /// The directory `name`; nil when there is none. A link or another file is `ENOTDIR` or `ELOOP`.
    func directory(_ name: Name) throws -> OpenDirectory? {
        let result = ctr_openat(raw, name.chars, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0)
        if result == -ENOENT { return nil }
        if result < 0 { throw SnapshotError("open directory", name.description, code: -result) }
        return OpenDirectory(Descriptor(owning: result))
    }

    /// What `name` is, links not followed; nil when it is not there.
    func status(_ name: Name) throws -> stat? {
        var status = stat()
        if fstatat(raw, name.chars, &status, AT_SYMLINK_NOFOLLOW) == 0 { return status }
        if errno == ENOENT { return nil }
        throw SnapshotError("stat", name.description, code: errno)
    }

    func status() throws -> stat {
        var status = stat()
        if fstat(raw, &status) < 0 { throw SnapshotError("stat directory", "", code: errno) }
        return status
    }

    /// Where the link `name` points, as it was stored.
    func link(_ name: Name) throws -> [UInt8] {
        var buffer = [CChar](repeating: 0, count: TreePath.byteLimit)
        let length = readlinkat(raw, name.chars, &buffer, buffer.count)
        if length < 0 { throw SnapshotError("read link", name.description, code: errno) }
        return buffer.prefix(length).map { UInt8(bitPattern: $0) }
    }

    /// At most `limit` names, without `.` and `..`, from the beginning of the directory.
    func names(limit: Int = .max) throws -> [Name] {
        let copy = ctr_openat(raw, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0)
        guard copy >= 0, let stream = fdopendir(copy) else {
            let code = copy < 0 ? -copy : errno
            if copy >= 0 { close(copy) }
            throw SnapshotError("read directory", "", code: code)
        }
        defer { closedir(stream) }
        var names: [Name] = []
        while names.count < limit {
            errno = 0
            guard let entry = readdir(stream) else {
                if errno != 0 { throw SnapshotError("read directory", "", code: errno) }
                break
            }
            let bytes = withUnsafeBytes(of: &entry.pointee.d_name) { Array($0.prefix { $0 != 0 }) }
            if bytes != [0x2e] && bytes != [0x2e, 0x2e] { names.append(Name(bytes)) }
        }
        return names
    }

    /// Whether overlayfs shows nothing of lower layers through this directory.
    var isOpaque: Bool {
        var value: UInt8 = 0
        return ctr_fgetxattr(raw, "trusted.overlay.opaque", &value, 1) == 1 && value == UInt8(ascii: "y")
    }

    func makeOpaque() throws {
        let result = ctr_fsetxattr(raw, "trusted.overlay.opaque", "y", 1)
        if result < 0 { throw SnapshotError("mark directory opaque", "", code: -result) }
    }
}

/// One component of a path, ready for system calls.
struct Name: Hashable, CustomStringConvertible {
    let bytes: [UInt8]
    let chars: [CChar]

    /// `bytes` contains neither NUL nor `/`.
    init(_ bytes: [UInt8]) {
        self.bytes = bytes
        var chars: [CChar] = []
        chars.reserveCapacity(bytes.count + 1)
        for byte in bytes { chars.append(CChar(bitPattern: byte)) }
        chars.append(0)
        self.chars = chars
    }

    init(_ text: String) { self.init(Array(text.utf8)) }

    static func == (left: Name, right: Name) -> Bool { left.bytes == right.bytes }
    func hash(into hasher: inout Hasher) { hasher.combine(bytes) }
    var description: String { printable(bytes) }
}

extension stat {
    var isDirectory: Bool { st_mode & S_IFMT == S_IFDIR }
    var isRegular: Bool { st_mode & S_IFMT == S_IFREG }
    var isLink: Bool { st_mode & S_IFMT == S_IFLNK }
    /// overlayfs' mark for "not there, whatever lower layers have".
    var isWhiteout: Bool { st_mode & S_IFMT == S_IFCHR && st_rdev == 0 }
}
