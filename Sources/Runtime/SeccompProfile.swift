import CSeccomp
import OCI

/// The "linux.seccomp" object of config.json, typed.
struct SeccompProfile: Equatable {
    struct Argument: Equatable {
        let index: UInt32
        let operation: UInt32
        let value: UInt64
        let valueTwo: UInt64
    }

    struct Rule: Equatable {
        let names: [String]
        let action: UInt32
        let arguments: [Argument]
    }

    let defaultAction: UInt32
    /// libseccomp's tokens, which are the kernel's AUDIT_ARCH values; the native one is always meant too.
    let architectures: [UInt32]
    let rules: [Rule]
    /// Flags of seccomp(2).
    let flags: UInt32

    init(_ document: JSON) throws(RuntimeError) {
        func text(_ value: JSON?, _ what: String) throws(RuntimeError) -> String {
            guard let text = value?.stringValue else { throw RuntimeError("config.json: linux.seccomp: \(what) must be a string") }
            return text
        }
        func list(_ value: JSON?, _ what: String) throws(RuntimeError) -> [JSON] {
            guard let value, !value.isNull else { return [] }
            guard let list = value.arrayValue else { throw RuntimeError("config.json: linux.seccomp: \(what) must be an array") }
            return list
        }
        if let listener = document["listenerPath"]?.stringValue, !listener.isEmpty {
            throw RuntimeError("config.json: linux.seccomp.listenerPath is not supported")
        }
        defaultAction = try Self.action(try text(document["defaultAction"], "defaultAction"), document["defaultErrnoRet"])
        var architectures: [UInt32] = []
        for each in try list(document["architectures"], "architectures") {
            let name = try text(each, "architectures")
            let token = name.hasPrefix("SCMP_ARCH_") ? seccomp_arch_resolve_name(name.dropFirst(10).lowercased()) : 0
            if token == 0 { throw RuntimeError("config.json: linux.seccomp: unknown architecture \"\(name)\"") }
            architectures.append(token)
        }
        self.architectures = architectures
        var flags: UInt32 = 0
        for each in try list(document["flags"], "flags") {
            switch try text(each, "flags") {
            case "SECCOMP_FILTER_FLAG_TSYNC": flags |= 1
            case "SECCOMP_FILTER_FLAG_LOG": flags |= 2
            case "SECCOMP_FILTER_FLAG_SPEC_ALLOW": flags |= 4
            case "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": flags |= 32
            case let other: throw RuntimeError("config.json: linux.seccomp: unknown flag \"\(other)\"")
            }
        }
        self.flags = flags
        var rules: [Rule] = []
        for each in try list(document["syscalls"], "syscalls") {
            var names: [String] = []
            for name in try list(each["names"], "syscalls.names") { names.append(try text(name, "syscalls.names")) }
            if names.isEmpty { throw RuntimeError("config.json: linux.seccomp: an entry of syscalls has no names") }
            let action = try Self.action(try text(each["action"], "syscalls.action"), each["errnoRet"])
            var arguments: [Argument] = []
            for argument in try list(each["args"], "syscalls.args") { arguments.append(try Self.argument(argument)) }
            if arguments.count > 6 { throw RuntimeError("config.json: linux.seccomp: an entry of syscalls has more than 6 args") }
            rules.append(Rule(names: names, action: action, arguments: arguments))
        }
        self.rules = rules
    }

    private static func action(_ name: String, _ errnoReturn: JSON?) throws(RuntimeError) -> UInt32 {
        var number: UInt32 = 1  // EPERM
        if let value = errnoReturn, !value.isNull {
            guard let given = value.unsignedValue, given <= 0xffff else {
                throw RuntimeError("config.json: linux.seccomp: errnoRet is out of range")
            }
            number = UInt32(given)
        }
        switch name {
        case "SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD": return 0
        case "SCMP_ACT_KILL_PROCESS": return 0x8000_0000
        case "SCMP_ACT_TRAP": return 0x0003_0000
        case "SCMP_ACT_ERRNO": return 0x0005_0000 | number
        case "SCMP_ACT_TRACE": return 0x7ff0_0000 | number
        case "SCMP_ACT_LOG": return 0x7ffc_0000
        case "SCMP_ACT_ALLOW": return 0x7fff_0000
        case "SCMP_ACT_NOTIFY": throw RuntimeError("config.json: linux.seccomp: SCMP_ACT_NOTIFY is not supported")
        default: throw RuntimeError("config.json: linux.seccomp: unknown action \"\(name)\"")
        }
    }

    private static func argument(_ document: JSON) throws(RuntimeError) -> Argument {
        let operations = ["SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_MASKED_EQ"]
        guard let index = document["index"]?.unsignedValue, index < 6, let value = document["value"]?.unsignedValue,
            let name = document["op"]?.stringValue, let operation = operations.firstIndex(of: name)
        else { throw RuntimeError("config.json: linux.seccomp: an argument needs an index below 6, a value and a known op") }
        // SCMP_CMP_NE is 1, and the others follow in this order.
        return Argument(
            index: UInt32(index), operation: UInt32(operation) + 1, value: value, valueTwo: document["valueTwo"]?.unsignedValue ?? 0)
    }
}
