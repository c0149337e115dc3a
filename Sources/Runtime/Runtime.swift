import CLinux
import Glibc
import Linux

/// The OCI runtime behind the `ctrun` program.
public enum Runtime {
    /// The runtime specification that states are written in.
    static let specVersion = "1.0.2"
    public static let version = Release.version

    /// Runs one command line, program name first; returns the exit status. The process must have one thread.
    public static func main(_ arguments: [String]) -> Int32 {
        // A caller's closed pipe is an error of the write, not a death half-way.
        signal(SIGPIPE, SIG_IGN)
        fillStreams()
        // Started through a descriptor, a process is called by its number.
        _ = "ctrun".withCString { ctr_prctl(ProcessControl.setName, UInt(bitPattern: $0), 0, 0, 0) }
        var log = Log()
        // No exit status of the process that was to run: runc's, for whoever tells the two apart.
        var failureStatus: Int32 = 1
        do throws(RuntimeError) {
            let line = try Invocation(Array(arguments.dropFirst()))
            if case .exec = line.command { failureStatus = 255 }
            switch line.command {
            case .create(let options), .run(let options, _):
                try checkPreserved(options.preservedDescriptors)
                try SelfProtection.ensure(arguments)
            case .exec(let options):
                try checkPreserved(options.preservedDescriptors)
                try SelfProtection.ensure(arguments)
            default: break
            }
            log = try Log(line)
            return try run(line, log)
        } catch {
            log.error(error.message)
            return failureStatus
        }
    }

    private static func run(_ line: Invocation, _ log: Log) throws(RuntimeError) -> Int32 {
        switch line.command {
        case .create(let options):
            let console = try connect(options.consoleSocket).release()
            defer { if console >= 0 { close(console) } }
            _ = try Creation.make(line, options, console: console, log)
        case .run(let options, let detach): return try run(line, options, detach: detach, log)
        case .start: try Lifecycle.start(line)
        case .kill(let signal, let all): try Lifecycle.kill(line, signal: signal, all: all)
        case .delete(let force): try Lifecycle.delete(line, force: force, log)
        case .exec(let options):
            do throws(RuntimeError) { return try Execution.run(line, options, log) } catch { throw error.during("exec failed") }
        case .ps(let json, let options): try output(try ProcessList.run(line, json: json, options: options))
        case .update(let options): try Update.run(line, options)
        case .events(let once, let interval): try Events.run(line, once: once, interval: interval, output: output)
        case .pause: try Lifecycle.setPaused(line, true)
        case .resume: try Lifecycle.setPaused(line, false)
        case .state: try output(try Lifecycle.state(line))
        case .list(let quiet, let json): try output(try Lifecycle.list(line, quiet: quiet, json: json, log))
        case .spec(let bundle): try SpecTemplate.write(bundle: bundle)
        case .version: try output(Array("ctrun version \(version)\nspec: \(specVersion)\n".utf8))
        case .help(let command): try output(Array(Usage.of(command ?? "").utf8))
        }
        return 0
    }

    /// A caller may have closed a standard stream: what is opened next would take its number, and pass for a stream.
    private static func fillStreams() {
        for number in Int32(0)...2 where ctr_fcntl_int(number, F_GETFD, 0) < 0 { _ = ctr_openat(AT_FDCWD, "/dev/null", O_RDWR, 0) }
    }

    /// Before anything is opened: a hole among the descriptors that the container keeps would be filled by one of ours.
    private static func checkPreserved(_ count: Int32) throws(RuntimeError) {
        for number in 3..<(3 + count) where ctr_fcntl_int(number, F_GETFD, 0) < 0 {
            throw RuntimeError("--preserve-fds: descriptor \(number) is not open")
        }
    }

    private static func output(_ text: [UInt8]) throws(RuntimeError) {
        try attempt { () throws(SysError) in try writeAll(STDOUT_FILENO, text, name: "standard output") }
    }

    static func connect(_ consoleSocket: String?) throws(RuntimeError) -> Descriptor? {
        guard let path = consoleSocket else { return nil }
        return try attempt("console socket") { () throws(SysError) in
            Descriptor(owning: try check("connect to", path, ctr_unix_connect(path, false)))
        }
    }

    private static func run(_ line: Invocation, _ options: Invocation.CreateOptions, detach: Bool, _ log: Log) throws(RuntimeError) -> Int32
    {
        if detach {
            let console = try connect(options.consoleSocket).release()
            defer { if console >= 0 { close(console) } }
            let creation = try Creation.make(line, options, console: console, log)
            try startOrDelete(creation.directory, log)
            return 0
        }
        if options.consoleSocket != nil {
            throw RuntimeError("cannot use --console-socket: run without --detach shows the terminal itself")
        }
        let signals = try Foreground.openSignals()
        let ends = try attempt { () throws(SysError) in try Channel.pair() }
        let creation = try Creation.make(line, options, console: ends.theirs.raw, consoleIfAsked: true, log)
        var terminal = creation.terminal ? try TerminalRelay(receiving: ends.ours) : TerminalRelay()
        try startOrDelete(creation.directory, log)
        let status = try Foreground.wait(creation.pid, creation.pidfd, signals: signals, terminal: &terminal)
        try Lifecycle.delete(creation.directory, force: true, log)
        return status
    }

    private static func startOrDelete(_ directory: borrowing StateDirectory, _ log: Log) throws(RuntimeError) {
        do throws(RuntimeError) { try Lifecycle.start(directory) } catch {
            try? Lifecycle.delete(directory, force: true, log)
            throw error
        }
    }
}
