import ArgumentParser
import CtrProto
import Glibc
import Linux
import OCI

struct Containers: ParsableCommand, HasExamples {
    static let examples = ["ctrctl containers list", "ctrctl containers inspect web"]
    static let configuration = CommandConfiguration(
        commandName: "containers", _superCommandName: "ctrctl", abstract: "Containers: what was asked for, whether it runs or not.",
        usage: "ctrctl containers [create|list|inspect|delete] ...",
        subcommands: [Create.self, List.self, Inspect.self, Delete.self], defaultSubcommand: List.self, aliases: ["container"])

    struct List: Command {
        static let configuration = CommandConfiguration(
            commandName: "list", _superCommandName: "ctrctl containers", abstract: "List all containers, also those that have ended.",
            aliases: ["ls"])
        static let examples = [
            "ctrctl containers list",
            "ctrctl containers list --output json",
        ]
        @OptionGroup var listing: ListOptions
        @OptionGroup var global: GlobalOptions

        func perform(_ manager: Manager) throws -> Int32 { try listContainers(manager, listing, all: true) }
    }

    struct Inspect: Command {
        static let configuration = CommandConfiguration(
            commandName: "inspect", _superCommandName: "ctrctl containers", abstract: "Print all that is known of containers, as JSON.",
            discussion: """
                Prints an array with one object for each id.
                """)
        static let examples = ["ctrctl containers inspect web"]
        @OptionGroup var targets: Targets
        @OptionGroup var format: InspectOptions
        @OptionGroup var global: GlobalOptions

        func perform(_ manager: Manager) throws -> Int32 { try inspect(targets.ids, manager, containers: true, images: false) }
    }

    struct Delete: Command {
        static let configuration = CommandConfiguration(
            commandName: "delete", _superCommandName: "ctrctl containers", abstract: "Delete containers with their logs and files.",
            discussion: """
                A container that runs is refused unless -f kills it first.
                """, aliases: ["rm"])
        static let examples = [
            "ctrctl containers delete web",
            "ctrctl containers delete -f $(ctrctl ps -aq)",
        ]
        @OptionGroup var options: ForceOptions
        @OptionGroup var targets: Targets
        @OptionGroup var global: GlobalOptions

        func perform(_ manager: Manager) throws -> Int32 { try deleteContainers(targets.ids, manager, force: options.force) }
    }
}

struct ForceOptions: ParsableArguments {
    @Flag(name: .shortAndLong, help: "Also when it is in use: kill first, or untag all names.")
    var force = false
}

/// `inspect` prints JSON whatever is asked; the option is there because every other listing has it.
struct InspectOptions: ParsableArguments {
    enum Format: String, ExpressibleByArgument { case json }

    @Option(name: .shortAndLong, help: ArgumentHelp("json.", valueName: "format"))
    var output = Format.json
}

struct Ps: Command {
    static let configuration = CommandConfiguration(
        commandName: "ps", _superCommandName: "ctrctl", abstract: "List running containers.",
        discussion: """
            A container is also listed when nobody has proved that it ended. "(unguarded)" marks one that lost both of its guards: it \
            runs, and how it ends will not be seen.
            """)
    static let examples = [
        "ctrctl ps",
        "ctrctl ps -aq",
        "ctrctl ps -a --output json",
    ]

    @Flag(name: .shortAndLong, help: "Also those that do not run.")
    var all = false

    @OptionGroup var listing: ListOptions
    @OptionGroup var global: GlobalOptions

    func perform(_ manager: Manager) throws -> Int32 { try listContainers(manager, listing, all: all) }
}

struct Rm: Command {
    static let configuration = CommandConfiguration(
        commandName: "rm", _superCommandName: "ctrctl", abstract: "Delete containers with their logs and files.")
    static let examples = [
        "ctrctl rm web",
        "ctrctl rm -f $(ctrctl ps -aq)",
    ]
    @OptionGroup var options: ForceOptions
    @OptionGroup var targets: Targets
    @OptionGroup var global: GlobalOptions

    func perform(_ manager: Manager) throws -> Int32 { try deleteContainers(targets.ids, manager, force: options.force) }
}

struct InspectAny: Command {
    static let configuration = CommandConfiguration(
        commandName: "inspect", _superCommandName: "ctrctl", abstract: "Print all that is known of containers or images, as JSON.",
        discussion: """
            Prints an array with one object for each id; a container comes before an image of the same name.
            """)
    static let examples = [
        "ctrctl inspect web",
        "ctrctl inspect busybox:latest",
    ]
    @OptionGroup var targets: Targets
    @OptionGroup var format: InspectOptions
    @OptionGroup var global: GlobalOptions

