import ArgumentParser
import Linux

/// The program: finds the command that the first words name, parses the rest as that one command only, and does it.
/// To parse the whole tree costs more than everything else that a command does.
public enum Program {
    /// `arguments` without the name of the program. Returns the exit status.
    public static func main(_ arguments: [String]) -> Int32 {
        Console.claimStandardDescriptors()
        if arguments.first == "exec", let line = ExecLine(plain: Array(arguments.dropFirst())) {
            return outcome(Exec.statuses) { try line.perform(try Manager.chosen()) }
        }
        let (type, rest) = route(arguments)
        guard let type else { return usage("unknown command \"\(rest.first ?? "")\"", help: "ctrctl") }
        return perform(type, rest)
    }

    /// The command and what belongs to it; global options from the front are put first. No type: the first word is no command.
    static func route(_ arguments: [String]) -> (type: (any ParsableCommand.Type)?, rest: [String]) {
        var front: [String] = []
        var rest = arguments[...]
        while let word = rest.first, word.hasPrefix("-") {
            guard let name = ["--address", "--namespace"].first(where: { word == $0 || word.hasPrefix($0 + "=") }) else { break }
            front.append(rest.removeFirst())
            if word == name, let value = rest.popFirst() { front.append(value) }
        }
        if rest.first == "help" { return route(Array(rest.dropFirst()) + ["--help"]) }
        // Without a word it is --help, --version or a mistake, all of which the root knows.
        guard let word = rest.first, !word.hasPrefix("-") else { return (Root.self, front + rest) }
        guard let type = everyday(word) else {
            guard let group = group(word) else { return (nil, Array(rest)) }
            rest.removeFirst()
            // Help of a group is about its commands, which the tree lists.
            if rest.first == "--help" || rest.first == "-h" { return (group.itself, front + rest) }
            guard let next = rest.first, let member = group.members(next) else { return (group.list, front + rest) }
            return (member, front + rest.dropFirst())
        }
        return (type, front + rest.dropFirst())
    }

    private static func everyday(_ word: String) -> (any ParsableCommand.Type)? {
        switch word {
        case "run": Run.self
        case "create": Create.self
        case "start": Start.self
        case "stop": Stop.self
        case "kill": Kill.self
        case "wait": Wait.self
        case "pause": Pause.self
        case "unpause": Unpause.self
        case "ps": Ps.self
        case "exec": Exec.self
        case "attach": Attach.self
        case "logs": Logs.self
        case "stats": Stats.self
        case "top": Top.self
        case "update": Update.self
        case "inspect": InspectAny.self
        case "rm": Rm.self
        case "rmi": Rmi.self
        case "import": ImportShort.self
        case "load": Load.self
        case "version": Version.self
        case "info": Info.self
        case "completion": Completion.self
        default: nil
        }
    }

    private struct Group {
        let itself: any ParsableCommand.Type
        let list: any ParsableCommand.Type
        let members: (String) -> (any ParsableCommand.Type)?
    }

    private static func group(_ word: String) -> Group? {
        switch word {
        case "containers", "container": Group(itself: Containers.self, list: Containers.List.self, members: containers)
        case "tasks", "task": Group(itself: Tasks.self, list: Tasks.List.self, members: tasks)
        case "images", "image": Group(itself: Images.self, list: Images.List.self, members: images)
        case "execs": Group(itself: Execs.self, list: Execs.List.self, members: execs)
        case "shims", "shim": Group(itself: Shims.self, list: Shims.List.self, members: shims)
        default: nil
        }
    }

    private static func containers(_ word: String) -> (any ParsableCommand.Type)? {
        switch word {
        case "list", "ls": Containers.List.self
        case "create": Create.self
        case "inspect": Containers.Inspect.self
        case "delete", "rm": Containers.Delete.self
        default: nil
        }
    }

