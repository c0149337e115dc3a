import CLinux
import Glibc

/// Device rules for version 2: a BPF program that the kernel asks at every mknod and open of a device node (bpf(2),
/// BPF_PROG_TYPE_CGROUP_DEVICE). The last rule that speaks about a request decides; without one the answer is no.
struct DeviceProgram {
    /// `struct bpf_insn`: code, registers (source in the upper half), offset, immediate.
    struct Instruction: Equatable {
        let code: UInt8
        let registers: UInt8
        let offset: Int16
        let immediate: Int32
    }

    private(set) var instructions: [Instruction] = []

    // Opcodes of linux/bpf_common.h and linux/bpf.h.
    private static let load32: UInt8 = 0x61, move32: UInt8 = 0xb4, moveRegister32: UInt8 = 0xbc
    private static let and32: UInt8 = 0x54, shiftRight32: UInt8 = 0x74
    private static let jumpNotEqual32: UInt8 = 0x56, jumpEqual32: UInt8 = 0x16
    private static let exit: UInt8 = 0x95

    init(_ rules: [DeviceRule]) {
        // r2 = type, r3 = access, r4 = major, r5 = minor of struct bpf_cgroup_dev_ctx { u32 access_type, major, minor }.
        emit(Self.load32, 2, 1, 0, 0)
        emit(Self.moveRegister32, 3, 2, 0, 0)
        emit(Self.and32, 2, 0, 0, 0xffff)
        emit(Self.shiftRight32, 3, 0, 0, 16)
        emit(Self.load32, 4, 1, 4, 0)
        emit(Self.load32, 5, 1, 8, 0)
        for rule in DeviceRule.reduced(rules).reversed() { append(rule) }
        emit(Self.move32, 0, 0, 0, 0)
        emit(Self.exit, 0, 0, 0, 0)
    }

    private mutating func emit(_ code: UInt8, _ destination: UInt8, _ source: UInt8, _ offset: Int16, _ immediate: Int32) {
        instructions.append(Instruction(code: code, registers: source << 4 | destination, offset: offset, immediate: immediate))
    }

    /// Tests that jump over the verdict when the rule does not speak about the request.
    private mutating func append(_ rule: DeviceRule) {
        var tests: [(code: UInt8, register: UInt8, value: Int32, prepare: Int32?)] = []
        if rule.kind != .all {
            // BPF_DEVCG_DEV_BLOCK is 1, BPF_DEVCG_DEV_CHAR is 2.
            tests.append((Self.jumpNotEqual32, 2, rule.kind == .block ? 1 : 2, nil))
            if rule.access != .all {
                // An allowance must cover every asked access, a denial need only touch one.
                let bits = Int32(rule.access.rawValue)
                tests.append(rule.allow ? (Self.jumpNotEqual32, 0, 0, 7 & ~bits) : (Self.jumpEqual32, 0, 0, bits))
            }
            if let major = rule.major { tests.append((Self.jumpNotEqual32, 4, Int32(bitPattern: major), nil)) }
            if let minor = rule.minor { tests.append((Self.jumpNotEqual32, 5, Int32(bitPattern: minor), nil)) }
        }
        var length = tests.reduce(2) { $0 + ($1.prepare == nil ? 1 : 3) }
        for test in tests {
            if let mask = test.prepare {
                emit(Self.moveRegister32, 0, 3, 0, 0)
                emit(Self.and32, 0, 0, 0, mask)
                length -= 2
            }
            length -= 1
            emit(test.code, test.register, 0, Int16(length), test.value)
        }
        emit(Self.move32, 0, 0, 0, rule.allow ? 1 : 0)
        emit(Self.exit, 0, 0, 0, 0)
    }

    /// Loads the program and fastens it to the control group at `path`.
    func attach(to path: String) throws(SysError) {
        let group = try Linux.open(path, O_RDONLY | O_DIRECTORY)
        let program = instructions.withUnsafeBytes { ctr_bpf_load_device_program($0.baseAddress, UInt32(instructions.count)) }
        let loaded = Descriptor(owning: try check("load device program for", path, program))
        try check("attach device program to", path, ctr_bpf_attach_device_program(group.raw, loaded.raw))
    }
}
