import Glibc
import Linux
import OCI
import XCTest

@testable import Content

final class ContentTests: TemporaryDirectoryTests {
    @discardableResult
    private func ingest(_ store: ContentStore, _ text: String, _ expected: Digest? = nil, _ size: Int64? = nil) throws -> (
        digest: Digest, size: Int64
    ) {
        try write(root + "/source", Array(text.utf8))
        let source = try Linux.open(root + "/source", O_RDONLY)
        return try store.ingest(from: source.raw, expected: expected, size: size)
    }

    func testBlobsAreVerifiedOnTheirWayIn() throws {
        let store = try ContentStore(root: root + "/content")
        let digest = try Digest.of("hello")
        let (stored, size) = try ingest(store, "hello", digest, 5)
        XCTAssertEqual(stored, digest)
        XCTAssertEqual(size, 5)
        XCTAssertTrue(store.has(digest))
        XCTAssertEqual(try store.size(of: digest), 5)
        XCTAssertEqual(try store.read(digest, limit: 5), Array("hello".utf8))
        XCTAssertThrowsError(try store.read(digest, limit: 4))
        XCTAssertEqual(try store.list(), [digest])
        XCTAssertEqual(try ingest(store, "hello").digest, digest, "twice is once")

        for (expected, size) in [(digest, Int64(6)), (digest, 4), (try Digest.of("other"), 5), (try Digest.of("other"), nil)]
            as [(Digest, Int64?)]
        {
            XCTAssertThrowsError(try ingest(store, "hello", expected, size))
        }
        XCTAssertEqual(try store.list(), [digest])
        XCTAssertEqual(try tree(root + "/content/ingest"), [], "what was refused is gone")
        try store.delete(digest)
        try store.delete(digest)
        XCTAssertFalse(store.has(digest))
        XCTAssertThrowsError(try store.open(digest).raw)
        XCTAssertThrowsError(try store.size(of: digest))
    }

    func testChangedBytesAreNoticed() throws {
        let store = try ContentStore(root: root + "/content")
        let digest = try ingest(store, "hello").digest
        try write(root + "/content/blobs/sha256/" + digest.hex, Array("jello".utf8))
        XCTAssertThrowsError(try store.read(digest, limit: 100)) { XCTAssertTrue("\($0)".contains("changed on disk"), "\($0)") }
    }

    func testTheStartRemovesWhatADeadManagerLeft() throws {
        let store = try ContentStore(root: root + "/content")
        try write(root + "/content/ingest/half", [1])
        try write(root + "/content/blobs/sha256/stranger", [1])
        try store.cleanIngest()
        XCTAssertEqual(try tree(root + "/content/ingest"), [])
        XCTAssertEqual(try store.list(), [])
    }

    private func inflate(_ bytes: [UInt8], _ limit: ExpansionLimit = ExpansionLimit()) throws -> [UInt8] {
        let source = try GzipSource(MemorySource(bytes), limit: limit)
        var out: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 1000)
        while case let got = try buffer.withUnsafeMutableBytes({ try source.read(into: $0) }), got > 0 { out += buffer[..<got] }
        return out
    }

    func testGzip() throws {
        let text = Array(String(repeating: "line of text\n", count: 1000).utf8)
        XCTAssertEqual(try inflate(gzip(text)), text)
        XCTAssertEqual(try inflate(gzip(text) + gzip([]) + gzip(text)), text + text, "all members")
        XCTAssertEqual(try inflate(gzip([])), [])
        for bytes in [[], Array(gzip(text).dropLast()), Array(gzip(text).prefix(5)), gzip(text) + [1, 2], text] {
            XCTAssertThrowsError(try inflate(bytes))
        }
        var flipped = gzip(text)
        flipped[flipped.count - 6] ^= 1
        XCTAssertThrowsError(try inflate(flipped), "checksum")
    }

    func testExpansionIsBounded() throws {
        let bomb = gzip([UInt8](repeating: 0, count: 4 << 20))
        XCTAssertThrowsError(try inflate(bomb, ExpansionLimit(free: 1 << 20, ratio: 100, total: 1 << 30))) {
            XCTAssertTrue("\($0)".contains("expands"), "\($0)")
        }
        XCTAssertThrowsError(try inflate(bomb, ExpansionLimit(free: 1 << 30, ratio: 100, total: 1 << 20)))
        XCTAssertEqual(try inflate(bomb, ExpansionLimit(free: 8 << 20, ratio: 1, total: 8 << 20)).count, 4 << 20)
    }

    func testChainIDs() throws {
        let one = try Digest.of("1")
        let two = try Digest.of("2")
        XCTAssertEqual(try SHA256.chainIDs([]), [])
        XCTAssertEqual(try SHA256.chainIDs([one, two]), [one, try Digest.of("\(one) \(two)")])
    }
}