    private static func tasks(_ word: String) -> (any ParsableCommand.Type)? {
        switch word {
        case "list", "ls": Tasks.List.self
        case "start": Start.self
        case "kill": Tasks.Kill.self
        case "wait": Wait.self
        case "delete", "rm": Tasks.Delete.self
        case "pause": Pause.self
        case "resume", "unpause": Tasks.Resume.self
        case "update": Update.self
        default: nil
        }
    }

    private static func images(_ word: String) -> (any ParsableCommand.Type)? {
        switch word {
        case "list", "ls": Images.List.self
        case "import": Images.Import.self
        case "inspect": Images.Inspect.self
        case "delete", "rm": Images.Delete.self
        default: nil
        }
    }

    private static func execs(_ word: String) -> (any ParsableCommand.Type)? {
        switch word {
        case "list", "ls": Execs.List.self
        case "kill": Execs.Kill.self
        case "delete", "rm": Execs.Delete.self
        default: nil
        }
    }

    private static func shims(_ word: String) -> (any ParsableCommand.Type)? {
        switch word {
        case "list", "ls": Shims.List.self
        case "upgrade": Shims.Upgrade.self
        default: nil
        }
    }

    private static func perform<Chosen: ParsableCommand>(_ type: Chosen.Type, _ arguments: [String]) -> Int32 {
        outcome((type as? any Command.Type)?.statuses ?? .plain) {
            do {
                var command = try type.parseAsRoot(words(arguments, of: type))
                try command.run()
                return 0
            } catch let code as ExitCode {
                return code.rawValue
            } catch let error where error is ClientError || error is Failure || error is SysError {
                throw error
            } catch {
                if Chosen.exitCode(for: error) == .success { return show(help(Chosen.self, Chosen.fullMessage(for: error))) }
                let help = [Chosen.configuration._superCommandName, Chosen._commandName].compactMap { $0 }.joined(separator: " ")
                return usage(Chosen.message(for: error), help: help)
            }
        }
    }

    /// The exit status of what is done; an error is told in one line.
    private static func outcome(_ statuses: Statuses, _ body: () throws -> Int32) -> Int32 {
        do { return try body() } catch let error as ClientError {
            let failure = Failure(error, statuses)
            Console.error(failure.message)
            return failure.code
        } catch let failure as Failure {
            Console.error(failure.message)
            return failure.code == Failure.general && !failure.isExact ? statuses.failure : failure.code
        } catch {
            Console.error("\(error)")
            return statuses.failure
        }
    }

    /// The arguments as the parser understands them.
    static func words(_ arguments: [String], of type: any ParsableCommand.Type) -> [String] {
        if type == Run.self || type == Create.self { return JoinedValues.run.separated(arguments) }
        if type == Exec.self { return JoinedValues.exec.separated(arguments) }
        if type == Start.self || type == Attach.self { return JoinedValues.switched(arguments) }
        return arguments
    }

    /// The help that the parser made, with the examples behind it; other texts that end well as they are.
    static func help(_ type: any ParsableCommand.Type, _ text: String) -> String {
        guard let examples = (type as? any HasExamples.Type)?.examples, text.contains("USAGE: ") else { return text }
        return text + (text.hasSuffix("\n") ? "" : "\n") + "\nEXAMPLES:\n" + examples.map { "  \($0)\n" }.joined()
    }

    private static func show(_ text: String) -> Int32 {
        do throws(Failure) {
            try Console.write(text.hasSuffix("\n") ? text : text + "\n")
            return 0
        } catch {
            Console.error(error.message)
            return error.code
        }
    }

    /// A command line that makes no sense ends with 125, as Docker's does for an unknown option.
    private static func usage(_ message: String, help: String) -> Int32 {
        let line = message.split(separator: "\n").map { $0.drop { $0 == " " } }.joined(separator: " ")
        // Messages of the parser begin with a capital and may be sentences.
        let end = line.hasSuffix(".") ? line.dropLast() : line[...]
        Console.error("\(end.prefix(1).lowercased())\(end.dropFirst()) (see \"\(help) --help\")")
        return Failure.usage
    }
}
