import CLinux
import Glibc
import Linux
import OCI
import XCTest

@testable import Content
@testable import Snapshots

final class LayerTests: TemporaryDirectoryTests {
    private var store: SnapshotStore?
    private var chain: [Digest] = []

    override func setUpWithError() throws {
        try super.setUpWithError()
        store = try SnapshotStore(root: root + "/snapshots")
        chain = []
    }

    /// Unpacks a layer on top of those before it; returns the path of its tree.
    @discardableResult
    private func layer(_ build: (inout TarBuilder) -> Void) throws -> String {
        let store = try XCTUnwrap(store)
        var tar = TarBuilder()
        build(&tar)
        let digest = try Digest.of("layer \(chain.count)")
        let ingest = try store.unpack(MemorySource(tar.finished), chain: digest, below: chain.map { .layer($0) })
        try store.publish([ingest])
        chain.append(digest)
        return root + "/snapshots/layers/" + digest.hex + "/fs"
    }

    private func assertRefused(_ cause: String, file: StaticString = #filePath, line: UInt = #line, _ build: (inout TarBuilder) -> Void)
        throws
    {
        let before = chain
        XCTAssertThrowsError(try layer(build), file: file, line: line) { error in
            XCTAssertTrue("\(error)".contains(cause), "\(error)", file: file, line: line)
        }
        XCTAssertEqual(chain, before)
        XCTAssertEqual(try tree(root + "/snapshots/ingest"), [], "nothing is left", file: file, line: line)
    }

    func testEveryKindOfEntryWithItsAttributes() throws {
        let path = try layer { tar in
            tar.directory("./", mode: 0o711, uid: 3, gid: 4)
            tar.directory("d", mode: 0o1777, uid: 5, gid: 6, modified: 1_000_000)
            tar.file("d/suid", "x", mode: 0o6755, uid: 1000, gid: 1001)
            tar.link("d/l", to: "/etc/shadow")
            tar.link("h", to: "d/suid", hard: true)
            tar.node("c", type: "3", major: 1, minor: 3, mode: 0o666)
            tar.node("b", type: "4", major: 8, minor: 1)
            tar.node("p", type: "6", mode: 0o622)
            tar.pax([("SCHILY.xattr.user.note", "hi"), ("SCHILY.xattr.security.capability", "")])
            tar.file("x", "attributes")
        }
        let top = try XCTUnwrap(status(path))
        XCTAssertEqual([top.st_mode & 0o7777, top.st_uid, top.st_gid], [0o711, 3, 4])
        let directory = try XCTUnwrap(status(path + "/d"))
        XCTAssertEqual([directory.st_mode & 0o7777, directory.st_uid, directory.st_gid], [0o1777, 5, 6])
        XCTAssertEqual(directory.st_mtim.tv_sec, 1_000_000, "kept although files were made in it")
        let suid = try XCTUnwrap(status(path + "/d/suid"))
        XCTAssertEqual([suid.st_mode & 0o7777, suid.st_uid, suid.st_gid], [0o6755, 1000, 1001])
        XCTAssertEqual(suid.st_mtim.tv_sec, 1_700_000_000)
        XCTAssertEqual(suid.st_nlink, 2)
        XCTAssertEqual(status(path + "/h")?.st_ino, suid.st_ino)
        XCTAssertEqual(try openDirectory(path + "/d").link(Name("l")), Array("/etc/shadow".utf8))
        let null = try XCTUnwrap(status(path + "/c"))
        XCTAssertEqual(UInt64(null.st_rdev), ctr_makedev(1, 3))
        XCTAssertEqual(null.st_mode, S_IFCHR | 0o666)
        XCTAssertEqual(status(path + "/b")?.st_mode, S_IFBLK | 0o600)
        XCTAssertEqual(status(path + "/p")?.st_mode, S_IFIFO | 0o622)
        var value = [UInt8](repeating: 0, count: 8)
        let file = try Linux.open(path + "/x", O_RDONLY)
        XCTAssertEqual(ctr_fgetxattr(file.raw, "user.note", &value, 8), 2)
    }

    func testWhiteoutsHideLowerFilesOnly() throws {
        try layer { tar in
            tar.file("etc/a", "1")
            tar.file("etc/b", "1")
            tar.directory("gone")
            tar.file("gone/x")
            tar.directory("again")
            tar.file("again/old")
        }
        let path = try layer { tar in
            tar.file("etc/.wh.a")
            tar.file("etc/b", "2")
            tar.file("etc/.wh.b")
            tar.file("etc/.wh.never")
            tar.file(".wh.gone")
            tar.file(".wh.again")
            tar.directory("again")
            tar.file("again/new")
        }
        XCTAssertTrue(try XCTUnwrap(status(path + "/etc/a")).isWhiteout)
        XCTAssertEqual(try text(path + "/etc/b"), "2")
        XCTAssertNil(status(path + "/etc/never"), "nothing to hide")
        XCTAssertTrue(try XCTUnwrap(status(path + "/gone")).isWhiteout)
        XCTAssertTrue(try openDirectory(path + "/again").isOpaque)
        XCTAssertFalse(try openDirectory(path + "/etc").isOpaque)
        let view = try XCTUnwrap(store).view(chain)
        XCTAssertNil(try view.readFile("/etc/a", limit: 10))
        XCTAssertEqual(try view.readFile("/etc/b", limit: 10), Array("2".utf8))
        XCTAssertNil(try view.readFile("/gone/x", limit: 10))
        XCTAssertNil(try view.readFile("/again/old", limit: 10))
        XCTAssertEqual(try view.readFile("/again/new", limit: 10), [])
    }

    func testOpaqueActsOnLowerLayersWhereverItStands() throws {
        try layer { $0.file("d/old", "1") }
        let path = try layer { tar in
            tar.file("d/new", "2")
            tar.file("d/.wh..wh..opq")
            tar.file("d/newer", "3")
        }
        XCTAssertTrue(try openDirectory(path + "/d").isOpaque)
        XCTAssertEqual(try tree(path), ["d", "d/new", "d/newer"])
    }

    func testOpaqueRootHidesEveryLowerName() throws {
        try layer { tar in
            tar.file("a")
            tar.file("d/old")
        }
        let path = try layer { tar in
            tar.file(".wh..wh..opq")
            tar.file("d/new")
        }
        XCTAssertTrue(try XCTUnwrap(status(path + "/a")).isWhiteout)
        XCTAssertTrue(try openDirectory(path + "/d").isOpaque)
    }

    func testTheLowestLayerHasNoWhiteouts() throws {
        let path = try layer { tar in
            tar.file(".wh.a")
            tar.file("d/.wh..wh..opq")
            tar.file("d/.wh..wh.plnk/1.2")
        }
        XCTAssertEqual(try tree(path), ["d"])
    }

    func testMalformedWhiteoutsAreRefused() throws {
        try assertRefused("without a name") { $0.file("d/.wh.") }
        try assertRefused("without a name") { $0.file("d/.wh...") }
        try assertRefused("no file") { $0.directory("d/.wh.x") }
        try assertRefused("name of a whiteout") { $0.file(".wh.x/y") }
        try assertRefused("0:0") { $0.node("x", type: "3") }
    }

    func testMissingParentsTakeTheLowerAttributes() throws {
        try layer { tar in
            tar.directory("var", mode: 0o700, uid: 8, gid: 9, modified: 5)
            tar.directory("var/tmp", mode: 0o1777, uid: 8)
        }
        let path = try layer { $0.file("var/tmp/f") }
        XCTAssertEqual(try XCTUnwrap(status(path + "/var")).st_mode & 0o7777, 0o700)
        XCTAssertEqual(status(path + "/var")?.st_uid, 8)
        XCTAssertEqual(status(path + "/var")?.st_mtim.tv_sec, 5)
        XCTAssertEqual(try XCTUnwrap(status(path + "/var/tmp")).st_mode & 0o7777, 0o1777)
        let other = try layer { $0.file("new/f") }
        XCTAssertEqual(try XCTUnwrap(status(other + "/new")).st_mode & 0o7777, 0o755)
    }

    func testOfTwoEntriesTheLastCounts() throws {
        let path = try layer { tar in
            tar.file("a", "1")
            tar.file("a", "2")
            tar.directory("d", mode: 0o700)
            tar.file("d/x")
            tar.directory("d", mode: 0o750)
            tar.directory("e")
            tar.file("e/deep/y")
            tar.file("e", "file now")
            tar.link("l", to: "a")
            tar.file("l", "3")
            tar.file("f", "1")
            tar.directory("f")
        }
        XCTAssertEqual(try text(path + "/a"), "2")
        XCTAssertEqual(try tree(path), ["a", "d", "d/x", "e", "f", "l"])
        XCTAssertEqual(try XCTUnwrap(status(path + "/d")).st_mode & 0o7777, 0o750)
        XCTAssertEqual(try text(path + "/e"), "file now")
        XCTAssertTrue(try XCTUnwrap(status(path + "/l")).isRegular)
        XCTAssertTrue(try XCTUnwrap(status(path + "/f")).isDirectory)
    }

    /// Links to places outside, in the same layer and below it (CVE-2025-47290, CVE-2021-32760): everything stays below the root.
    func testLinksNeverLeadOutOfTheLayer() throws {
        let canary = root + "/canary"
        try makeDirectory(canary, mode: 0o755)
        try write(canary + "/f", Array("safe".utf8))
        try layer { tar in
            tar.link("down", to: canary)
            tar.link("up", to: "../../../../../../../../.." + canary)
            tar.link("file", to: canary + "/f")
        }
        let path = try layer { tar in
            tar.link("here", to: canary)
            tar.file("here/x", "1", mode: 0o777)
            tar.file("down/y", "2")
            tar.file("up/z", "3")
            tar.file("file", "4", mode: 0o777)
            tar.link("again", to: canary + "/f")
            tar.link("hard", to: "again", hard: true)
        }
        XCTAssertEqual(try tree(canary), ["f"])
        XCTAssertEqual(try text(canary + "/f"), "safe")
        XCTAssertEqual(try XCTUnwrap(status(canary + "/f")).st_mode & 0o7777, 0o644)
        XCTAssertEqual(status(canary + "/f")?.st_nlink, 1)
        // Below the root of the layer the links lead where they would lead in the container.
        for name in ["x", "y", "z"] { XCTAssertNotNil(status(path + canary + "/" + name), name) }
        XCTAssertEqual(try text(path + "/file"), "4")
        XCTAssertTrue(try XCTUnwrap(status(path + "/hard")).isLink)
    }

    func testLoopsOfLinksAreRefused() throws {
        try assertRefused("symbolic links") { tar in
            tar.link("a", to: "b")
            tar.link("b", to: "a")
            tar.file("a/x")
        }
    }

    func testPathsOutsideAreRefused() throws {
        try assertRefused("out of the root") { $0.file("../x") }
        try assertRefused("out of the root") { $0.file("a/../../x") }
        try assertRefused("out of the root") { $0.link("x", to: "../y", hard: true) }
        try assertRefused("no directory") { tar in
            tar.file("a")
            tar.file("a/b")
        }
    }

    func testTheRootStaysADirectory() throws {
        try assertRefused("the root") { $0.link("./", to: "/etc") }
        try assertRefused("the root") { $0.file(".") }
        try assertRefused("the root") { $0.link("/", to: "x", hard: true) }
        let path = try layer { $0.file("/etc/absolute", "x") }
        XCTAssertEqual(try tree(path), ["etc", "etc/absolute"])
    }

    func testHardLinksReachLowerLayers() throws {
        try layer { tar in
            tar.directory("bin", mode: 0o711)
            tar.file("bin/a", "tool", mode: 0o4755, uid: 7)
            tar.node("fifo", type: "6")
        }
        let path = try layer { tar in
            tar.link("bin/b", to: "bin/a", hard: true)
            tar.link("bin/b", to: "/bin/a", hard: true)
        }
        XCTAssertEqual(try text(path + "/bin/b"), "tool")
        XCTAssertEqual(status(path + "/bin/b")?.st_ino, status(path + "/bin/a")?.st_ino)
        XCTAssertEqual(status(path + "/bin/a")?.st_uid, 7)
        XCTAssertEqual(try XCTUnwrap(status(path + "/bin/a")).st_mode & 0o7777, 0o4755)
        XCTAssertEqual(try XCTUnwrap(status(path + "/bin")).st_mode & 0o7777, 0o711)
        try assertRefused("does not exist") { $0.link("c", to: "nothing", hard: true) }
        try assertRefused("does not exist") { tar in
            tar.file(".wh.bin")
            tar.link("c", to: "bin/a", hard: true)
        }
        try assertRefused("directory") { tar in
            tar.directory("d")
            tar.link("c", to: "d", hard: true)
        }
        try assertRefused("itself") { $0.link("bin/a", to: "bin/a", hard: true) }
        try assertRefused("special file") { $0.link("c", to: "fifo", hard: true) }
    }

    func testOnlyHarmlessAttributesArePassedOn() throws {
        let path = try layer { tar in
            tar.pax([
                ("SCHILY.xattr.trusted.overlay.redirect", "/etc"), ("SCHILY.xattr.trusted.overlay.opaque", "y"),
                ("SCHILY.xattr.user.overlay.redirect", "/etc"), ("SCHILY.xattr.security.selinux", "x"), ("SCHILY.xattr.user.ok", "1"),
            ])
            tar.directory("d")
        }
        let directory = try openDirectory(path + "/d")
        var list = [CChar](repeating: 0, count: 4096)
        let length = ctr_flistxattr(directory.raw, &list, list.count)
        let names = list.prefix(max(0, length)).split(separator: 0).map {
            String(decoding: $0.map { UInt8(bitPattern: $0) }, as: UTF8.self)
        }
        XCTAssertEqual(names, ["user.ok"])
    }

    func testNamesThatAreNoUTF8StayAsTheyAre() throws {
        let name: [UInt8] = [0x66, 0xff, 0xfe]
        let path = try layer { tar in
            var header = TarBuilder.Header("")
            header.name = [UInt8(ascii: "d"), UInt8(ascii: "/")] + name
            tar.add(header)
        }
        XCTAssertEqual(try openDirectory(path + "/d").names().map(\.bytes), [name])
        try XCTUnwrap(store).removeLayer(chain[0])
        XCTAssertEqual(try tree(root + "/snapshots/layers"), [])
        XCTAssertEqual(try tree(root + "/snapshots/ingest"), [])
    }

    /// What the kernel makes of the layers is what the writer meant.
    func testOverlayfsShowsTheSameTree() throws {
        try layer { tar in
            tar.directory("./", mode: 0o750)
            tar.file("a", "1")
            tar.file("d/old", "1")
            tar.file("o/old", "1")
        }
        try layer { tar in
            tar.file(".wh.a")
            tar.file("d/new", "2")
            tar.file("o/.wh..wh..opq")
            tar.file("o/new", "2")
        }
        let store = try XCTUnwrap(store)
        try store.prepare(namespace: "n", id: "c", chain: chain)
        try store.prepare(namespace: "n", id: "c", chain: chain)
        let mounts = try store.mounts(namespace: "n", id: "c", chain: chain, volatile: true)
        XCTAssertEqual(mounts.map(\.type), ["overlay"])
        let target = root + "/mnt"
        try makeDirectory(target, mode: 0o755)
        // Twice: a volatile mount leaves a mark that the second one has to overcome.
        for _ in 0..<2 {
            _ = try store.mounts(namespace: "n", id: "c", chain: chain, volatile: true)
            let result = ctr_mount("overlay", target, "overlay", 0, mounts[0].options.joined(separator: ","))
            XCTAssertEqual(result, 0, "run the tests as root, with the right to mount")
            XCTAssertEqual(try tree(target), ["d", "d/new", "d/old", "o", "o/new"])
            XCTAssertEqual(try XCTUnwrap(status(target)).st_mode & 0o7777, 0o750)
            XCTAssertEqual(ctr_umount2(target, 0), 0)
        }
        XCTAssertEqual(try store.containers().map(\.id), ["c"])
        try store.remove(namespace: "n", id: "c")
        try store.remove(namespace: "n", id: "c")
        XCTAssertEqual(try store.containers().count, 0)
        XCTAssertThrowsError(try store.mounts(namespace: "n", id: "c", chain: chain, volatile: false))
        for id in ["..", ".", "", "a/b", "a:b", "a\nb", String(repeating: "x", count: 256)] {
            XCTAssertThrowsError(try store.prepare(namespace: "n", id: id), id)
            XCTAssertThrowsError(try store.remove(namespace: id, id: "x"), id)
        }
    }

    func testTreesOfAnyDepthAreRemoved() throws {
        try makeDirectory(root + "/deep", mode: 0o755)
        var directory = try openDirectory(root + "/deep")
        let long = Name(String(repeating: "n", count: 200))
        for _ in 0..<1500 {
            XCTAssertEqual(mkdirat(directory.raw, long.chars, 0o755), 0)
            directory = try XCTUnwrap(directory.directory(long))
        }
        for index in 0..<3000 { XCTAssertEqual(mkdirat(directory.raw, "\(index)", 0o755), 0) }
        try openDirectory(root).remove(Name("deep"))
        XCTAssertNil(status(root + "/deep"))
    }

    func testStoresRefusePathsThatOptionsCannotHold() {
        for path in ["relative", "/tmp/a:b", "/tmp/a,b", "/tmp/a\\b", "/tmp/a\nb"] {
            XCTAssertThrowsError(try SnapshotStore(root: path), path)
        }
    }
}
