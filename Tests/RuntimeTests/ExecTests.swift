import Foundation
import Linux
import OCI
import XCTest

@testable import Runtime

/// Command lines and documents of exec, ps, update and events.
final class ExecTests: XCTestCase {
    private func parse(_ words: String...) throws -> Invocation { try Invocation(words) }

    private func exec(_ words: String...) throws -> Invocation.ExecOptions {
        let line = try Invocation(["exec"] + words)
        guard case .exec(let options) = line.command else { throw RuntimeError("\(line.command) is no exec") }
        return options
    }

    func testFlagsEndAtTheContainer() throws {
        let options = try exec(
            "-d", "--pid-file=p", "-u", "7:8", "-e", "A=1", "--env", "B=2", "-g", "5", "c", "ls", "-d", "--env", "--", "-u")
        XCTAssertTrue(options.detach)
        XCTAssertEqual(options.pidFile, "p")
        XCTAssertEqual(options.user?.uid, 7)
        XCTAssertEqual(options.user?.gid, 8)
        XCTAssertEqual(options.env, ["A=1", "B=2"])
        XCTAssertEqual(options.additionalGids, [5])
        XCTAssertEqual(options.args, ["ls", "-d", "--env", "--", "-u"])
        XCTAssertEqual(try exec("c", "--", "ls", "--").args, ["ls", "--"])
        XCTAssertEqual(try exec("--", "c", "--", "ls").args, ["--", "ls"])
        XCTAssertEqual(try parse("exec", "-p", "f", "c").id, "c")
        XCTAssertEqual(try parse("exec", "--help").command, .help("exec"))
    }

    func testRefusals() {
        for words in [
            ["c"], [], ["-p", "f", "c", "ls"], ["-u", "root", "c", "ls"], ["-u", "4294967295", "c", "ls"], ["-u", "1:", "c", "ls"],
            ["-g", "-1", "c", "ls"], ["--odd", "c", "ls"], ["../c", "ls"], ["--cgroup", "..", "c", "ls"], ["--cgroup", "", "c", "ls"],
            ["--preserve-fds", "x", "c", "ls"], ["--process-label", "x", "c", "ls"], ["--env"],
        ] { XCTAssertThrowsError(try Invocation(["exec"] + words), "\(words)") }
    }

    func testControlGroupsBelow() throws {
        let group = ContainerCgroup(
            v1: [.init(controllers: "cpu,cpuacct", path: "/1/c"), .init(controllers: "memory", path: "/2/c")], unified: "/u/c")
        func joined(_ names: String..., in group: ContainerCgroup) throws -> [String] {
            let result = try ExecPlan.group(try names.map { (name) in try Invocation.ExecCgroup(name) }, below: group)
            return result.v1.map(\.path) + [result.unified ?? ""]
        }
        XCTAssertEqual(try joined(in: group), ["/1/c", "/2/c", "/u/c"])
        XCTAssertEqual(try joined("a", in: group), ["/1/c", "/2/c", "/u/c/a"])
        XCTAssertEqual(try joined("/a/b", in: group), ["/1/c", "/2/c", "/u/c/a/b"])
        XCTAssertEqual(try joined("memory:x", "y", in: group), ["/1/c", "/2/c/x", "/u/c/y"])
        XCTAssertEqual(try joined("cpu:x", in: group), ["/1/c/x", "/2/c", "/u/c"])
        XCTAssertEqual(try joined("a", in: ContainerCgroup(v1: group.v1, unified: nil)), ["/1/c/a", "/2/c/a", ""])
        XCTAssertThrowsError(try joined("pids:x", in: group))
    }

    private func saved(_ process: String, resources: String = "{}") throws -> SavedConfiguration {
        let text = #"{"ociVersion":"1.0.2","process":\#(process),"linux":{"resources":\#(resources)}}"#
        return try SavedConfiguration(parsing: Array(text.utf8))
    }

