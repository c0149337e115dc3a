import ArgumentParser
import CtrProto
import Glibc
import Linux
import OCI

struct Images: ParsableCommand, HasExamples {
    static let configuration = CommandConfiguration(
        commandName: "images", _superCommandName: "ctrctl", abstract: "Images: list them, import them, delete them.",
        usage: "ctrctl images [list|import|inspect|delete] ...",
        discussion: """
            The bare word lists images and takes the options of "images list".
            """,
        subcommands: [List.self, Import.self, Inspect.self, Delete.self], defaultSubcommand: List.self, aliases: ["image"])
    static let examples = [
        "ctrctl images",
        "ctrctl images -q",
        "ctrctl images import busybox.tar",
    ]

    struct List: Command {
        static let configuration = CommandConfiguration(
            commandName: "list", _superCommandName: "ctrctl images", abstract: "List images.", aliases: ["ls"])
        static let examples = [
            "ctrctl images list",
            "ctrctl images list --digests",
            "ctrctl images list --output json",
        ]
        @Flag(help: "Show digests.")
        var digests = false
        @OptionGroup var listing: ListOptions
        @OptionGroup var global: GlobalOptions

        func perform(_ manager: Manager) throws -> Int32 {
            var request = Ctr_V1_ListImagesRequest()
            request.namespace = manager.namespace
            let images = try manager.call(API.listImages, request, within: Manager.readLimit).images
            if listing.quiet {
                try Console.write(images.map { (listing.noTruncation ? $0.id : shortID($0.id)) + "\n" }.joined())
            } else if listing.output == .json {
                try printDocuments(images.map(\.document))
            } else {
                let table = imageTable(images, full: listing.noTruncation, digests: digests, now: now(CLOCK_REALTIME))
                try Console.write(table.rendered(colour: Console.usesColour(1)))
            }
            return 0
        }
    }

    struct Import: Command {
        static let configuration = CommandConfiguration(
            commandName: "import", _superCommandName: "ctrctl images", abstract: "Import images from a directory or an archive.",
            discussion: """
                Reads an OCI layout directory, an OCI archive, or an archive of "docker save", plain or compressed with gzip, and \
                verifies every digest. Names come from the archive unless --name gives one.
                """)
        static let examples = [
            "ctrctl images import busybox.tar",
            "ctrctl images import --name tools:v1 ./layout",
        ]
        @Option(help: ArgumentHelp("Name for the image instead of those in the archive.", valueName: "reference"))
        var name: String?
        @OptionGroup var options: ImportOptions
        @Argument(help: "Directory or archive.")
        var path: String
        @OptionGroup var global: GlobalOptions

        func perform(_ manager: Manager) throws -> Int32 { try importImages(path, name: name, options, manager) }
    }

    struct Inspect: Command {
        static let configuration = CommandConfiguration(
            commandName: "inspect", _superCommandName: "ctrctl images", abstract: "Print all that is known of images, as JSON.",
            discussion: """
                Prints an array with one object for each id.
                """)
        static let examples = ["ctrctl images inspect busybox:latest"]
        @OptionGroup var targets: Targets
        @OptionGroup var format: InspectOptions
        @OptionGroup var global: GlobalOptions

        func perform(_ manager: Manager) throws -> Int32 { try inspect(targets.ids, manager, containers: false, images: true) }
    }

    struct Delete: Command {
        static let configuration = CommandConfiguration(
            commandName: "delete", _superCommandName: "ctrctl images", abstract: "Delete images or names of them.", aliases: ["rm"])
        static let examples = ["ctrctl images delete busybox:latest"]
        @OptionGroup var options: ForceOptions
        @OptionGroup var targets: Targets
        @OptionGroup var global: GlobalOptions

        func perform(_ manager: Manager) throws -> Int32 { try deleteImages(targets.ids, manager, force: options.force) }
    }
}

struct ImportOptions: ParsableArguments {
    @Flag(name: .shortAndLong, help: "Print ids only.")
    var quiet = false

    @Option(name: .shortAndLong, help: ArgumentHelp("table or json.", valueName: "format"))
    var output = OutputFormat.table
}

