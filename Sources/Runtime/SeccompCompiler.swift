import CLinux
import CSeccomp
import Glibc
import Linux

/// A compiled filter: instructions of 8 bytes (`struct sock_filter`), ready for seccomp(2).
struct SeccompProgram: Equatable {
    let instructions: [UInt8]
    let flags: UInt32

    /// BPF_MAXINSNS.
    static let instructionLimit = 4096

    /// Gives the filter to this process, for good. Without no_new_privs that needs CAP_SYS_ADMIN.
    func install() throws(SysError) {
        let result = instructions.withUnsafeBytes { ctr_seccomp_filter($0.baseAddress, UInt16(clamping: $0.count / 8), flags) }
        try check("install seccomp filter", "", result)
    }
}

/// Profiles to programs, by libseccomp, with two things that it does not do: calls younger than the library are known by their number, and
/// calls younger than the profile fail with ENOSYS instead of the default action, so that programs fall back to older calls.
struct SeccompCompiler {
    private let profile: SeccompProfile
    /// Per architecture: calls that the library does not know but the profile names, with what becomes of them.
    private var young: [(architecture: UInt32, number: UInt32, action: UInt32)] = []
    private var newest: [(architecture: UInt32, number: UInt32)] = []

    /// Since Linux 5.1 new calls have one number on all architectures.
    private static let numbers: [(String, UInt32)] = [
        ("set_mempolicy_home_node", 450), ("cachestat", 451), ("fchmodat2", 452), ("map_shadow_stack", 453), ("futex_wake", 454),
        ("futex_wait", 455), ("futex_requeue", 456), ("statmount", 457), ("listmount", 458), ("lsm_get_self_attr", 459),
        ("lsm_set_self_attr", 460), ("lsm_list_modules", 461), ("mseal", 462), ("setxattrat", 463), ("getxattrat", 464),
        ("listxattrat", 465), ("removexattrat", 466), ("open_tree_attr", 467), ("file_getattr", 468), ("file_setattr", 469),
    ]
    private static let x32: UInt32 = 0x4000_003e

    static func compile(_ profile: SeccompProfile) throws(RuntimeError) -> SeccompProgram {
        var compiler = SeccompCompiler(profile)
        return try compiler.compile()
    }

    private init(_ profile: SeccompProfile) { self.profile = profile }

    private mutating func compile() throws(RuntimeError) -> SeccompProgram {
        guard let context = seccomp_init(profile.defaultAction) else { throw RuntimeError("seccomp: the default action cannot be used") }
        defer { seccomp_release(context) }
        // A tree instead of a list: the kernel walks the filter for every call number when it is installed, and at every call afterwards.
        // Libraries older than 2.5 only know the list.
        _ = seccomp_attr_set(context, SCMP_FLTATR_CTL_OPTIMIZE, 2)
        let native = seccomp_arch_native()
        for architecture in profile.architectures where architecture != native {
            let result = seccomp_arch_add(context, architecture)
            if result < 0 && result != -EEXIST {
                throw RuntimeError(SysError("seccomp: add architecture", "\(architecture)", code: -result))
            }
        }
        for architecture in [native] + profile.architectures
        where architecture != Self.x32 && !newest.contains(where: { $0.architecture == architecture }) {
            newest.append((architecture, 0))
        }
        for rule in profile.rules {
            for name in rule.names { try add(rule, name, context) }
        }
        let body = try export(context)
        let program = preamble(body.count / 8) + body
        guard program.count / 8 <= SeccompProgram.instructionLimit else { throw RuntimeError("seccomp: the filter is too long") }
        return SeccompProgram(instructions: program, flags: profile.flags)
    }

