import OCI
import XCTest

@testable import Runtime

/// Compiled filters, run by an interpreter of the classic BPF that they are made of (seccomp(2), linux/filter.h).
final class SeccompTests: XCTestCase {
    private func run(_ program: SeccompProgram, _ number: UInt32, architecture: UInt32 = 0xc000_003e, arguments: [UInt64] = []) throws
        -> UInt32
    {
        var data = [UInt8](repeating: 0, count: 64)
        func put<Value: FixedWidthInteger>(_ value: Value, at offset: Int) {
            withUnsafeBytes(of: value) { data.replaceSubrange(offset..<(offset + $0.count), with: $0) }
        }
        put(number, at: 0)
        put(architecture, at: 4)
        for (index, argument) in arguments.enumerated() { put(argument, at: 16 + index * 8) }
        func word(_ bytes: [UInt8], _ at: Int) -> UInt32 { bytes[at..<(at + 4)].reversed().reduce(0) { $0 << 8 | UInt32($1) } }
        let code = program.instructions
        var counter = 0
        var register: UInt32 = 0
        for _ in 0..<10_000 {
            let at = counter * 8
            let operation = UInt16(code[at]) | UInt16(code[at + 1]) << 8
            let (yes, no, value) = (Int(code[at + 2]), Int(code[at + 3]), word(code, at + 4))
            counter += 1
            switch operation {
            case 0x20: register = word(data, Int(value))
            case 0x54: register &= value
            case 0x05: counter += Int(value)
            case 0x15: counter += register == value ? yes : no
            case 0x25: counter += register > value ? yes : no
            case 0x35: counter += register >= value ? yes : no
            case 0x45: counter += register & value != 0 ? yes : no
            case 0x06: return value
            default:
                XCTFail("unknown instruction \(operation)")
                return 0
            }
        }
        XCTFail("the filter does not end")
        return 0
    }

    private func compile(_ document: JSON) throws -> SeccompProgram { try SeccompCompiler.compile(try SeccompProfile(document)) }

    private let allow: UInt32 = 0x7fff_0000, refuse: UInt32 = 0x0005_0001, unknown: UInt32 = 0x0005_0026

    #if arch(x86_64)
        private let profile: JSON = [
            "defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
            "syscalls": [
                ["names": ["read", "write", "fchmodat2", "no_such_call"], "action": "SCMP_ACT_ALLOW"],
                ["names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [["index": 0, "value": 8, "op": "SCMP_CMP_EQ"]]],
                [
                    "names": ["clone"], "action": "SCMP_ACT_ALLOW",
                    "args": [["index": 0, "value": 0x7e02_0000, "op": "SCMP_CMP_MASKED_EQ"]],
                ],
                ["names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38],
            ],
        ]

        func testActionsAndArguments() throws {
            let program = try compile(profile)
            XCTAssertEqual(try run(program, 0), allow)
            XCTAssertEqual(try run(program, 165), refuse, "mount")
            XCTAssertEqual(try run(program, 135, arguments: [8]), allow)
            XCTAssertEqual(try run(program, 135, arguments: [9]), refuse)
            XCTAssertEqual(try run(program, 56, arguments: [17]), allow)
            XCTAssertEqual(try run(program, 56, arguments: [0x1000_0000]), refuse)
            XCTAssertEqual(try run(program, 435), unknown)
            XCTAssertEqual(try run(program, 0, architecture: 0xc000_00b7), 0, "a foreign architecture is killed")
        }

        func testYoungCalls() throws {
            let program = try compile(profile)
            XCTAssertEqual(try run(program, 452), allow, "fchmodat2 by its number")
            XCTAssertEqual(try run(program, 451), refuse, "known, older than the newest of the profile")
            XCTAssertEqual(try run(program, 453), unknown)
            XCTAssertEqual(try run(program, 4000), unknown)
            XCTAssertEqual(try run(program, 452, architecture: 0x4000_0003), allow)
            XCTAssertEqual(try run(program, 4000, architecture: 0x4000_0003), unknown)
            XCTAssertEqual(try run(program, 0x4000_0000), allow, "x32 goes to the library's part")
            XCTAssertEqual(try run(program, 0x4000_0000 + 165), refuse)
        }

        func testAnAllowingDefaultAllowsTheUnknown() throws {
            let program = try compile([
                "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [["names": ["mount"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1]],
            ])
            XCTAssertEqual(try run(program, 4000), allow)
            XCTAssertEqual(try run(program, 165), refuse)
        }
    #endif

    func testRefusals() {
        let bad: [JSON] = [
            [:], ["defaultAction": "SCMP_ACT_WHAT"], ["defaultAction": "SCMP_ACT_NOTIFY"],
            ["defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 70_000],
            ["defaultAction": "SCMP_ACT_ALLOW", "architectures": ["X"]], ["defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x"],
            [
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [["names": ["read"], "action": "SCMP_ACT_ERRNO", "args": [["index": 7, "value": 0, "op": "SCMP_CMP_EQ"]]]],
            ],
        ]
        for document in bad { XCTAssertThrowsError(try SeccompProfile(document)) }
    }
}
