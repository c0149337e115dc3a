import Content
import Glibc
import Linux
import OCI

/// What `docker save` wrote before it wrote layouts: `manifest.json` names a configuration, layers and tags. Its images get a manifest of
/// ours, whose bytes depend on nothing but their content.
struct DockerArchive {
    private let archive: ImageArchive
    private static let imageLimit = 100

    init(_ archive: ImageArchive) { self.archive = archive }

    func candidates(session: ImportSession) throws -> [ImportCandidate] {
        guard let bytes = archive.document("manifest.json") else {
            throw ImageError(.invalid, "read archive", "manifest.json", "the archive is neither an OCI layout nor a docker-archive")
        }
        let json: JSON
        do { json = try JSON(parsing: bytes) } catch { throw invalid("\(error)") }
        guard let images = json.arrayValue, !images.isEmpty else { throw invalid("it lists no images") }
        if images.count > Self.imageLimit { throw invalid("more than \(Self.imageLimit) images") }
        return try images.map { try candidate($0, session) }
    }

    private func candidate(_ image: JSON, _ session: ImportSession) throws -> ImportCandidate {
        guard let config = image["Config"]?.stringValue, let layers = image["Layers"]?.arrayValue else {
            throw invalid("an image without \"Config\" or \"Layers\"")
        }
        if layers.count > ImageManifest.layerLimit { throw invalid("more than \(ImageManifest.layerLimit) layers") }
        let manifest = ImageManifest(
            configuration: try descriptor(config, session) { _ in MediaType.configuration },
            layers: try layers.map { layer in
                guard let path = layer.stringValue else { throw invalid("a layer that is no path") }
                return try descriptor(path, session) { packing in
                    switch packing {
                    case .none: return MediaType.layer
                    case .gzip: return MediaType.layerGzip
                    default: throw invalid("layer \(printable(path.utf8)) is compressed, and not with gzip")
                    }
                }
            })
        let tags = image["RepoTags"] ?? .null
        guard tags.isNull || tags.arrayValue != nil else { throw invalid("\"RepoTags\" is no list") }
        let names = try (tags.arrayValue ?? []).map { tag in
            guard let text = tag.stringValue else { throw invalid("a tag that is no string") }
            return try Reference(parsing: text)
        }
        let bytes = manifest.encoded()
        let ingest = try session.content.begin()
        try bytes.withUnsafeBytes { try ingest.write($0) }
        let digest = try ingest.digest
        session.add(ingest, digest)
        return ImportCandidate(
            manifest: ContentDescriptor(mediaType: MediaType.manifest, digest: digest, size: Int64(bytes.count)), names: names)
    }

    /// Digest and size of a file in the archive, and the type that its first bytes call for.
    private func descriptor(_ path: String, _ session: ImportSession, type: (Packing) throws -> String) throws -> ContentDescriptor {
        switch try archive.file(path) {
        case .blob(let ingest):
            let file = try ingest.open()
            return ContentDescriptor(mediaType: try type(peek(file.raw, name: path)), digest: try ingest.digest, size: ingest.size)
        case .stored(let digest):
            let file = try session.content.open(digest)
            return ContentDescriptor(
                mediaType: try type(peek(file.raw, name: path)), digest: digest, size: try session.content.size(of: digest))
        case .document, .link: throw invalid("\(printable(path.utf8)) is neither a configuration nor a layer")
        }
    }

    private func invalid(_ cause: String) -> ImageError { ImageError(.invalid, "read archive", "manifest.json", cause) }
}

/// How the file is packed, by its first bytes; its offset stays where it is.
func peek(_ descriptor: Int32, name: String) throws -> Packing {
    var magic = [UInt8](repeating: 0, count: 6)
    let got = pread(descriptor, &magic, magic.count, 0)
    if got < 0 { throw SysError("read", name, code: errno) }
    return magic.prefix(got).withUnsafeBytes { Packing(magic: $0) }
}
