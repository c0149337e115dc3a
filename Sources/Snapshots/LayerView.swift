import CLinux
import Content
import Glibc
import Linux

/// Unpacked layers seen as one tree, the way overlayfs shows them, without a mount. Layers never change, so there is nothing to race with.
public struct LayerView: Sendable {
    /// A directory of the whole: what layers have of it, top first.
    struct Directory: Sendable {
        let parts: [OpenDirectory]

        enum Node {
            case absent
            case directory(Directory)
            /// Not a directory; `holder` is the layer's directory that has it.
            case other(holder: OpenDirectory, status: stat)
        }

        func lookup(_ name: Name) throws -> Node {
            var found: [OpenDirectory] = []
            for part in parts {
                guard let status = try part.status(name) else { continue }
                if status.isWhiteout { break }
                guard status.isDirectory else {
                    if found.isEmpty { return .other(holder: part, status: status) }
                    break
                }
                guard let directory = try part.directory(name) else { continue }
                found.append(directory)
                if directory.isOpaque { break }
            }
            return found.isEmpty ? .absent : .directory(Directory(parts: found))
        }
    }

    let root: Directory

    /// Links that one path may contain (path_resolution(7) allows as many).
    static let linkLimit = 40

    /// `layers` are top first.
    init(_ layers: [OpenDirectory]) { root = Directory(parts: layers) }

    /// What `path` names, links followed below the root; `absent` also for what cannot be reached.
    func resolve(_ path: String) throws -> (node: Directory.Node, name: Name) {
        var stack = [root]
        var rest = Self.components(Array(path.utf8))
        var links = 0
        while let component = rest.popLast() {
            if component == [0x2e] { continue }
            if component == [0x2e, 0x2e] {
                if stack.count > 1 { stack.removeLast() }
                continue
            }
            let name = Name(component)
            guard let directory = stack.last else { return (.absent, name) }
            let node = try directory.lookup(name)
            switch node {
            case .absent: return (.absent, name)
            case .directory(let child): stack.append(child)
            case .other(let holder, let status):
                guard status.isLink else { return (rest.isEmpty ? node : .absent, name) }
                links += 1
                guard links <= Self.linkLimit else { throw SnapshotError("resolve", path, code: ELOOP) }
                let target = try holder.link(name)
                if target.first == UInt8(ascii: "/") { stack = [root] }
                rest += Self.components(target)
            }
        }
        return (.directory(stack[stack.count - 1]), Name("."))
    }

    /// Components in reverse order, to be taken from the end.
    static func components(_ path: [UInt8]) -> [[UInt8]] {
        path.split(separator: UInt8(ascii: "/")).reversed().map { Array($0) }
    }

    /// A regular file of at most `limit` bytes; nil when there is nothing of that name. Devices, FIFOs and directories are refused without
    /// being opened.
    public func readFile(_ path: String, limit: Int) throws -> [UInt8]? {
        let (node, name) = try resolve(path)
        guard case .other(let holder, let status) = node else {
            if case .absent = node { return nil }
            throw SnapshotError(.malformed, "read", path, "it is a directory")
        }
        guard status.isRegular else { throw SnapshotError(.malformed, "read", path, "it is no regular file") }
        guard status.st_size <= limit else {
            throw SnapshotError(.malformed, "read", path, "it is larger than \(limit) bytes")
        }
        let raw = ctr_openat(holder.raw, name.chars, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0)
        if raw < 0 { throw SnapshotError("open", path, code: -raw) }
        let file = Descriptor(owning: raw)
        return try checked { try readAll(file.raw, name: path, limit: limit) }
    }
}
