import CLinux
import Glibc
import Content
import Linux

extension OpenDirectory {
    /// Levels that are held open at once; what lies deeper is first moved up.
    private static let depthLimit = 64

    /// Removes `name` and everything below it, following nothing; not there is no error. Any depth, any number of files, and names of any
    /// bytes: containers make them all.
    func remove(_ name: Name) throws {
        try remove(name, top: nil, depth: 0)
    }

    private func remove(_ name: Name, top: OpenDirectory?, depth: Int) throws {
        if unlinkat(raw, name.chars, 0) == 0 || errno == ENOENT { return }
        guard errno == EISDIR || errno == EPERM else { throw SnapshotError("remove", name.description, code: errno) }
        if unlinkat(raw, name.chars, AT_REMOVEDIR) == 0 || errno == ENOENT { return }
        guard errno == ENOTEMPTY || errno == EEXIST else { throw SnapshotError("remove", name.description, code: errno) }
        if let top, depth >= Self.depthLimit {
            let unique = Name(try randomName())
            let result = ctr_rename(raw, name.chars, top.raw, unique.chars, false)
            if result < 0 { throw SnapshotError("remove", name.description, code: -result) }
            return
        }
        guard let child = try directory(name) else { return }
        // In portions from the beginning: memory stays bounded, and what was moved up meanwhile is found too.
        while case let names = try child.names(limit: 1024), !names.isEmpty {
            for each in names { try child.remove(each, top: top ?? child, depth: depth + 1) }
        }
        if unlinkat(raw, name.chars, AT_REMOVEDIR) < 0 && errno != ENOENT {
            throw SnapshotError("remove", name.description, code: errno)
        }
    }
}
