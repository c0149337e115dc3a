import CtrProto
import Images
import OCI

/// The OCI process object of an exec: what the container's own process is, with what the exec changes of it.
enum ProcessObject {
    /// All that can be checked without looking at the container.
    static func check(_ config: Ctr_V1_ExecConfig) throws(SpecError) {
        guard let program = config.args.first, !program.isEmpty else { throw SpecError("command", "none was given") }
        for text in config.args + config.env + [config.cwd, config.user] where text.utf8.contains(0) {
            throw SpecError("exec", "arguments, environment, user and working directory must not contain NUL bytes")
        }
        for entry in config.env {
            guard let equals = entry.utf8.firstIndex(of: UInt8(ascii: "=")), equals != entry.utf8.startIndex else {
                throw SpecError("environment", "\"\(entry.prefix(128))\" is no assignment")
            }
        }
        if !config.cwd.isEmpty {
            guard config.cwd.utf8.first == UInt8(ascii: "/") else {
                throw SpecError("working directory", "\"\(config.cwd.prefix(128))\" is not absolute")
            }
            _ = try SpecRequest.cleanWorkingDirectory(config.cwd)
        }
        guard config.terminalWidth <= UInt16.max, config.terminalHeight <= UInt16.max else {
            throw SpecError("terminal size", "\(config.terminalWidth)x\(config.terminalHeight) is too large")
        }
    }

    /// `container` is the process object that the container was started with; `user` is who the exec runs as, nil for the container's own;
    /// `keepsHome` says that HOME is one that somebody chose, not the home of the container's user.
    static func make(
        container: JSON, _ config: Ctr_V1_ExecConfig, user: ResolvedUser?, keepsHome: Bool, capabilities: [String]
    ) throws(SpecError) -> JSON {
        try check(config)
        var members: [JSON.Member] = [JSON.Member("terminal", .bool(config.terminal))]
        if config.terminal, let size = consoleSize(config.terminalWidth, config.terminalHeight) {
            members.append(JSON.Member("consoleSize", size))
        }
        members.append(JSON.Member("user", user.map(Self.user) ?? container["user"] ?? ["uid": 0, "gid": 0]))
        members.append(JSON.Member("args", .array(config.args.map { .string($0) })))
        members.append(JSON.Member("env", .array(environment(container, config, user, keepsHome).map { .string($0) })))
        let cwd = config.cwd.isEmpty ? container["cwd"]?.stringValue ?? "/" : try SpecRequest.cleanWorkingDirectory(config.cwd)
        members.append(JSON.Member("cwd", .string(cwd)))
        if config.privileged {
            let all = JSON.array(capabilities.map { .string($0) })
            members.append(JSON.Member("capabilities", ["bounding": all, "effective": all, "permitted": all]))
        } else if let own = container["capabilities"] {
            members.append(JSON.Member("capabilities", own))
        }
        for key in ["rlimits", "noNewPrivileges", "apparmorProfile", "selinuxLabel", "oomScoreAdj"] {
            if let value = container[key] { members.append(JSON.Member(key, value)) }
        }
        return .object(members)
    }

    static func user(_ user: ResolvedUser) -> JSON {
        [
            "uid": .integer(Int64(user.uid)), "gid": .integer(Int64(user.gid)),
            "additionalGids": .array(user.additionalGids.map { .integer(Int64($0)) }),
        ]
    }

    /// nil leaves the kernel's.
    static func consoleSize(_ width: UInt32, _ height: UInt32) -> JSON? {
        guard width > 0, height > 0, width <= UInt16.max, height <= UInt16.max else { return nil }
        return ["height": .integer(Int64(height)), "width": .integer(Int64(width))]
    }

    /// The container's, with the exec's over it. Another user has another HOME, unless somebody chose one.
    private static func environment(
        _ container: JSON, _ config: Ctr_V1_ExecConfig, _ user: ResolvedUser?, _ keepsHome: Bool
    ) -> [String] {
        var result = (container["env"]?.arrayValue ?? []).compactMap(\.stringValue)
        func set(_ entry: String) {
            let key = entry.prefix { $0 != "=" } + "="
            if let index = result.firstIndex(where: { $0.hasPrefix(key) }) { result[index] = entry } else { result.append(entry) }
        }
        if let user, !keepsHome { set("HOME=" + user.home) }
        if config.terminal && !result.contains(where: { $0.hasPrefix("TERM=") }) { result.append("TERM=xterm") }
        for entry in config.env { set(entry) }
        return result
    }

    /// Every capability up to the kernel's last, by name (capabilities(7)).
    static func allCapabilities(last: Int) -> [String] { Array(names.prefix(max(0, last) + 1)) }

    private static let names = [
        "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "LINUX_IMMUTABLE",
        "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT",
        "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE",
        "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ",
        "PERFMON", "BPF", "CHECKPOINT_RESTORE",
    ].map { "CAP_" + $0 }
}
