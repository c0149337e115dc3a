import Content
import OCI
import Snapshots

/// An image whose blobs are all stored and whose layers are all unpacked.
public struct LoadedImage: Equatable, Sendable {
    /// Digest of the manifest: the image's id.
    public let manifest: Digest
    public let config: Digest
    /// Names that came with it; empty when it was loaded by its digest.
    public var names: [Reference]
    /// Digests of the layers as stored, bottom first.
    public let layers: [Digest]
    public let diffIDs: [Digest]
    public let chainIDs: [Digest]
    /// Bytes of all its blobs.
    public let size: Int64
    public let configuration: ImageConfiguration

    init(manifest: Digest, manifestSize: Int64, document: ImageManifest, configuration: ImageConfiguration, names: [Reference]) throws {
        self.manifest = manifest
        config = document.configuration.digest
        self.names = names
        layers = document.layers.map(\.digest)
        diffIDs = configuration.diffIDs
        chainIDs = try SHA256.chainIDs(configuration.diffIDs)
        size = document.layers.reduce(manifestSize + document.configuration.size) { $0.addingReportingOverflow($1.size).partialValue }
        self.configuration = configuration
        guard layers.count == diffIDs.count else {
            throw ImageError(.invalid, "read image", "\(manifest)", "it has \(layers.count) layers and \(diffIDs.count) diff ids")
        }
    }
}

/// Images: from archives and layouts into the content and the snapshot store, and out of them again. Names are the caller's to remember.
public struct ImageStore: Sendable {
    let content: ContentStore
    let snapshots: SnapshotStore

    public init(content: ContentStore, snapshots: SnapshotStore) {
        self.content = content
        self.snapshots = snapshots
    }

    /// Imports every image of an OCI layout directory, an OCI archive or a docker-archive (tar, plain or gzip) that is for this machine.
    /// With `name`, which replaces the names in the archive, there must be exactly one. When it returns, all is verified, unpacked and on
    /// disk; when it fails, nothing new is left. Not to be run while images are deleted.
    public func importImages(from path: String, name: Reference?) throws -> [LoadedImage] {
        do {
            let session = ImportSession(content: content, snapshots: snapshots)
            let candidates = try session.candidates(path: path)
            if name != nil && candidates.count != 1 {
                throw ImageError(.invalid, "import", path, "it has \(candidates.count) images; a name can be given to one")
            }
            let images = try candidates.map { try session.load($0, name: name) }
            try session.commit()
            return images
        } catch { throw ImageError(error, "import", path) }
    }

    /// An image of the content store, by the digest of its manifest; its documents are verified again.
    public func load(manifest: Digest) throws -> LoadedImage {
        do {
            let bytes = try content.read(manifest, limit: ImageManifest.sizeLimit)
            let document = try ImageManifest(parsing: bytes, mediaType: nil)
            let configuration = try ImageConfiguration(
                parsing: content.read(document.configuration.digest, limit: ImageConfiguration.sizeLimit))
            let image = try LoadedImage(
                manifest: manifest, manifestSize: Int64(bytes.count), document: document, configuration: configuration, names: [])
            for layer in document.layers {
                guard try content.size(of: layer.digest) == layer.size else {
                    throw ImageError(.invalid, "load image", "\(manifest)", "layer \(layer.digest) has another size than the manifest says")
                }
            }
            for chain in image.chainIDs where !snapshots.hasLayer(chain) {
                throw ImageError(.notFound, "load image", "\(manifest)", "layer \(chain) is not unpacked")
            }
            return image
        } catch { throw ImageError(error, "load image", "\(manifest)") }
    }
}
