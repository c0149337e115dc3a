import ArgumentParser
import CtrProto
import Glibc
import Linux
import SwiftProtobuf

struct Tasks: ParsableCommand, HasExamples {
    static let examples = ["ctrctl tasks list", "ctrctl tasks wait web"]
    static let configuration = CommandConfiguration(
        commandName: "tasks", _superCommandName: "ctrctl", abstract: "Tasks: what runs of a container, and how it ended.",
        usage: "ctrctl tasks [list|start|kill|wait|delete|pause|resume|update] ...",
        subcommands: [List.self, Start.self, Kill.self, Wait.self, Delete.self, Pause.self, Resume.self, Update.self],
        defaultSubcommand: List.self,
        aliases: ["task"])

    struct List: Command {
        static let configuration = CommandConfiguration(
            commandName: "list", _superCommandName: "ctrctl tasks", abstract: "List tasks with their processes, exits and guards.",
            discussion: """
                SOURCE says how the exit status is known: reaped, pidfd, connector, zombie, or unknown. GUARDS says who watches: both, \
                shim_only, keeper_only, unresponsive, lost, or none when there is nothing to watch.
                """, aliases: ["ls"])
        static let examples = [
            "ctrctl tasks list",
            "ctrctl tasks list --output json",
        ]
        @OptionGroup var listing: ListOptions
        @OptionGroup var global: GlobalOptions

        func perform(_ manager: Manager) throws -> Int32 {
            var request = Ctr_V1_ListTasksRequest()
            request.namespace = manager.namespace
            let tasks = try manager.call(API.listTasks, request, within: Manager.readLimit).tasks
            if listing.quiet {
                try Console.write(tasks.map { (listing.noTruncation ? $0.containerID : shortID($0.containerID)) + "\n" }.joined())
            } else if listing.output == .json {
                try printDocuments(tasks.map(\.document))
            } else {
                let table = taskTable(tasks, full: listing.noTruncation, now: now(CLOCK_REALTIME))
                try Console.write(table.rendered(colour: Console.usesColour(1)))
            }
            return 0
        }
    }

    struct Kill: Command {
        static let configuration = CommandConfiguration(
            commandName: "kill", _superCommandName: "ctrctl tasks", abstract: "Send a signal to tasks, TERM by default.")
        static let examples = [
            "ctrctl tasks kill web",
            "ctrctl tasks kill -s USR1 web",
        ]
        @Option(name: [.customShort("s", allowingJoined: true), .long], help: "Name or number of the signal.")
        var signal = "TERM"
        @Flag(name: .shortAndLong, help: "To every process of the container.")
        var all = false
        @OptionGroup var targets: Targets
        @OptionGroup var global: GlobalOptions

        func perform(_ manager: Manager) throws -> Int32 { try kill(targets.ids, manager, signal: signal, all: all) }
    }

    struct Delete: Command {
        static let configuration = CommandConfiguration(
            commandName: "delete", _superCommandName: "ctrctl tasks", abstract: "Dismiss the guards of tasks that have ended.",
            discussion: """
                The container and its logs stay, and it can be started again. -f kills a task that runs.
                """, aliases: ["rm"])
        static let examples = ["ctrctl tasks delete web"]
        @OptionGroup var options: ForceOptions
        @OptionGroup var targets: Targets
        @OptionGroup var global: GlobalOptions

        func perform(_ manager: Manager) throws -> Int32 {
            try forEach(targets.ids, manager, API.deleteTask) { id in
                var request = Ctr_V1_DeleteTaskRequest()
                request.namespace = manager.namespace
                request.container = id
                request.force = options.force
                return request
            } show: { id, _ throws(Failure) in
                try Console.line(id)
            }
        }
    }

    struct Resume: Command {
        static let configuration = CommandConfiguration(
            commandName: "resume", _superCommandName: "ctrctl tasks", abstract: "Let paused tasks go on.", aliases: ["unpause"])
        static let examples = ["ctrctl tasks resume web"]
        @OptionGroup var targets: Targets
        @OptionGroup var global: GlobalOptions

