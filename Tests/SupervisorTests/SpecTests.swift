import Images
import OCI
import XCTest

@testable import Supervisor

final class SpecTests: XCTestCase {
    private let bob = ResolvedUser(uid: 1000, gid: 1001, additionalGids: [1001, 10], home: "/home/bob")

    private func request(_ change: (inout SpecRequest) -> Void = { _ in }) -> SpecRequest {
        var request = SpecRequest(id: "0123456789abcdef0123", args: ["/bin/sh", "-c", "true"], user: bob, cgroupsPath: "/ctrd/default/x")
        change(&request)
        return request
    }

    private func spec(_ change: (inout SpecRequest) -> Void = { _ in }) throws -> JSON { try makeSpec(request(change)) }

    private func image(_ config: String) throws -> ImageConfiguration {
        try ImageConfiguration(parsing: Array(#"{"rootfs":{"type":"layers","diff_ids":[]},"config":{\#(config)}}"#.utf8))
    }

    private func texts(_ json: JSON?) -> [String] { (json?.arrayValue ?? []).compactMap(\.stringValue) }

    func testTheDefaultsAreThoseOfDocker() throws {
        let spec = try spec()
        XCTAssertEqual(spec["ociVersion"], "1.0.2")
        XCTAssertEqual(spec["hostname"], "0123456789ab")
        XCTAssertEqual(spec["root"], ["path": "rootfs", "readonly": false])
        XCTAssertEqual(spec["annotations"]?["org.ctrd.rootfs.fd"], "3")
        let process = try XCTUnwrap(spec["process"])
        XCTAssertEqual(process["user"], ["uid": 1000, "gid": 1001, "additionalGids": [1001, 10]])
        XCTAssertEqual(texts(process["args"]), ["/bin/sh", "-c", "true"])
        XCTAssertEqual(
            texts(process["env"]),
            ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME=0123456789ab", "HOME=/home/bob"])
        XCTAssertEqual(process["cwd"], "/")
        XCTAssertEqual(process["noNewPrivileges"], false)
        for set in ["bounding", "effective", "permitted"] { XCTAssertEqual(texts(process["capabilities"]?[set]).count, 14, set) }
        for set in ["inheritable", "ambient"] { XCTAssertNil(process["capabilities"]?[set], set) }
        XCTAssertFalse(texts(process["capabilities"]?["bounding"]).contains { $0.contains("ADMIN") })
        XCTAssertNil(process["rlimits"])
        XCTAssertEqual(
            spec["mounts"]?.arrayValue?.compactMap { $0["destination"]?.stringValue },
            ["/proc", "/dev", "/dev/pts", "/sys", "/sys/fs/cgroup", "/dev/mqueue", "/dev/shm"])
        let linux = try XCTUnwrap(spec["linux"])
        XCTAssertEqual(
            linux["namespaces"]?.arrayValue?.compactMap { $0["type"]?.stringValue }, ["mount", "pid", "uts", "ipc", "cgroup", "network"])
        XCTAssertEqual(linux["cgroupsPath"], "/ctrd/default/x")
        XCTAssertEqual(linux["resources"]?["devices"]?.arrayValue?.first, ["allow": false, "access": "rwm"])
        for key in ["memory", "cpu", "pids"] { XCTAssertNil(linux["resources"]?[key], key) }
        for path in ["/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap"] {
            XCTAssertTrue(texts(linux["maskedPaths"]).contains(path), path)
        }
        XCTAssertEqual(texts(linux["readonlyPaths"]), ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"])
        XCTAssertEqual(try JSON(parsing: spec.encoded()), spec)
    }

    func testWhatIsAskedFor() throws {
        let spec = try spec {
            $0.readOnly = true
            $0.network = "host"
            $0.hostname = "h-1"
            $0.limits.memory = 64 << 20
            $0.limits.nanoCPUs = 1_500_000_000
            $0.limits.pids = 100
            $0.detachedRootFS = false
            $0.terminal = true
            $0.env = ["PATH=/bin", "HOME=/else", "TERMINFO=x"]
            $0.mounts = [
                SpecBindMount(source: "/b", destination: "/data/sub"), SpecBindMount(source: "/a", destination: "/data/", readOnly: true),
                SpecBindMount(source: "/c", destination: "/dev/shm"),
            ]
        }
        XCTAssertEqual(spec["root"]?["readonly"], true)
        XCTAssertNil(spec["annotations"])
        XCTAssertNil(spec["linux"]?["sysctl"], "they would be the host's")
        XCTAssertFalse(try XCTUnwrap(spec["linux"]?["namespaces"]?.arrayValue).contains(["type": "network"]))
        XCTAssertEqual(spec["linux"]?["resources"]?["memory"], ["limit": 67_108_864, "swap": 67_108_864])
        XCTAssertEqual(spec["linux"]?["resources"]?["cpu"], ["quota": 150_000, "period": 100_000])
        XCTAssertEqual(spec["linux"]?["resources"]?["pids"], ["limit": 100])
        XCTAssertEqual(texts(spec["process"]?["env"]), ["HOSTNAME=h-1", "TERM=xterm", "PATH=/bin", "HOME=/else", "TERMINFO=x"])
        let mounts = try XCTUnwrap(spec["mounts"]?.arrayValue)
        XCTAssertEqual(mounts.suffix(3).compactMap { $0["destination"]?.stringValue }, ["/data", "/data/sub", "/dev/shm"])
        XCTAssertEqual(mounts.filter { $0["destination"] == "/dev/shm" }.count, 1)
        XCTAssertEqual(texts(mounts[mounts.count - 3]["options"]), ["rbind", "rprivate", "ro"])
        XCTAssertNil(
            try self.spec {
                $0.limits.memory = 64 << 20; $0.hostLimitsSwap = false
            }["linux"]?["resources"]?["memory"]?["swap"])
    }

    func testWhatCannotBeIsRefusedInOneLine() {
        let table: [(inout SpecRequest) -> Void] = [
            { $0.args = [] }, { $0.args = [""] }, { $0.args = ["a\u{0}b"] }, { $0.env = ["A"] }, { $0.env = ["=A"] },
            { $0.env = ["A=\u{0}"] },
            { $0.hostname = "a b" }, { $0.hostname = "-a" }, { $0.hostname = String(repeating: "h", count: 64) }, { $0.hostname = "a\nb" },
            { $0.network = "bridge" }, { $0.limits.memory = 1 }, { $0.limits.memory = -1 }, { $0.limits.nanoCPUs = 1 },
            { $0.limits.nanoCPUs = -1 },
            { $0.cgroupsPath = "relative" }, { $0.cwd = "/proc/self/fd/7" },
            { $0.mounts = [SpecBindMount(source: "rel", destination: "/x")] },
            { $0.mounts = [SpecBindMount(source: "/x", destination: "rel")] },
            { $0.mounts = [SpecBindMount(source: "/x", destination: "/")] },
            { $0.mounts = [SpecBindMount(source: "/x", destination: "/a/..")] },
            { $0.mounts = [SpecBindMount(source: "/x", destination: "/proc")] },
            { $0.mounts = [SpecBindMount(source: "/x", destination: "/a/../proc/self")] },
            { $0.mounts = [SpecBindMount(source: "/x\u{0}", destination: "/a")] },
            { $0.mounts = [SpecBindMount(source: "/x", destination: "/a"), SpecBindMount(source: "/y", destination: "/a/")] },
        ]
        for (index, change) in table.enumerated() {
            XCTAssertThrowsError(try spec(change), "\(index)") { XCTAssertFalse("\($0)".contains("\n")) }
        }
    }

    func testCommandLines() throws {
        let both = try image(#""Entrypoint":["/e"],"Cmd":["c"]"#)
        XCTAssertEqual(try SpecRequest.arguments(entrypoint: [], args: [], image: both), ["/e", "c"])
        XCTAssertEqual(try SpecRequest.arguments(entrypoint: [], args: ["x"], image: both), ["/e", "x"])
        XCTAssertEqual(try SpecRequest.arguments(entrypoint: ["/u"], args: [], image: both), ["/u"])
        XCTAssertEqual(try SpecRequest.arguments(entrypoint: ["/u"], args: ["x"], image: both), ["/u", "x"])
        XCTAssertThrowsError(try SpecRequest.arguments(entrypoint: [], args: [], image: image("")))
        XCTAssertThrowsError(try SpecRequest.arguments(entrypoint: [], args: [""], image: image("")))
    }

    func testEnvironments() throws {
        let image = try image(#""Env":["A=1","B=2","noassignment","=x","A=3"]"#)
        XCTAssertEqual(try SpecRequest.environment([], image: image), ["A=3", "B=2"])
        XCTAssertEqual(try SpecRequest.environment(["B=9", "C=", "A"], image: image), ["B=9", "C="])
        XCTAssertEqual(try SpecRequest.environment(["A", "A=7"], image: image), ["A=7", "B=2"])
        XCTAssertThrowsError(try SpecRequest.environment(["=x"], image: image))
        XCTAssertThrowsError(try SpecRequest.environment([""], image: image))
    }

    func testWorkingDirectories() throws {
        func directory(_ user: String, _ inImage: String = "") throws -> String {
            try SpecRequest.workingDirectory(user, image: image(#""WorkingDir":"\#(inImage)""#))
        }
        XCTAssertEqual(try directory(""), "/")
        XCTAssertEqual(try directory("", "srv/app/"), "/srv/app")
        XCTAssertEqual(try directory("", "../../etc"), "/etc")
        XCTAssertEqual(try directory("/a/./b/../c", "/x"), "/a/c")
        XCTAssertEqual(try directory("/proc"), "/proc")
        XCTAssertEqual(try directory("/proc/sys"), "/proc/sys")
        for path in ["/proc/self/fd/7", "/proc/thread-self/fd/3", "/proc/1/root", "//proc//self//cwd", "/x/../proc/self/fd/8", "/dev/fd/9"]
        {
            XCTAssertThrowsError(try directory(path), path)
            XCTAssertThrowsError(try directory("", path), path)
        }
        XCTAssertEqual(try directory("/proc/self/fd/7/../../.."), "/proc", "cleaned before anybody can follow it")
        XCTAssertThrowsError(try directory("relative"))
        XCTAssertThrowsError(try directory("/" + String(repeating: "x", count: 5000)))
    }
}
