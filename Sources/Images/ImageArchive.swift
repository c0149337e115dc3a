import Content
import Linux
import OCI

/// A tar of images, read once from front to back: small documents stay in memory, everything else goes to the content store's ingest
/// directory as it comes.
struct ImageArchive {
    enum File {
        case document([UInt8])
        case blob(Ingest)
        /// Verified and stored before this import.
        case stored(Digest)
        case link(to: TreePath)
    }

    private(set) var files: [TreePath: File] = [:]

    private static let fileLimit = 10_000
    private static let documents: Set<String> = ["/manifest.json", "/index.json", "/oci-layout"]
    /// Files of old archives that repeat what is elsewhere.
    private static let ignored: Set<String> = ["VERSION", "json", "repositories"]

    init(_ descriptor: Int32, name: String, content: ContentStore) throws {
        let reader = TarReader(try Self.unpacked(descriptor, name: name))
        while let entry = try reader.next() {
            let path = try TreePath(cleaning: entry.path)
            guard let last = path.name else { continue }
            switch entry.kind {
            case .file:
                let base = String(decoding: last, as: UTF8.self)
                if Self.documents.contains(path.description) {
                    files[path] = .document(try reader.content(limit: ImageIndex.sizeLimit))
                } else if !Self.ignored.contains(base) {
                    files[path] = try Self.spool(path, entry, reader, content)
                }
            case .symbolicLink:
                // Relative to the directory of the link; one that leads out of the archive is refused by the cleaning.
                let target = entry.link.first == UInt8(ascii: "/") ? entry.link : Array(path.parent.description.utf8) + [0x2f] + entry.link
                files[path] = .link(to: try TreePath(cleaning: target))
            case .hardLink: files[path] = .link(to: try TreePath(cleaning: entry.link))
            case .directory: continue
            case .characterDevice, .blockDevice, .fifo:
                throw ImageError(.invalid, "read archive", "\(path)", "a special file in an archive of images")
            }
            if files.count > Self.fileLimit { throw ImageError(.invalid, "read archive", name, "more than \(Self.fileLimit) files") }
        }
        try reader.drain()
    }

    /// The tar itself, by the first bytes of the file.
    private static func unpacked(_ descriptor: Int32, name: String) throws -> any ByteSource {
        let magic = try peek(descriptor, name: name)
        let file = FileSource(descriptor, name: name)
        switch magic {
        case .none: return file
        case .gzip: return try GzipSource(file)
        case .zstd, .bzip2, .xz:
            throw ImageError(.invalid, "read archive", name, "it is compressed, and neither plain nor gzip")
        }
    }

    /// A file whose name is a digest must have it.
    private static func spool(_ path: TreePath, _ entry: TarEntry, _ reader: TarReader, _ content: ContentStore) throws -> File {
        let expected = digest(namedBy: path)
        if let expected, content.has(expected) {
            let hash = try SHA256()
            while case let part = try reader.chunk(), !part.isEmpty { hash.update(part) }
            let digest = try hash.finish()
            guard digest == expected else {
                throw ContentError(.corrupt, "verify blob", "\(expected)", "its content has the digest \(digest)")
            }
            return .stored(expected)
        }
        let ingest = try content.begin()
        while case let part = try reader.chunk(), !part.isEmpty { try ingest.write(part) }
        try ingest.verify(digest: expected, size: entry.size)
        _ = try ingest.digest
        return .blob(ingest)
    }

    /// `blobs/sha256/<hex>` of a layout, or `<hex>.json`, a configuration of an old archive.
    private static func digest(namedBy path: TreePath) -> Digest? {
        let parts = path.components.map { String(decoding: $0, as: UTF8.self) }
        if parts.count == 3, parts[0] == "blobs", parts[1] == "sha256" { return Digest(hex: parts[2]) }
        if parts.count == 1, parts[0].hasSuffix(".json") { return Digest(hex: parts[0].dropLast(5)) }
        return nil
    }

    /// What `path`, a path in the archive as `manifest.json` has it, leads to; links are followed within the archive.
    func file(_ path: String) throws -> File {
        var current = try TreePath(cleaning: path.utf8)
        for _ in 0..<16 {
            switch files[current] {
            case .link(let target): current = target
            case .some(let file): return file
            case nil: throw ImageError(.invalid, "read archive", printable(path.utf8), "a manifest names it, and it is missing")
            }
        }
        throw ImageError(.invalid, "read archive", printable(path.utf8), "too many links")
    }

    func document(_ name: String) -> [UInt8]? {
        guard let path = try? TreePath(cleaning: name.utf8), case .document(let bytes) = files[path] else { return nil }
        return bytes
    }

    /// `index.json` when the archive is an OCI layout, which newer docker-archives are too.
    func layoutIndex() throws -> [UInt8]? {
        guard let header = document("oci-layout"), let index = document("index.json") else { return nil }
        try LayoutIndex.check(header: header)
        return index
    }

    /// All spooled blobs by their digests.
    func takeBlobs() throws -> [(Digest, Ingest)] {
        try files.values.compactMap { file in
            guard case .blob(let ingest) = file else { return nil }
            return (try ingest.digest, ingest)
        }
    }
}
