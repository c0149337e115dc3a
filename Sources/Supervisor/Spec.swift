import Glibc
import Images
import OCI

/// The OCI runtime configuration (runtime-spec 1.0, config.md) of a task: what Docker 28 would have asked for, with our seccomp profile.
/// Fails with a message for the user when the request cannot be met.
public func makeSpec(_ request: SpecRequest) throws(SpecError) -> JSON {
    let hostname = request.hostname.isEmpty ? String(request.id.prefix(12)) : request.hostname
    guard isHostname(hostname) else { throw SpecError("host name", "\"\(hostname.prefix(128))\" is none") }
    guard request.network == "none" || request.network == "host" else {
        throw SpecError("network", "\"\(request.network.prefix(128))\" is neither \"none\" nor \"host\"")
    }
    guard request.cgroupsPath.utf8.first == UInt8(ascii: "/"), !request.cgroupsPath.utf8.contains(0) else {
        throw SpecError("cgroup", "the path must be absolute")
    }

    var spec: [JSON.Member] = [
        JSON.Member("ociVersion", "1.0.2"),
        JSON.Member("process", try process(request, hostname: hostname)),
        JSON.Member("root", ["path": "rootfs", "readonly": .bool(request.readOnly)]),
        JSON.Member("hostname", .string(hostname)),
        JSON.Member("mounts", try SpecMounts.mounts(request.mounts, privileged: request.privileged)),
    ]
    if request.detachedRootFS { spec.append(JSON.Member("annotations", ["org.ctrd.rootfs.fd": "3"])) }
    spec.append(JSON.Member("linux", try linux(request)))
    return .object(spec)
}

private func process(_ request: SpecRequest, hostname: String) throws(SpecError) -> JSON {
    guard let program = request.args.first, !program.isEmpty else { throw SpecError("command", "it is empty") }
    for argument in request.args where argument.utf8.contains(0) { throw SpecError("command", "an argument contains a NUL byte") }
    let capabilities = request.privileged ? strings(request.hostCapabilities) : capabilities
    var members = [JSON.Member("terminal", .bool(request.terminal))]
    if request.terminal, let size = ProcessObject.consoleSize(request.terminalWidth, request.terminalHeight) {
        members.append(JSON.Member("consoleSize", size))
    }
    members += [
        JSON.Member("user", ProcessObject.user(request.user)),
        JSON.Member("args", strings(request.args)),
        JSON.Member("env", strings(try environment(request, hostname: hostname))),
        JSON.Member("cwd", .string(try SpecRequest.cleanWorkingDirectory(request.cwd))),
        // None inheritable or ambient: a file with inheritable capabilities would give them to everybody (CVE-2022-24769).
        JSON.Member("capabilities", ["bounding": capabilities, "effective": capabilities, "permitted": capabilities]),
        JSON.Member("noNewPrivileges", false),
        JSON.Member("oomScoreAdj", 0),
    ]
    return .object(members)
}

/// Docker's fourteen.
private let capabilities = strings([
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID", "CAP_SETFCAP",
    "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
])

private func environment(_ request: SpecRequest, hostname: String) throws(SpecError) -> [String] {
    for entry in request.env {
        if entry.utf8.contains(0) { throw SpecError("environment", "an entry contains a NUL byte") }
        guard let first = entry.utf8.first, first != UInt8(ascii: "="), entry.utf8.contains(UInt8(ascii: "=")) else {
            throw SpecError("environment", "\"\(entry.prefix(128))\" is no assignment")
        }
    }
    var defaults = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME=" + hostname]
    if request.terminal { defaults.append("TERM=xterm") }
    func missing(_ entry: String) -> Bool {
        let key = entry.prefix { $0 != "=" } + "="
        return !request.env.contains { $0.hasPrefix(key) }
    }
    return defaults.filter(missing) + request.env + ["HOME=" + request.user.home].filter(missing)
}

private func linux(_ request: SpecRequest) throws(SpecError) -> JSON {
    var namespaces: [JSON] = ["mount", "pid", "uts", "ipc", "cgroup"].map { ["type": $0] }
    var members: [JSON.Member] = []
    if request.network != "host" {
        namespaces.append(["type": "network"])
        // With the host's network these would be the host's.
        members.append(
            JSON.Member("sysctl", ["net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"]))
    }
    members += [
        JSON.Member("resources", try resources(request)),
        JSON.Member("cgroupsPath", .string(request.cgroupsPath)),
        JSON.Member("namespaces", .array(namespaces)),
    ]
    if request.privileged {
        members.append(JSON.Member("devices", .array(request.hostDevices)))
    } else {
        members += [
            JSON.Member("seccomp", SeccompProfile.default),
            JSON.Member("maskedPaths", SpecMounts.masked),
            JSON.Member("readonlyPaths", SpecMounts.readOnly),
        ]
    }
    return .object(members)
}

private func resources(_ request: SpecRequest) throws(SpecError) -> JSON {
    try request.limits.check()
    let all: JSON = [["allow": true, "access": "rwm"]]
    return .object(
        [JSON.Member("devices", request.privileged ? all : devices)] + request.limits.resources(hostLimitsSwap: request.hostLimitsSwap))
}

/// Nothing first, then what every container has: making nodes, but opening only null, zero, full, random, urandom, tty, console, ptmx and
/// the terminals of its own /dev/pts.
private let devices: JSON = {
    func rule(_ allow: Bool, _ type: String?, _ major: Int64?, _ minor: Int64?, _ access: String) -> JSON {
        var members = [JSON.Member("allow", .bool(allow))]
        if let type { members.append(JSON.Member("type", .string(type))) }
        if let major { members.append(JSON.Member("major", .integer(major))) }
        if let minor { members.append(JSON.Member("minor", .integer(minor))) }
        return .object(members + [JSON.Member("access", .string(access))])
    }
    let nodes: [(Int64, Int64?)] = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (136, nil)]
    return .array(
        [rule(false, nil, nil, nil, "rwm"), rule(true, "c", nil, nil, "m"), rule(true, "b", nil, nil, "m")]
            + nodes.map { rule(true, "c", $0.0, $0.1, "rwm") })
}()

private func strings(_ list: [String]) -> JSON { .array(list.map { .string($0) }) }

/// What sethostname(2) takes and tools understand: 1 to 63 letters, digits, dots, hyphens and underscores, the first no hyphen or dot.
private func isHostname(_ name: String) -> Bool {
    guard let first = name.utf8.first, name.utf8.count <= 63, first != UInt8(ascii: "-"), first != UInt8(ascii: ".") else { return false }
    return name.utf8.allSatisfy { byte in
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"): true
        case UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_"): true
        default: false
        }
    }
}
