import ArgumentParser
import CtrProto
import XCTest

@testable import Commands

final class CommandLineTests: XCTestCase {
    private func run(_ words: String...) throws -> Run { try XCTUnwrap(Run.parseAsRoot(JoinedValues.run.separated(words)) as? Run) }

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
        for (words, expected) in table { XCTAssertEqual(JoinedValues.run.separated(words), expected) }
    }

    func testEveryOptionWithAValueIsKnownToTheSeparation() {
        for (help, joined) in [(Run.helpMessage(columns: 200), JoinedValues.run), (Exec.helpMessage(columns: 200), .exec)] {
            // In the help an option with a value is "-e, --env <variable>" or "--name <name>".
            for line in help.split(separator: "\n") where line.hasPrefix("  -") && line.contains(" <") {
                let names = line.prefix { $0 != "<" }.split(whereSeparator: { ", ".contains($0) })
                for name in names {
                    let isKnown =
                        name.hasPrefix("--")
                        ? joined.long.contains(String(name.dropFirst(2))) : name.last.map(joined.short.contains) == true
                    XCTAssertTrue(isKnown, "\(name)")
                }
            }
        }
    }

    func testTheRestOfExecIsTheCommand() throws {
        let table: [([String], [String])] = [
            (["-it", "web", "sh", "-c", "ls -l"], ["web", "sh", "-c", "ls -l"]),
            (["-ite", "A=1", "web", "env", "-i"], ["web", "env", "-i"]),
            (["--sig-proxy=false", "-u1:2", "-w", "/tmp", "web", "id", "--help"], ["web", "id", "--help"]),
            (["--sig-proxy", "list", "true"], ["list", "true"]),
            (["--detach-keys", "ctrl-a", "web", "-d"], ["web", "-d"]),
        ]
        for (words, expected) in table {
            let exec = try XCTUnwrap(Exec.parseAsRoot(Program.words(words, of: Exec.self)) as? Exec)
            let request = try exec.line().request(namespace: "n")
            XCTAssertEqual([request.container] + request.config.args, expected, "\(words)")
            XCTAssertTrue(request.config.attached)
            XCTAssertEqual(request.execID.utf8.count, 64)
        }
        for words in [[], ["web"], ["-x", "web", "true"], ["", "true"], ["-w", "tmp", "web", "true"]] {
            XCTAssertThrowsError(
                try (Exec.parseAsRoot(Program.words(words, of: Exec.self)) as? Exec)?.line(), "\(words)")
        }
    }

    func testAPlainExecIsReadAsTheParserReadsIt() throws {
        for words in [
            ["web", "ps"], ["-i", "web", "sh", "-c", "-d"], ["-it", "web", "sh"], ["-t", "-i", "web", "-"], ["-d", "web", "id", "--help"],
            ["-di", "web", "--", "x"],
        ] {
            let parsed = try XCTUnwrap(Exec.parseAsRoot(Program.words(words, of: Exec.self)) as? Exec)
            XCTAssertEqual(ExecLine(plain: words), try parsed.line(), "\(words)")
        }
        for words in [
            [], ["web"], ["-i", "web"], ["--", "web", "ps"], ["-", "ps"], ["", "ps"], ["-u1", "web", "ps"], ["--tty", "web", "ps"],
        ] {
            XCTAssertNil(ExecLine(plain: words), "\(words)")
        }
    }

    func testOptionsOfExecReachTheRequest() throws {
        let words = ["-di", "-t", "-eA=1", "--privileged", "-u", "1:2", "-w/srv", "web", "job"]
        let exec = try XCTUnwrap(Exec.parseAsRoot(Program.words(words, of: Exec.self)) as? Exec)
        let config = try exec.line().request(namespace: "n").config
        XCTAssertEqual(config.env, ["A=1"])
        XCTAssertEqual(config.user, "1:2")
        XCTAssertEqual(config.cwd, "/srv")
        XCTAssertTrue(config.privileged && config.terminal)
        // Nobody is there who could write to it or read from it.
        XCTAssertFalse(config.openStdin || config.attached)
    }

    func testStreamsOfRun() throws {
        let both = try run("-i", "busybox").attachedStreams()
        XCTAssertTrue(both.input)
        XCTAssertEqual(both.output, LogSelection())
        let one = try run("-a", "STDERR", "busybox").attachedStreams()
        XCTAssertFalse(one.input)
        XCTAssertEqual(one.output?.streams, [.stderr])
        let input = try run("-astdin", "busybox").attachedStreams()
        XCTAssertTrue(input.input)
        XCTAssertNil(input.output)
        XCTAssertFalse(try run("-di", "busybox").attachedStreams().input)
        XCTAssertThrowsError(try run("-d", "-a", "stdout", "busybox").attachedStreams())
        XCTAssertThrowsError(try run("-a", "both", "busybox").attachedStreams())
    }

    func testSignalsAreHandedOnUnlessTheTerminalIsRaw() throws {
        XCTAssertTrue(try run("busybox").front.proxies(isRaw: false))
        XCTAssertFalse(try run("busybox").front.proxies(isRaw: true))
        XCTAssertFalse(try run("--sig-proxy=false", "busybox").front.proxies(isRaw: false))
        XCTAssertTrue(try run("--sig-proxy", "busybox").front.proxies(isRaw: true))
    }

    func testInputTerminalAndLogDriverReachTheRequest() throws {
        let config = try run(
            "-it", "--privileged", "--log-driver", "cri", "--log-opt", "max-size=10m", "--log-opt", "max-file=3", "busybox"
        ).container.request(namespace: "n").config
        XCTAssertTrue(config.openStdin && config.terminal && config.privileged)
        XCTAssertEqual(config.logDriver, "cri")
        XCTAssertEqual(config.logOptions, ["max-size": "10m", "max-file": "3"])
        XCTAssertThrowsError(try run("--log-opt", "x", "busybox").container.request(namespace: ""))
    }

    func testLimitsOfUpdate() throws {
        func limits(_ words: String...) throws -> Ctr_V1_Limits {
            try XCTUnwrap(Update.parseAsRoot(words + ["web"]) as? Update).limits()
        }
        let all = try limits(
            "-m", "64m", "--memory-swap", "-1", "--memory-reservation", "0", "--cpus", "1.5", "--cpu-shares", "512", "--cpuset-cpus",
            "0-3,8",
            "--cpuset-mems", "0", "--pids-limit", "-1")
        XCTAssertEqual(all.memoryBytes, 64 << 20)
        XCTAssertEqual(all.memorySwapBytes, -1)
        XCTAssertTrue(all.hasMemoryReservationBytes && all.memoryReservationBytes == 0)
        XCTAssertEqual(all.nanoCpus, 1_500_000_000)
        XCTAssertEqual(all.cpuShares, 512)
        XCTAssertEqual(all.cpusetCpus, "0-3,8")
        XCTAssertEqual(all.cpusetMems, "0")
        XCTAssertTrue(all.hasPidsLimit && all.pidsLimit == 0)
        XCTAssertFalse(try limits("--cpus", "1").hasMemoryBytes)
        for words in [
            [], ["--cpu-shares", "1"], ["--cpuset-cpus", "3-1"], ["--cpuset-cpus", "a"], ["--cpuset-mems", ""], ["-m", "-2"],
        ] {
            XCTAssertThrowsError(try XCTUnwrap(Update.parseAsRoot(words + ["web"]) as? Update).limits(), "\(words)")
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
        for words in [["--bogus", "busybox"], ["-ix", "busybox"], ["-d", "-x", "busybox"], ["-dx", "busybox"], ["--rm=1", "busybox"]] {
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
            (["exec", "list", "web"], "Exec", ["list", "web"]),
            (["execs", "rm", "web", "x"], "Delete", ["web", "x"]),
            (["shims", "upgrade", "--all"], "Upgrade", ["--all"]),
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