        func perform(_ manager: Manager) throws -> Int32 { try resume(targets.ids, manager) }
    }
}

func taskTable(_ tasks: [Ctr_V1_Task], full: Bool, now: Int64) -> Table {
    var table = Table("CONTAINER", "NAME", "STATUS", "PID", "STARTED", "EXIT", "SOURCE", "GUARDS")
    for task in tasks {
        let started = task.hasStartedAt ? humanDuration(seconds: seconds(since: task.startedAt, now: now)) + " ago" : "-"
        table.row(
            .init(full ? task.containerID : shortID(task.containerID)), .init(task.containerName), .init(task.status.word),
            .init(task.pid == 0 ? "-" : "\(task.pid)"), .init(started), .init(task.hasExit ? task.exit.codeText : "-"),
            .init(task.hasExit ? task.exit.source : "-"), .init(task.guards.word, task.guards.style))
    }
    return table
}

struct Start: Command {
    static let configuration = CommandConfiguration(
        commandName: "start", _superCommandName: "ctrctl", abstract: "Start containers that were created or have ended.",
        discussion: """
            With -a the output appears here, signals go to the container, and the exit status is its own; with -i this standard input \
            is the container's, if that was made with -i. ctrl-p ctrl-q detaches a terminal.
            """)
    static let examples = [
        "ctrctl start web",
        "ctrctl start -ai job",
    ]
    static var statuses: Statuses { .start }

    @Flag(name: .shortAndLong, help: "Lead output and signals here, and stay until the container has ended.")
    var attach = false

    @Flag(name: .shortAndLong, help: "Lead standard input there; means -a as well.")
    var interactive = false

    @OptionGroup var front: FrontOptions
    @OptionGroup var targets: Targets
    @OptionGroup var global: GlobalOptions

    func perform(_ manager: Manager) throws -> Int32 {
        if attach || interactive { return try startInFront(manager) }
        return try forEach(targets.ids, manager, API.startTask, Self.statuses) { id in
            var request = Ctr_V1_StartTaskRequest()
            request.namespace = manager.namespace
            request.container = id
            return request
        } show: { id, _ throws(Failure) in
            try Console.line(id)
        }
    }

    private func startInFront(_ manager: Manager) throws -> Int32 {
        guard targets.ids.count == 1 else { throw Failure("cannot start and attach several containers at once", code: Failure.usage) }
        let keys = try front.keys()
        let connection = try Connection(path: manager.address, bufferSize: 64 << 10)
        let container = try connection.container(targets.ids[0], manager)
        let takesInput = interactive && container.config.openStdin
        try Session.checkTerminal(container.config.terminal, input: takesInput)
        var plan = SessionPlan(opening: .start(after: container.task.incarnation), container: container.id)
        plan.output = LogSelection()
        if takesInput { plan.input = .init(addressing: .whole, closesAtEnd: true) }
        plan.terminal = container.config.terminal
        plan.detachKeys = keys
        plan.proxiesSignals = front.proxies(isRaw: Session.isRaw(plan.terminal, input: takesInput))
        plan.initialSize = container.config.terminalSize
        plan.removes = container.config.autoRemove
        return try Session(plan, manager, connection: connection).finish(name: container.name)
    }
}

struct Kill: Command {
    static let configuration = CommandConfiguration(
        commandName: "kill", _superCommandName: "ctrctl", abstract: "Send a signal to containers, KILL by default.")
    static let examples = [
        "ctrctl kill web",
        "ctrctl kill -s HUP web",
    ]
    @Option(name: [.customShort("s", allowingJoined: true), .long], help: "Name or number of the signal.")
    var signal = "KILL"
    @OptionGroup var targets: Targets
    @OptionGroup var global: GlobalOptions

    func perform(_ manager: Manager) throws -> Int32 { try kill(targets.ids, manager, signal: signal, all: false) }
}

