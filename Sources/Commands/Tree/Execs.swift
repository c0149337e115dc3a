import ArgumentParser
import CtrProto
import Glibc
import Linux
import OCI

struct Execs: ParsableCommand, HasExamples {
    static let configuration = CommandConfiguration(
        commandName: "execs", _superCommandName: "ctrctl", abstract: "Execs: what \"ctrctl exec\" started in containers.",
        usage: "ctrctl execs [list|kill|delete] ...",
        discussion: """
            "ctrctl exec" itself runs a command, whatever the container is called; so what it started is managed by this word.
            """,
        subcommands: [List.self, Kill.self, Delete.self], defaultSubcommand: List.self)
    static let examples = ["ctrctl execs list web", "ctrctl execs kill web 3f1c9a"]

    struct List: Command {
        static let configuration = CommandConfiguration(
            commandName: "list", _superCommandName: "ctrctl execs", abstract: "List the execs of a container, also those that ended.",
            aliases: ["ls"])
        static let examples = ["ctrctl execs list web", "ctrctl execs list --output json web"]
        @OptionGroup var listing: ListOptions
        @Argument(help: ArgumentHelp("An id, the first digits of an id, or a name.", valueName: "container"), completion: .containers)
        var id: String
        @OptionGroup var global: GlobalOptions

        func perform(_ manager: Manager) throws -> Int32 {
            let execs = try manager.connect().execs(of: id, manager)
            if listing.quiet {
                try Console.write(execs.map { (listing.noTruncation ? $0.id : shortID($0.id)) + "\n" }.joined())
            } else if listing.output == .json {
                try printDocuments(execs.map(\.document))
            } else {
                let table = execTable(execs, full: listing.noTruncation, now: now(CLOCK_REALTIME))
                try Console.write(table.rendered(colour: Console.usesColour(1)))
            }
            return 0
        }
    }

    struct Kill: Command {
        static let configuration = CommandConfiguration(
            commandName: "kill", _superCommandName: "ctrctl execs", abstract: "Send a signal to execs, KILL by default.")
        static let examples = ["ctrctl execs kill web 3f1c9a", "ctrctl execs kill -s TERM web $(ctrctl execs list -q web)"]
        @Option(name: [.customShort("s", allowingJoined: true), .long], help: "Name or number of the signal.")
        var signal = "KILL"
        @OptionGroup var targets: ExecTargets
        @OptionGroup var global: GlobalOptions

        func perform(_ manager: Manager) throws -> Int32 {
            let number = try Signals.number(signal)
            return try targets.forEach(manager) { connection, exec throws(ClientError) in
                var request = Ctr_V1_KillTaskRequest()
                request.namespace = manager.namespace
                request.container = exec.containerID
                request.execID = exec.id
                request.signal = number
                _ = try connection.call(API.killTask, request)
            }
        }
    }

    struct Delete: Command {
        static let configuration = CommandConfiguration(
            commandName: "delete", _superCommandName: "ctrctl execs", abstract: "Forget ended execs and their output.",
            discussion: """
                One that runs is refused unless -f kills it first.
                """, aliases: ["rm"])
        static let examples = ["ctrctl execs delete web 3f1c9a"]
        @OptionGroup var options: ForceOptions
        @OptionGroup var targets: ExecTargets
        @OptionGroup var global: GlobalOptions

        func perform(_ manager: Manager) throws -> Int32 {
            try targets.forEach(manager) { connection, exec throws(ClientError) in
                var request = Ctr_V1_DeleteExecRequest()
                request.namespace = manager.namespace
                request.container = exec.containerID
                request.execID = exec.id
                request.force = options.force
                _ = try connection.call(API.deleteExec, request)
            }
        }
    }
}

/// A container and some of its execs.
struct ExecTargets: ParsableArguments {
    @Argument(help: ArgumentHelp("An id, the first digits of an id, or a name.", valueName: "container"), completion: .containers)
    var container: String
    @Argument(help: ArgumentHelp("Ids of execs, or their first digits.", valueName: "exec"))
    var execs: [String]

    /// Does it to each, prints what was done, and errors as they come.
    func forEach(_ manager: Manager, _ body: (Connection, Ctr_V1_Exec) throws(ClientError) -> Void) throws -> Int32 {
        let connection = try manager.connect()
        let id = try connection.container(container, manager).id
        var status: Int32 = 0
        for text in execs {
            do {
                var exec = try connection.exec(text, of: id, manager)
                exec.containerID = id
                try body(connection, exec)
                try Console.line(text)
            } catch let error as ClientError where !error.isOutage {
                Console.error(error.description)
                status = Failure.general
            } catch let failure as Failure {
                Console.error(failure.message)
                status = failure.code
            }
        }
        return status
    }
}

func execTable(_ execs: [Ctr_V1_Exec], full: Bool, now: Int64) -> Table {
    var table = Table("EXEC ID", "COMMAND", "CREATED", "STATUS", "PID", "TTY")
    for exec in execs {
        let words = printable(exec.config.args.joined(separator: " "))
        let created = exec.hasCreatedAt ? humanDuration(seconds: seconds(since: exec.createdAt, now: now)) + " ago" : ""
        var status = exec.status.word
        var style = Table.Style.plain
        if exec.status == .running { style = .good }
        if exec.status == .stopped {
            status = "exited (\(exec.hasExit ? exec.exit.codeText : "unknown"))"
            if !exec.exit.isKnown || exec.exit.code != 0 { style = .bad }
        }
        table.row(
            .init(full ? exec.id : shortID(exec.id)), .init("\"" + (full ? words : shortened(words, to: 20)) + "\""), .init(created),
            .init(status, style), .init(exec.pid == 0 ? "-" : "\(exec.pid)"), .init(exec.config.terminal ? "yes" : "no"))
    }
    return table
}
