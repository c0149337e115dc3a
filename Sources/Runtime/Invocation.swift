/// What the command line asks for. Flags are runc's: "--flag value", "--flag=value", single dashes too; "--" ends them.
struct Invocation: Equatable {
    enum LogFormat: String { case text, json }

    enum Command: Equatable {
        case create(CreateOptions)
        case run(CreateOptions, detach: Bool)
        case start
        case state
        case kill(signal: Int32, all: Bool)
        case delete(force: Bool)
        case pause
        case resume
        case exec(ExecOptions)
        case ps(json: Bool, options: [String])
        case update(UpdateOptions)
        case events(once: Bool, interval: Int64)
        case list(quiet: Bool, json: Bool)
        case spec(bundle: String)
        case version
        case help(String?)
    }

    struct CreateOptions: Equatable {
        var bundle = "."
        var pidFile: String?
        var consoleSocket: String?
        var noPivot = false
        var noNewKeyring = false
        var preservedDescriptors: Int32 = 0
    }

    var root = "/run/ctrun"
    var logFile: String?
    var logFormat = LogFormat.text
    var debug = false
    var command = Command.help(nil)
    /// Empty for commands that take none.
    var id = ""

    /// `arguments` without the program's name.
    init(_ arguments: [String]) throws(RuntimeError) {
        var words = Words(arguments)
        while let flag = try words.flag() {
            switch flag {
            case "root": root = try words.value(flag)
            case "log": logFile = try words.value(flag)
            case "log-format":
                let text = try words.value(flag)
                guard let format = LogFormat(rawValue: text) else { throw RuntimeError("unknown log format \"\(text)\": use text or json") }
                logFormat = format
            case "debug": debug = try words.bool()
            case "systemd-cgroup":
                if try words.bool() {
                    throw RuntimeError(
                        "--systemd-cgroup is not supported: give linux.cgroupsPath as a path such as /parent/id and leave the flag out")
                }
            case "rootless":
                if try !["auto", "false"].contains(words.value(flag)) { throw RuntimeError("--rootless is not supported: run as root") }
            case "version", "v":
                command = .version
                return
            case "help", "h": return
            default: throw RuntimeError("unknown flag --\(flag); see ctrun --help")
            }
        }
        guard let name = words.positional() else { return }
        try parse(command: name, &words)
    }

    private mutating func parse(command name: String, _ words: inout Words) throws(RuntimeError) {
        switch name {
        case "exec": return try parseExec(&words)
        case "ps": return try parsePs(&words)
        case "update": return try parseUpdate(&words)
        case "events": return try parseEvents(&words)
        case "checkpoint", "restore":
            throw RuntimeError(
                "\(name) is not supported: this runtime does not save running processes; stop the container and create it again")
        default: break
        }
        var flags = Flags()
        var signal: Int32 = 15
        var rest: [String] = []
        while true {
            if let flag = try words.flag() {
                if flag == "help" || flag == "h" {
                    command = .help(name)
                    return
                }
                try flags.take(flag, of: name, &words)
            } else if let word = words.positional() {
                rest.append(word)
            } else {
                break
            }
        }
        if name == "kill" && rest.count == 2 {
            guard let number = SignalName.number(rest[1]) else { throw RuntimeError("unknown signal \"\(rest[1])\"") }
            signal = number
            rest.removeLast()
        }
        switch name {
        case "create": command = .create(flags.create)
        case "run": command = .run(flags.create, detach: flags.detach)
        case "start": command = .start
        case "state": command = .state
        case "kill": command = .kill(signal: signal, all: flags.all)
        case "delete": command = .delete(force: flags.force)
        case "pause": command = .pause
        case "resume": command = .resume
        case "list": command = .list(quiet: flags.quiet, json: flags.json)
        case "spec": command = .spec(bundle: flags.create.bundle)
        case "version": command = .version
        case "help": command = .help(rest.first)
        default: throw RuntimeError("unknown command \"\(name.prefix(64))\"; see ctrun --help")
        }
        if ["list", "spec", "version", "help"].contains(name) { return }
        guard rest.count == 1 else { throw RuntimeError("\(name) takes exactly one container ID; see ctrun \(name) --help") }
        id = rest[0]
        guard Self.isValid(id: id) else { throw RuntimeError("invalid container ID format: \"\(id.prefix(64))\"") }
    }

    /// An id is a file name: letters, digits, `_`, `+`, `-`, `.`, not starting with a dot (`.seccomp` is ours), at most 255 bytes.
    static func isValid(id: String) -> Bool {
        guard let first = id.utf8.first, id.utf8.count <= 255, first != UInt8(ascii: ".") else { return false }
        return id.utf8.allSatisfy { byte in
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"): true
            case UInt8(ascii: "_"), UInt8(ascii: "+"), UInt8(ascii: "-"), UInt8(ascii: "."): true
            default: false
            }
        }
    }
}

/// Flags of commands; which command takes which is one table.
private struct Flags {
    var create = Invocation.CreateOptions()
    var detach = false
    var all = false
    var force = false
    var quiet = false
    var json = false

    private static let accepted: [(command: String, flags: [String])] = [
        ("create", ["bundle", "b", "pid-file", "console-socket", "no-pivot", "no-new-keyring", "preserve-fds"]),
        (
            "run",
            [
                "bundle", "b", "pid-file", "console-socket", "no-pivot", "no-new-keyring", "preserve-fds", "detach", "d", "keep",
                "no-subreaper",
            ]
        ),
        ("kill", ["all", "a"]), ("delete", ["force", "f"]), ("list", ["quiet", "q", "format", "f"]), ("spec", ["bundle", "b"]),
    ]

    mutating func take(_ flag: String, of command: String, _ words: inout Words) throws(RuntimeError) {
        guard Self.accepted.first(where: { $0.command == command })?.flags.contains(flag) == true else {
            throw RuntimeError("unknown flag --\(flag) of \(command.prefix(64)); see ctrun --help")
        }
        switch flag {
        case "bundle", "b": create.bundle = try words.value(flag)
        case "pid-file": create.pidFile = try words.value(flag)
        case "console-socket": create.consoleSocket = try words.value(flag)
        case "no-pivot": create.noPivot = try words.bool()
        case "no-new-keyring": create.noNewKeyring = try words.bool()
        case "preserve-fds":
            create.preservedDescriptors = try words.descriptorCount(flag)
        case "detach", "d": detach = try words.bool()
        case "all", "a": all = try words.bool()
        case "force": force = try words.bool()
        case "f" where command == "delete": force = try words.bool()
        case "quiet", "q": quiet = try words.bool()
        case "format", "f":
            json = try words.isJSON(flag)
        case "no-subreaper": _ = try words.bool()
        default: throw RuntimeError("flag --\(flag) of \(command) is not supported")
        }
    }
}
