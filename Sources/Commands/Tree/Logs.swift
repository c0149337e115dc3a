import ArgumentParser
import CtrProto
import Glibc
import Linux
import OCI

struct Logs: Command {
    static let configuration = CommandConfiguration(
        commandName: "logs", _superCommandName: "ctrctl", abstract: "Print what a container wrote.",
        discussion: """
            Its standard output appears on standard output and its standard error on standard error, byte for byte. With -f it goes on \
            until the container has ended; when ctrd goes away meanwhile, it waits for ctrd and continues behind the last byte. Times \
            are RFC 3339, seconds since 1970, or how long ago: 90s, 1h30m. Where bytes are missing, a line on standard error says so.
            """)
    static let examples = [
        "ctrctl logs web",
        "ctrctl logs -f --tail 10 web 2>/dev/null",
        "ctrctl logs -t --since 10m --until 5m web",
        "ctrctl logs --cursor web",
        "ctrctl logs --since 1/stdout:1:4096,stderr:1:0 web",
        "ctrctl logs --verify web",
    ]
    @Flag(name: .shortAndLong, help: "Go on with what is written from now.")
    var follow = false

    @Flag(name: .shortAndLong, help: "Print before each line the time when it came.")
    var timestamps = false

    @Option(help: ArgumentHelp("Only what came then or later; or from a position that --cursor printed.", valueName: "time"))
    var since: String?

    @Option(help: ArgumentHelp("Only what came before.", valueName: "time"))
    var until: String?

    @Option(
        name: [.customShort("n"), .customLong("tail")], parsing: .unconditional,
        help: ArgumentHelp("Begin with the last so many lines; \"all\" is all.", valueName: "lines"))
    var tail = "all"

    @Flag(help: "Only standard output.")
    var stdout = false

    @Flag(help: "Only standard error.")
    var stderr = false

    @Flag(help: "Print at the end, on standard error, the position to go on from.")
    var cursor = false

    @Flag(help: "Compare the log with its index instead: exits 1 when they do not agree.")
    var verify = false

    @Option(name: .shortAndLong, help: ArgumentHelp("table or json, for --verify.", valueName: "format"))
    var output = OutputFormat.table

    @Argument(help: ArgumentHelp("An id, the first digits of an id, or a name.", valueName: "id"), completion: .containers)
    var id: String
    @OptionGroup var global: GlobalOptions

    func perform(_ manager: Manager) throws -> Int32 {
        if verify { return try verifyLogs(id, manager, output) }
        var sink = LogSink(try selection(now: now(CLOCK_REALTIME)))
        var reconnector = Reconnector(path: manager.address)
        var connection = try Connection(path: manager.address, bufferSize: 256 << 10)
        while true {
            do throws(ClientError) {
                try read(connection, manager, &sink, &reconnector)
                if cursor { Console.error("position \(sink.position.description)") }
                return 0
            } catch {
                if !follow || !error.isOutage { throw error }
                if reconnector.broke(wasAnswered: connection.wasAnswered) { Console.outage() }
                connection = try reconnector.connect(bufferSize: 256 << 10)
            }
        }
    }

    /// What is asked for; `now` is CLOCK_REALTIME in ns.
    func selection(now: Int64) throws(Failure) -> LogSelection {
        var selection = LogSelection()
        selection.timestamps = timestamps
        selection.tail = try parseTail(tail)
        if stdout != stderr { selection.streams = stdout ? [.stdout] : [.stderr] }
        if let since {
            if LogPosition.isOne(since) {
                selection.position = try LogPosition(since)
                if selection.tail != nil { throw Failure("--tail and a position in --since exclude each other", code: Failure.usage) }
            } else {
                selection.sinceNs = try parseMoment(since, now: now)
            }
        }
        if let until { selection.untilNs = try parseMoment(until, now: now) }
        return selection
    }

    /// Reads on behind what was written, to the end of the stream.
    private func read(
        _ connection: Connection, _ manager: Manager, _ sink: inout LogSink, _ reconnector: inout Reconnector
    ) throws(ClientError) {
        let request = sink.request(namespace: manager.namespace, container: id, follow: follow)
        _ = try connection.start(API.readLogs, request, streaming: true)
        while true {
            while let answer = try connection.next() {
                switch answer {
                case .message(_, let payload):
                    reconnector.answered()
                    sink.accept(try decode(.success(payload)))
                    write(&sink)
                    if sink.isFinished { return }
                case .end:
                    // Only the end of the output ends the following; a manager that shuts down ends the stream without it.
                    if follow { throw .lost(path: manager.address) }
                    return
                case .response(_, .success): return
                case .response(_, .failure(let status)):
                    throw follow && status.endsOnlyTheWait ? .lost(path: manager.address) : .status(status)
                }
            }
            try connection.flush()
            waitFor([(connection.descriptor, connection.pollEvents)])
            try connection.receive()
        }
    }

    private func write(_ sink: inout LogSink) {
        do throws(SysError) {
            if let notice = sink.takeNotice() { Console.error(notice) }
            if try sink.write(blocking: true) == .closed { Glibc.exit(Failure.brokenPipe) }
        } catch {
            Console.error(error.description)
            Glibc.exit(Failure.general)
        }
    }
}

/// Has the manager compare logs and indexes; 1 when one of them does not agree.
private func verifyLogs(_ id: String, _ manager: Manager, _ output: OutputFormat) throws -> Int32 {
    var request = Ctr_V1_VerifyLogsRequest()
    request.namespace = manager.namespace
    request.container = id
    let logs = try manager.call(API.verifyLogs, request).logs
    if output == .json {
        try printDocuments(logs.map(\.document))
    } else {
        try Console.write(verificationTable(logs).rendered(colour: Console.usesColour(1)))
        for log in logs { for problem in log.problems { Console.error("run \(log.incarnation): \(problem)") } }
    }
    return logs.allSatisfy(\.problems.isEmpty) ? 0 : Failure.general
}

func verificationTable(_ logs: [Ctr_V1_LogVerification]) -> Table {
    var table = Table("RUN", "ENTRIES", "BYTES", "GAPS", "MISSING", "RECOVERED", "ROTATED", "ENDED", "RESULT")
    for log in logs {
        let missing = log.gaps > 0 && log.gapBytes == 0 ? "unknown" : "\(log.gapBytes)"
        table.row(
            .init("\(log.incarnation)"), .init("\(log.entries)"), .init("\(log.bytes)"),
            .init("\(log.gaps)", log.gaps == 0 ? .plain : .warning), .init(missing, log.gaps == 0 ? .plain : .warning),
            .init("\(log.recoveredBytes)"), .init("\(log.rotatedBytes)"), .init(log.ended ? "yes" : "no"),
            log.problems.isEmpty ? .init("ok", .good) : .init("\(log.problems.count) problems", .bad))
    }
    return table
}
