import Foundation
import XCTest

@testable import Linux

/// Changing limits of a container that runs: what is already so is left alone, and what was written can be taken back.
final class CgroupWriterTests: XCTestCase {
    private func isSame(_ wanted: String, _ there: String, memory: Bool = false) -> Bool {
        CgroupWriter.isSame(wanted, there.split(separator: "\n"), isMemory: memory)
    }

    func testSameness() {
        XCTAssertTrue(isSame("5", "5"))
        XCTAssertFalse(isSame("5", "6"))
        XCTAssertFalse(isSame("5", ""))
        XCTAssertTrue(isSame("-1", "9223372036854771712"))
        XCTAssertTrue(isSame("max", "max"))
        XCTAssertTrue(isSame("50000", "50000 100000"))
        XCTAssertFalse(isSame("50000 50000", "50000 100000"))
        XCTAssertTrue(isSame("default 100", "default 100\n8:0 50"))
        XCTAssertFalse(isSame("default 101", "default 100"))
        XCTAssertTrue(isSame("8:0 1048576", "8:0 1048576\n8:16 7"))
        XCTAssertFalse(isSame("8:16 8", "8:0 8\n8:16 7"))
        XCTAssertTrue(isSame("8:0 rbps=1", "8:0 rbps=1 wbps=max riops=max wiops=max"))
        let page = getpagesize()
        XCTAssertTrue(isSame("\(page * 3 + 5)", "\(page * 3)", memory: true))
        XCTAssertFalse(isSame("\(page * 3 + 5)", "\(page * 3)"))
        XCTAssertFalse(isSame("\(page * 4)", "\(page * 3)", memory: true))
    }

    func testWhatPutsAFileBack() {
        XCTAssertEqual(CgroupWriter.restoring(["50000 100000"], "20000"), ["50000 100000"])
        XCTAssertEqual(CgroupWriter.restoring(["default 100", "8:0 5"], "default 7"), ["default 100"])
        XCTAssertEqual(CgroupWriter.restoring(["8:0 5"], "8:0 6"), ["8:0 5"])
        XCTAssertEqual(CgroupWriter.restoring([], "8:0 6"), ["8:0 0"])
        XCTAssertEqual(CgroupWriter.restoring([], "0-1"), ["\n"])
        XCTAssertEqual(CgroupWriter.restoring(["8:16 rbps=1"], "8:0 rbps=6 wiops=7"), ["8:0 rbps=max wiops=max"])
        XCTAssertEqual(CgroupWriter.restoring([], "0-1"), ["\n"])
    }

    private func directory(_ files: [String: String]) throws -> String {
        let path = NSTemporaryDirectory() + "cgroup-writer-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        for (name, text) in files { try (text + "\n").write(toFile: path + "/" + name, atomically: false, encoding: .utf8) }
        addTeardownBlock { try FileManager.default.removeItem(atPath: path) }
        return path
    }

    private func text(_ path: String) throws -> String { try String(contentsOfFile: path, encoding: .utf8) }

    /// A plain file takes each write at its beginning; that is enough to see what was written.
    func testAFailureTakesBackWhatWasWritten() throws {
        let path = try directory([
            "cgroup.controllers": "cpu memory pids", "memory.max": "1048576", "pids.max": "20", "cpu.max": "30000 100000",
            "cpu.weight": "39",
        ])
        var limits = CgroupLimits()
        limits.memory = 2_097_152
        limits.cpuQuota = 40000
        limits.pids = 33
        limits.unified = [("no.such.file", "1")]
        XCTAssertThrowsError(try ContainerCgroup(v1: [], unified: path).update(limits)) {
            XCTAssertEqual(($0 as? SysError)?.code, ENOENT)
        }
        XCTAssertEqual(try text(path + "/memory.max"), "1048576\n")
        XCTAssertEqual(try text(path + "/pids.max"), "20\n")
        XCTAssertTrue(try text(path + "/cpu.max").hasPrefix("30000 100000"))
    }

    /// Version 2 limits swap alone and has one file for quota and period: what is not given is taken from what is there.
    func testHalvesOfAPairAreCompleted() throws {
        let path = try directory([
            "cgroup.controllers": "cpu memory", "memory.max": "1048576", "memory.swap.max": "0", "cpu.max": "30000 100000",
        ])
        var limits = CgroupLimits()
        limits.memorySwap = 3_145_728
        limits.cpuPeriod = 200_000
        try ContainerCgroup(v1: [], unified: path).update(limits)
        XCTAssertEqual(try text(path + "/memory.swap.max"), "2097152")
        XCTAssertEqual(try text(path + "/memory.max"), "1048576\n")
        XCTAssertTrue(try text(path + "/cpu.max").hasPrefix("30000 200000"))
    }
}
