import ArgumentParser
import CtrProto
import Glibc
import Linux
import OCI

struct Stats: Command {
    static let configuration = CommandConfiguration(
        commandName: "stats", _superCommandName: "ctrctl", abstract: "Show what containers use: CPU, memory, transfers, processes.",
        discussion: """
            Without ids all that run, and those that come. On a terminal the table is drawn anew each second until you interrupt it. \
            CPU is of one processor: two busy ones are 200%. MEM is without the file pages that the kernel would drop. With JSON each \
            sample of each container is an object on a line of its own, with all counters. When ctrd goes away meanwhile, it waits.
            """)
    static let examples = [
        "ctrctl stats",
        "ctrctl stats --no-stream web db",
        "ctrctl stats --output json web",
    ]

    @Flag(name: .customLong("no-stream"), help: "Print one sample of each and return.")
    var noStream = false

    @Flag(name: .shortAndLong, help: "Also those that do not run.")
    var all = false

    @Flag(name: .customLong("no-trunc"), help: "Print ids in full.")
    var noTruncation = false

    @Option(name: [.short, .customLong("output"), .customLong("format")], help: ArgumentHelp("table or json.", valueName: "format"))
    var output = OutputFormat.table

    @Argument(help: ArgumentHelp("Ids, the first digits of an id, or names.", valueName: "id"), completion: .containers)
    var ids: [String] = []
    @OptionGroup var global: GlobalOptions

    /// Between two samples, in ms; shorter where only one is to be shown, which needs two.
    private static let interval: UInt32 = 1000
    private static let shortInterval: UInt32 = 500

    func perform(_ manager: Manager) throws -> Int32 {
        var request = Ctr_V1_StatsRequest()
        request.namespace = manager.namespace
        request.containers = ids
        request.intervalMs = noStream ? Self.shortInterval : Self.interval
        var connection = try manager.connect()
        var view = StatsView(json: output == .json, full: noTruncation, isLive: !noStream && Console.isTerminal(1))
        if all {
            var list = Ctr_V1_ListContainersRequest()
            list.namespace = manager.namespace
            view.idle = try connection.call(API.listContainers, list, within: Manager.readLimit).containers
                .filter { container in !container.mayBeRunning && (ids.isEmpty || ids.contains { container.isMeant(by: $0) }) }
                .map { StatsRow(id: $0.id, name: $0.name) }
            // Those that do not run have no samples to ask for.
            request.containers = ids.filter { id in !view.idle.contains { $0.name == id || $0.id.hasPrefix(id) } }
            if !ids.isEmpty && request.containers.isEmpty {
                try view.show()
                return 0
            }
        }
        var reconnector = Reconnector(path: manager.address)
        while true {
            do throws(ClientError) {
                try read(connection, request, &view, &reconnector)
                return 0
            } catch {
                if noStream || !error.isOutage { throw error }
                if reconnector.broke(wasAnswered: connection.wasAnswered) { Console.outage() }
                view.forgetPlace()
                connection = try reconnector.connect()
            }
        }
    }

    /// Shows samples as they come, until the stream ends, which it does only for a manager that goes.
    private func read(
        _ connection: Connection, _ request: Ctr_V1_StatsRequest, _ view: inout StatsView, _ reconnector: inout Reconnector
    ) throws(ClientError) {
        _ = try connection.start(API.stats, request, streaming: true)
        var rounds = 0
        while true {
            var isNews = false
            while let answer = try connection.next() {
                switch answer {
                case .message(_, let payload):
                    reconnector.answered()
                    let response: Ctr_V1_StatsResponse = try decode(.success(payload))
                    view.take(response)
                    rounds += 1
                    isNews = true
                case .end: throw .lost(path: connection.path)
                case .response(_, .success): return
                case .response(_, .failure(let status)): throw status.endsOnlyTheWait ? .lost(path: connection.path) : .status(status)
                }
            }
            if isNews && (rounds > 1 || view.isLive) {
                show(&view)
                if noStream { return }
            }
            try connection.flush()
            waitFor([(connection.descriptor, connection.pollEvents)])
            try connection.receive()
        }
    }

    private func show(_ view: inout StatsView) {
        do throws(Failure) { try view.show() } catch {
            Console.error(error.message)
            Glibc.exit(error.code)
        }
    }
}

/// What is on the screen.
private struct StatsView {
    let json: Bool
    let full: Bool
    /// Whether the table is drawn over the one before.
    let isLive: Bool
    /// Containers that do not run.
    var idle: [StatsRow] = []
    private var rows: [StatsRow] = []
    private var lines = 0
    private let host: UInt64

    init(json: Bool, full: Bool, isLive: Bool) {
        self.json = json
        self.full = full
        self.isLive = isLive && !json
        let pages = sysconf(Int32(_SC_PHYS_PAGES))
        let size = sysconf(Int32(_SC_PAGESIZE))
        host = pages > 0 && size > 0 ? UInt64(pages) * UInt64(size) : 0
    }

    /// One round of samples; what is not in it has ended.
    mutating func take(_ response: Ctr_V1_StatsResponse) {
        var before: [String: StatsRow] = [:]
        for row in rows { before[row.id] = row }
        rows = response.stats.map { sample in
            guard var row = before[sample.containerID] else { return StatsRow(sample) }
            row.add(sample)
            return row
        }
        idle.removeAll { row in rows.contains { $0.id == row.id } }
    }

    /// Something else was written behind the table.
    mutating func forgetPlace() { lines = 0 }

    mutating func show() throws(Failure) {
        if json {
            var text: [UInt8] = []
            for row in rows + idle { text += row.document(host: host).encoded() + [0x0a] }
            return try Console.write(text)
        }
        let table = statsTable(rows + idle, full: full, host: host).rendered()
        guard isLive else { return try Console.write(table) }
        let size = TerminalSize.current()
        var text = lines > 0 ? "\u{1b}[\(lines)A\r" : ""
        let shown = table.split(separator: "\n").prefix(Int(clamping: max(2, size?.height ?? 25) - 1))
        // Longer lines would take two on the screen, and the next table would be drawn over the wrong ones.
        for line in shown { text += line.prefix(Int(clamping: size?.width ?? 200)) + "\u{1b}[K\n" }
        text += "\u{1b}[J"
        lines = shown.count
        try Console.write(text)
    }
}

extension Ctr_V1_Container {
    /// Whether the user means it: by name, id, or the beginning of the id.
    fileprivate func isMeant(by text: String) -> Bool { name == text || (!text.isEmpty && id.hasPrefix(text)) }
}
