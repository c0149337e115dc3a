import ArgumentParser
import CtrProto
import Glibc
import Linux

struct Logs: Command {
    static let configuration = CommandConfiguration(
        commandName: "logs", _superCommandName: "ctrctl", abstract: "Print what a container wrote.",
        discussion: """
            Its standard output appears on standard output and its standard error on standard error. With -f it goes on until the \
            container has ended; when ctrd goes away meanwhile, it waits for ctrd and continues behind the last byte.
            """)
    static let examples = [
        "ctrctl logs web",
        "ctrctl logs -f web 2>/dev/null",
    ]
    @Flag(name: .shortAndLong, help: "Go on with what is written from now.")
    var follow = false
    @Argument(help: ArgumentHelp("An id, the first digits of an id, or a name.", valueName: "id"))
    var id: String
    @OptionGroup var global: GlobalOptions

    func perform(_ manager: Manager) throws -> Int32 {
        var sink = LogSink()
        var reconnector = Reconnector(path: manager.address)
        var connection = try Connection(path: manager.address, bufferSize: 256 << 10)
        while true {
            do throws(ClientError) {
                try read(connection, manager, &sink, &reconnector)
                return 0
            } catch {
                if !follow || !error.isOutage { throw error }
                if reconnector.broke(wasAnswered: connection.wasAnswered) { Console.outage() }
                connection = try reconnector.connect(bufferSize: 256 << 10)
            }
        }
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
            waitFor([(connection.descriptor, connection.pollEvents)])
            try connection.flush()
            try connection.receive()
        }
    }

    private func write(_ sink: inout LogSink) {
        do throws(SysError) {
            if try sink.write(blocking: true) == .closed { Glibc.exit(Failure.brokenPipe) }
        } catch {
            Console.error(error.description)
            Glibc.exit(Failure.general)
        }
    }
}