struct Stop: Command {
    static let configuration = CommandConfiguration(
        commandName: "stop", _superCommandName: "ctrctl", abstract: "End containers: their stop signal, then KILL after a while.",
        discussion: """
            Returns when they have ended. When ctrd goes away meanwhile, it waits for ctrd and asks again.
            """)
    static let examples = [
        "ctrctl stop web",
        "ctrctl stop -t 60 web db",
    ]
    @Option(
        name: [.customShort("t", allowingJoined: true), .customLong("time"), .customLong("timeout")], parsing: .unconditional,
        help: ArgumentHelp("Until KILL is sent; -1 waits without limit.", valueName: "seconds"))
    var time = "10"
    @Option(name: [.customShort("s", allowingJoined: true), .long], help: "Signal to send first. Default: the container's own, else TERM.")
    var signal: String?
    @OptionGroup var targets: Targets
    @OptionGroup var global: GlobalOptions

    func perform(_ manager: Manager) throws -> Int32 {
        let timeout = try parseTimeout(time)
        let number = try signal.map { text throws(Failure) in try Signals.number(text) } ?? 0
        return try forEach(targets.ids, manager, API.stopTask, patient: true) { id in
            var request = Ctr_V1_StopTaskRequest()
            request.namespace = manager.namespace
            request.container = id
            request.signal = number
            request.timeoutMs = timeout
            return request
        } show: { id, _ throws(Failure) in
            try Console.line(id)
        }
    }
}

struct Wait: Command {
    static let configuration = CommandConfiguration(
        commandName: "wait", _superCommandName: "ctrctl", abstract: "Wait until containers have ended and print their exit statuses.",
        discussion: """
            Prints a status a line, in the order of the ids, at once for those that have ended already. A status that nobody saw is \
            printed as "unknown", with the reason as an error. When ctrd goes away meanwhile, it waits for ctrd.
            """)
    static let examples = ["ctrctl wait web"]
    @OptionGroup var targets: Targets
    @OptionGroup var global: GlobalOptions

    func perform(_ manager: Manager) throws -> Int32 {
        try forEach(targets.ids, manager, API.waitTask, patient: true) { id in
            var request = Ctr_V1_WaitTaskRequest()
            request.namespace = manager.namespace
            request.container = id
            return request
        } show: { id, response throws(Failure) in
            try Console.line(response.exit.codeText)
            if !response.exit.isKnown {
                let reason = response.exit.reason
                throw Failure("exit status of \(id) unknown: \(reason.isEmpty ? "ctrd gives no reason" : reason)")
            }
        }
    }
}

struct Pause: Command {
    static let configuration = CommandConfiguration(
        commandName: "pause", _superCommandName: "ctrctl", abstract: "Freeze all processes of containers.")
    static let examples = ["ctrctl pause web"]
    @OptionGroup var targets: Targets
    @OptionGroup var global: GlobalOptions

    func perform(_ manager: Manager) throws -> Int32 {
        try forEach(targets.ids, manager, API.pauseTask) { id in
            var request = Ctr_V1_PauseTaskRequest()
            request.namespace = manager.namespace
            request.container = id
            return request
        } show: { id, _ throws(Failure) in
            try Console.line(id)
        }
    }
}

struct Unpause: Command {
    static let configuration = CommandConfiguration(
        commandName: "unpause", _superCommandName: "ctrctl", abstract: "Let paused containers go on.")
    static let examples = ["ctrctl unpause web"]
    @OptionGroup var targets: Targets
    @OptionGroup var global: GlobalOptions

    func perform(_ manager: Manager) throws -> Int32 { try resume(targets.ids, manager) }
}

private func kill(_ ids: [String], _ manager: Manager, signal: String, all: Bool) throws -> Int32 {
    let number = try Signals.number(signal)
    return try forEach(ids, manager, API.killTask) { id in
        var request = Ctr_V1_KillTaskRequest()
        request.namespace = manager.namespace
        request.container = id
        request.signal = number
        request.all = all
        return request
    } show: { id, _ throws(Failure) in
        try Console.line(id)
    }
}

private func resume(_ ids: [String], _ manager: Manager) throws -> Int32 {
    try forEach(ids, manager, API.resumeTask) { id in
        var request = Ctr_V1_ResumeTaskRequest()
        request.namespace = manager.namespace
        request.container = id
        return request
    } show: { id, _ throws(Failure) in
        try Console.line(id)
    }
}
