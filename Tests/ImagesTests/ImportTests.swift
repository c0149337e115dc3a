import Glibc
import Linux
import OCI
import XCTest

@testable import Content
@testable import Images
@testable import Snapshots

final class ImportTests: TemporaryDirectoryTests {
    private func stores() throws -> ImageStore {
        ImageStore(content: try ContentStore(root: root + "/content"), snapshots: try SnapshotStore(root: root + "/snapshots"))
    }

    private func importing(_ bytes: [UInt8], name: String? = nil) throws -> [LoadedImage] {
        try write(root + "/archive", bytes)
        return try stores().importImages(from: root + "/archive", name: name.map { try Reference(parsing: $0) })
    }

    private func everything() throws -> [String] { try tree(root + "/content") + tree(root + "/snapshots") }

    private func assertRefused(
        _ cause: String, _ bytes: @autoclosure () throws -> [UInt8], file: StaticString = #filePath, line: UInt = #line
    ) throws {
        _ = try stores()
        let before = try everything()
        XCTAssertThrowsError(try importing(bytes()), file: file, line: line) { error in
            XCTAssertTrue("\(error)".contains(cause), "\(error)", file: file, line: line)
            XCTAssertFalse("\(error)".contains("\n"), file: file, line: line)
        }
        XCTAssertEqual(try everything(), before, "nothing is left", file: file, line: line)
    }

    func testEveryFormGivesTheSameImage() throws {
        let fixture = ImageFixture.simple()
        let layout = try fixture.layout()
        try makeDirectory(root + "/layout", mode: 0o755)
        for directory in ["/layout/blobs", "/layout/blobs/sha256"] { try makeDirectory(root + directory, mode: 0o755) }
        for (name, bytes) in layout { try write(root + "/layout/" + name, bytes) }
        let first = try stores().importImages(from: root + "/layout", name: nil)
        XCTAssertEqual(first.map { $0.names.map(\.familiar) }, [["bar/bb:latest"]])
        XCTAssertEqual(try importing(ImageFixture.tar(layout)), first)
        XCTAssertEqual(try importing(gzip(ImageFixture.tar(layout))), first)
        XCTAssertEqual(try importing(ImageFixture.tar(layout.reversed())), first, "in any order")

        let docker = try importing(ImageFixture.tar(fixture.docker()))
        XCTAssertEqual(docker.map { $0.names.map(\.familiar) }, [["bar/bb:latest"]])
        XCTAssertEqual(docker[0].chainIDs, first[0].chainIDs)
        XCTAssertEqual(docker[0].config, first[0].config)
        XCTAssertEqual(try importing(gzip(ImageFixture.tar(fixture.docker()))), docker, "the same id each time")

        // Newer docker-archives are layouts too; then the layout is what counts.
        XCTAssertEqual(try importing(ImageFixture.tar(layout + fixture.docker())), first)

        let store = try stores()
        var loaded = try store.load(manifest: first[0].manifest)
        loaded.names = first[0].names
        XCTAssertEqual(loaded, first[0])
        let tool = try store.snapshots.view(loaded.chainIDs).readFile("bin/tool", limit: 10)
        XCTAssertEqual(tool, Array("2".utf8))
        XCTAssertEqual(try tree(root + "/content/ingest") + tree(root + "/snapshots/ingest"), [])
    }

