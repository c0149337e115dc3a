import ArgumentParser
import CtrProto
import Glibc
import Linux

struct Attach: Command {
    static let configuration = CommandConfiguration(
        commandName: "attach", _superCommandName: "ctrctl", abstract: "Lead the streams of a running container here.",
        discussion: """
            Shows what the container writes from now on, or with --since from a position that ctrctl printed when it was detached. Any \
            number of programs may be attached at a time. Standard input goes there if the container was made with -i; its end leaves \
            the container's open for others, unless --close-stdin is given. The exit status is the container's; ctrl-p ctrl-q detaches \
            a terminal and exits 0. When ctrd goes away meanwhile, it waits for ctrd and continues where it was.
            """)
    static let examples = [
        "ctrctl attach web",
        "ctrctl attach --no-stdin web | grep error",
        "ctrctl attach --since 1/stdout:1:4096,stderr:1:0 web",
        "ctrctl attach --exec 3f1c9a web",
    ]
    static var statuses: Statuses { .plain }

    @Flag(name: .customLong("no-stdin"), help: "Do not lead standard input there.")
    var noInput = false

    @Flag(name: .customLong("close-stdin"), help: "When standard input ends here, it ends there too.")
    var closesInput = false

    @Option(help: ArgumentHelp("Begin at a position that ctrctl printed.", valueName: "position"))
    var since: String?

    @Option(help: ArgumentHelp("To an exec instead of the container's first process.", valueName: "exec"))
    var exec: String?

    @OptionGroup var front: FrontOptions
    @Argument(help: ArgumentHelp("An id, the first digits of an id, or a name.", valueName: "container"), completion: .containers)
    var id: String
    @OptionGroup var global: GlobalOptions

    func perform(_ manager: Manager) throws -> Int32 {
        let position = try since.map { text throws(Failure) in try LogPosition(text) }
        let keys = try front.keys()
        let connection = try Connection(path: manager.address, bufferSize: 64 << 10)
        let container = try connection.container(id, manager)
        switch container.hasTask ? container.task.status : .created {
        case .running, .unknown, .UNRECOGNIZED: break
        case .paused: throw Failure("cannot attach to \(container.name): it is paused (ctrctl unpause \(container.name) lets it go on)")
        case .created, .stopped:
            throw Failure("cannot attach to \(container.name): it does not run (ctrctl start -a \(container.name) starts it)")
        }
        var isTerminal = container.config.terminal
        var takesInput = container.config.openStdin
        var plan = SessionPlan(opening: .attach, container: container.id)
        var output = LogSelection()
        if let exec {
            let found = try connection.exec(exec, of: container.id, manager)
            plan.execID = found.id
            output.execID = found.id
            isTerminal = found.config.terminal
            takesInput = found.config.openStdin
        }
        if let position, position.incarnation != container.task.incarnation {
            throw Failure(
                "position \(position.description) is of another run than this one, \(container.task.incarnation): ctrctl logs shows it")
        }
        takesInput = takesInput && !noInput
        try Session.checkTerminal(isTerminal, input: takesInput)
        output.position = position
        if position == nil { output.tail = 0 }
        plan.output = output
        if takesInput { plan.input = .init(addressing: .shared, closesAtEnd: closesInput) }
        plan.terminal = isTerminal
        plan.detachKeys = keys
        plan.proxiesSignals = front.proxies(isRaw: Session.isRaw(isTerminal, input: takesInput))
        plan.redraws = isTerminal && takesInput && position == nil
        let session = try Session(plan, manager, connection: connection)
        session.sink.incarnation = container.task.incarnation
        return try session.finish(name: container.name)
    }
}

extension Connection {
    /// What is known of a container.
    func container(_ id: String, _ manager: Manager) throws(ClientError) -> Ctr_V1_Container {
        var request = Ctr_V1_GetContainerRequest()
        request.namespace = manager.namespace
        request.container = id
        return try call(API.getContainer, request, within: Manager.readLimit).container
    }

    /// The execs of a container that were not deleted.
    func execs(of container: String, _ manager: Manager) throws(ClientError) -> [Ctr_V1_Exec] {
        var request = Ctr_V1_ListExecsRequest()
        request.namespace = manager.namespace
        request.container = container
        return try call(API.listExecs, request, within: Manager.readLimit).execs
    }

    /// The exec whose id is, or begins with, `id`.
    func exec(_ id: String, of container: String, _ manager: Manager) throws -> Ctr_V1_Exec {
        let found = try execs(of: container, manager).filter { $0.id == id || (!id.isEmpty && $0.id.hasPrefix(id)) }
        if let exact = found.first(where: { $0.id == id }) { return exact }
        guard let exec = found.first else { throw Failure("no such exec in container \(container): \(id) (ctrctl execs list shows them)") }
        if found.count > 1 { throw Failure("exec \(id) of container \(container) is ambiguous: \(found.count) ids begin like that") }
        return exec
    }
}
