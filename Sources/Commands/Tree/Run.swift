import ArgumentParser
import CtrProto
import Glibc
import Linux

struct Run: Command {
    static let configuration = CommandConfiguration(
        commandName: "run", _superCommandName: "ctrctl", abstract: "Make a container of an image and run a command in it.",
        usage: "ctrctl run [OPTIONS] IMAGE [COMMAND [ARGUMENT ...]]",
        discussion: """
            Everything behind IMAGE belongs to the command. Without -d the output appears here, signals go to the container, and the \
            exit status is the command's: 128 + n when signal n ended it, 127 when the program was not found, 126 when it cannot be \
            run, 125 when the container could not be made or nobody saw how it ended. With -i this standard input is the command's, \
            with -it this terminal is, until ctrl-p ctrl-q detaches it. When ctrd goes away meanwhile, the container goes on; this \
            program waits for ctrd and continues where it was. Three interrupts within two seconds detach a program without terminal.
            """,
        helpNames: .long)
    static let examples = [
        "ctrctl run --rm busybox echo hello",
        "ctrctl run --rm -it busybox sh",
        "tar c src | ctrctl run --rm -i busybox tar t",
        "ctrctl run -d --name web -v /srv/www:/www:ro -m 64m busybox httpd -f -h /www",
        "ctrctl run --rm -e LANG=C -w /tmp --cpus 0.5 --pids-limit 20 busybox sh -c 'env; pwd'",
    ]
    static var statuses: Statuses { .run }

    @Flag(name: .shortAndLong, help: "Do not stay: print the id of the container and return.")
    var detach = false

    @Option(
        name: [.customShort("a", allowingJoined: true), .long], parsing: .unconditionalSingleValue,
        help: ArgumentHelp("Lead only this stream here: stdin, stdout or stderr; may be repeated.", valueName: "stream"))
    var attach: [String] = []

    @OptionGroup var front: FrontOptions
    @OptionGroup var container: ContainerOptions
    @OptionGroup var global: GlobalOptions

    func perform(_ manager: Manager) throws -> Int32 {
        var request = try container.request(namespace: manager.namespace)
        let streams = try attachedStreams()
        if streams.input && !attach.isEmpty { request.config.openStdin = true }
        request.startNow = true
        request.attached = !detach
        if detach { return try create(request, manager, idFile: container.cidfile) }

        try Session.checkTerminal(container.tty, input: streams.input)
        var plan = SessionPlan(opening: .create(request), container: request.id)
        plan.output = streams.output
        if streams.input { plan.input = .init(addressing: .whole, closesAtEnd: true) }
        plan.terminal = container.tty
        plan.detachKeys = try front.keys()
        plan.proxiesSignals = front.proxies(isRaw: Session.isRaw(container.tty, input: streams.input))
        plan.removes = request.config.autoRemove
        plan.initialSize = request.config.terminalSize
        let session = try Session(plan, manager)
        let idFile = try container.cidfile.map { path throws(Failure) in try IDFile(path: path, id: request.id) }
        do {
            return try session.finish(name: request.name.isEmpty ? shortID(request.id) : request.name)
        } catch let error as ClientError {
            // The manager refused it: nothing of it is to stay.
            if !session.isOpen { idFile?.remove() }
            if !session.isOpen && container.remove { removeRest(request, manager) }
            throw error
        }
    }

    /// Which streams are led here; `output` is nil when none of the two is.
    func attachedStreams() throws(Failure) -> (input: Bool, output: LogSelection?) {
        if attach.isEmpty { return (container.interactive && !detach, LogSelection()) }
        if detach { throw Failure("conflicting options: cannot specify both --attach and --detach", code: Failure.usage) }
        var input = false
        var streams: Set<Ctr_V1_LogStream> = []
        for name in attach {
            switch name.lowercased() {
            case "stdin": input = true
            case "stdout": streams.insert(.stdout)
            case "stderr": streams.insert(.stderr)
            default: throw Failure("invalid stream \"\(name)\": use stdin, stdout or stderr", code: Failure.usage)
            }
        }
        var output = LogSelection()
        if streams.count == 1 { output.streams = Array(streams) }
        return (input, streams.isEmpty ? nil : output)
    }

    /// A container whose command could not be started exists; `--rm` asks for it to go. What does not exist needs nothing.
    private func removeRest(_ request: Ctr_V1_CreateContainerRequest, _ manager: Manager) {
        var delete = Ctr_V1_DeleteContainerRequest()
        delete.namespace = manager.namespace
        delete.container = request.id
        delete.force = true
        do throws(ClientError) {
            _ = try manager.call(API.deleteContainer, delete, within: Manager.readLimit)
        } catch {
            if !error.isNotFound { Console.error("cannot delete container \(shortID(request.id)): \(error)") }
        }
    }
}

extension Ctr_V1_ContainerConfig {
    /// Of the terminal at its start; nil when it has none.
    var terminalSize: TerminalSize? {
        terminalWidth > 0 && terminalHeight > 0 ? TerminalSize(width: terminalWidth, height: terminalHeight) : nil
    }
}

struct Create: Command {
    static let configuration = CommandConfiguration(
        commandName: "create", _superCommandName: "ctrctl", abstract: "Make a container without starting it.",
        usage: "ctrctl create [OPTIONS] IMAGE [COMMAND [ARGUMENT ...]]",
        discussion: """
            Takes the options of run and prints the id. Start it with "ctrctl start ID".
            """,
        helpNames: .long)
    static let examples = [
        "ctrctl create --name job busybox sh -c 'date; sleep 5'",
        "ctrctl start $(ctrctl create busybox true)",
        "ctrctl start -ai $(ctrctl create -it busybox sh)",
    ]

    static var statuses: Statuses { .start }

    @OptionGroup var container: ContainerOptions
    @OptionGroup var global: GlobalOptions

    func perform(_ manager: Manager) throws -> Int32 {
        try create(try container.request(namespace: manager.namespace), manager, idFile: container.cidfile)
    }
}

/// Makes the container and prints its id in full.
private func create(_ request: Ctr_V1_CreateContainerRequest, _ manager: Manager, idFile path: String?) throws -> Int32 {
    let connection = try manager.connect()
    let idFile = try path.map { path throws(Failure) in try IDFile(path: path, id: request.id) }
    do throws(ClientError) {
        _ = try connection.call(API.createContainer, request)
    } catch {
        if case .status = error { idFile?.remove() }
        throw error
    }
    try Console.line(request.id)
    return 0
}
