import ArgumentParser
import CtrProto
import Glibc
import Linux

struct Exec: Command {
    static let configuration = CommandConfiguration(
        commandName: "exec", _superCommandName: "ctrctl", abstract: "Run a command in a running container.",
        usage: "ctrctl exec [OPTIONS] CONTAINER COMMAND [ARGUMENT ...]",
        discussion: """
            The exit status is the command's: 127 when the program was not found, 126 when it cannot be run, 1 when the container does \
            not run. Signals go to the command, and when ctrd goes away meanwhile, this program waits for it and continues where it \
            was. ctrl-p ctrl-q detaches a terminal. "ctrctl execs" lists and kills what runs like this; it is a word of its own, since \
            "exec list" would be a command in a container named list.
            """,
        helpNames: .long)
    static let examples = [
        "ctrctl exec web ps",
        "ctrctl exec -it web sh",
        "ctrctl exec -i web sh -c 'cat > /tmp/file' < file",
        "ctrctl exec -d -u 1000 -w /srv web ./job",
    ]
    static var statuses: Statuses { .start }

    @Flag(name: .shortAndLong, help: "Do not stay: print the id of the exec and return.")
    var detach = false

    @Flag(name: .shortAndLong, help: "Lead standard input to the command.")
    var interactive = false

    @Flag(name: .shortAndLong, help: "Give the command a terminal.")
    var tty = false

    @Flag(help: "All capabilities.")
    var privileged = false

    @Option(
        name: [.customShort("e", allowingJoined: true), .long], parsing: .unconditionalSingleValue,
        help: ArgumentHelp("Set a variable: KEY=VALUE, or KEY to take the value from this environment.", valueName: "variable"))
    var env: [String] = []

    @Option(name: .customLong("env-file"), help: ArgumentHelp("Read variables from a file, a line each.", valueName: "file"))
    var envFile: [String] = []

    @Option(
        name: [.customShort("w", allowingJoined: true), .customLong("workdir")],
        help: ArgumentHelp("Working directory in the container. Default: the container's.", valueName: "directory"))
    var workingDirectory: String?

    @Option(
        name: [.customShort("u", allowingJoined: true), .long],
        help: ArgumentHelp("USER or USER:GROUP, names of the image or numbers. Default: the container's.", valueName: "user"))
    var user: String?

    @OptionGroup var front: FrontOptions
    @Argument(
        parsing: .captureForPassthrough,
        help: ArgumentHelp("The container, and the command with its arguments.", valueName: "container command ..."),
        completion: .containers)
    var words: [String] = []
    @OptionGroup var global: GlobalOptions

    func perform(_ manager: Manager) throws -> Int32 { try line().perform(manager) }

    /// What was asked for, checked.
    func line() throws -> ExecLine {
        let words = try passthrough(words, missing: "a container and a command are required")
        guard words.count > 1 else { throw ValidationError("a command is required") }
        var line = ExecLine(container: words[0], command: Array(words.dropFirst()))
        line.detach = detach
        line.interactive = interactive
        line.tty = tty
        line.privileged = privileged
        line.environment = try parseEnvironment(files: envFile, variables: env)
        if let workingDirectory { line.workingDirectory = try parseWorkingDirectory(workingDirectory) }
        if let user { line.user = try parseUser(user) }
        line.detachKeys = try front.keys()
        line.proxiesSignals = front.proxies(isRaw: Session.isRaw(tty, input: interactive))
        return line
    }
}

/// A command to run in a container, and how its user sees it.
struct ExecLine: Equatable {
    let container: String
    let command: [String]
    var detach = false
    var interactive = false
    var tty = false
    var privileged = false
    var environment: [String] = []
    var workingDirectory = ""
    var user = ""
    var detachKeys = DetachKeys.standard
    var proxiesSignals = true

    init(container: String, command: [String]) {
        self.container = container
        self.command = command
    }

    /// A line with nothing but `-i`, `-t` and `-d` before the container, read without the parser, which costs such a line more than all the
    /// rest of this program does; nil for every other line.
    init?(plain arguments: [String]) {
        let words = arguments.drop { $0.hasPrefix("-") }
        guard let container = words.first, !container.isEmpty, words.count > 1 else { return nil }
        self.init(container: container, command: Array(words.dropFirst()))
        for word in arguments.prefix(arguments.count - words.count) {
            if word.utf8.count < 2 { return nil }
            for letter in word.utf8.dropFirst() {
                switch letter {
                case UInt8(ascii: "d"): detach = true
                case UInt8(ascii: "i"): interactive = true
                case UInt8(ascii: "t"): tty = true
                default: return nil
                }
            }
        }
        proxiesSignals = !Session.isRaw(tty, input: interactive)
    }

    /// Does it and returns the exit status.
    func perform(_ manager: Manager) throws -> Int32 {
        let request = try request(namespace: manager.namespace)
        if detach {
            let exec = try manager.call(API.exec, request).exec
            try Console.line(exec.id.isEmpty ? request.execID : exec.id)
            return 0
        }
        try Session.checkTerminal(tty, input: interactive)
        var plan = SessionPlan(opening: .exec(request), container: request.container)
        plan.execID = request.execID
        plan.output = LogSelection(execID: request.execID)
        if interactive { plan.input = .init(addressing: .whole, closesAtEnd: true) }
        plan.terminal = tty
        plan.detachKeys = detachKeys
        plan.proxiesSignals = proxiesSignals
        // Its end was told and its output was read: then the manager forgets it by itself.
        plan.initialSize = request.config.terminalSize
        return try Session(plan, manager).finish(name: request.container)
    }

    /// What is asked for, under an id chosen here, so that it can be repeated.
    func request(namespace: String) throws -> Ctr_V1_ExecRequest {
        var request = Ctr_V1_ExecRequest()
        request.namespace = namespace
        request.container = container
        request.execID = try newContainerID()
        var config = Ctr_V1_ExecConfig()
        config.args = command
        config.env = environment
        config.cwd = workingDirectory
        config.user = user
        config.privileged = privileged
        config.terminal = tty
        config.openStdin = interactive && !detach
        config.attached = !detach
        if tty, let size = TerminalSize.current() {
            config.terminalWidth = size.width
            config.terminalHeight = size.height
        }
        request.config = config
        return request
    }
}

extension Ctr_V1_ExecConfig {
    /// Of the terminal at its start; nil when it has none.
    fileprivate var terminalSize: TerminalSize? {
        terminalWidth > 0 && terminalHeight > 0 ? TerminalSize(width: terminalWidth, height: terminalHeight) : nil
    }
}
