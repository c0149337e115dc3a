import CLinux
import Glibc

/// A tree that somebody hostile may own, such as a container's root file system, reached only through a directory descriptor.
///
/// Every path is resolved once, by the kernel, below the root (openat2(2) with RESOLVE_IN_ROOT and RESOLVE_NO_MAGICLINKS): absolute links
/// and `..` end at the root,
/// never outside. What comes back is a descriptor, and everything else happens on it; no path is resolved twice, and none is ever joined
/// to a path of the host.
public struct RootFS: ~Copyable, Sendable {
    /// The root directory, opened with O_PATH or for reading.
    public let root: Descriptor

    private static let inRoot = UInt64(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    private static let beneath = UInt64(RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS)
    /// Longest path and name, in bytes (PATH_MAX, NAME_MAX).
    public static let pathLimit = 4096
    public static let nameLimit = 255

    /// Takes over `root`, a directory: of a detached mount, a layer, or a bundle's rootfs.
    public init(_ root: consuming Descriptor) { self.root = root }

    /// Opens a directory of the host, by a path of the engine's own.
    public init(path: String) throws(SysError) {
        self.init(try Linux.open(path, CTR_O_PATH | O_DIRECTORY))
    }

    /// Opens what `path` names; its last component is followed unless `flags` say O_NOFOLLOW. Devices and FIFOs are opened without
    /// waiting when `flags` say O_NONBLOCK. Close-on-exec.
    public func open(_ path: String, _ flags: Int32, mode: UInt32 = 0) throws(SysError) -> Descriptor {
        // openat2 refuses a mode where nothing can be created.
        let creates = flags & O_CREAT != 0 || flags & CTR_O_TMPFILE == CTR_O_TMPFILE
        return Descriptor(
            owning: try Self.retrying("open", path) {
                ctr_openat2(root.raw, Self.relative(path), UInt64(flags | O_CLOEXEC), creates ? UInt64(mode) : 0, Self.inRoot)
            })
    }

    /// The directory that holds the last component of `path`, and that component: what creates, links and removes work on. `..` and an
    /// empty
    /// path have none and fail with EINVAL.
    public func parent(of path: String) throws(SysError) -> Location {
        let (directory, name) = try Self.split(path)
        return Location(directory: try open(directory, CTR_O_PATH | O_DIRECTORY), name: name)
    }

    /// A name in a directory that is held open: the target of calls such as mkdirat(2), linkat(2) and unlinkat(2).
    public struct Location: ~Copyable, Sendable {
        public let directory: Descriptor
        public let name: String
    }

    /// The directory `path`, made with all that is missing of it. New directories belong to root and get exactly `mode`. A component that
    /// is a dangling link or no directory
    /// fails with ENOTDIR or ENOENT: nothing is ever made through it.
    public func makeDirectories(_ path: String, mode: mode_t = 0o755) throws(SysError) -> Descriptor {
        do {
            return try open(path, CTR_O_PATH | O_DIRECTORY)
        } catch {
            guard error.code == ENOENT else { throw error }
        }
        var directory = try open("/", CTR_O_PATH | O_DIRECTORY)
        var prefix = ""
        for component in path.split(separator: "/") where component != "." {
            let name = String(component)
            prefix += "/" + name
            do {
                directory = try open(prefix, CTR_O_PATH | O_DIRECTORY)
            } catch {
                guard error.code == ENOENT, name != ".." else { throw error }
                try checkErrno("create directory", prefix, mkdirat(directory.raw, name, 0o700))
                directory = try Self.openBeneath(directory.raw, name, CTR_O_PATH | O_DIRECTORY)
                try checkErrno("set mode of", prefix, fchmodat(directory.raw, ".", mode, 0))
            }
        }
        return directory
    }

    /// A mount point for something that is no directory: the existing file, or a new empty one (0644) in directories made as needed.
    /// O_PATH.
    public func makeFile(_ path: String) throws(SysError) -> Descriptor {
        do {
            return try open(path, CTR_O_PATH)
        } catch {
            guard error.code == ENOENT else { throw error }
        }
        let (directory, name) = try Self.split(path)
        let parent = try makeDirectories(directory)
        let made = ctr_openat(parent.raw, name, O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC | O_WRONLY, 0o644)
        _ = Descriptor(owning: try check("create", path, made))
        return try Self.openBeneath(parent.raw, name, CTR_O_PATH | O_NOFOLLOW)
    }

    /// The bytes of a regular file of at most `limit` bytes. Anything else than a regular file fails with EINVAL without being waited for.
    public func readFile(_ path: String, limit: Int) throws(SysError) -> [UInt8] {
        let file = try open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY)
        var status = stat()
        try checkErrno("stat", path, fstat(file.raw, &status))
        guard ctr_s_isreg(status.st_mode) else { throw SysError("read", path, code: EINVAL) }
        if status.st_size > limit { throw SysError("read", path, code: EFBIG) }
        return try readAll(file.raw, name: path, limit: limit)
    }

