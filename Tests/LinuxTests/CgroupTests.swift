import CLinux
import Glibc
import XCTest

@testable import Linux

final class CgroupTests: XCTestCase {
    func testHierarchiesOfAHybridHost() {
        let text = """
            22 27 0:21 / /proc rw,relatime - proc proc rw
            32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,xattr,cpu,cpuacct
            33 31 0:30 / /sys/fs/cgroup/sys\\040temd rw shared:1 master:2 - cgroup cgroup rw,name=systemd
            34 31 0:30 / /again rw - cgroup cgroup rw,name=systemd
            41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
            42 31 0:39 / /not - ext4 rw - cgroupish cgroup rw,cpu

            """
        XCTAssertEqual(
            CgroupHierarchies(mountinfo: Array(text.utf8)),
            CgroupHierarchies(
                v1: [
                    .init(controllers: "cpu,cpuacct", mountPoint: "/sys/fs/cgroup/cpu,cpuacct"),
                    .init(controllers: "name=systemd", mountPoint: "/sys/fs/cgroup/sys temd"),
                ],
                unified: "/sys/fs/cgroup/unified"))
    }

    func testPaths() {
        for path in ["", "/", "a", "/a/", "//a", "/a/../b", "/.", "/a\nb", "/" + String(repeating: "x", count: 256)] {
            XCTAssertThrowsError(try ContainerCgroup.validate(path), path)
        }
        XCTAssertNoThrow(try ContainerCgroup.validate("/ctrd/default/c1"))
    }

    private func rule(_ allow: Bool, _ kind: DeviceRule.Kind, _ major: UInt32?, _ minor: UInt32?, _ access: DeviceRule.Access = .all)
        -> DeviceRule
    {
        DeviceRule(allow: allow, kind: kind, major: major, minor: minor, access: access)
    }

    func testRulesAreReducedToWhatMatters() {
        let null = rule(true, .character, 1, 3)
        XCTAssertEqual(DeviceRule.reduced([null, rule(false, .all, nil, nil), null, rule(false, .character, 10, 229), null]), [null])
        XCTAssertEqual(DeviceRule.reduced([rule(true, .all, nil, nil), null]), [rule(true, .all, nil, nil)])
        XCTAssertEqual(DeviceRule.reduced([null, rule(false, .character, 1, 3, .write)]).count, 2)
        XCTAssertEqual(DeviceRule.reduced([rule(false, .block, 8, nil)]), [])
    }

    func testConversionsToVersion2() {
        XCTAssertEqual(CgroupLimits.weight(shares: 2), 1)
        XCTAssertEqual(CgroupLimits.weight(shares: 262_144), 10_000)
        XCTAssertEqual(CgroupLimits.weight(shares: 1024), 39)
        XCTAssertEqual(CgroupLimits.ioWeight(10), 1)
        XCTAssertEqual(CgroupLimits.ioWeight(1000), 10_000)
    }

    /// The program in the kernel: a process in the group opens what is allowed and nothing else.
    func testDeviceProgramInTheKernel() throws {
        guard geteuid() == 0, let unified = try CgroupHierarchies().unified else {
            return XCTFail("needs root and a version 2 hierarchy: mount -t cgroup2 none /sys/fs/cgroup/unified")
        }
        let path = "\(unified)/ctrd-device-test-\(getpid())"
        XCTAssertEqual(mkdir(path, 0o755), 0)
        defer { rmdir(path) }
        try DeviceProgram([
            rule(false, .all, nil, nil), rule(true, .character, 1, 3), rule(true, .character, 1, 5, .read), rule(true, .character, 5, nil),
            rule(true, .character, 1, 8), rule(false, .character, 1, 8, .write),
        ]).attach(to: path)
        let script = """
            echo $$ > \(path)/cgroup.procs || exit 99
            : > /dev/null || exit 1
            : < /dev/zero || exit 2
            (: > /dev/zero) 2>&- && exit 3
            (: < /dev/full) 2>&- && exit 4
            : < /dev/random || exit 5
            (: > /dev/random) 2>&- && exit 6
            exit 42
            """
        var arguments: [UnsafeMutablePointer<CChar>?] = ["sh", "-c", script].map { (text: String) in strdup(text) } + [nil]
        var environment: [UnsafeMutablePointer<CChar>?] = [nil]
        let streams: [Int32] = [-1, 1, 2]
        let pid = ctr_spawn("/bin/sh", &arguments, &environment, "/", streams, 3, false)
        XCTAssertGreaterThan(pid, 0)
        var status: Int32 = 0
        XCTAssertEqual(ctr_waitid(CTR_P_PID, pid, &status, 0), pid)
        XCTAssertEqual(exitCode(waitStatus: status), 42)
        arguments.forEach { free($0) }
    }
}
