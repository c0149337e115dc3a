import APITTRPC
import ArgumentParser
import CLinux
import Glibc
import Linux
import Logging
import NIOPosix
import Supervisor

@main
struct CtrdCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ctrd",
        abstract: "The manager of containers: serves their API, and keeps track of them across its own restarts.",
        discussion: """
            Containers outlive ctrd: stop, kill or upgrade it at any time; the next one finds them as they are.

            Examples:
              ctrd
              ctrd --config /etc/ctrd/config.toml --log-level debug
              ctrd --root /srv/ctrd --state /run/ctrd-test --address /run/ctrd-test/ctrd.sock
            """,
        version: "ctrd \(Version.text)")

    @Option(help: "Configuration file (default: \(Settings.defaultFile), if it exists).")
    var config: String?
    @Option(help: "Directory of what lasts: database, images, containers (default: \(Settings.defaultRoot)).")
    var root: String?
    @Option(help: "Directory of what a reboot may clear (default: \(Settings.defaultState)).")
    var state: String?
    @Option(help: "Unix socket of the API (default: STATE/ctrd.sock).")
    var address: String?
    @Option(help: "trace, debug, info, notice, warning, error or critical (default: info).")
    var logLevel: String?
    @Option(help: "text or json (default: text).")
    var logFormat: String?

    func run() throws {
        do { try start() } catch let error as StartupError {
            complain(error.message)
            throw ExitCode(1)
        }
    }

    private func start() throws {
        guard geteuid() == 0 else { throw StartupError("ctrd must run as root") }
        var settings = try Settings(file: config)
        settings.override("root", root)
        settings.override("state", state)
        settings.override("address", address)
        settings.override("log_level", logLevel)
        settings.override("log_format", logFormat)
        let configuration = try settings.configuration()
        let level = try settings.logLevel()
        let format = try settings.logFormat()
        LoggingSystem.bootstrap { _ in LineLogHandler(format: format, level: level) }
        let logger = Logger(label: "ctrd")

        // Blocked before the first thread, so that all threads inherit it and the signals come to the one that asks.
        let signals: [Int32] = [SIGTERM, SIGINT]
        let stop = Descriptor(
            owning: try startupStep { () throws(SysError) in
                try check("open signalfd", "", ctr_signalfd(signals, Int32(signals.count)))
            })
        signal(SIGPIPE, SIG_IGN)
        umask(0o022)
        raiseDescriptorLimit()
        let daemon = try Daemon(configuration: configuration, logger: logger)
        daemon.waitForStop(stop.raw)
        logger.info("stopped; containers go on")
        _exit(0)
    }

    /// A connection, a pidfd or two and a log reader for each of a thousand containers.
    private func raiseDescriptorLimit() {
        var soft: UInt64 = 0
        var hard: UInt64 = 0
        let resource = Int32(RLIMIT_NOFILE.rawValue)
        if ctr_getrlimit(resource, &soft, &hard) == 0, soft < hard { _ = ctr_prlimit(0, resource, hard, hard) }
    }
}

/// Why ctrd does not start, in one line.
struct StartupError: Error {
    let message: String
    init(_ message: String) { self.message = message }
}

/// Turns a failed system call of the start into its one line.
func startupStep<Value: ~Copyable>(_ body: () throws(SysError) -> Value) throws(StartupError) -> Value {
    do { return try body() } catch { throw StartupError(error.description) }
}

/// One line on standard error, for what happens before or instead of logging.
func complain(_ message: String) {
    try? writeAll(2, Array("ctrd: \(message)\n".utf8), name: "standard error")
}
