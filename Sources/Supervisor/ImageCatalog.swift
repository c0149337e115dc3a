import Content
import CtrProto
import Glibc
import Images
import Linux
import Logging
import OCI
import Snapshots
import Store
import Synchronization
import SwiftProtobuf
import TTRPC

/// The images that have names, and the stores that hold what the names mean.
final class ImageCatalog: Sendable {
    let content: ContentStore
    let snapshots: SnapshotStore
    let images: ImageStore
    private let store: Store
    private let executor: Executor
    private let logger: Logger

    private struct Contents {
        /// By namespace, then by name.
        var names: [String: [String: ImageNameRow]] = [:]
        /// Loaded images by manifest; bounded by what has names.
        var loaded: [Digest: LoadedImage] = [:]
        /// Users as images' own files name them, by manifest and name.
        var users: [String: ResolvedUser] = [:]
        var tail: Task<Void, Never>?
    }
    private let contents = Mutex(Contents())

    /// Opens the stores below `root`. Blocking.
    init(root: String, rows: [ImageNameRow], store: Store, executor: Executor, logger: Logger) throws {
        content = try ContentStore(root: root + "/content")
        snapshots = try SnapshotStore(root: root + "/snapshots")
        images = ImageStore(content: content, snapshots: snapshots)
        self.store = store
        self.executor = executor
        self.logger = logger
        contents.withLock { contents in
            for row in rows { contents.names[row.namespace, default: [:]][row.name] = row }
        }
    }

    // MARK: looking

    /// The image of a manifest, read and verified once.
    func load(_ manifest: Digest) throws -> LoadedImage {
        if let image = contents.withLock({ $0.loaded[manifest] }) { return image }
        let image = try images.load(manifest: manifest)
        contents.withLock { contents in
            if contents.loaded.count >= 512 { contents.loaded = [:] }
            contents.loaded[manifest] = image
        }
        return image
    }

    /// Who `name` is in the image (empty: as the image says). The image's files are read once. Blocking.
    func user(_ name: String, image: LoadedImage) throws -> ResolvedUser {
        let key = "\(image.manifest) \(name)"
        if let user = contents.withLock({ $0.users[key] }) { return user }
        let user = try images.resolveUser(name, image: image)
        contents.withLock { contents in
            if contents.users.count >= 512 { contents.users = [:] }
            contents.users[key] = user
        }
        return user
    }

    func rows(namespace: String) -> [ImageNameRow] {
        contents.withLock { contents in
            namespace.isEmpty ? contents.names.values.flatMap(\.values) : contents.names[namespace].map { Array($0.values) } ?? []
        }
    }

    var manifests: Set<String> { contents.withLock { Set($0.names.values.flatMap(\.values).map(\.manifest)) } }

    func count(namespace: String) -> Int { Set(rows(namespace: namespace).map(\.manifest)).count }

    /// What `text` names: a reference, an id with or without "sha256:", or the start of exactly one id.
    func resolve(
        namespace: String, _ text: String, operation: String, exitCode: UInt32 = 1
    ) throws(SupervisorError) -> (manifest: Digest, name: String?) {
        let names = contents.withLock { $0.names[namespace] ?? [:] }
        let exitCode: UInt32 = operation == "create container" ? 125 : 1
        if let reference = try? Reference(parsing: text) {
            if let row = names[reference.description], let digest = Digest(row.manifest) { return (digest, row.name) }
            // A name with a digest means that image, whatever the tag says today.
            if let digest = reference.digest, names.values.contains(where: { $0.manifest == digest.description }) { return (digest, nil) }
        }
        let hex = text.hasPrefix("sha256:") ? String(text.dropFirst(7)) : text
        if !hex.isEmpty && hex.utf8.count <= 64 && hex.utf8.allSatisfy(Names.isHexDigit) {
            let matches = Set(names.values.map(\.manifest).filter { $0.dropFirst(7).hasPrefix(hex) })
            if matches.count > 1 {
                throw SupervisorError(
                    .invalidArgument, operation, text, "id prefix \"\(hex)\" is ambiguous: matches \(matches.count) images",
                    exitCode: exitCode)
            }
            if let only = matches.first, let digest = Digest(only) { return (digest, nil) }
        }
        throw SupervisorError(.notFound, operation, text.shown, "no such image: \(text.shown)", exitCode: exitCode)
    }

    func message(namespace: String, _ image: LoadedImage) -> Ctr_V1_Image {
        let rows = rows(namespace: namespace).filter { $0.manifest == image.manifest.description }
        let configuration = image.configuration
        var message = Ctr_V1_Image()
        message.id = image.manifest.description
        message.names = Set(rows.map(\.name)).filter { Digest($0) == nil }.sorted()
        message.size = image.size
        if let created = configuration.createdNanoseconds.untrusted { message.createdAt = created.timestamp }
        if let imported = rows.map(\.imported).min() { message.importedAt = imported.timestamp }
        message.os = configuration.platform.untrusted.os
        message.architecture = configuration.platform.untrusted.architecture
        message.configDigest = image.config.description
        message.layers = image.layers.map(\.description)
        message.diffIds = image.diffIDs.map(\.description)
        message.entrypoint = configuration.entrypoint.untrusted
        message.cmd = configuration.command.untrusted
        message.env = configuration.environment.untrusted
        message.user = configuration.user.untrusted
        message.workingDir = configuration.workingDirectory.untrusted
        message.labels = configuration.labels.untrusted
        return message
    }