    private mutating func add(_ rule: SeccompProfile.Rule, _ name: String, _ context: scmp_filter_ctx) throws(RuntimeError) {
        for index in newest.indices {
            let number = seccomp_syscall_resolve_name_arch(newest[index].architecture, name)
            if number >= 0 {
                newest[index].number = max(newest[index].number, UInt32(number))
            } else if number == -1, let known = Self.numbers.first(where: { $0.0 == name })?.1 {
                newest[index].number = max(newest[index].number, known)
                // Argument tests exist only in the library: such a rule keeps the default action.
                if rule.arguments.isEmpty { young.append((newest[index].architecture, known, rule.action)) }
            }
        }
        let number = seccomp_syscall_resolve_name(name)
        // -1 is "unknown": every runtime skips those, profiles name calls of all architectures.
        if number == -1 || rule.action == profile.defaultAction { return }
        // The library takes each argument once a rule; several tests of one are alternatives, as in other runtimes.
        let indexes = rule.arguments.map(\.index)
        let repeated = indexes.indices.contains { indexes[..<$0].contains(indexes[$0]) }
        for arguments in repeated ? rule.arguments.map({ [$0] }) : [rule.arguments] {
            let tests = arguments.map {
                scmp_arg_cmp(arg: $0.index, op: scmp_compare($0.operation), datum_a: $0.value, datum_b: $0.valueTwo)
            }
            let result = seccomp_rule_add_array(context, rule.action, number, UInt32(tests.count), tests)
            if result < 0 && result != -EEXIST { throw RuntimeError(SysError("seccomp: add rule for", name, code: -result)) }
        }
    }

    /// libseccomp 2.5 exports only to a descriptor.
    private func export(_ context: scmp_filter_ctx) throws(RuntimeError) -> [UInt8] {
        try attempt("seccomp") { () throws(SysError) in
            let file = Descriptor(owning: try check("make", "memory file", ctr_memfd_create("seccomp", 1)))
            try check("export filter", "", seccomp_export_bpf(context, file.raw))
            try checkErrno("rewind", "memory file", lseek(file.raw, 0, SEEK_SET))
            return try readAll(file.raw, name: "filter", limit: SeccompProgram.instructionLimit * 8)
        }
    }

    // MARK: what stands before the library's program

    private static let load: UInt16 = 0x20, jumpEqual: UInt16 = 0x15, jumpAtLeast: UInt16 = 0x35, jumpGreater: UInt16 = 0x25,
        give: UInt16 = 0x06
    private static let noSuchCall: UInt32 = 0x0005_0000 | 38
    private static let x32Bit: UInt32 = 0x4000_0000

    private struct Instruction {
        let code: UInt16
        let yes: UInt8
        let no: UInt8
        let value: UInt32

        var bytes: [UInt8] {
            var bytes: [UInt8] = []
            withUnsafeBytes(of: code) { bytes.append(contentsOf: $0) }
            bytes.append(yes)
            bytes.append(no)
            withUnsafeBytes(of: value) { bytes.append(contentsOf: $0) }
            return bytes
        }
    }

    /// For each architecture: is it this one; then the young calls one by one; then everything past the newest. Whatever else falls through
    /// to the library's program, which loads what it needs itself.
    private func preamble(_ bodyLength: Int) -> [UInt8] {
        let refuses =
            profile.defaultAction & 0xffff_0000 == 0x0005_0000 || profile.defaultAction == 0 || profile.defaultAction == 0x8000_0000
        var program: [Instruction] = []
        for (architecture, number) in newest {
            let calls = young.filter { $0.architecture == architecture }
            guard refuses && number > 0 || !calls.isEmpty else { continue }
            var block = [Instruction(code: Self.load, yes: 0, no: 0, value: 0)]
            for call in calls.prefix(100) {
                block.append(Instruction(code: Self.jumpEqual, yes: 0, no: 1, value: call.number))
                block.append(Instruction(code: Self.give, yes: 0, no: 0, value: call.action))
            }
            if refuses && number > 0 {
                // x32 calls come as x86-64 with a bit set.
                block.append(Instruction(code: Self.jumpAtLeast, yes: 2, no: 0, value: Self.x32Bit))
                block.append(Instruction(code: Self.jumpGreater, yes: 0, no: 1, value: number))
                block.append(Instruction(code: Self.give, yes: 0, no: 0, value: Self.noSuchCall))
            }
            program.append(Instruction(code: Self.load, yes: 0, no: 0, value: 4))
            program.append(Instruction(code: Self.jumpEqual, yes: 0, no: UInt8(block.count), value: architecture))
            program.append(contentsOf: block)
        }
        return program.flatMap(\.bytes)
    }
}
