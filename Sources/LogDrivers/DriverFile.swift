import CLinux
import Glibc
import Linux

/// The file that a driver appends to. Its owner keeps a record of how long it is; what lies behind that is cut off before more is written, so
/// that nothing is in it twice.
final class DriverFile {
    let path: String
    private let directory: String
    private let name: String
    /// `.1`, `.2` and so on; else a date, as the kubelet names them.
    private let numbered: Bool
    private let maxFile: UInt32
    private var file: Int32 = -1
    private(set) var inode: UInt64 = 0

    init(path: String, numbered: Bool, maxFile: UInt32) {
        self.path = path
        self.numbered = numbered
        self.maxFile = max(maxFile, 1)
        let slash = path.lastIndex(of: "/") ?? path.startIndex
        directory = slash == path.startIndex ? "/" : String(path[..<slash])
        name = String(path[path.index(after: slash)...])
    }

    deinit { close() }

    private var isOpen: Bool { file >= 0 }

    private func close() {
        if isOpen { Glibc.close(file) }
        file = -1
    }

    /// Whether the file under the name is not the one that is open: somebody moved or removed it.
    var wasMoved: Bool {
        guard isOpen else { return true }
        var status = stat()
        return lstat(path, &status) != 0 || UInt64(status.st_ino) != inode
    }

    /// Opens the file under the name, which is `known` with `size` bytes when a record says so. Returns its length now.
    /// A known file that was renamed is found in its directory, and loses what was written to it and not recorded.
    func open(known: UInt64, size: UInt64) throws(SysError) -> UInt64 {
        close()
        let opened = try Linux.open(path, O_RDWR | O_CREAT | O_APPEND | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, mode: 0o640)
        var status = stat()
        try checkErrno("open", path, fstat(opened.raw, &status))
        guard status.st_mode & S_IFMT == S_IFREG else { throw SysError("open", path, code: EINVAL) }
        try check("lock", path, ctr_ofd_lock(opened.raw, false))
        inode = UInt64(status.st_ino)
        var length = UInt64(clamping: status.st_size)
        if inode == known {
            if length > size {
                try checkErrno("cut", path, ftruncate(opened.raw, off_t(clamping: size)))
                length = size
            }
        } else if known != 0 {
            try cutRenamed(known, size)
        }
        file = opened.release()
        return length
    }

    private func cutRenamed(_ known: UInt64, _ size: UInt64) throws(SysError) {
        let parent = try Linux.open(directory, O_RDONLY | O_DIRECTORY)
        for entry in try RootFS.entries(of: parent.raw) where entry.hasPrefix(name) && entry != name {
            var status = stat()
            guard fstatat(parent.raw, entry, &status, AT_SYMLINK_NOFOLLOW) == 0, UInt64(status.st_ino) == known,
                UInt64(clamping: status.st_size) > size
            else { continue }
            let renamed = try Linux.open(entry, O_WRONLY | O_NOFOLLOW | O_NONBLOCK, at: parent.raw)
            try checkErrno("cut", entry, ftruncate(renamed.raw, off_t(clamping: size)))
        }
    }

    /// Appends all of `bytes` or nothing. Returns the file's length then.
    func append(_ bytes: [UInt8]) throws(SysError) -> UInt64 {
        guard isOpen else { throw SysError("write", path, code: EBADF) }
        let raw = file
        let before = try checkErrno("measure", path, lseek(raw, 0, SEEK_END))
        do throws(SysError) { try writeAll(raw, bytes, name: path) } catch {
            ftruncate(raw, before)
            throw error
        }
        return UInt64(before) + UInt64(bytes.count)
    }

    // MARK: rotation

    /// Begins a new file; the old ones move on, and the oldest goes. Cut anywhere, it may be done again: a place that is free already is where
    /// the moving ends. With one file only, that is emptied by the caller (``truncate()``).
    func rotate() throws(SysError) {
        close()
        if numbered { try shift() } else { try rename() }
        inode = 0
    }

    var keepsOld: Bool { maxFile > 1 }

    func truncate() throws(SysError) {
        try checkErrno("cut", path, ftruncate(file, 0))
    }

    private func exists(_ path: String) -> Bool {
        var status = stat()
        return lstat(path, &status) == 0
    }

    private func shift() throws(SysError) {
        var free = 1
        while free < Int(maxFile) - 1 && exists("\(path).\(free)") { free += 1 }
        for number in stride(from: free, to: 1, by: -1) where exists("\(path).\(number - 1)") {
            try checkErrno("rename", "\(path).\(number - 1)", Glibc.rename("\(path).\(number - 1)", "\(path).\(number)"))
        }
        try checkErrno("rename", path, Glibc.rename(path, "\(path).1"))
    }

    /// The date is that of now, or of the first second that is later than every old file's.
    private func rename() throws(SysError) {
        let parent = try Linux.open(directory, O_RDONLY | O_DIRECTORY)
        let old = try RootFS.entries(of: parent.raw).filter { isStamped($0) }.sorted()
        var seconds = now(CLOCK_REALTIME) / 1_000_000_000
        while let last = old.last, "\(name).\(Self.stamp(seconds))" <= last { seconds += 1 }
        let renamed = "\(path).\(Self.stamp(seconds))"
        try check("rename", path, ctr_rename(AT_FDCWD, path, AT_FDCWD, renamed, false))
        for entry in old.dropLast(Int(maxFile) - 2) { unlinkat(parent.raw, entry, 0) }
    }

    /// 2026-11-24T10:11:12Z as 20261124-101112.
    private static func stamp(_ seconds: Int64) -> String {
        var text: [UInt8] = []
        LineFormat.time(seconds * 1_000_000_000, to: &text)
        let digits = text.filter { $0 != 0x2d && $0 != 0x3a && $0 != 0x5a }
        return String(decoding: digits.map { $0 == 0x54 ? 0x2d : $0 }, as: UTF8.self)
    }

    private func isStamped(_ entry: String) -> Bool {
        guard entry.hasPrefix(name + ".") else { return false }
        let stamp = Array(entry.utf8.dropFirst(name.utf8.count + 1))
        return stamp.count == 15 && stamp[8] == 0x2d
            && stamp.enumerated().allSatisfy { $0.offset == 8 || (0x30...0x39).contains($0.element) }
    }
}
