/// Media types of images (image-spec, media-types.md) and their older twins.
public enum MediaType {
    public static let index = "application/vnd.oci.image.index.v1+json"
    public static let manifest = "application/vnd.oci.image.manifest.v1+json"
    public static let configuration = "application/vnd.oci.image.config.v1+json"
    public static let layer = "application/vnd.oci.image.layer.v1.tar"
    public static let layerGzip = "application/vnd.oci.image.layer.v1.tar+gzip"
    static let dockerIndex = "application/vnd.docker.distribution.manifest.list.v2+json"
    static let dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
    static let dockerConfiguration = "application/vnd.docker.container.image.v1+json"

    public static func isIndex(_ type: String) -> Bool { type == index || type == dockerIndex }
    public static func isManifest(_ type: String) -> Bool { type == manifest || type == dockerManifest }
    public static func isConfiguration(_ type: String) -> Bool { type == configuration || type == dockerConfiguration }

    /// How the layer's tar is packed; nil for a type that is no layer at all.
    public static func compression(ofLayer type: String) -> LayerCompression? {
        switch type {
        case layer, "application/vnd.oci.image.layer.nondistributable.v1.tar",
            "application/vnd.docker.image.rootfs.diff.tar":
            .plain
        case layerGzip, "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
            "application/vnd.docker.image.rootfs.diff.tar.gzip", "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip":
            .gzip
        case "application/vnd.oci.image.layer.v1.tar+zstd", "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
            "application/vnd.docker.image.rootfs.diff.tar.zstd":
            .zstd
        default: nil
        }
    }
}

public enum LayerCompression: Sendable { case plain, gzip, zstd }

/// Why a document of an image is refused.
public struct ImageSpecError: Error, Equatable, Sendable, CustomStringConvertible {
    /// "manifest", "index", "image configuration" …
    public let document: String
    public let reason: String
    public init(_ document: String, _ reason: String) {
        self.document = document
        self.reason = reason
    }
    public var description: String { "invalid \(document): \(reason)" }
}

/// What a document says about a blob (image-spec, descriptor.md).
public struct ContentDescriptor: Equatable, Sendable {
    public var mediaType: String
    public var digest: Digest
    public var size: Int64
    public var platform: Platform?
    public var annotations: FromImage<[String: String]>

    public init(mediaType: String, digest: Digest, size: Int64, platform: Platform? = nil, annotations: [String: String] = [:]) {
        self.mediaType = mediaType
        self.digest = digest
        self.size = size
        self.platform = platform
        self.annotations = FromImage(annotations)
    }

    init(_ json: JSON, in document: String) throws(ImageSpecError) {
        guard case .object = json else { throw ImageSpecError(document, "a descriptor is no object") }
        guard let type = json["mediaType"]?.stringValue else { throw ImageSpecError(document, "a descriptor has no mediaType") }
        guard let text = json["digest"]?.stringValue, let digest = Digest(text) else {
            throw ImageSpecError(document, "a descriptor has no sha256 digest")
        }
        guard let size = json["size"]?.integerValue, size >= 0 else { throw ImageSpecError(document, "\(digest) has no size") }
        self.init(mediaType: type, digest: digest, size: size)
        if let platform = json["platform"], !platform.isNull { self.platform = Platform(platform) }
        annotations = FromImage(try stringMap(json["annotations"], in: document))
    }
}

/// Operating system, processor and its variant.
public struct Platform: Equatable, Sendable, CustomStringConvertible {
    public var os: String
    public var architecture: String
    public var variant: String

    public init(os: String, architecture: String, variant: String = "") {
        self.os = os
        self.architecture = architecture
        self.variant = variant
    }

    init(_ json: JSON) {
        self.init(
            os: json["os"]?.stringValue ?? "", architecture: json["architecture"]?.stringValue ?? "",
            variant: json["variant"]?.stringValue ?? "")
    }

    /// What runs on this machine.
    public static var host: Platform {
        #if arch(arm64)
            Platform(os: "linux", architecture: "arm64", variant: "v8")
        #else
            Platform(os: "linux", architecture: "amd64")
        #endif
    }

    /// Whether an image made for `other` runs here.
    public func runs(_ other: Platform) -> Bool {
        guard os == other.os, architecture == other.architecture else { return false }
        return other.variant.isEmpty || other.variant == variant || (architecture == "amd64" && other.variant == "v1")
    }

    public var description: String { os + "/" + architecture + (variant.isEmpty ? "" : "/" + variant) }
}

/// A list of manifests or further lists (image-spec, image-index.md).
public struct ImageIndex: Equatable, Sendable {
    public static let sizeLimit = 8 << 20
    public var manifests: [ContentDescriptor]

