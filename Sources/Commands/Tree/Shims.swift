import ArgumentParser
import CtrProto
import Glibc
import Linux
import OCI

struct Shims: ParsableCommand, HasExamples {
    static let configuration = CommandConfiguration(
        commandName: "shims", _superCommandName: "ctrctl", abstract: "Shims: the programs that guard containers, and their upgrade.",
        usage: "ctrctl shims [list|upgrade] ...", subcommands: [List.self, Upgrade.self], defaultSubcommand: List.self, aliases: ["shim"])
    static let examples = ["ctrctl shims list", "ctrctl shims upgrade --all"]

    struct List: Command {
        static let configuration = CommandConfiguration(
            commandName: "list", _superCommandName: "ctrctl shims", abstract: "List the guards of containers with their versions.",
            aliases: ["ls"])
        static let examples = ["ctrctl shims list", "ctrctl shims list --output json"]
        @OptionGroup var listing: ListOptions
        @OptionGroup var global: GlobalOptions

        func perform(_ manager: Manager) throws -> Int32 {
            var request = Ctr_V1_ListShimsRequest()
            request.namespace = manager.namespace
            let shims = try manager.call(API.listShims, request, within: Manager.readLimit).shims
            if listing.quiet {
                try Console.write(shims.map { (listing.noTruncation ? $0.containerID : shortID($0.containerID)) + "\n" }.joined())
            } else if listing.output == .json {
                try printDocuments(shims.map(\.document))
            } else {
                try Console.write(shimTable(shims, full: listing.noTruncation).rendered(colour: Console.usesColour(1)))
            }
            return 0
        }
    }

    struct Upgrade: Command {
        static let configuration = CommandConfiguration(
            commandName: "upgrade", _superCommandName: "ctrctl shims", abstract: "Have running shims become the installed program.",
            discussion: """
                In place: the container, its streams and whoever waits for it notice nothing. A shim that refuses the new program stays \
                what it is, and the reason is printed. Exits 1 when one could not be upgraded.
                """)
        static let examples = ["ctrctl shims upgrade web", "ctrctl shims upgrade --all"]

        @Flag(name: .shortAndLong, help: "The shims of all containers of the namespace.")
        var all = false

        @Option(name: .shortAndLong, help: ArgumentHelp("table or json.", valueName: "format"))
        var output = OutputFormat.table

        @Argument(help: ArgumentHelp("Ids, the first digits of an id, or names.", valueName: "container"), completion: .containers)
        var ids: [String] = []
        @OptionGroup var global: GlobalOptions

        func perform(_ manager: Manager) throws -> Int32 {
            if ids.isEmpty != all {
                throw Failure(all ? "--all and containers exclude each other" : "name containers, or use --all", code: Failure.usage)
            }
            var shims: [Ctr_V1_Shim] = []
            var status: Int32 = 0
            try manager.callEach(API.upgradeShims, (all ? [""] : ids).map { request(manager, $0) }) { _, result in
                do throws(ClientError) { shims += try result.get().shims } catch {
                    Console.error(error.description)
                    status = Failure.general
                }
            }
            for shim in shims where !shim.error.isEmpty {
                Console.error("cannot upgrade the shim of \(shim.containerName): \(shim.error)")
                status = Failure.general
            }
            if output == .json {
                try printDocuments(shims.map(\.document))
            } else {
                for shim in shims where shim.error.isEmpty { try Console.line("\(shim.containerName) \(shim.version)") }
            }
            return status
        }

        private func request(_ manager: Manager, _ container: String) -> Ctr_V1_UpgradeShimsRequest {
            var request = Ctr_V1_UpgradeShimsRequest()
            request.namespace = manager.namespace
            request.container = container
            return request
        }
    }
}

func shimTable(_ shims: [Ctr_V1_Shim], full: Bool) -> Table {
    var table = Table("CONTAINER", "NAME", "RUNTIME", "SHIM", "KEEPER", "VERSION", "GUARDS", "RESTARTS", "UPGRADES")
    for shim in shims {
        let version = shim.version.isEmpty ? "-" : shim.version + (shim.outdated ? " (outdated)" : "")
        table.row(
            .init(full ? shim.containerID : shortID(shim.containerID)), .init(shim.containerName), .init(shim.runtime),
            .init(shim.shimPid == 0 ? "-" : "\(shim.shimPid)"), .init(shim.keeperPid == 0 ? "-" : "\(shim.keeperPid)"),
            .init(version, shim.outdated ? .warning : .plain), .init(shim.guards.word, shim.guards.style), .init("\(shim.restarts)"),
            .init("\(shim.upgrades)"))
    }
    return table
}
