import ArgumentParser

/// Understood before and after the name of every command.
struct GlobalOptions: ParsableArguments {
    @Option(help: ArgumentHelp("Socket of the manager. Default: $CTRD_ADDRESS, else /run/ctrd/ctrd.sock.", valueName: "socket"))
    var address: String?

    @Option(help: ArgumentHelp("Namespace of containers and images. Default: $CTRD_NAMESPACE, else \"default\".", valueName: "name"))
    var namespace: String?

    func manager() throws(Failure) -> Manager { try .chosen(address: address, namespace: namespace) }
}

extension Manager {
    /// As the options say, else the environment, else as it is by default.
    static func chosen(address: String? = nil, namespace: String? = nil) throws(Failure) -> Manager {
        func setting(_ option: String?, _ name: String, _ variable: String, _ fallback: String) throws(Failure) -> String {
            if let option {
                if option.isEmpty { throw Failure("\(name) is empty", code: Failure.usage) }
                return option
            }
            if let value = environment(variable), !value.isEmpty { return value }
            return fallback
        }
        var address = try setting(address, "--address", "CTRD_ADDRESS", defaultAddress)
        if address.hasPrefix("unix://") { address.removeFirst(7) }
        return Manager(address: address, namespace: try setting(namespace, "--namespace", "CTRD_NAMESPACE", "default"))
    }
}

enum OutputFormat: String, ExpressibleByArgument, CaseIterable {
    case table, json
}

/// How a listing is printed.
struct ListOptions: ParsableArguments {
    @Flag(name: .shortAndLong, help: "Print ids only.")
    var quiet = false

    @Flag(name: .customLong("no-trunc"), help: "Print ids and commands in full.")
    var noTruncation = false

    @Option(name: .shortAndLong, help: ArgumentHelp("table or json.", valueName: "format"))
    var output = OutputFormat.table
}

/// Written out, since the parser knows no flag that takes "=false".
enum OnOff: String, ExpressibleByArgument, CaseIterable { case `true`, `false` }

/// How a program in front of a process behaves.
struct FrontOptions: ParsableArguments {
    @Option(
        name: .customLong("detach-keys"), parsing: .unconditional,
        help: ArgumentHelp("Keys that let go of a terminal. Default: ctrl-p,ctrl-q.", valueName: "keys"))
    var detachKeys: String?

    @Option(
        name: .customLong("sig-proxy"),
        help: ArgumentHelp(
            "Hand signals on to the process. Default: true, but false when its terminal is this one.", valueName: "true|false"))
    var signalProxy: OnOff?

    func keys() throws(Failure) -> DetachKeys { try detachKeys.map { keys throws(Failure) in try DetachKeys(keys) } ?? .standard }

    /// Behind a raw terminal the keys make the signals, and what is sent to this program is about this program.
    func proxies(isRaw: Bool) -> Bool { signalProxy.map { $0 == .true } ?? !isRaw }
}

/// What a container is to be: the options that `run` and `create` share.
struct ContainerOptions: ParsableArguments {
    @Option(help: "Name of the container. Default: the manager invents one.")
    var name: String?

    @Flag(name: .customLong("rm"), help: "Delete the container when it has ended.")
    var remove = false

    @Option(
        name: [.customShort("e", allowingJoined: true), .long], parsing: .unconditionalSingleValue,
        help: ArgumentHelp("Set a variable: KEY=VALUE, or KEY to take the value from this environment.", valueName: "variable"))
    var env: [String] = []

    @Option(name: .customLong("env-file"), help: ArgumentHelp("Read variables from a file, a line each.", valueName: "file"))
    var envFile: [String] = []

    @Option(
        name: [.customShort("w", allowingJoined: true), .customLong("workdir")],
        help: ArgumentHelp("Working directory in the container.", valueName: "directory"))
    var workingDirectory: String?

    @Option(
        name: [.customShort("u", allowingJoined: true), .long],
        help: ArgumentHelp("USER or USER:GROUP, names of the image or numbers.", valueName: "user"))
    var user: String?

    @Option(
        name: [.customShort("v", allowingJoined: true), .long],
        help: ArgumentHelp("Mount a path of the host: SOURCE:DESTINATION[:ro|rw].", valueName: "volume"))
    var volume: [String] = []

    @Flag(name: .customLong("read-only"), help: "The container cannot write to its root file system.")
    var readOnly = false

    @Option(
        name: [.customShort("m", allowingJoined: true), .long],
        help: ArgumentHelp("Limit of memory: 512m, 1g, or a number of bytes.", valueName: "size"))
    var memory: String?

    @Option(help: ArgumentHelp("Limit of CPUs, a decimal number: 0.5.", valueName: "number"))
    var cpus: String?

    @Option(
        name: .customLong("pids-limit"), parsing: .unconditional,
        help: ArgumentHelp("Limit of processes; -1 is none.", valueName: "number"))
    var pidsLimit: String?

    @Option(name: [.customShort("h", allowingJoined: true), .long], help: "Host name of the container.")
    var hostname: String?

    @Option(name: [.customLong("network"), .customLong("net")], help: ArgumentHelp("none (default) or host.", valueName: "network"))
    var network: String?

    @Option(
        help: ArgumentHelp(
            "Path of an OCI runtime that takes the place of the manager's own, or a containerd shim: io.containerd.NAME.VERSION or its path.",
            valueName: "runtime"))
    var runtime: String?

    @Option(parsing: .unconditional, help: ArgumentHelp("Program that takes the place of the image's entry point.", valueName: "program"))
    var entrypoint: String?

    @Option(
        name: [.customShort("l", allowingJoined: true), .long], parsing: .unconditionalSingleValue,
        help: ArgumentHelp("Set a label: KEY=VALUE.", valueName: "label"))
    var label: [String] = []

    @Option(name: .customLong("stop-signal"), help: ArgumentHelp("Signal that stop sends first.", valueName: "signal"))
    var stopSignal: String?

    @Option(help: ArgumentHelp("Write the id of the container to a file, which must not exist.", valueName: "file"))
    var cidfile: String?

    @Flag(name: .shortAndLong, help: "Keep standard input open; without -d it is this program's.")
    var interactive = false

    @Flag(name: .shortAndLong, help: "Give the container a terminal.")
    var tty = false

    @Flag(help: "All capabilities and devices, nothing hidden of /proc and /sys, no seccomp filter.")
    var privileged = false

    @Option(
        name: .customLong("log-driver"),
        help: ArgumentHelp("segments (default), json-file, cri, journald or none.", valueName: "driver"))
    var logDriver: String?

    @Option(
        name: .customLong("log-opt"), parsing: .unconditionalSingleValue,
        help: ArgumentHelp("Option of the log driver: max-size=10m, max-file=3, path=FILE.", valueName: "option"))
    var logOption: [String] = []

    @Argument(
        parsing: .captureForPassthrough,
        help: ArgumentHelp("The image, and the command for the container with its arguments.", valueName: "image [command ...]"))
    var words: [String] = []
}
