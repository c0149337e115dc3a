import OCI

/// The system calls that a container may make unless it was asked for otherwise (runtime-spec, config-linux.md, "Seccomp"): equal in
/// effect to what Docker allows with its default capabilities, and without AF_ALG. Everything else, io_uring among it, fails with EPERM.
public enum SeccompProfile {
    /// `linux.seccomp` of config.json; made once.
    public static let `default`: JSON = {
        let personalities = SeccompTable.personalities.map { value in
            allow(["personality"], [["index": 0, "value": .integer(value), "op": "SCMP_CMP_EQ"]])
        }
        let families = SeccompTable.socketFamilies.map { family in allow(["socket"], [masked(family.mask, family.value)]) }
        let rules =
            [allow(SeccompTable.allowed), allow(SeccompTable.tracing), allow(SeccompTable.ofArchitecture)] + families + personalities + [
                allow(["clone"], [masked(SeccompTable.namespaceFlags, 0)]),
                // ENOSYS: the C library then falls back to clone, whose flags can be looked at.
                ["names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38],
                allow(SeccompTable.changingRoot),
            ]
        return [
            "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
            "architectures": .array(SeccompTable.architectures.map { .string($0) }),
            "syscalls": .array(rules),
        ]
    }()

    private static func allow(_ names: [String], _ arguments: [JSON] = []) -> JSON {
        var rule: [JSON.Member] = [
            JSON.Member("names", .array(names.map { .string($0) })), JSON.Member("action", "SCMP_ACT_ALLOW"),
        ]
        if !arguments.isEmpty { rule.append(JSON.Member("args", .array(arguments))) }
        return .object(rule)
    }

    /// The first argument with `mask` is `value`.
    private static func masked(_ mask: Int64, _ value: Int64) -> JSON {
        ["index": 0, "value": .integer(mask), "valueTwo": .integer(value), "op": "SCMP_CMP_MASKED_EQ"]
    }
}
