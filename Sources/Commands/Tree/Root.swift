import ArgumentParser

/// All commands, for help and completion. What runs is found by ``Program`` without building this tree.
struct Root: ParsableCommand, HasExamples {
    static let configuration = CommandConfiguration(
        commandName: "ctrctl", abstract: "The command line of ctrd, which runs containers and does not lose them.",
        usage: "ctrctl [--address SOCKET] [--namespace NAME] COMMAND ...",
        discussion: """
            Containers are named by id, by the first digits of an id, or by name.
            """,
        version: clientVersion,
        groupedSubcommands: [
            CommandGroup(
                name: "Everyday",
                subcommands: [
                    Run.self, Create.self, Start.self, Stop.self, Kill.self, Wait.self, Pause.self, Unpause.self, Ps.self, Exec.self,
                    Attach.self, Logs.self, Stats.self, Top.self, Update.self, InspectAny.self, Rm.self, Rmi.self, ImportShort.self,
                    Load.self,
                ]),
            CommandGroup(name: "Grouped", subcommands: [Containers.self, Tasks.self, Execs.self, Images.self, Shims.self]),
            CommandGroup(name: "Other", subcommands: [Version.self, Info.self, Completion.self]),
        ])
    static let examples = [
        "ctrctl images import busybox.tar",
        "ctrctl run --rm busybox echo hello",
        "ctrctl run -d --name web busybox httpd -f",
        "ctrctl exec -it web sh",
        "ctrctl ps -a",
    ]

    @OptionGroup var global: GlobalOptions
}