    /// Reads a document that was said to have `mediaType`; nil for `index.json` of a layout, about which nothing is said.
    public init(parsing bytes: [UInt8], mediaType: String?) throws {
        let json = try document(bytes, "index", mediaType: mediaType, accepts: MediaType.isIndex)
        for key in ["layers", "config", "fsLayers"] where json[key] != nil {
            throw ImageSpecError("index", "it has \"\(key)\" as well as \"manifests\"")
        }
        guard let list = json["manifests"]?.arrayValue else { throw ImageSpecError("index", "it has no \"manifests\"") }
        if list.count > 1000 { throw ImageSpecError("index", "it has more than 1000 manifests") }
        manifests = try list.map { (element) throws(ImageSpecError) in try ContentDescriptor(element, in: "index") }
    }
}

/// One image: its configuration and its layers, bottom first (image-spec, manifest.md).
public struct ImageManifest: Equatable, Sendable {
    public static let sizeLimit = 8 << 20
    public static let layerLimit = 500
    public var configuration: ContentDescriptor
    public var layers: [ContentDescriptor]

    public init(configuration: ContentDescriptor, layers: [ContentDescriptor]) {
        self.configuration = configuration
        self.layers = layers
    }

    /// Reads a document that was said to have `mediaType`.
    public init(parsing bytes: [UInt8], mediaType: String?) throws {
        let json = try document(bytes, "manifest", mediaType: mediaType, accepts: MediaType.isManifest)
        for key in ["manifests", "fsLayers"] where json[key] != nil {
            throw ImageSpecError("manifest", "it has \"\(key)\" as well as \"layers\"")
        }
        guard let config = json["config"], let list = json["layers"]?.arrayValue else {
            throw ImageSpecError("manifest", "it has no \"config\" or no \"layers\"")
        }
        if list.count > Self.layerLimit { throw ImageSpecError("manifest", "it has more than \(Self.layerLimit) layers") }
        configuration = try ContentDescriptor(config, in: "manifest")
        guard MediaType.isConfiguration(configuration.mediaType) else {
            throw ImageSpecError(
                "manifest", "its configuration has the type \"\(configuration.mediaType.prefix(128))\": it is no container image")
        }
        layers = try list.map { (element) throws(ImageSpecError) in try ContentDescriptor(element, in: "manifest") }
        for layer in layers where MediaType.compression(ofLayer: layer.mediaType) == nil {
            throw ImageSpecError("manifest", "a layer has the unknown type \"\(layer.mediaType.prefix(128))\"")
        }
    }

    /// The same document in bytes that depend on nothing but its content.
    public func encoded() -> [UInt8] {
        func json(_ descriptor: ContentDescriptor) -> JSON {
            ["mediaType": .string(descriptor.mediaType), "digest": .string("\(descriptor.digest)"), "size": .integer(descriptor.size)]
        }
        let document: JSON = [
            "schemaVersion": 2, "mediaType": .string(MediaType.manifest), "config": json(configuration), "layers": .array(layers.map(json)),
        ]
        return document.encoded()
    }
}

/// Parses an object whose `mediaType`, where it has one, agrees with what was said about it before it was read.
private func document(_ bytes: [UInt8], _ name: String, mediaType: String?, accepts: (String) -> Bool) throws -> JSON {
    let json: JSON
    do { json = try JSON(parsing: bytes) } catch { throw ImageSpecError(name, "\(error)") }
    guard case .object = json else { throw ImageSpecError(name, "it is no object") }
    if let version = json["schemaVersion"], version.integerValue != 2 { throw ImageSpecError(name, "its schemaVersion is not 2") }
    if let field = json["mediaType"] {
        guard let type = field.stringValue, accepts(type), mediaType == nil || mediaType == type else {
            throw ImageSpecError(name, "its mediaType is not the expected one")
        }
    }
    if let mediaType, !accepts(mediaType) { throw ImageSpecError(name, "unexpected mediaType \"\(mediaType.prefix(128))\"") }
    return json
}

/// An object of strings; an absent or null one is empty.
func stringMap(_ json: JSON?, in document: String) throws(ImageSpecError) -> [String: String] {
    guard let json, !json.isNull else { return [:] }
    guard let members = json.members else { throw ImageSpecError(document, "a map of strings is something else") }
    var result: [String: String] = [:]
    for member in members {
        guard let value = member.value.stringValue else { throw ImageSpecError(document, "\"\(member.key.prefix(64))\" is no string") }
        result[member.key] = value
    }
    return result
}
