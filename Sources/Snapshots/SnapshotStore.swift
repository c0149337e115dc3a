import CLinux
import Content
import Glibc
import Linux
import OCI

/// One mount that makes part of a root file system, in the form of mount(8)'s options.
public struct SnapshotMount: Equatable, Sendable {
    public let type: String
    public let source: String
    public let options: [String]

    public init(type: String, source: String, options: [String]) {
        self.type = type
        self.source = source
        self.options = options
    }
}

/// Unpacked layers, `layers/<chain hex>/fs`, and what containers write, `containers/<namespace>/<id>/{upper,work}`.
public struct SnapshotStore: Sendable {
    private let root: String
    let layersDirectory: OpenDirectory
    let ingestDirectory: OpenDirectory
    private let containersDirectory: OpenDirectory

    /// Opens the store at `root`, making its directories (0700) where they are missing. The path must be one that can stand in options of
    /// a mount.
    public init(root: String) throws {
        guard root.hasPrefix("/"), !root.utf8.contains(where: { ":,\\\n".utf8.contains($0) || $0 < 0x20 }) else {
            throw SnapshotError(.malformed, "open snapshots", root, "the path must be absolute and without ':', ',' and '\\'")
        }
        self.root = root
        func directory(_ name: String) throws -> OpenDirectory {
            try checked {
                try makeDirectory(root + name, mode: 0o700)
                return OpenDirectory(try Linux.open(root + name, O_RDONLY | O_DIRECTORY))
            }
        }
        _ = try directory("")
        layersDirectory = try directory("/layers")
        ingestDirectory = try directory("/ingest")
        containersDirectory = try directory("/containers")
    }

    // MARK: Layers

    public func hasLayer(_ chain: Digest) -> Bool { faccessat(layersDirectory.raw, chain.hex, F_OK, 0) == 0 }

    /// All unpacked layers, in no order.
    public func layers() throws -> [Digest] {
        try layersDirectory.names().compactMap { Digest(hex: String(decoding: $0.bytes, as: UTF8.self)) }
    }

    /// Removes an unpacked layer; one that is not there is no error. Nothing that a container is mounted from may be removed: the caller
    /// knows.
    public func removeLayer(_ chain: Digest) throws { try discard(Name(chain.hex), in: layersDirectory) }

    /// The layers as one tree for reading; `chain` is bottom first.
    public func view(_ chain: [Digest]) throws -> LayerView {
        LayerView(
            try chain.reversed().map { digest in
                guard let layer = try layersDirectory.directory(Name(digest.hex)), let tree = try layer.directory(Name("fs")) else {
                    throw SnapshotError(.notFound, "open layer", "\(digest)", "it is not unpacked")
                }
                return tree
            })
    }

    // MARK: Containers

    /// Makes a container's directories; done twice it changes nothing. The root directory gets the attributes of the topmost layer's,
    /// since overlayfs shows those of the upper one.
    public func prepare(namespace: String, id: String, chain: [Digest] = []) throws {
        let path = try containerPath(namespace, id)
        if access(path + "/work", F_OK) == 0 { return }
        try checked {
            try makeDirectory(root + "/containers/" + namespace, mode: 0o700)
            try makeDirectory(path, mode: 0o700)
            try makeDirectory(path + "/upper", mode: 0o755)
        }
        if !chain.isEmpty, let model = try view(chain.suffix(1)).root.parts.first {
            let upper = OpenDirectory(try checked { try Linux.open(path + "/upper", O_RDONLY | O_DIRECTORY | O_NOFOLLOW) })
            try LayerWriter.copyAttributes(of: model.status(), from: model, to: upper)
        }
        // Last: who finds it knows that all is there.
        try checked { try makeDirectory(path + "/work", mode: 0o700) }
    }

    /// What to mount for a prepared container. `chain` is bottom first. With `volatile` nothing is synced, for containers that end with
    /// their process.
    public func mounts(namespace: String, id: String, chain: [Digest], volatile: Bool) throws -> [SnapshotMount] {
        let path = try containerPath(namespace, id)
        guard access(path + "/work", F_OK) == 0 else {
            throw SnapshotError(.notFound, "mount container", id, "its directories are missing")
        }
        guard !chain.isEmpty else { return [SnapshotMount(type: "bind", source: path + "/upper", options: ["rbind", "rw"])] }
        for digest in chain where !hasLayer(digest) {
            throw SnapshotError(.notFound, "mount container", id, "layer \(digest) is not unpacked")
        }
        // A volatile mount leaves this mark, and overlayfs refuses the directory from then on, since a crash of the host may have damaged
        // what it holds. Volatile is only what ends with the host; so after such a crash nobody asks again.
        if access(path + "/work/work/incompat", F_OK) == 0 {
            try OpenDirectory(checked { try Linux.open(path + "/work", O_RDONLY | O_DIRECTORY | O_NOFOLLOW) }).remove(Name("work"))
        }
        let lower = chain.reversed().map { root + "/layers/" + $0.hex + "/fs" }.joined(separator: ":")
        var options = ["lowerdir=" + lower, "upperdir=" + path + "/upper", "workdir=" + path + "/work"]
        if volatile { options.append("volatile") }
        return [SnapshotMount(type: "overlay", source: "overlay", options: options)]
    }

    /// Removes what a container has written; not there is no error. It must not be mounted any more.
    public func remove(namespace: String, id: String) throws {
        _ = try containerPath(namespace, id)
        guard let directory = try containersDirectory.directory(Name(namespace)) else { return }
        try discard(Name(id), in: directory)
    }

    /// All containers that have directories.
    public func containers() throws -> [(namespace: String, id: String)] {
        var found: [(namespace: String, id: String)] = []
        for namespace in try containersDirectory.names() {
            guard let directory = try containersDirectory.directory(namespace) else { continue }
            for id in try directory.names() {
                found.append((String(decoding: namespace.bytes, as: UTF8.self), String(decoding: id.bytes, as: UTF8.self)))
            }
        }
        return found
    }

    /// Removes what a dead manager left in `ingest/`: incomplete layers, and trees whose removal had begun. Only for the start.
    public func cleanIngest() throws {
        for name in try ingestDirectory.names() { try ingestDirectory.remove(name) }
    }

    /// Takes a tree out of sight in one step, then removes it: after a crash it is either whole, or in `ingest/`.
    private func discard(_ name: Name, in directory: OpenDirectory) throws {
        let trash = Name(try randomName())
        let result = ctr_rename(directory.raw, name.chars, ingestDirectory.raw, trash.chars, false)
        if result == -ENOENT { return }
        if result < 0 { throw SnapshotError("remove snapshot", "\(name)", code: -result) }
        try ingestDirectory.remove(trash)
    }

    private func containerPath(_ namespace: String, _ id: String) throws -> String {
        for name in [namespace, id] {
            guard let first = name.utf8.first, first != UInt8(ascii: "."), name.utf8.count <= 255,
                !name.utf8.contains(where: { "/:,\\".utf8.contains($0) || $0 < 0x21 || $0 == 0x7f })
            else { throw SnapshotError(.malformed, "find container", printable(name.utf8), "it is no name") }
        }
        return root + "/containers/" + namespace + "/" + id
    }
}
