import CLinux
import Content
import Glibc
import Linux
import OCI

/// A layer that is being unpacked, in `ingest/`; removed again unless it is published. One thread at a time.
public final class LayerIngest {
    public let chain: Digest
    private let store: SnapshotStore
    let name: Name
    let tree: OpenDirectory
    fileprivate(set) var published = false

    init(store: SnapshotStore, chain: Digest) throws {
        self.chain = chain
        self.store = store
        let name = Name(try randomName())
        self.name = name
        let ingest = store.ingestDirectory
        guard mkdirat(ingest.raw, name.chars, 0o700) == 0 else { throw SnapshotError("create directory", "\(name)", code: errno) }
        do {
            guard let layer = try ingest.directory(name), mkdirat(layer.raw, "fs", 0o755) == 0, let tree = try layer.directory(Name("fs"))
            else {
                throw SnapshotError("create directory", "\(name)/fs", code: errno)
            }
            if fchmod(tree.raw, 0o755) < 0 { throw SnapshotError("set mode", "\(name)/fs", code: errno) }
            self.tree = tree
        } catch {
            try? ingest.remove(name)
            throw error
        }
    }

    deinit {
        // What cannot be removed now is removed by the next start.
        if !published { try? store.ingestDirectory.remove(name) }
    }

    func publish() throws -> Bool {
        let result = ctr_rename(store.ingestDirectory.raw, name.chars, store.layersDirectory.raw, chain.hex, false)
        if result == -EEXIST || result == -ENOTEMPTY { return false }
        if result < 0 { throw SnapshotError("publish layer", "\(chain)", code: -result) }
        published = true
        return true
    }
}

extension SnapshotStore {
    /// A layer below another: one that is published, or one that waits to be.
    public enum Below {
        case layer(Digest)
        case pending(LayerIngest)
    }

    /// Unpacks an uncompressed tar as the layer `chain` on top of `below` (bottom first). The stream is read to its end. The layer
    /// is neither durable nor visible before ``publish(_:)``.
    public func unpack(_ tar: any ByteSource, chain: Digest, below: [Below]) throws -> LayerIngest {
        let lower: [OpenDirectory] = try below.reversed().map { each in
            switch each {
            case .pending(let ingest): return ingest.tree
            case .layer(let digest):
                guard let part = try view([digest]).root.parts.first else { throw SnapshotError("open layer", "\(digest)", code: ENOENT) }
                return part
            }
        }
        let ingest = try LayerIngest(store: self, chain: chain)
        try LayerWriter(root: ingest.tree, lower: lower).apply(TarReader(tar))
        return ingest
    }

    /// syncfs(2) on the file system of the store.
    public func syncAll() throws {
        try checked { try check("sync", "snapshots", ctr_syncfs(layersDirectory.raw)) }
    }

    /// The file system, as fstat(2) numbers it.
    public var device: UInt64 { (try? layersDirectory.status()).map { UInt64($0.st_dev) } ?? 0 }

    /// Makes synced layers visible, all with one sync of the directory. One that is there already stays as it is. On an error those that
    /// this call made visible are taken back.
    public func publish(_ ingests: [LayerIngest]) throws {
        var made: [Digest] = []
        do {
            for ingest in ingests where try ingest.publish() { made.append(ingest.chain) }
            if !made.isEmpty { try checked { try checkErrno("fsync", "layers", fsync(layersDirectory.raw)) } }
        } catch {
            for chain in made { try? removeLayer(chain) }
            throw error
        }
    }
}
