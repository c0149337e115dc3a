import CLinux
import Glibc
import Linux
import XCTest

final class RootFSTests: XCTestCase {
    private var path = ""

    override func setUpWithError() throws {
        var template = Array("/tmp/ctr-rootfs-XXXXXX".utf8CString)
        path = try XCTUnwrap(mkdtemp(&template).map { String(cString: $0) })
        XCTAssertEqual(mkdir(path + "/root", 0o755), 0)
        XCTAssertEqual(mkdir(path + "/outside", 0o755), 0)
    }

    override func tearDownWithError() throws {
        let temporary = try open("/tmp", O_RDONLY | O_DIRECTORY)
        try RootFS.removeTree(temporary.raw, String(path.dropFirst("/tmp/".count)))
    }

    private func rootFS() throws -> RootFS { try RootFS(path: path + "/root") }

    private func code(_ body: () throws -> Void) -> Int32? {
        do { try body() } catch { return (error as? SysError)?.code }
        return nil
    }

    func testLinksAndDotDotEndAtTheRoot() throws {
        let tree = try rootFS()
        XCTAssertEqual(symlink("/", path + "/root/top"), 0)
        XCTAssertEqual(symlink("../../../../outside", path + "/root/up"), 0)
        XCTAssertEqual(symlink("/outside", path + "/root/absolute"), 0)
        var inside = stat()
        XCTAssertEqual(stat(path + "/root", &inside), 0)
        XCTAssertEqual(try tree.status("/top/../../..").st_ino, inside.st_ino)
        XCTAssertEqual(code { _ = try tree.status("up") }, ENOENT)
        XCTAssertEqual(code { _ = try tree.status("absolute") }, ENOENT)
    }

    func testMagicLinksAreRefused() throws {
        let tree = try RootFS(path: "/")
        XCTAssertEqual(code { _ = try tree.open("/proc/self/root/etc", CTR_O_PATH) }, ELOOP)
    }

    func testDirectoriesAreMadeWithTheModeAskedForAndNeverThroughADanglingLink() throws {
        let tree = try rootFS()
        let old = umask(0o077)
        defer { umask(old) }
        _ = try tree.makeDirectories("/a/b/c", mode: 0o751)
        XCTAssertEqual(try tree.status("a/b").st_mode & 0o7777, 0o751)
        XCTAssertEqual(symlink("/nowhere", path + "/root/dangling"), 0)
        XCTAssertNotNil(code { _ = try tree.makeDirectories("/dangling/x") })
        _ = try tree.makeDirectories("/a/../../outside/x")
        XCTAssertEqual(access(path + "/root/outside/x", F_OK), 0)
        XCTAssertEqual(symlink(path + "/outside", path + "/root/escape"), 0)
        XCTAssertNotNil(code { _ = try tree.makeDirectories("/escape/x") })
        XCTAssertEqual(access(path + "/outside/x", F_OK), -1)
    }

    func testOnlyRegularFilesAreReadAndWithinTheLimit() throws {
        let tree = try rootFS()
        XCTAssertEqual(mkfifo(path + "/root/fifo", 0o600), 0)
        XCTAssertEqual(code { _ = try tree.readFile("fifo", limit: 10) }, EINVAL)
        _ = try tree.makeFile("/etc/passwd")
        let file = try open(path + "/root/etc/passwd", O_WRONLY)
        try writeAll(file.raw, Array("0123456789".utf8), name: "passwd")
        XCTAssertEqual(try tree.readFile("etc/passwd", limit: 10).count, 10)
        XCTAssertEqual(code { _ = try tree.readFile("etc/passwd", limit: 9) }, EFBIG)
    }

    func testRemovalFollowsNothing() throws {
        let tree = try rootFS()
        XCTAssertEqual(mkdir(path + "/outside/kept", 0o755), 0)
        _ = try tree.makeDirectories("/x/y/z")
        XCTAssertEqual(symlink(path + "/outside", path + "/root/x/y/link"), 0)
        try RootFS.removeTree(tree.root.raw, "x")
        try RootFS.removeTree(tree.root.raw, "x")
        XCTAssertEqual(access(path + "/outside/kept", F_OK), 0)
        XCTAssertEqual(try RootFS.entries(of: tree.root.raw), [])
    }

    func testATreeWithNamesThatAreNoTextAndManyLevelsIsRemoved() throws {
        let tree = try rootFS()
        var directory = try tree.makeDirectories("/x")
        for level in 0..<700 {
            let name: [CChar] = level % 2 == 0 ? [-1, -2, 0] : [97, 0]
            XCTAssertEqual(mkdirat(directory.raw, name, 0o755), 0)
            directory = Descriptor(owning: try check("open", "", ctr_openat(directory.raw, name, CTR_O_PATH | O_DIRECTORY | O_CLOEXEC, 0)))
        }
        try RootFS.removeTree(tree.root.raw, "x")
        XCTAssertEqual(try RootFS.entries(of: tree.root.raw), [])
    }

    func testNamesThatCannotBeCreatedAreRefused() {
        for bad in ["", "/", "..", "a/..", "a/.", String(repeating: "n", count: 256), String(repeating: "a/", count: 3000) + "b"] {
            XCTAssertNotNil(code { _ = try RootFS.split(bad) }, bad)
        }
        XCTAssertEqual(try RootFS.split("a//b/").name, "b")
    }

    func testAProcessIsNamedByPidAndStartTime() throws {
        let me = try ProcessIdentity(current: getpid())
        XCTAssertTrue(me.exists)
        XCTAssertEqual(code { _ = try ProcessIdentity(pid: me.pid, startTime: me.startTime + 1).open() }, ESRCH)
        XCTAssertEqual(ProcessIdentity.startTime(inStat: Array("7 (a) b) S 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4242 0".utf8)), 4242)
        XCTAssertNil(ProcessIdentity.startTime(inStat: Array("7 (cut".utf8)))
    }
}