    func testFlagsOverTheFirstProcess() throws {
        let first = try saved(
            #"""
            {"terminal":true,"consoleSize":{"width":9,"height":9},"user":{"uid":1,"gid":2,"additionalGids":[3]},"args":["init"],
             "env":["PATH=/bin","A=old"],"cwd":"/home","capabilities":{"bounding":["CAP_KILL"]},"rlimits":[{"type":"RLIMIT_CORE","soft":0,"hard":0}]}
            """#)
        let process = try ExecPlan(exec("-e", "A=new", "-u", "9", "-g", "4", "-c", "CAP_CHOWN", "c", "ls"), first).launched.process
        XCTAssertEqual(process.args, ["ls"])
        XCTAssertEqual(process.env, ["PATH=/bin", "A=new"])
        XCTAssertEqual(process.cwd, "/home")
        XCTAssertEqual(process.user.uid, 9)
        XCTAssertEqual(process.user.gid, 2)
        XCTAssertEqual(process.user.additionalGids, [3, 4])
        XCTAssertEqual(process.capabilities?.bounding, ["CAP_KILL", "CAP_CHOWN"])
        XCTAssertEqual(process.capabilities?.permitted, ["CAP_CHOWN"])
        XCTAssertEqual(process.capabilities?.ambient, [])
        XCTAssertFalse(process.terminal)
        XCTAssertNil(process.consoleSize?.width)
        XCTAssertEqual(process.rlimits.map(\.type), ["RLIMIT_CORE"])
        XCTAssertThrowsError(try ExecPlan(exec("-e", "A", "c", "ls"), first))
        XCTAssertThrowsError(try ExecPlan(exec("--cwd", "x", "c", "ls"), first))
        XCTAssertThrowsError(try ExecPlan(exec("-c", "CAP_WHAT", "c", "ls"), first))
    }

    func testAProcessObject() throws {
        let path = NSTemporaryDirectory() + "process-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: path) }
        func plan(_ object: String) throws -> ExecPlan {
            try object.write(toFile: path, atomically: false, encoding: .utf8)
            return try ExecPlan(
                exec("-p", path, "c"), saved(#"{"args":["init"],"cwd":"/","capabilities":{"bounding":["CAP_KILL"]},"oomScoreAdj":7}"#))
        }
        let plain = try plan(#"{"args":["a"],"cwd":"/x","unknown":1}"#).launched
        XCTAssertEqual(plain.process.cwd, "/x")
        XCTAssertEqual(plain.process.capabilities?.bounding, ["CAP_KILL"])
        XCTAssertEqual(plain.process.oomScoreAdjustment, 7)
        XCTAssertNil(try plan(#"{"args":["a"],"cwd":"/","capabilities":{}}"#).launched.process.capabilities?.bounding.first)
        XCTAssertEqual(try plan(#"{"args":["a"],"cwd":"/","oomScoreAdj":-3}"#).launched.process.oomScoreAdjustment, -3)
        for bad in ["", "[]", "{}", #"{"args":[],"cwd":"/"}"#, #"{"args":["a"]}"#, #"{"args":["a"],"cwd":"/","selinuxLabel":"x"}"#] {
            XCTAssertThrowsError(try plan(bad), bad) { XCTAssertTrue("\($0)".hasPrefix(path), "\($0)") }
        }
        // How other encoders write "none".
        XCTAssertNoThrow(try plan(#"{"args":["a"],"cwd":"/","selinuxLabel":"","apparmorProfile":"","scheduler":null}"#))
    }

    // MARK: ps, update, events

    func testOtherCommands() throws {
        XCTAssertEqual(try parse("ps", "-f", "json", "c").command, .ps(json: true, options: []))
        XCTAssertEqual(try parse("ps", "c", "-o", "pid,args", "-f").command, .ps(json: false, options: ["-o", "pid,args", "-f"]))
        XCTAssertEqual(try parse("events", "c").command, .events(once: false, interval: 5_000_000_000))
        XCTAssertEqual(try parse("events", "--interval=1m30s", "--stats", "c").command, .events(once: true, interval: 90_000_000_000))
        for words in [
            ["events"], ["events", "--interval", "0s", "c"], ["ps"], ["checkpoint", "c"], ["restore", "c"], ["update", "c", "d"],
        ] {
            XCTAssertThrowsError(try Invocation(words), "\(words)")
        }
    }

    func testTablesAreFilteredByTheirColumn() throws {
        let table = Array("UID  PID CMD\nroot  12 a 13\nroot 13 b\n  x\n".utf8)
        XCTAssertEqual(try ProcessList.filter(table, [13]), Array("UID  PID CMD\nroot 13 b\n".utf8))
        XCTAssertEqual(try ProcessList.filter(table, []), Array("UID  PID CMD\n".utf8))
        XCTAssertThrowsError(try ProcessList.filter(Array("CMD\nx\n".utf8), [1]))
        XCTAssertThrowsError(try ProcessList.filter([], [1]))
    }

    func testQuantities() {
        let sizes: [(String, Int64?)] = [
            ("0", 0), ("-1", -1), ("12", 12), ("12b", 12), ("2k", 2048), ("2KB", 2048), ("2KiB", 2048), ("1.5m", 1_572_864),
            ("3G", 3 << 30),
            ("1t", 1 << 40), ("", nil), ("k", nil), ("-2", nil), ("1.", nil), (".5k", nil), ("1q", nil), ("1bb", nil), ("1ib", nil),
            ("9223372036854775807", .max), ("9223372036854775808", nil), ("9000000p", nil), ("1e3", nil), ("１", nil),
        ]
        for (text, value) in sizes { XCTAssertEqual(Quantity.bytes(text), value, text) }
        let durations: [(String, Int64?)] = [
            ("5s", 5_000_000_000), ("500ms", 500_000_000), ("1h2m", 3_720_000_000_000), ("1.5s", 1_500_000_000), ("1ns", 1), ("0s", nil),
            ("", nil), ("5", nil), ("s", nil), ("-1s", nil), ("5x", nil), ("99999999h", nil),
        ]
        for (text, value) in durations { XCTAssertEqual(Quantity.duration(text), value, text) }
    }

    func testUpdatesByFlags() throws {
        guard
            case .update(let options) = try parse(
                "update", "--memory", "1g", "c", "--memory-swap=-1", "--cpu-shares", "512", "--cpuset-cpus", "0-1", "--pids-limit", "0"
            ).command
        else { return XCTFail("no update") }
        let limits = try Update.limits(options.resources)
        XCTAssertEqual(limits.memory, 1 << 30)
        XCTAssertEqual(limits.memorySwap, -1)
        XCTAssertEqual(limits.cpuShares, 512)
        XCTAssertEqual(limits.cpus, "0-1")
        XCTAssertNil(limits.pids)
        XCTAssertNil(limits.devices)
        XCTAssertNil(limits.cpuQuota)
        XCTAssertThrowsError(try Update.limits(["memory": ["limit": "much"]] as JSON))
        XCTAssertThrowsError(try Update.limits(["cpu": ["realtimePeriod": 5]] as JSON))
        XCTAssertThrowsError(try Update.limits([] as JSON))
    }

    func testSavedLimitsAreMerged() throws {
        var configuration = try saved(#"{"args":["a"],"cwd":"/"}"#, resources: #"{"memory":{"limit":1,"swap":2},"devices":[]}"#)
        configuration.change(resources: ["memory": ["swap": 3], "pids": ["limit": 4], "cpu": .null] as JSON)
        XCTAssertEqual(configuration.resources, ["memory": ["limit": 1, "swap": 3], "devices": [], "pids": ["limit": 4]] as JSON)
        XCTAssertEqual(try SavedConfiguration(parsing: configuration.encoded()), configuration)
        XCTAssertThrowsError(try SavedConfiguration(parsing: Array("{}".utf8)))
    }

    func testStatisticsOfVersion2LookLikeThoseOfVersion1() throws {
        var stats = CgroupStats()
        stats.isVersion2 = true
        var memory = CgroupStats.Memory()
        memory.usage.usage = 100
        memory.usage.limit = 1000
        var swap = CgroupStats.MemoryCounter()
        swap.usage = 10
        swap.limit = 500
        memory.swap = swap
        memory.details = [.init("file", 7)]
        stats.memory = memory
        var device = CgroupStats.BlockIO.Device(major: 8, minor: 0)
        device.readBytes = 4096
        stats.blockIO.devices = [device]
        let line = try JSON(parsing: StatsDocument.line(id: "c", stats).dropLast())
        XCTAssertEqual(line["type"], "stats")
        XCTAssertEqual(line["data"]?["memory"]?["swap"], ["limit": 1500, "usage": 110, "failcnt": 0] as JSON)
        XCTAssertEqual(line["data"]?["memory"]?["cache"], 7)
        XCTAssertEqual(
            line["data"]?["blkio"]?["ioServiceBytesRecursive"],
            [["major": 8, "op": "Read", "value": 4096], ["major": 8, "op": "Write"]] as JSON)
        stats.memory?.swap?.limit = CgroupStats.unlimited
        let unlimited = try JSON(parsing: StatsDocument.line(id: "c", stats).dropLast())
        XCTAssertEqual(unlimited["data"]?["memory"]?["swap"]?["limit"]?.unsignedValue, .max)
        XCTAssertEqual(StatsDocument.outOfMemory(id: "c"), Array("{\"type\":\"oom\",\"id\":\"c\"}\n".utf8))
    }
}
