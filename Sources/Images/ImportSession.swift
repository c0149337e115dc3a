import Content
import Glibc
import Linux
import OCI
import Snapshots

/// One image that an archive or a layout offers.
struct ImportCandidate {
    let manifest: ContentDescriptor
    var names: [Reference]
}

/// Where blobs come from that are neither stored nor spooled yet.
protocol BlobProvider {
    /// A new, verified ingest; nil when the source has no such blob.
    func fetch(_ descriptor: ContentDescriptor, into content: ContentStore) throws -> Ingest?
}

/// One import from beginning to end. What it has written stays invisible until ``commit()``, and vanishes with it otherwise.
final class ImportSession {
    let content: ContentStore
    private let snapshots: SnapshotStore
    private var provider: (any BlobProvider)?
    /// Verified, not yet published.
    private var blobs: [Digest: Ingest] = [:]
    private var used: [Digest] = []
    private var layers: [(chain: Digest, ingest: LayerIngest)] = []

    init(content: ContentStore, snapshots: SnapshotStore) {
        self.content = content
        self.snapshots = snapshots
    }

    /// Looks at what lies at `path` and lists its images.
    func candidates(path: String) throws -> [ImportCandidate] {
        let source = try Linux.open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY)
        var status = stat()
        try checkErrno("stat", path, fstat(source.raw, &status))
        switch status.st_mode & S_IFMT {
        case S_IFDIR:
            let layout = LayoutDirectory(RootFS(source))
            provider = layout
            return try LayoutIndex(session: self).candidates(index: layout.index())
        case S_IFREG:
            let archive = try ImageArchive(source.raw, name: path, content: content)
            for (digest, ingest) in try archive.takeBlobs() { add(ingest, digest) }
            if let index = try archive.layoutIndex() { return try LayoutIndex(session: self).candidates(index: index) }
            return try DockerArchive(archive).candidates(session: self)
        default:
            throw ImageError(.invalid, "import", path, "it is neither a file nor a directory")
        }
    }

    func add(_ ingest: Ingest, _ digest: Digest) {
        if blobs[digest] == nil { blobs[digest] = ingest }
    }

    /// A document that the caller is going to use, checked against its descriptor.
    func document(_ descriptor: ContentDescriptor, limit: Int) throws -> [UInt8] {
        guard descriptor.size <= limit else {
            throw ImageError(.invalid, "read", "\(descriptor.digest)", "a document of \(descriptor.size) bytes, where \(limit) are allowed")
        }
        let blob = try open(descriptor)
        let bytes = try readAll(blob.raw, name: "\(descriptor.digest)", limit: limit)
        guard try SHA256.digest(of: bytes) == descriptor.digest else {
            throw ImageError(.invalid, "read", "\(descriptor.digest)", "its content has another digest")
        }
        return bytes
    }

    /// Opens a blob, from the content store, from what was spooled, or from the source; its size is checked, and outside the content store
    /// its digest was.
    private func open(_ descriptor: ContentDescriptor) throws -> Descriptor {
        let digest = descriptor.digest
        func checkSize(_ size: Int64) throws {
            guard size == descriptor.size else {
                throw ImageError(.invalid, "verify blob", "\(digest)", "it has \(size) bytes, its descriptor says \(descriptor.size)")
            }
        }
        if content.has(digest) {
            try checkSize(content.size(of: digest))
            return try content.open(digest)
        }
        if blobs[digest] == nil, let fetched = try provider?.fetch(descriptor, into: content) { blobs[digest] = fetched }
        guard let ingest = blobs[digest] else {
            throw ImageError(.invalid, "find blob", "\(digest)", "a manifest names it, and it is missing")
        }
        try checkSize(ingest.size)
        return try ingest.open()
    }

    /// Verifies everything that belongs to one image, and unpacks what is not unpacked yet.
    func load(_ candidate: ImportCandidate, name: Reference?) throws -> LoadedImage {
        let bytes = try document(candidate.manifest, limit: ImageManifest.sizeLimit)
        let manifest = try ImageManifest(parsing: bytes, mediaType: candidate.manifest.mediaType)
        let configuration = try ImageConfiguration(parsing: document(manifest.configuration, limit: ImageConfiguration.sizeLimit))
        let image = try LoadedImage(
            manifest: candidate.manifest.digest, manifestSize: Int64(bytes.count), document: manifest, configuration: configuration,
            names: name.map { [$0] } ?? candidate.names)
        let platform = configuration.platform.untrusted
        if !platform.architecture.isEmpty || !platform.os.isEmpty, !Platform.host.runs(platform) {
            throw ImageError(
                .invalid, "read image", image.manifest.short,
                "it is for \(printable(platform.description.utf8)), this machine is \(Platform.host)")
        }
        var below: [SnapshotStore.Below] = []
        for (index, layer) in manifest.layers.enumerated() {
            let chain = image.chainIDs[index]
            if let pending = layers.first(where: { $0.chain == chain })?.ingest {
                try unpack(layer, diffID: image.diffIDs[index]) { try BufferedSource($0).drain() }
                below.append(.pending(pending))
            } else if snapshots.hasLayer(chain) {
                // Unpacked already, perhaps from another blob: this one still has to be what the configuration says.
                try unpack(layer, diffID: image.diffIDs[index]) { try BufferedSource($0).drain() }
                below.append(.layer(chain))
            } else {
                let ingest = try unpack(layer, diffID: image.diffIDs[index]) { try snapshots.unpack($0, chain: chain, below: below) }
                layers.append((chain, ingest))
                below.append(.pending(ingest))
            }
        }
        used += [image.manifest, image.config] + image.layers
        return image
    }

    /// Hands the uncompressed tar of `layer` to `body`, and checks both digests when it has read all of it.
    private func unpack<Result>(_ layer: ContentDescriptor, diffID: Digest, _ body: (any ByteSource) throws -> Result) throws -> Result {
        let blob = try open(layer)
        let packing = try peek(blob.raw, name: "\(layer.digest)")
        let stored = try HashingSource(FileSource(blob.raw, name: "\(layer.digest)"))
        let plain: HashingSource
        switch (MediaType.compression(ofLayer: layer.mediaType), packing) {
        case (.plain, .none): plain = stored
        case (.gzip, .gzip): plain = try HashingSource(GzipSource(stored))
        case (.zstd, _):
            throw ImageError(.invalid, "unpack layer", "\(layer.digest)", "zstd is not among the compressions that this engine reads")
        default:
            throw ImageError(
                .invalid, "unpack layer", "\(layer.digest)", "its media type is \(layer.mediaType), its content is packed otherwise")
        }
        let result = try body(plain)
        let digest = try stored.finish()
        guard digest == layer.digest else {
            throw ImageError(.invalid, "verify layer", "\(layer.digest)", "its content has the digest \(digest)")
        }
        let plainDigest = plain === stored ? digest : try plain.finish()
        guard plainDigest == diffID else {
            throw ImageError(
                .invalid, "verify layer", "\(layer.digest)",
                "uncompressed it has the digest \(plainDigest), the configuration says \(diffID)")
        }
        return result
    }

    /// Makes everything durable with one sync, then visible: blobs first, then layers.
    func commit() throws {
        var seen: Set<Digest> = []
        let ingests = used.filter { seen.insert($0).inserted }.compactMap { blobs[$0] }
        let pending = layers.map(\.ingest)
        if ingests.isEmpty && pending.isEmpty { return }
        try content.syncAll()
        if !pending.isEmpty && snapshots.device != content.device { try snapshots.syncAll() }
        let made = try content.publish(ingests)
        do { try snapshots.publish(pending) } catch {
            for digest in made { try? content.delete(digest) }
            throw error
        }
    }
}
