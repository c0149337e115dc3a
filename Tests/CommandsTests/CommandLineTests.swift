import ArgumentParser
import XCTest

@testable import Commands

final class CommandLineTests: XCTestCase {
    private func run(_ words: String...) throws -> Run { try XCTUnwrap(Run.parseAsRoot(JoinedValues.separated(words)) as? Run) }

    func testWhatIsBehindTheImageBelongsToTheCommand() throws {
        let table: [([String], [String])] = [
            (["--rm", "-e", "A=b", "busybox", "ls", "-l", "--help"], ["busybox", "ls", "-l", "--help"]),
            (["busybox", "--rm", "-d"], ["busybox", "--rm", "-d"]),
            (["-d", "busybox", "sh", "-c", "exit 3", "--", "x"], ["busybox", "sh", "-c", "exit 3", "--", "x"]),
            (["busybox", "--address", "/x"], ["busybox", "--address", "/x"]),
            (["busybox", "-"], ["busybox", "-"]),
            (["busybox", "ps", "ps"], ["busybox", "ps", "ps"]),
            (["busybox", ""], ["busybox", ""]),
        ]
        for (words, expected) in table {
            let run = try XCTUnwrap(Run.parseAsRoot(words) as? Run)
            let (image, command) = try run.container.image()
            XCTAssertEqual([image] + command, expected, "\(words)")
        }
    }

    func testOptionsOfRunReachTheRequest() throws {
        let run = try run(
            "--rm", "--name", "web", "-e", "A=1", "-eB=2", "--env", "C=3", "-w", "/tmp", "-u", "1:2", "-v", "/a:/b:ro", "-v/c:/d",
            "--read-only", "-m64m", "--cpus", "0.5", "--pids-limit", "-1", "-h", "box", "--network", "host", "--runtime", "/usr/bin/runc",
            "--entrypoint", "/bin/sh", "-l", "a=b", "--label", "c", "--stop-signal", "INT", "--namespace", "other", "busybox", "-c", "true")
        let request = try run.container.request(namespace: run.global.manager().namespace)
        XCTAssertEqual(request.namespace, "other")
        XCTAssertEqual(request.name, "web")
        XCTAssertEqual(request.image, "busybox")
        XCTAssertEqual(request.id.utf8.count, 64)
        let config = request.config
        XCTAssertEqual(config.args, ["-c", "true"])
        XCTAssertEqual(config.env, ["A=1", "B=2", "C=3"])
        XCTAssertEqual(config.cwd, "/tmp")
        XCTAssertEqual(config.user, "1:2")
        XCTAssertEqual(config.mounts.map(\.destination), ["/b", "/d"])
        XCTAssertEqual(config.mounts.map(\.readOnly), [true, false])
        XCTAssertTrue(config.readOnly && config.autoRemove)
        XCTAssertEqual(config.memoryBytes, 64 << 20)
        XCTAssertEqual(config.nanoCpus, 500_000_000)
        XCTAssertEqual(config.pidsLimit, 0)
        XCTAssertEqual(config.hostname, "box")
        XCTAssertEqual(config.network, "host")
        XCTAssertEqual(config.runtime, "/usr/bin/runc")
        XCTAssertEqual(config.entrypoint, ["/bin/sh"])
        XCTAssertEqual(config.labels, ["a": "b", "c": ""])
        XCTAssertEqual(config.stopSignal, "INT")
    }

    func testJoinedValuesAreTakenApartUpToTheImage() {
        let table: [([String], [String])] = [
            (["-eA=1", "x", "-eB=2"], ["-e", "A=1", "x", "-eB=2"]),
            (["-de", "A=1", "-m64m", "x"], ["-de", "A=1", "-m", "64m", "x"]),
            (["--name", "-eA=1", "x"], ["--name", "-eA=1", "x"]),
            (["--name=n", "-v/a:/b", "x"], ["--name=n", "-v", "/a:/b", "x"]),
            (["-e"], ["-e"]),
            (["--rm", "--", "-eA=1"], ["--rm", "--", "-eA=1"]),
        ]
        for (words, expected) in table { XCTAssertEqual(JoinedValues.separated(words), expected) }
    }

    func testEveryOptionWithAValueIsKnownToTheSeparation() {
        // In the help an option with a value is "-e, --env <variable>" or "--name <name>".
        for line in Run.helpMessage(columns: 200).split(separator: "\n") where line.hasPrefix("  -") && line.contains(" <") {
            let names = line.prefix { $0 != "<" }.split(whereSeparator: { ", ".contains($0) })
            for name in names {
                let isKnown =
                    name.hasPrefix("--")
                    ? JoinedValues.long.contains(String(name.dropFirst(2))) : name.last.map(JoinedValues.short.contains) == true
                XCTAssertTrue(isKnown, "\(name)")
            }
        }
    }