    func perform(_ manager: Manager) throws -> Int32 { try inspect(targets.ids, manager, containers: true, images: true) }
}

func listContainers(_ manager: Manager, _ listing: ListOptions, all: Bool) throws -> Int32 {
    var request = Ctr_V1_ListContainersRequest()
    request.namespace = manager.namespace
    let response = try manager.call(API.listContainers, request, within: Manager.readLimit)
    let containers = response.containers.filter { all || $0.mayBeRunning }.sorted { $0.isNewer(than: $1) }
    if listing.quiet {
        try Console.write(containers.map { (listing.noTruncation ? $0.id : shortID($0.id)) + "\n" }.joined())
    } else if listing.output == .json {
        try printDocuments(containers.map(\.document))
    } else {
        try Console.write(
            containerTable(containers, full: listing.noTruncation, now: now(CLOCK_REALTIME)).rendered(colour: Console.usesColour(1)))
    }
    return 0
}

extension Ctr_V1_Container {
    /// The order of listings: newest first, then by id.
    func isNewer(than other: Ctr_V1_Container) -> Bool {
        (createdAt.seconds, createdAt.nanos, other.id) > (other.createdAt.seconds, other.createdAt.nanos, id)
    }
}

/// Docker's `ps`, as of `now` (CLOCK_REALTIME, ns).
func containerTable(_ containers: [Ctr_V1_Container], full: Bool, now: Int64) -> Table {
    var table = Table("CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "NAMES")
    for container in containers {
        let created = container.hasCreatedAt ? humanDuration(seconds: seconds(since: container.createdAt, now: now)) + " ago" : ""
        table.row(
            .init(full ? container.id : shortID(container.id)), .init(familiarName(container.image)),
            .init(container.commandText(full: full)), .init(created), .init(container.statusText(now: now), container.statusStyle),
            .init(container.name))
    }
    return table
}

func deleteContainers(_ ids: [String], _ manager: Manager, force: Bool) throws -> Int32 {
    try forEach(ids, manager, API.deleteContainer) { id in
        var request = Ctr_V1_DeleteContainerRequest()
        request.namespace = manager.namespace
        request.container = id
        request.force = force
        return request
    } show: { id, _ throws(Failure) in
        try Console.line(id)
    }
}

/// Prints what is found as one array; the rest are errors.
func inspect(_ ids: [String], _ manager: Manager, containers: Bool, images: Bool) throws -> Int32 {
    let connection = try manager.connect()
    var documents: [JSON] = []
    var status: Int32 = 0
    for id in ids {
        do throws(ClientError) {
            if let found = try document(of: id, connection, manager.namespace, containers: containers, images: images) {
                documents.append(found)
            }
        } catch {
            if error.isOutage { throw error }
            let what = containers && images && error.isNotFound ? "no such container or image: \(id)" : error.description
            Console.error(what)
            status = Failure.general
        }
    }
    try printDocuments(documents)
    return status
}

private func document(
    of id: String, _ connection: Connection, _ namespace: String, containers: Bool, images: Bool
) throws(ClientError) -> JSON? {
    if containers {
        var request = Ctr_V1_GetContainerRequest()
        request.namespace = namespace
        request.container = id
        do throws(ClientError) {
            let found = try connection.call(API.getContainer, request, within: Manager.readLimit)
            return found.document(execs: try execCount(found.container, connection, namespace))
        } catch {
            // A reference is no possible name of a container, which some answer with "invalid".
            var mayBeImage = images && error.isNotFound
            if images, case .status(let status) = error, status.code == .invalidArgument, id.contains(where: { "/:@".contains($0) }) {
                mayBeImage = true
            }
            if !mayBeImage { throw error }
        }
    }
    var request = Ctr_V1_GetImageRequest()
    request.namespace = namespace
    request.image = id
    return try connection.call(API.getImage, request, within: Manager.readLimit).image.document
}

/// How many execs there are, ended ones included; nil when the guards cannot be asked.
private func execCount(_ container: Ctr_V1_Container, _ connection: Connection, _ namespace: String) throws(ClientError) -> Int? {
    guard container.hasTask, container.task.status == .running || container.task.status == .paused else { return 0 }
    var request = Ctr_V1_ListExecsRequest()
    request.namespace = namespace
    request.container = container.id
    do throws(ClientError) { return try connection.call(API.listExecs, request, within: Manager.readLimit).execs.count } catch {
        if error.isOutage { throw error }
        return nil
    }
}