struct ImportShort: Command {
    static let configuration = CommandConfiguration(
        commandName: "import", _superCommandName: "ctrctl", abstract: "Import images from a directory or an archive.",
        discussion: """
            The same as "images import".
            """)
    static let examples = ["ctrctl import busybox.tar"]
    @Option(help: ArgumentHelp("Name for the image instead of those in the archive.", valueName: "reference"))
    var name: String?
    @OptionGroup var options: ImportOptions
    @Argument(help: "Directory or archive.")
    var path: String
    @OptionGroup var global: GlobalOptions

    func perform(_ manager: Manager) throws -> Int32 { try importImages(path, name: name, options, manager) }
}

struct Load: Command {
    static let configuration = CommandConfiguration(
        commandName: "load", _superCommandName: "ctrctl", abstract: "Import images from an archive.",
        discussion: """
            Docker's words for "images import".
            """)
    static let examples = ["ctrctl load -i busybox.tar"]
    @Option(name: .shortAndLong, help: ArgumentHelp("The archive.", valueName: "file"))
    var input: String
    @OptionGroup var options: ImportOptions
    @OptionGroup var global: GlobalOptions

    func perform(_ manager: Manager) throws -> Int32 { try importImages(input, name: nil, options, manager) }
}

struct Rmi: Command {
    static let configuration = CommandConfiguration(
        commandName: "rmi", _superCommandName: "ctrctl", abstract: "Delete images or names of them.")
    static let examples = [
        "ctrctl rmi busybox:latest",
        "ctrctl rmi -f $(ctrctl images -q)",
    ]
    @OptionGroup var options: ForceOptions
    @OptionGroup var targets: Targets
    @OptionGroup var global: GlobalOptions

    func perform(_ manager: Manager) throws -> Int32 { try deleteImages(targets.ids, manager, force: options.force) }
}

/// Docker's `images`, a line a name.
func imageTable(_ images: [Ctr_V1_Image], full: Bool, digests: Bool, now: Int64) -> Table {
    var table =
        digests
        ? Table("REPOSITORY", "TAG", "DIGEST", "IMAGE ID", "CREATED", "SIZE") : Table("REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE")
    for image in images {
        let created = image.hasCreatedAt ? humanDuration(seconds: seconds(since: image.createdAt, now: now)) + " ago" : "N/A"
        for name in image.names.isEmpty ? [""] : image.names {
            let parts = nameParts(name)
            let repository = Table.Cell(parts.repository.isEmpty ? "<none>" : parts.repository)
            let tag = Table.Cell(parts.tag.isEmpty ? "<none>" : parts.tag)
            let id = Table.Cell(full ? image.id : shortID(image.id))
            if digests {
                table.row(repository, tag, .init(image.id), id, .init(created), .init(humanSize(image.size)))
            } else {
                table.row(repository, tag, id, .init(created), .init(humanSize(image.size)))
            }
        }
    }
    return table
}

private func importImages(_ path: String, name: String?, _ options: ImportOptions, _ manager: Manager) throws -> Int32 {
    var request = Ctr_V1_ImportImagesRequest()
    request.namespace = manager.namespace
    request.path = try absolutePath(path)
    request.name = name ?? ""
    let images = try Progress("importing \(path)").during(try manager.connect(), API.importImages, request).images
    if options.quiet {
        try Console.write(images.map { $0.id + "\n" }.joined())
    } else if options.output == .json {
        try printDocuments(images.map(\.document))
    } else {
        for image in images {
            if image.names.isEmpty { try Console.line("Loaded image ID: \(image.id)") }
            for name in image.names { try Console.line("Loaded image: \(printable(familiarName(name)))") }
        }
    }
    return 0
}

private func deleteImages(_ ids: [String], _ manager: Manager, force: Bool) throws -> Int32 {
    try forEach(ids, manager, API.deleteImage) { id in
        var request = Ctr_V1_DeleteImageRequest()
        request.namespace = manager.namespace
        request.image = id
        request.force = force
        return request
    } show: { _, response throws(Failure) in
        for name in response.untagged { try Console.line("Untagged: \(printable(familiarName(name)))") }
        for id in response.deleted { try Console.line("Deleted: \(id)") }
    }
}
