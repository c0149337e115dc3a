import ArgumentParser
import CtrProto
import OCI

struct Top: Command {
    static let configuration = CommandConfiguration(
        commandName: "top", _superCommandName: "ctrctl", abstract: "List the processes of a container.",
        usage: "ctrctl top [--output FORMAT] CONTAINER [PS-OPTION ...]",
        discussion: """
            The options are those of ps(1) on the host, -ef by default; the numbers are the host's.
            """,
        helpNames: .long)
    static let examples = [
        "ctrctl top web",
        "ctrctl top web -o pid,rss,args",
    ]
    @Option(name: .shortAndLong, help: ArgumentHelp("table or json.", valueName: "format"))
    var output = OutputFormat.table
    @Argument(
        parsing: .captureForPassthrough, help: ArgumentHelp("The container, and options of ps.", valueName: "container [option ...]"),
        completion: .containers)
    var words: [String] = []
    @OptionGroup var global: GlobalOptions

    func perform(_ manager: Manager) throws -> Int32 {
        let words = try passthrough(words, missing: "a container is required")
        var request = Ctr_V1_TopRequest()
        request.namespace = manager.namespace
        request.container = words[0]
        request.psArgs = Array(words.dropFirst())
        let response = try manager.call(API.top, request, within: Manager.readLimit)
        if output == .json {
            let rows = response.rows.map { row in
                JSON.object(zip(response.titles, row.cells).map { .init($0, .string($1)) })
            }
            try printDocuments(rows)
        } else {
            var table = Table(response.titles)
            for row in response.rows { table.row(row.cells.map { .init($0) }) }
            try Console.write(table.rendered())
        }
        return 0
    }
}
