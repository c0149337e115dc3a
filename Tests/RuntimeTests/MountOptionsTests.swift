import Linux
import OCI
import XCTest

@testable import Runtime

final class MountOptionsTests: XCTestCase {
    func testFlagsDataAndPropagation() throws {
        let options = try MountOptions(["nosuid", "strictatime", "mode=755", "rbind", "rslave", "rro", "defaults"])
        XCTAssertEqual(options.set, [.noSUID, .strictAccessTime])
        XCTAssertEqual(options.clear, .accessTimeMask)
        XCTAssertEqual(options.recursiveSet, .readOnly)
        XCTAssertEqual(options.data, ["mode=755"])
        XCTAssertTrue(options.bind && options.recursiveBind)
        XCTAssertEqual(options.propagations.first?.0, .slave)
    }

    func testTheLastOfTwoOppositesCounts() throws {
        XCTAssertEqual(try MountOptions(["ro", "rw"]).set, [])
        XCTAssertEqual(try MountOptions(["ro", "rw"]).clear, .readOnly)
        XCTAssertEqual(try MountOptions(["dev", "nodev"]).set, .noDevices)
        XCTAssertEqual(try MountOptions(["noatime", "relatime"]).set, [])
    }

    func testWhatWouldBeIgnoredIsRefused() {
        XCTAssertThrowsError(try MountOptions(["remount"]))
        XCTAssertThrowsError(try MountOptions(["idmap"]))
    }

    func testPlaces() {
        XCTAssertEqual(MountPlace.cleaned("//a/./b/../c/"), "/a/c")
        XCTAssertEqual(MountPlace.cleaned("../.."), "/")
        func refused(_ destination: String, _ type: String) -> Bool {
            var entry = RuntimeSpec.Mount()
            entry.destination = destination
            entry.type = type
            do throws(RuntimeError) { try MountPlace.check(entry, try MountOptions([])) } catch { return true }
            return false
        }
        XCTAssertTrue(refused("/", "tmpfs") && refused("/x/../proc", "tmpfs") && refused("/proc/self/attr", "tmpfs"))
        XCTAssertFalse(refused("/proc", "proc") || refused("/proc/meminfo", "bind") || refused("/processes", "tmpfs"))
    }

    func testKernelParameters() {
        func allowed(_ key: String, _ value: String = "1", ipc: Bool = false, network: Bool = false, uts: Bool = false) -> Bool {
            do throws(RuntimeError) { try Sysctl.check(RuntimeSpec.KeyValue(key, value), ipc: ipc, network: network, uts: uts) } catch {
                return false
            }
            return true
        }
        XCTAssertTrue(allowed("net.ipv4.ip_forward", network: true) && allowed("net/ipv4/conf/eth0.1/forwarding", network: true))
        XCTAssertTrue(
            allowed("kernel.shmmax", ipc: true) && allowed("fs.mqueue.msg_max", ipc: true) && allowed("kernel.domainname", uts: true))
        for key in ["net.ipv4.ip_forward", "kernel.shmmax", "kernel.core_pattern", "vm.swappiness", "kernel.domainname"] {
            XCTAssertFalse(allowed(key), key)
        }
        for key in ["net", "net.", ".net", "net..x", "net/../kernel/core_pattern", "net.ipv4.x\n", "net/ipv4 /x"] {
            XCTAssertFalse(allowed(key, network: true), key)
        }
        XCTAssertFalse(allowed("net.ipv4.ip_forward", "1\nx", network: true))
    }

    func testCapabilities() throws {
        var lists = RuntimeSpec.Capabilities()
        lists.bounding = ["CAP_CHOWN", "CAP_CHECKPOINT_RESTORE"]
        var sets = try CapabilitySets(lists)
        XCTAssertEqual(sets.bounding, 1 | 1 << 40)
        XCTAssertEqual(sets.permitted, 0)
        XCTAssertEqual(sets.limit(to: 1), 1 << 40)
        XCTAssertEqual(sets.bounding, 1)
        lists.ambient = ["CAP_NOTHING"]
        XCTAssertThrowsError(try CapabilitySets(lists))
    }
}