    func testNames() throws {
        let fixture = ImageFixture.simple()
        XCTAssertEqual(try importing(ImageFixture.tar(fixture.layout()), name: "x:1")[0].names.map(\.familiar), ["x:1"])
        XCTAssertEqual(try importing(ImageFixture.tar(fixture.layout(name: nil)))[0].names, [])
        XCTAssertEqual(try importing(ImageFixture.tar(fixture.docker(tags: "null")))[0].names, [])
        XCTAssertEqual(
            try importing(ImageFixture.tar(fixture.docker(tags: #"["a:1","b/c"]"#)))[0].names.map(\.familiar), ["a:1", "b/c:latest"])
        try assertRefused("lower-case", ImageFixture.tar(fixture.docker(tags: #"["UPPER"]"#)))
        try assertRefused("no string", ImageFixture.tar(fixture.docker(tags: "[1]")))
        try assertRefused("no list", ImageFixture.tar(fixture.docker(tags: "{}")))
    }

    func testTwoImagesInOneArchive() throws {
        let one = ImageFixture.simple()
        var two = ImageFixture.simple()
        two.user = "bob"
        var files = try one.docker() + two.docker()
        let lists = files.filter { $0.0 == "manifest.json" }.map { String(decoding: $0.1, as: UTF8.self).dropFirst().dropLast() }
        files.removeAll { $0.0 == "manifest.json" }
        files.append(("manifest.json", Array("[\(lists.joined(separator: ","))]".utf8)))
        try write(root + "/archive", ImageFixture.tar(files))
        XCTAssertThrowsError(try stores().importImages(from: root + "/archive", name: Reference(parsing: "x")))
        XCTAssertEqual(try importing(ImageFixture.tar(files)).map { $0.configuration.user.untrusted }, ["", "bob"])
    }

    func testEveryDigestAndSizeIsChecked() throws {
        let fixture = ImageFixture.simple()
        let layout = try fixture.layout()
        for index in 2..<layout.count {
            var files = layout
            files[index].1[files[index].1.count / 2] ^= 1
            try assertRefused("digest", ImageFixture.tar(files))
            files = layout
            files.remove(at: index)
            try assertRefused("missing", ImageFixture.tar(files))
        }
        var changed = fixture
        changed.diffIDs = [String](repeating: try Digest.of("x").description, count: 2)
        try assertRefused("uncompressed", ImageFixture.tar(changed.layout()))
        try assertRefused("uncompressed", ImageFixture.tar(changed.docker()))
        changed.diffIDs = [try Digest.of("x").description]
        try assertRefused("2 layers and 1 diff ids", ImageFixture.tar(changed.layout()))
        changed = fixture
        let manifest = String(decoding: try fixture.manifest(), as: UTF8.self)
        let size = fixture.blobs[0].count
        changed.manifestText = manifest.replacing("\"size\":\(size)", with: "\"size\":\(size + 1)")
        try assertRefused("its descriptor says", ImageFixture.tar(changed.layout()))
        var docker = try fixture.docker()
        docker[2].1 += [0x20]
        try assertRefused("digest", ImageFixture.tar(docker))

        // A blob or a layer that is there already excuses nothing.
        _ = try importing(ImageFixture.tar(layout))
        var files = layout
        files[2].1[30] ^= 1
        try assertRefused("digest", ImageFixture.tar(files))
        changed = fixture
        changed.layers.reverse()
        changed.diffIDs = try fixture.layers.map { try SHA256.digest(of: $0).description }
        try assertRefused("uncompressed", ImageFixture.tar(changed.layout()))
    }

    func testWhatIsNoImageIsRefused() throws {
        let fixture = ImageFixture.simple()
        try assertRefused("neither an OCI layout nor a docker-archive", ImageFixture.tar([("a", [1])]))
        try assertRefused("neither an OCI layout nor a docker-archive", [])
        try assertRefused("truncated", Array("hello".utf8))
        try assertRefused("read tar", [UInt8](repeating: 0x78, count: 4096))
        try assertRefused("truncated", Array(ImageFixture.tar(fixture.layout()).prefix(2000)))
        try assertRefused("truncated", Array(gzip(ImageFixture.tar(try fixture.layout())).dropLast(9)))
        try assertRefused("neither plain nor gzip", [0x28, 0xb5, 0x2f, 0xfd] + [UInt8](repeating: 0, count: 600))
        try assertRefused("invalid JSON", ImageFixture.tar([("manifest.json", Array("[".utf8))]))
        try assertRefused("no images", ImageFixture.tar([("manifest.json", Array("[]".utf8))]))
        XCTAssertThrowsError(try stores().importImages(from: root + "/nothing", name: nil))
        XCTAssertThrowsError(try stores().importImages(from: "/dev/null", name: nil))
        XCTAssertEqual(mkfifo(root + "/fifo", 0o600), 0)
        XCTAssertThrowsError(try stores().importImages(from: root + "/fifo", name: nil), "without waiting for a writer")
        try makeDirectory(root + "/empty", mode: 0o755)
        XCTAssertThrowsError(try stores().importImages(from: root + "/empty", name: nil))
        XCTAssertEqual(symlink("/etc/passwd", root + "/empty/oci-layout"), 0)
        XCTAssertThrowsError(try stores().importImages(from: root + "/empty", name: nil))
    }

    func testPathsInArchivesStayInThem() throws {
        let fixture = ImageFixture.simple()
        for name in ["../../x", "../x.json", "a/../../x"] {
            try assertRefused("out of the root", ImageFixture.tar(fixture.docker() + [(name, [1])]))
        }
        func renamed(_ name: String) throws -> [UInt8] {
            var files = try fixture.docker()
            let text = String(decoding: files[3].1, as: UTF8.self)
            files[3].1 = Array(text.replacing(files[2].0, with: name).utf8)
            return ImageFixture.tar(files)
        }
        try assertRefused("out of the root", renamed("../../../x.json"))
        try assertRefused("missing", renamed("/etc/passwd"))
        try assertRefused("neither a configuration nor a layer", renamed("manifest.json"))

        func linked(_ target: String, hard: Bool = false) throws -> [UInt8] {
            var tar = TarBuilder()
            for (name, bytes) in try fixture.docker() where name != "layer1/layer.tar" {
                tar.add(TarBuilder.Header(name, size: bytes.count), bytes)
            }
            tar.add(TarBuilder.Header("other/layer.tar", size: fixture.layers[1].count), fixture.layers[1])
            tar.link("layer1/layer.tar", to: target, hard: hard)
            return tar.finished
        }
        try assertRefused("out of the root", linked("../../../../etc/passwd"))
        try assertRefused("missing", linked("/etc/passwd"))
        try assertRefused("too many links", linked("layer.tar"))
        XCTAssertEqual(try importing(linked("../other/layer.tar")).count, 1)
        XCTAssertEqual(try importing(linked("other/layer.tar", hard: true)).count, 1)
        var special = TarBuilder()
        special.node("manifest.json", type: "3", major: 1, minor: 5)
        try assertRefused("special file", special.finished)
    }

    func testDocumentsAreBounded() throws {
        var tar = TarBuilder()
        tar.add(TarBuilder.Header("manifest.json", size: 9 << 20), [UInt8](repeating: 0x20, count: 9 << 20))
        try assertRefused("are allowed", tar.finished)
        let fixture = ImageFixture.simple()
        let digest = try SHA256.digest(of: fixture.manifest())
        let entry = #"{"mediaType":"\#(MediaType.manifest)","digest":"\#(digest)","size":90000000}"#
        try assertRefused("are allowed", ImageFixture.tar(fixture.layout(entry: entry)))
    }

    func testMediaTypesAreBelieved() throws {
        var fixture = ImageFixture.simple()
        fixture.packed = false
        try assertRefused("packed otherwise", ImageFixture.tar(fixture.layout()))
        fixture.layerType = MediaType.layer
        XCTAssertEqual(try importing(ImageFixture.tar(fixture.layout())).count, 1)
        fixture = .simple()
        fixture.layerType = MediaType.layer
        try assertRefused("packed otherwise", ImageFixture.tar(fixture.layout()))
        fixture.layerType = "application/vnd.oci.image.layer.v1.tar+zstd"
        try assertRefused("zstd", ImageFixture.tar(fixture.layout()))
        fixture.layerType = "text/plain"
        try assertRefused("unknown type", ImageFixture.tar(fixture.layout()))
        let manifest = try ImageFixture.simple().manifest()
        let digest = try SHA256.digest(of: manifest)
        for type in [MediaType.index, "text/plain", "application/vnd.docker.distribution.manifest.v2+json"] {
            let entry = #"{"mediaType":"\#(type)","digest":"\#(digest)","size":\#(manifest.count)}"#
            try assertRefused(
                type == "text/plain" ? "no type of an image" : "mediaType", ImageFixture.tar(ImageFixture.simple().layout(entry: entry)))
        }
    }

    func testThisMachinesImageIsChosenFromAnIndex() throws {
        let mine = ImageFixture.simple()
        var foreign = ImageFixture.simple()
        foreign.architecture = "s390x"
        func entry(_ bytes: [UInt8], _ platform: String) throws -> String {
            #"{"mediaType":"\#(MediaType.manifest)","digest":"\#(try SHA256.digest(of: bytes))","size":\#(bytes.count),"platform":\#(platform)}"#
        }
        let here = #"{"os":"linux","architecture":"\#(Platform.host.architecture)"}"#
        let there = #"{"os":"linux","architecture":"s390x"}"#
        func archive(_ entries: [String]) throws -> [UInt8] {
            let index = Array(
                #"{"schemaVersion":2,"mediaType":"\#(MediaType.index)","manifests":[\#(entries.joined(separator: ","))]}"#.utf8)
            let digest = try SHA256.digest(of: index)
            let top =
                #"{"mediaType":"\#(MediaType.index)","digest":"\#(digest)","size":\#(index.count),"annotations":{"io.containerd.image.name":"docker.io/a/b:1"}}"#
            let files = try mine.layout(entry: top) + foreign.layout().dropFirst(2)
            return ImageFixture.tar(files + [("blobs/sha256/" + digest.hex, index)])
        }
        let both = try importing(
            archive([
                entry(foreign.manifest(), there), entry(mine.manifest(), #"{"os":"unknown","architecture":"unknown"}"#),
                entry(mine.manifest(), here),
            ]))
        XCTAssertEqual(both.map { $0.names.map(\.familiar) }, [["a/b:1"]])
        XCTAssertEqual(both[0].manifest, try SHA256.digest(of: mine.manifest()))
        let other = try archive([entry(foreign.manifest(), there)])
        try assertRefused("no matching manifest for \(Platform.host), only for linux/s390x", other)
        try assertRefused("this machine is", ImageFixture.tar(foreign.layout()))
    }

    func testMalformedLayersLeaveNothing() throws {
        var fixture = ImageFixture.simple()
        fixture.layer { $0.file("../escape") }
        try assertRefused("out of the root", ImageFixture.tar(fixture.layout()))
        fixture = .simple()
        fixture.layers.append([UInt8](repeating: 0x41, count: 512))
        try assertRefused("read tar", ImageFixture.tar(fixture.layout()))
    }

    func testUsersComeFromTheLayers() throws {
        let simple = try importing(ImageFixture.tar(ImageFixture.simple().layout()))[0]
        let store = try stores()
        XCTAssertEqual(
            try store.resolveUser("bob", image: simple), ResolvedUser(uid: 1000, gid: 1000, additionalGids: [1000, 10], home: "/home/bob"))

        XCTAssertEqual(try store.resolveUser("", image: simple).uid, 0)
        var fixture = ImageFixture.simple()
        fixture.user = "bob:wheel"
        let named = try importing(ImageFixture.tar(fixture.layout()))[0]
        XCTAssertEqual(
            try store.resolveUser("", image: named), ResolvedUser(uid: 1000, gid: 10, additionalGids: [10], home: "/home/bob"), "as it says"
        )
        XCTAssertEqual(try store.resolveUser("0", image: named).uid, 0)
        fixture.user = "4294967296"
        let wrapping = try importing(ImageFixture.tar(fixture.layout()))[0]
        XCTAssertThrowsError(try store.resolveUser("", image: wrapping), "never uid 0")

        func image(_ build: (inout TarBuilder) -> Void) throws -> LoadedImage {
            var fixture = ImageFixture.simple()
            fixture.layer(build)
            return try importing(ImageFixture.tar(fixture.layout()))[0]
        }
        let linked = try image { tar in
            tar.link("etc/passwd", to: "/usr/../usr/users")
            tar.file("usr/users", "eve:x:7:8::/e:\n")
        }
        XCTAssertEqual(try store.resolveUser("eve", image: linked).uid, 7)
        let outside = try image { $0.link("etc/passwd", to: "../../../../../../etc/passwd") }
        XCTAssertThrowsError(try store.resolveUser("root", image: outside), "the link leads to itself, not to the host")
        let gone = try image { $0.file("etc/.wh.passwd") }
        XCTAssertThrowsError(try store.resolveUser("bob", image: gone))
        XCTAssertEqual(try store.resolveUser("1000", image: gone).home, "/")
        let fifo = try image { $0.node("etc/group", type: "6") }
        XCTAssertThrowsError(try store.resolveUser("bob", image: fifo), "without waiting for a writer")
        let zero = try image { tar in
            tar.link("etc/group", to: "/dev/zero")
            tar.node("dev/zero", type: "3", major: 1, minor: 5)
        }
        XCTAssertThrowsError(try store.resolveUser("bob", image: zero))
        let large = try image { $0.file("etc/group", String(repeating: "#", count: 11 << 20)) }
        XCTAssertThrowsError(try store.resolveUser("bob", image: large))
    }
}