    func testDefaultsOfRun() throws {
        let config = try run("busybox").container.request(namespace: "default").config
        XCTAssertEqual(config.network, "none")
        XCTAssertEqual(config.args, [])
        XCTAssertFalse(config.autoRemove)
        XCTAssertEqual(config.memoryBytes, 0)
    }

    func testUnknownOptionsAreNotTakenForImages() {
        for words in [["--bogus", "busybox"], ["-it", "busybox"], ["-d", "-x", "busybox"], ["-dx", "busybox"], ["--rm=1", "busybox"]] {
            XCTAssertThrowsError(try (Run.parseAsRoot(words) as? Run)?.container.image(), "\(words)")
        }
        for words in [[], ["-d"], ["--rm", "--"], [""]] {
            XCTAssertThrowsError(try (Run.parseAsRoot(words) as? Run)?.container.image(), "\(words)")
        }
    }

    func testTheFirstWordsChooseTheCommand() {
        let table: [([String], String?, [String])] = [
            (["ps", "-aq"], "Ps", ["-aq"]),
            (["--address", "/s", "ps"], "Ps", ["--address", "/s"]),
            (["--address=/s", "--namespace", "n", "images", "-q"], "List", ["--address=/s", "--namespace", "n", "-q"]),
            (["images"], "List", []),
            (["images", "import", "x"], "Import", ["x"]),
            (["images", "--help"], "Images", ["--help"]),
            (["containers", "rm", "x"], "Delete", ["x"]),
            (["container", "create", "x"], "Create", ["x"]),
            (["tasks", "kill", "x"], "Kill", ["x"]),
            (["tasks"], "List", []),
            (["run", "--rm", "x", "ps"], "Run", ["--rm", "x", "ps"]),
            (["help", "run"], "Run", ["--help"]),
            (["help", "tasks", "kill"], "Kill", ["--help"]),
            (["help"], "Root", ["--help"]),
            (["--version"], "Root", ["--version"]),
            ([], "Root", []),
            (["nonsense", "x"], nil, ["nonsense", "x"]),
        ]
        for (words, type, rest) in table {
            let routed = Program.route(words)
            XCTAssertEqual(routed.type.map { "\($0)" }, type, "\(words)")
            XCTAssertEqual(routed.rest, rest, "\(words)")
        }
    }

    func testEveryCommandOfTheTreeIsRouted() {
        for type in Root.configuration.subcommands {
            let routed = Program.route([type._commandName] + (type.configuration.subcommands.isEmpty ? [] : ["--help"]))
            XCTAssertTrue(routed.type == type, type._commandName)
            for member in type.configuration.subcommands {
                for name in [member._commandName] + member.configuration.aliases {
                    XCTAssertTrue(Program.route([type._commandName, name]).type == member, "\(type._commandName) \(name)")
                }
            }
        }
    }

    func testEveryCommandHasHelpWithExamples() {
        for type in Root.configuration.subcommands.flatMap({ [$0] + $0.configuration.subcommands })
        where type.configuration.subcommands.isEmpty {
            let help = Program.help(type, type.helpMessage())
            let name = [type.configuration._superCommandName, type._commandName].compactMap { $0 }.joined(separator: " ")
            XCTAssertTrue(help.contains("\nEXAMPLES:\n  ctrctl ") && help.hasSuffix("\n") && help.contains("USAGE: \(name)"), name)
        }
    }

    func testGlobalOptionsBeforeTheOptionsBehindTheCommand() throws {
        let (type, rest) = Program.route(["--address", "/one", "--namespace", "n", "ps", "--address", "unix:///two"])
        let command = try XCTUnwrap(type?.parseAsRoot(rest) as? Ps)
        XCTAssertEqual(try command.global.manager().address, "/two")
        XCTAssertEqual(try command.global.manager().namespace, "n")
        XCTAssertThrowsError(try (Ps.parseAsRoot(["--namespace", ""]) as? Ps)?.global.manager())
    }

    func testSignalsOfKill() throws {
        XCTAssertEqual(try XCTUnwrap(Kill.parseAsRoot(["x"]) as? Kill).signal, "KILL")
        XCTAssertEqual(try XCTUnwrap(Kill.parseAsRoot(["-sHUP", "x"]) as? Kill).signal, "HUP")
        XCTAssertEqual(try XCTUnwrap(Tasks.Kill.parseAsRoot(["x"]) as? Tasks.Kill).signal, "TERM")
        XCTAssertEqual(try XCTUnwrap(Tasks.Kill.parseAsRoot(["--signal", "9", "x", "y"]) as? Tasks.Kill).targets.ids, ["x", "y"])
        XCTAssertThrowsError(try Kill.parseAsRoot([]))
        XCTAssertEqual(try XCTUnwrap(Stop.parseAsRoot(["-t", "-1", "x"]) as? Stop).time, "-1")
    }
}
