import Content
import OCI

/// A small image, in the forms in which images travel, with every part open to changes.
struct ImageFixture {
    var layers: [[UInt8]] = []
    var packed = true
    var user = ""
    var architecture = Platform.host.architecture
    /// Text put over `"key": value` of the configuration.
    var diffIDs: [String]?
    var manifestText: String?
    var layerType = MediaType.layerGzip

    mutating func layer(_ build: (inout TarBuilder) -> Void) {
        var tar = TarBuilder()
        build(&tar)
        layers.append(tar.finished)
    }

    static func simple() -> ImageFixture {
        var image = ImageFixture()
        image.layer { tar in
            tar.directory("etc")
            tar.file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nbob:x:1000:1000::/home/bob:/bin/sh\n")
            tar.file("etc/group", "root:x:0:\nwheel:x:10:root,bob\n")
            tar.file("bin/tool", "1", mode: 0o755)
        }
        image.layer { $0.file("bin/tool", "2", mode: 0o755) }
        return image
    }

    var blobs: [[UInt8]] { packed ? layers.map(gzip) : layers }

    func configuration() throws -> [UInt8] {
        let ids = try diffIDs ?? layers.map { try SHA256.digest(of: $0).description }
        return Array(
            #"{"architecture":"\#(architecture)","os":"linux","config":{"User":"\#(user)","Cmd":["/bin/tool"],"Labels":{"containerd.io/restart.loguri":"binary:///bin/false"}},"rootfs":{"type":"layers","diff_ids":[\#(ids.map { "\"\($0)\"" }.joined(separator: ","))]}}"#
                .utf8)
    }

    private func descriptor(_ type: String, _ bytes: [UInt8]) throws -> String {
        #"{"mediaType":"\#(type)","digest":"\#(try SHA256.digest(of: bytes))","size":\#(bytes.count)}"#
    }

    func manifest() throws -> [UInt8] {
        if let manifestText { return Array(manifestText.utf8) }
        let layers = try blobs.map { try descriptor(layerType, $0) }.joined(separator: ",")
        let config = try descriptor(MediaType.configuration, configuration())
        return Array(#"{"schemaVersion":2,"mediaType":"\#(MediaType.manifest)","config":\#(config),"layers":[\#(layers)]}"#.utf8)
    }

    /// Path and content of every file of an OCI layout; `entry` replaces the manifest's entry in index.json.
    func layout(name: String? = "docker.io/bar/bb:latest", entry: String? = nil) throws -> [(String, [UInt8])] {
        let manifest = try manifest()
        let annotations =
            name.map { #","annotations":{"io.containerd.image.name":"\#($0)","org.opencontainers.image.ref.name":"latest"}"# } ?? ""
        let listed = try entry ?? String(descriptor(MediaType.manifest, manifest).dropLast()) + annotations + "}"
        return [
            ("oci-layout", Array(#"{"imageLayoutVersion":"1.0.0"}"#.utf8)),
            ("index.json", Array(#"{"schemaVersion":2,"manifests":[\#(listed)]}"#.utf8)),
        ] + (try (blobs + [manifest, configuration()]).map { ("blobs/sha256/" + (try SHA256.digest(of: $0).hex), $0) })
    }

    /// The files of a docker-archive of old.
    func docker(tags: String = #"["bar/bb:latest"]"#) throws -> [(String, [UInt8])] {
        let config = try configuration()
        let name = try SHA256.digest(of: config).hex + ".json"
        let paths = layers.indices.map { "layer\($0)/layer.tar" }
        let list = paths.map { "\"\($0)\"" }.joined(separator: ",")
        return zip(paths, layers).map { ($0, $1) } + [
            (name, config), ("manifest.json", Array(#"[{"Config":"\#(name)","RepoTags":\#(tags),"Layers":[\#(list)]}]"#.utf8)),
        ]
    }

    static func tar(_ files: [(String, [UInt8])]) -> [UInt8] {
        var tar = TarBuilder()
        for (name, bytes) in files { tar.add(TarBuilder.Header(name, size: bytes.count), bytes) }
        return tar.finished
    }
}
