import OCI
import XCTest

@testable import Content
@testable import Images
@testable import Snapshots

/// Inputs made from right ones by changes that are the same in each run: nothing may trap, hang or leave something outside.
final class FuzzTests: TemporaryDirectoryTests {
    private func mutate(_ bytes: [UInt8], _ random: inout SeededGenerator) -> [UInt8] {
        var result = bytes
        for _ in 0..<Int.random(in: 1...8, using: &random) where !result.isEmpty {
            let at = Int.random(in: 0..<result.count, using: &random)
            switch Int.random(in: 0..<6, using: &random) {
            case 0: result[at] = UInt8.random(in: 0...255, using: &random)
            case 1: result[at] ^= 1 << UInt8.random(in: 0..<8, using: &random)
            case 2: result.removeSubrange(at..<min(result.count, at + Int.random(in: 1...600, using: &random)))
            case 3: result.insert(contentsOf: result[at..<min(result.count, at + 512)], at: at)
            case 4:
                result.replaceSubrange(at..<min(result.count, at + 4), with: [0x2f, 0x2e, 0x2e, 0x2f].prefix(min(4, result.count - at)))
            default: result.removeLast(min(result.count, Int.random(in: 1...1024, using: &random)))
            }
        }
        return result
    }

    /// Headers with right checksums, so that changes reach what lies behind that check.
    private func repaired(_ bytes: [UInt8]) -> [UInt8] {
        var result = bytes
        for offset in stride(from: 0, to: max(0, result.count - 511), by: 512)
        where result[(offset + 257)..<(offset + 262)].elementsEqual("ustar".utf8) {
            for index in 148..<156 { result[offset + index] = 0x20 }
            let sum = result[offset..<(offset + 512)].reduce(0) { $0 + Int($1) }
            for (index, byte) in (TarBuilder.octal(sum, 7) + [0x20]).enumerated() { result[offset + 148 + index] = byte }
        }
        return result
    }

    func testMutatedLayers() throws {
        var tar = TarBuilder()
        tar.directory("./")
        tar.pax([("path", "long/" + String(repeating: "p", count: 120)), ("mtime", "1.5"), ("SCHILY.xattr.user.a", "b")])
        tar.file("x", "content", mode: 0o4755, uid: 5)
        tar.long("L", String(repeating: "q", count: 140))
        tar.file("y", String(repeating: "z", count: 700))
        tar.link("d/l", to: "../../..")
        tar.file("d/l/f", "1")
        tar.link("h", to: "d/l/f", hard: true)
        tar.file("d/.wh.gone")
        tar.file("e/.wh..wh..opq")
        tar.node("n", type: "3", major: 1, minor: 3)
        let store = try SnapshotStore(root: root + "/snapshots")
        var random = SeededGenerator(seed: 20_261_124)
        let base = try Digest.of("base")
        try store.publish([store.unpack(MemorySource(tar.finished), chain: base, below: [])])
        var unpacked = 0
        for round in 0..<400 {
            var bytes = mutate(tar.finished, &random)
            if round % 4 != 0 { bytes = repaired(bytes) }
            if (try? store.unpack(MemorySource(bytes), chain: Digest.of("x"), below: [.layer(base)])) != nil { unpacked += 1 }
        }
        XCTAssertGreaterThan(unpacked, 10)
        XCTAssertEqual(try tree(root + "/snapshots/ingest"), [])
        XCTAssertEqual(try tree(root), try tree(root).filter { $0.hasPrefix("snapshots") })
    }

    func testMutatedArchives() throws {
        let archive = try ImageFixture.tar(ImageFixture.simple().layout())
        let docker = try ImageFixture.tar(ImageFixture.simple().docker())
        let store = ImageStore(content: try ContentStore(root: root + "/content"), snapshots: try SnapshotStore(root: root + "/snapshots"))
        let before = try tree(root + "/content") + tree(root + "/snapshots")
        var random = SeededGenerator(seed: 7)
        for round in 0..<150 {
            try write(root + "/archive", repaired(mutate(round % 2 == 0 ? archive : docker, &random)))
            // An archive whose change harmed nothing is imported; all others leave everything as it was.
            let now = try tree(root + "/content") + tree(root + "/snapshots")
            if (try? store.importImages(from: root + "/archive", name: nil)) == nil {
                XCTAssertEqual(try tree(root + "/content") + tree(root + "/snapshots"), now)
            }
        }
        XCTAssertGreaterThan(try tree(root + "/content").count + tree(root + "/snapshots").count, before.count, "some changes harm nothing")
    }

    func testMutatedDocuments() throws {
        let fixture = ImageFixture.simple()
        let documents = [try fixture.manifest(), try fixture.configuration(), try fixture.layout()[1].1]
        var random = SeededGenerator(seed: 99)
        for round in 0..<6000 {
            let bytes = mutate(documents[round % 3], &random)
            _ = try? ImageManifest(parsing: bytes, mediaType: nil)
            _ = try? ImageConfiguration(parsing: bytes)
            _ = try? ImageIndex(parsing: bytes, mediaType: nil)
            _ = try? UserDatabase(passwd: bytes, group: bytes).resolve(String(decoding: bytes.prefix(20), as: UTF8.self))
            _ = try? Reference(parsing: String(decoding: bytes.prefix(80), as: UTF8.self))
        }
    }
}