    /// All images of a namespace, newest import first. One whose blobs are damaged is listed with its id and names alone.
    func list(namespace: String) async throws -> [Ctr_V1_Image] {
        let rows = rows(namespace: namespace)
        let manifests = Set(rows.map(\.manifest)).compactMap { Digest($0) }
        return try await executor.blocking { [self] in
            manifests.map { digest in
                do { return message(namespace: namespace, try load(digest)) } catch {
                    logger.warning("image is damaged", metadata: ["image": "\(digest)", "error": "\(error)"])
                    var message = Ctr_V1_Image()
                    message.id = digest.description
                    message.names = rows.filter { $0.manifest == digest.description && Digest($0.name) == nil }.map(\.name).sorted()
                    return message
                }
            }.sorted { ($0.importedAt.nanoseconds, $0.id) > ($1.importedAt.nanoseconds, $1.id) }
        }
    }

    // MARK: changing

    /// Imports and deletions run one after another: what one of them is about to name, another must not take for garbage.
    func exclusively<Value: Sendable>(_ body: @escaping @Sendable () async throws -> Value) async throws -> Value {
        let task = contents.withLock { contents in
            let previous = contents.tail
            let task = executor.spawnThrowing {
                await previous?.value
                return try await body()
            }
            contents.tail = executor.spawn { _ = await task.result }
            return task
        }
        return try await task.value
    }

    func importImages(namespace: String, path: String, name: String) async throws -> [Ctr_V1_Image] {
        let reference = name.isEmpty ? nil : try Reference(parsing: name)
        return try await exclusively { [self] in
            let found = try await executor.longRunning { [images] in try images.importImages(from: path, name: reference) }
            let time = now(CLOCK_REALTIME)
            var rows: [ImageNameRow] = []
            for image in found {
                let names = image.names.isEmpty ? [image.manifest.description] : image.names.map(\.description)
                rows += names.map { ImageNameRow(namespace: namespace, name: $0, manifest: image.manifest.description, imported: time) }
            }
            try await store.commit(rows.map { .putImageName($0) }, events: rows.map { Self.event(.imageCreate, $0, time) })
            let written = rows
            contents.withLock { contents in
                for row in written { contents.names[namespace, default: [:]][row.name] = row }
                for image in found { contents.loaded[image.manifest] = image }
            }
            return found.map { message(namespace: namespace, $0) }
        }
    }

    /// Takes names away; call it within ``exclusively(_:)``.
    func untag(_ rows: [ImageNameRow]) async throws {
        let time = now(CLOCK_REALTIME)
        try await store.commit(
            rows.map { .deleteImageName(namespace: $0.namespace, name: $0.name) }, events: rows.map { Self.event(.imageDelete, $0, time) })
        contents.withLock { contents in
            for row in rows { contents.names[row.namespace]?[row.name] = nil }
        }
    }

    private static func event(_ topic: Event.Topic, _ row: ImageNameRow, _ time: Int64) -> Event {
        Event(namespace: row.namespace, topic: topic, object: row.name, payload: Array(row.manifest.utf8), time: time)
    }

    /// Removes every blob and layer that neither a name nor one of `inUse` (manifests) needs; call it within ``exclusively(_:)``.
    /// When one of those cannot be read, nothing is removed: what it needs is not known.
    /// - Returns: the digests of the blobs that are gone.
    @discardableResult
    func collect(inUse: Set<String>) async throws -> [String] {
        let wanted = manifests.union(inUse).compactMap { Digest($0) }
        return try await executor.longRunning { [self] in
            var blobs: Set<Digest> = []
            var layers: Set<Digest> = []
            for manifest in wanted {
                let image = try load(manifest)
                blobs.formUnion([image.manifest, image.config] + image.layers)
                layers.formUnion(image.chainIDs)
            }
            var gone: [String] = []
            for layer in try snapshots.layers() where !layers.contains(layer) { try snapshots.removeLayer(layer) }
            for blob in try content.list() where !blobs.contains(blob) {
                try content.delete(blob)
                gone.append(blob.description)
            }
            let kept = Set(wanted)
            contents.withLock { contents in contents.loaded = contents.loaded.filter { kept.contains($0.key) } }
            return gone.sorted()
        }
    }

    /// After the loss of the database: every image that the content store still holds gets its digest for a name, and the names by
    /// which containers know theirs. Blocking.
    func recoverNames(containers: [(namespace: String, image: String, manifest: String)]) throws -> [ImageNameRow] {
        let time = now(CLOCK_REALTIME)
        var rows: [ImageNameRow] = []
        for digest in try content.list() {
            guard (try? content.size(of: digest)).map({ $0 <= Int64(ImageManifest.sizeLimit) }) == true, let image = try? load(digest)
            else { continue }
            let id = image.manifest.description
            var named = false
            for container in containers where container.manifest == id {
                guard let reference = try? Reference(parsing: container.image) else { continue }
                rows.append(ImageNameRow(namespace: container.namespace, name: reference.description, manifest: id, imported: time))
                named = true
            }
            if !named { rows.append(ImageNameRow(namespace: "default", name: id, manifest: id, imported: time)) }
        }
        contents.withLock { contents in
            for row in rows { contents.names[row.namespace, default: [:]][row.name] = row }
        }
        return rows
    }
}
