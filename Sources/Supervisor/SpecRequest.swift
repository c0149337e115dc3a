import Images
import OCI

/// Why no configuration can be made of what was asked for; one line for the user.
public struct SpecError: Error, Equatable, Sendable, CustomStringConvertible {
    /// What is wrong: "working directory", "mount", "memory limit" …
    public let object: String
    public let cause: String

    /// Control characters, which a quoted value may contain, do not reach the message.
    public init(_ object: String, _ cause: String) {
        self.object = object
        var shown = ""
        for scalar in cause.unicodeScalars {
            shown.unicodeScalars.append(scalar.value < 0x20 || (0x7f...0x9f).contains(scalar.value) ? "?" : scalar)
        }
        self.cause = shown
    }

    public var description: String { object + ": " + cause }
}

/// A directory or file of the host that a container sees. The path is the user's; no image can name one.
public struct SpecBindMount: Equatable, Sendable {
    public var source: String
    public var destination: String
    public var readOnly: Bool

    public init(source: String, destination: String, readOnly: Bool = false) {
        self.source = source
        self.destination = destination
        self.readOnly = readOnly
    }
}

/// Everything that config.json of one task is made from.
public struct SpecRequest: Equatable, Sendable {
    public var id: String
    /// Empty: the first twelve digits of the id.
    public var hostname = ""
    /// Program and arguments, see ``arguments(entrypoint:args:image:)``.
    public var args: [String]
    /// `K=V`, see ``environment(_:image:)``. PATH, HOSTNAME and HOME are added where they are missing.
    public var env: [String]
    /// Absolute, see ``workingDirectory(_:image:)``.
    public var cwd: String
    public var user: ResolvedUser
    public var mounts: [SpecBindMount] = []
    public var readOnly = false
    var limits = ResourceLimits()
    /// All capabilities and devices, and nothing hidden.
    public var privileged = false
    /// Every capability that the kernel knows, and the device nodes of the host: what a privileged container gets.
    var hostCapabilities: [String] = []
    var hostDevices: [JSON] = []
    /// `none` or `host`.
    public var network = "none"
    /// `linux.cgroupsPath`, made by the manager.
    public var cgroupsPath: String
    /// Whether the runtime gets its root as descriptor 3.
    public var detachedRootFS = true
    public var terminal = false
    /// Of the terminal at its start; 0 leaves the kernel's.
    public var terminalWidth: UInt32 = 0
    public var terminalHeight: UInt32 = 0
    /// Whether the host limits memory and swap together (memory.memsw on v1, memory.swap on v2).
    public var hostLimitsSwap = true

    public init(id: String, args: [String], env: [String] = [], cwd: String = "/", user: ResolvedUser, cgroupsPath: String) {
        self.id = id
        self.args = args
        self.env = env
        self.cwd = cwd
        self.user = user
        self.cgroupsPath = cgroupsPath
    }
}

// What the user asked for and what the image says, put together by Docker's rules.
extension SpecRequest {
    /// The command line: an entrypoint of the user's drops the image's arguments, arguments of the user's replace them.
    public static func arguments(entrypoint: [String], args: [String], image: ImageConfiguration) throws(SpecError) -> [String] {
        var result = entrypoint.isEmpty ? image.entrypoint.untrusted : entrypoint
        result += args.isEmpty && entrypoint.isEmpty ? image.command.untrusted : args
        guard let program = result.first else { throw SpecError("command", "none was given, and the image names none") }
        if program.isEmpty { throw SpecError("command", "the program's name is empty") }
        return result
    }

    /// The image's environment with the user's over it. `K` without a value takes `K` away; what is no assignment in an image is dropped.
    public static func environment(_ user: [String], image: ImageConfiguration) throws(SpecError) -> [String] {
        var result: [String] = []
        var position: [Substring: Int] = [:]
        func set(_ entry: String) {
            let key = entry.prefix { $0 != "=" }
            if let index = position[key] {
                result[index] = entry
            } else {
                position[key] = result.count
                result.append(entry)
            }
        }
        for entry in image.environment.untrusted where isAssignment(entry) { set(entry) }
        var removed: Set<Substring> = []
        for entry in user {
            guard let first = entry.utf8.first, first != UInt8(ascii: "=") else {
                throw SpecError("environment", "an entry without a name")
            }
            if isAssignment(entry) {
                set(entry)
                removed.remove(entry.prefix { $0 != "=" })
            } else {
                removed.insert(entry[...])
            }
        }
        return removed.isEmpty ? result : result.filter { entry in !removed.contains(entry.prefix { $0 != "=" }) }
    }

    /// Where the process starts: the user's choice, which must be absolute, else the image's, taken from `/`, else `/`.
    public static func workingDirectory(_ user: String, image: ImageConfiguration) throws(SpecError) -> String {
        if !user.isEmpty {
            guard user.utf8.first == UInt8(ascii: "/") else {
                throw SpecError("working directory", "\"\(user.prefix(128))\" is not absolute")
            }
            return try cleanWorkingDirectory(user)
        }
        return try cleanWorkingDirectory("/" + image.workingDirectory.untrusted)
    }

    private static func isAssignment(_ entry: String) -> Bool {
        entry.utf8.first != UInt8(ascii: "=") && entry.utf8.contains(UInt8(ascii: "="))
    }

    /// Cleaned by text, and no path into /proc/<process>, through which descriptors of the runtime could be reached.
    static func cleanWorkingDirectory(_ path: String) throws(SpecError) -> String {
        guard let parts = cleanComponents(path) else { throw SpecError("working directory", "it is too long or contains a NUL byte") }
        let reachesDescriptors =
            (parts.count >= 2 && parts[0] == "proc"
                && (["self", "thread-self"].contains(parts[1]) || parts[1].utf8.allSatisfy { $0 & 0xf0 == 0x30 }))
            || (parts.count >= 2 && parts[0] == "dev" && parts[1] == "fd")
        if reachesDescriptors {
            throw SpecError("working directory", "\"/\(parts.joined(separator: "/").prefix(128))\" lies in a process's directory of /proc")
        }
        return "/" + parts.joined(separator: "/")
    }

    /// Components of an absolute path without `.`, `..` and empty ones; nil when it cannot be a path.
    static func cleanComponents(_ path: String) -> [Substring]? {
        guard path.utf8.count < 4096, !path.utf8.contains(0) else { return nil }
        var parts: [Substring] = []
        for part in path.split(separator: "/") where part != "." {
            if part == ".." { _ = parts.popLast() } else { parts.append(part) }
        }
        return parts
    }
}
