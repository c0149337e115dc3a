import Content
import Glibc
import Linux
import OCI

/// An OCI image layout in a directory (image-spec, image-layout.md). The directory may be anybody's: it is read as `RootFS`.
final class LayoutDirectory: BlobProvider {
    private let tree: RootFS

    init(_ tree: consuming RootFS) { self.tree = tree }

    func index() throws -> [UInt8] {
        let header: [UInt8]
        do { header = try tree.readFile("oci-layout", limit: 4096) } catch  where error.code == ENOENT {
            throw ImageError(.invalid, "read", "oci-layout", "the directory is no OCI image layout")
        }
        try LayoutIndex.check(header: header)
        return try tree.readFile("index.json", limit: ImageIndex.sizeLimit)
    }

    func fetch(_ descriptor: ContentDescriptor, into content: ContentStore) throws -> Ingest? {
        guard let file = try blob(descriptor.digest) else { return nil }
        var status = stat()
        try checkErrno("stat", "\(descriptor.digest)", fstat(file.raw, &status))
        guard status.st_mode & S_IFMT == S_IFREG else {
            throw ImageError(.invalid, "read", "\(descriptor.digest)", "it is no regular file")
        }
        let ingest = try content.begin()
        try ingest.fill(from: FileSource(file.raw, name: "\(descriptor.digest)"), limit: descriptor.size)
        try ingest.verify(digest: descriptor.digest, size: descriptor.size)
        return ingest
    }

    private func blob(_ digest: Digest) throws -> Descriptor? {
        do {
            return try tree.open("blobs/sha256/" + digest.hex, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY)
        } catch {
            if error.code == ENOENT { return nil }
            throw error
        }
    }
}

/// Finds this machine's images in an `index.json` and the indexes that it names.
struct LayoutIndex {
    let session: ImportSession

    private static let depthLimit = 4
    private static let imageLimit = 100

    /// `oci-layout` with a version that we know.
    static func check(header: [UInt8]) throws {
        guard let version = try? JSON(parsing: header)["imageLayoutVersion"]?.stringValue, version.hasPrefix("1.") else {
            throw ImageError(.invalid, "read", "oci-layout", "unknown version of the layout")
        }
    }

    func candidates(index bytes: [UInt8]) throws -> [ImportCandidate] {
        let index = try ImageIndex(parsing: bytes, mediaType: nil)
        var found: [ImportCandidate] = []
        var foreign: [String] = []
        for entry in index.manifests where !Self.isAttestation(entry) {
            guard let manifest = try choose(entry, depth: 0, foreign: &foreign) else { continue }
            let names = Self.names(entry)
            if let same = found.firstIndex(where: { $0.manifest.digest == manifest.digest }) {
                found[same].names += names.filter { !found[same].names.contains($0) }
            } else {
                found.append(ImportCandidate(manifest: manifest, names: names))
            }
            if found.count > Self.imageLimit { throw ImageError(.invalid, "read", "index.json", "more than \(Self.imageLimit) images") }
        }
        if found.isEmpty {
            let others =
                foreign.isEmpty
                ? "it lists no images" : "no matching manifest for \(Platform.host), only for \(foreign.prefix(8).joined(separator: ", "))"
            throw ImageError(.invalid, "read", "index.json", others)
        }
        return found
    }

    /// The manifest that `entry` is, or the first in the index that it is which runs here.
    private func choose(_ entry: ContentDescriptor, depth: Int, foreign: inout [String]) throws -> ContentDescriptor? {
        if MediaType.isManifest(entry.mediaType) {
            if let platform = entry.platform, !Platform.host.runs(platform) {
                foreign.append(printable(platform.description.utf8))
                return nil
            }
            return entry
        }
        guard MediaType.isIndex(entry.mediaType) else {
            throw ImageError(.invalid, "read", "index.json", "\"\(printable(entry.mediaType.prefix(128).utf8))\" is no type of an image")
        }
        guard depth < Self.depthLimit else { throw ImageError(.invalid, "read", "index.json", "indexes are nested too deeply") }
        let bytes = try session.document(entry, limit: ImageIndex.sizeLimit)
        let index = try ImageIndex(parsing: bytes, mediaType: entry.mediaType)
        for child in index.manifests where !Self.isAttestation(child) {
            if let chosen = try choose(child, depth: depth + 1, foreign: &foreign) { return chosen }
        }
        return nil
    }

    private static func isAttestation(_ entry: ContentDescriptor) -> Bool {
        entry.annotations.untrusted["vnd.docker.reference.type"] == "attestation-manifest" || entry.platform?.os == "unknown"
    }

    /// The full name where there is one, else the name of the reference; what is no reference is left out, as it may mean something to
    /// others.
    private static func names(_ entry: ContentDescriptor) -> [Reference] {
        let annotations = entry.annotations.untrusted
        for key in ["io.containerd.image.name", "org.opencontainers.image.ref.name"] {
            if let text = annotations[key], let name = try? Reference(parsing: text) { return [name] }
        }
        return []
    }
}
