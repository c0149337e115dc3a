import Foundation
import OCI
import XCTest

@testable import Supervisor

/// What a profile decides, rule by rule as libseccomp reads it: the first of the rules for a name whose arguments fit, else the default.
private struct Decider {
    struct Rule {
        let action: String
        let errno: Int64?
        let conditions: [(index: Int, operator: String, value: UInt64, second: UInt64)]
    }
    var defaultAction = ""
    var architectures: Set<String> = []
    var rules: [String: [Rule]] = [:]

    init(_ profile: JSON) throws {
        defaultAction = "\(try XCTUnwrap(profile["defaultAction"]?.stringValue)) \(try XCTUnwrap(profile["defaultErrnoRet"]?.integerValue))"
        architectures = Set((profile["architectures"]?.arrayValue ?? []).compactMap(\.stringValue))
        for rule in try XCTUnwrap(profile["syscalls"]?.arrayValue) {
            let conditions = try (rule["args"]?.arrayValue ?? []).map { argument in
                (
                    index: Int(try XCTUnwrap(argument["index"]?.integerValue)), operator: try XCTUnwrap(argument["op"]?.stringValue),
                    value: try XCTUnwrap(argument["value"]?.unsignedValue), second: argument["valueTwo"]?.unsignedValue ?? 0
                )
            }
            for name in rule["names"]?.arrayValue ?? [] {
                rules[try XCTUnwrap(name.stringValue), default: []].append(
                    Rule(action: try XCTUnwrap(rule["action"]?.stringValue), errno: rule["errnoRet"]?.integerValue, conditions: conditions))
            }
        }
    }

    /// From lines of the fixture.
    init(fixture: String) throws {
        for line in fixture.split(separator: "\n") where !line.hasPrefix("#") {
            if line.hasPrefix("default ") {
                defaultAction = String(line.dropFirst(8))
            } else if line.hasPrefix("architectures ") {
                architectures = Set(line.split(separator: " ").dropFirst().map(String.init))
            } else {
                let fields = line.split(separator: "|", omittingEmptySubsequences: false)
                XCTAssertEqual(fields.count, 4)
                let conditions = try fields[2].split(separator: ";").map { text in
                    let parts = text.split(separator: " ")
                    return (
                        index: try XCTUnwrap(Int(parts[0])), operator: String(parts[1]), value: try XCTUnwrap(UInt64(parts[2])),
                        second: try XCTUnwrap(UInt64(parts[3]))
                    )
                }
                for name in fields[3].split(separator: " ") {
                    rules[String(name), default: []].append(
                        Rule(action: String(fields[0]), errno: Int64(fields[1]), conditions: conditions))
                }
            }
        }
    }

    func decide(_ name: String, _ first: UInt64) -> String {
        for rule in rules[name] ?? [] {
            let fits = rule.conditions.allSatisfy { condition in
                guard condition.index == 0 else { return false }
                switch condition.operator {
                case "SCMP_CMP_EQ": return first == condition.value
                case "SCMP_CMP_NE": return first != condition.value
                case "SCMP_CMP_MASKED_EQ": return first & condition.value == condition.second
                default: return false
                }
            }
            if fits { return rule.action + (rule.errno.map { " \($0)" } ?? "") }
        }
        return defaultAction
    }
}

final class SeccompTests: XCTestCase {
    #if arch(x86_64)
        func testDecidesAsDockerDoes() throws {
            let path =
                URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().path
                + "/Fixtures/docker28-seccomp.txt"
            let docker = try Decider(fixture: String(contentsOfFile: path, encoding: .utf8))
            let ours = try Decider(SeccompProfile.default)
            XCTAssertEqual(ours.defaultAction, docker.defaultAction)
            XCTAssertEqual(ours.architectures, docker.architectures)
            XCTAssertGreaterThan(docker.rules.count, 350)
            let arguments: [UInt64] =
                Array(0...47) + [
                    0x20000, 0x20008, 0x2_0009, 0xffff_ffff, 0x11, 0x10000, 0x20000, 0x02000000, 0x04000000, 0x08000000, 0x10000000,
                ]
                + [0x20000000, 0x40000000, 0x7e020000, 0x3d0f00, 0x0120_0011]
            for name in Set(docker.rules.keys).union(ours.rules.keys).sorted() {
                for argument in arguments {
                    // Address families above those that Linux has are nothing to either.
                    if name == "socket" && argument > 47 { continue }
                    let expected = name == "socket" && argument == 38 ? docker.defaultAction : docker.decide(name, argument)
                    XCTAssertEqual(ours.decide(name, argument), expected, "\(name)(\(argument))")
                }
            }
        }
    #endif

    func testTheDangerousOnesAreRefused() throws {
        let ours = try Decider(SeccompProfile.default)
        for name in [
            "mount", "umount2", "unshare", "setns", "bpf", "keyctl", "add_key", "init_module", "kexec_load", "open_by_handle_at",
            "perf_event_open",
            "userfaultfd", "io_uring_setup", "io_uring_enter", "io_uring_register", "move_mount", "fsopen", "open_tree", "pivot_root",
            "swapon", "reboot",
            "settimeofday", "fanotify_init", "quotactl", "acct", "iopl", "ioperm", "move_pages", "kcmp", "lookup_dcookie", "nfsservctl",
            "vm86",
        ] { XCTAssertEqual(ours.decide(name, 0), "SCMP_ACT_ERRNO 1", name) }
        XCTAssertEqual(ours.decide("clone3", 0), "SCMP_ACT_ERRNO 38")
    }

    /// The kernel takes the low half of the register for the family: a high bit must not lead past the rule.
    func testHighBitsDoNotOpenAFamily() throws {
        let ours = try Decider(SeccompProfile.default)
        for family: UInt64 in [38, 40] {
            XCTAssertEqual(ours.decide("socket", family), "SCMP_ACT_ERRNO 1")
            XCTAssertEqual(ours.decide("socket", family | 1 << 32), "SCMP_ACT_ERRNO 1")
        }
        for family: UInt64 in [1, 2, 10, 16, 17] {
            XCTAssertEqual(ours.decide("socket", family), "SCMP_ACT_ALLOW")
            XCTAssertEqual(ours.decide("socket", family | 1 << 32), "SCMP_ACT_ALLOW")
        }
    }
}