    /// fstatat(2) of what `path` names; links in the last place are followed unless `noFollow`.
    public func status(_ path: String, noFollow: Bool = false) throws(SysError) -> stat {
        let file = try open(path, CTR_O_PATH | (noFollow ? O_NOFOLLOW : 0))
        var status = stat()
        try checkErrno("stat", path, fstat(file.raw, &status))
        return status
    }

    /// Opens `name`, one component, in `directory`, without following it when it is a link (ELOOP, or the link itself with O_PATH |
    /// O_NOFOLLOW).
    public static func openBeneath(_ directory: Int32, _ name: String, _ flags: Int32, mode: UInt32 = 0) throws(SysError) -> Descriptor {
        Descriptor(
            owning: try retrying("open", name) {
                ctr_openat2(directory, name, UInt64(flags | O_CLOEXEC), flags & O_CREAT != 0 ? UInt64(mode) : 0, beneath)
            })
    }

    /// Removes `name` in `directory` and everything below it, following nothing. Not there: no error. Names are bytes, whatever they spell.
    /// A level costs one descriptor; a tree deeper than `depth` fails with ELOOP.
    public static func removeTree(_ directory: Int32, _ name: String, depth: Int = 2048) throws(SysError) {
        try removeTree(directory, Array(name.utf8CString), depth: depth)
    }

    private static func removeTree(_ directory: Int32, _ name: [CChar], depth: Int) throws(SysError) {
        var shown: String { String(decoding: name.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self) }
        if unlinkat(directory, name, 0) == 0 || errno == ENOENT { return }
        guard errno == EISDIR || errno == EPERM else { throw SysError("remove", shown, code: errno) }
        if depth == 0 { throw SysError("remove", shown, code: ELOOP) }
        if unlinkat(directory, name, AT_REMOVEDIR) == 0 || errno == ENOENT { return }
        guard errno == ENOTEMPTY || errno == EEXIST else { throw SysError("remove", shown, code: errno) }
        let opened = ctr_openat2(directory, name, UInt64(O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), 0, beneath)
        let child = Descriptor(owning: try check("open", shown, opened))
        for entry in try rawEntries(of: child.raw) { try removeTree(child.raw, entry, depth: depth - 1) }
        if unlinkat(directory, name, AT_REMOVEDIR) < 0 && errno != ENOENT { throw SysError("remove", shown, code: errno) }
    }

    /// The names in an open directory, without `.` and `..`, in the order of the file system; bytes that are no UTF-8 are replaced, so
    /// this is for directories of the
    /// engine's own. The descriptor stays the caller's.
    public static func entries(of directory: Int32) throws(SysError) -> [String] {
        try rawEntries(of: directory).map { String(decoding: $0.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self) }
    }

    /// The same as bytes, each with its final zero.
    private static func rawEntries(of directory: Int32) throws(SysError) -> [[CChar]] {
        let copy = try check("open directory", "", ctr_openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0))
        guard let stream = fdopendir(copy) else {
            let failure = errno
            close(copy)
            throw SysError("read directory", "", code: failure)
        }
        defer { closedir(stream) }
        var names: [[CChar]] = []
        while true {
            errno = 0
            guard let entry = readdir(stream) else {
                if errno != 0 { throw SysError("read directory", "", code: errno) }
                return names
            }
            let name = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
                pointer.withMemoryRebound(to: CChar.self, capacity: Self.nameLimit + 1) {
                    Array(UnsafeBufferPointer(start: $0, count: strlen($0) + 1))
                }
            }
            if strcmp(name, ".") != 0 && strcmp(name, "..") != 0 { names.append(name) }
        }
    }

    /// "a/b/" → ("a", "b"). The name is one that can be created: not empty, not `.` or `..`, at most ``nameLimit`` bytes.
    public static func split(_ path: String) throws(SysError) -> (directory: String, name: String) {
        guard path.utf8.count < pathLimit else { throw SysError("resolve", String(path.prefix(64)) + "…", code: ENAMETOOLONG) }
        let components = path.split(separator: "/", omittingEmptySubsequences: true)
        guard let last = components.last, last != ".", last != ".." else { throw SysError("resolve", path, code: EINVAL) }
        guard last.utf8.count <= nameLimit else { throw SysError("resolve", String(path.prefix(64)) + "…", code: ENAMETOOLONG) }
        return ("/" + components.dropLast().joined(separator: "/"), String(last))
    }

    private static func relative(_ path: String) -> String { path.isEmpty ? "." : path }

    /// openat2 answers EAGAIN when a rename raced with `..`: the kernel asks for another try. Bounded.
    private static func retrying(_ operation: String, _ path: String, _ call: () -> Int32) throws(SysError) -> Int32 {
        var result = call()
        var tries = 0
        while result == -EAGAIN && tries < 128 {
            result = call()
            tries += 1
        }
        return try check(operation, path, result)
    }
}
