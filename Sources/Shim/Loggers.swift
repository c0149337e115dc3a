import CLinux
import Glibc
import Linux
import Logs
import TTRPC

/// Programs of the caller's that read a process's output (`binary://`).
extension Container {
    /// The one for `process`, when its streams name one; both streams go to it. The read ends stay the caller's.
    private func makeLogger(of process: Process, stdout: Int32, stderr: Int32) throws(Status) -> LoggerProcess? {
        let (out, err) = try loggers(of: process)
        guard case .logger(let program, let arguments) = out.isLogger ? out : err else { return nil }
        do throws(SysError) {
            return try LoggerProcess(
                program, arguments: arguments, id: place.id, namespace: place.namespace, stdout: out.isLogger ? stdout : -1,
                stderr: err.isLogger ? stderr : -1, number: process.number, loop: loop)
        } catch {
            throw Status(error.code == ENOENT || error.code == EACCES ? .invalidArgument : .unknown, error.description)
        }
    }

    /// Where the two streams go; a terminal has one.
    private func loggers(of process: Process) throws(Status) -> (StreamPlace, StreamPlace) {
        (try StreamPlace.output(process.names.stdout), process.names.terminal ? .nothing : try StreamPlace.output(process.names.stderr))
    }

    /// For the first process, from the keeper's pipes.
    func startLogger(first names: StreamNames, stdout: Int32, stderr: Int32) throws(Status) {
        first.logger = try makeLogger(of: first, stdout: stdout, stderr: stderr)
    }

    /// For an exec: the write ends of the streams that go to one. What comes before the logger is ready waits in the pipes.
    func startLogger(of exec: Process, owner: PipeOwner) throws -> [LogStream: SharedDescriptor] {
        let places = try loggers(of: exec)
        var writers: [LogStream: SharedDescriptor] = [:]
        for (stream, place) in [(LogStream.stdout, places.0), (.stderr, places.1)] where place.isLogger {
            let pipe = try Pipe(owner: exec.names.terminal ? nil : owner)
            exec.loggerPipes[stream] = SharedDescriptor(pipe.takeReader())
            writers[stream] = pipe.writer
        }
        exec.logger = try makeLogger(of: exec, stdout: exec.loggerPipes[.stdout]?.raw ?? -1, stderr: exec.loggerPipes[.stderr]?.raw ?? -1)
        exec.logger?.settle()
        return writers
    }

    /// What waited for it begins.
    func loggerReady(_ process: Process) {
        guard process.isFirst, case .create(let mounts, let names)? = operation?.kind, operation?.child == 0 else { return }
        createNow(mounts, names)
    }

    func loggerIsLate(_ logger: LoggerProcess) {
        logger.settle()
        guard case .create? = operation?.kind, operation?.child == 0 else { return }
        logger.signal(SIGKILL)
        first.logger = nil
        fail(.deadlineExceeded, "start logger \(logger.program): not ready in \(LoggerProcess.readyTime / 1_000_000_000) s")
    }

    /// The process is deleted. Its logger has the end of the pipes before it and ends by itself.
    func dismissLogger(of process: Process) {
        process.loggerPipes = [:]
        guard let logger = process.logger else { return }
        process.logger = nil
        dismissed.removeAll { !$0.isAlive }
        dismissed.append(logger)
    }

    /// Whether a logger has not come to its end yet.
    var hasLoggers: Bool { first.logger?.isAlive == true || dismissed.contains { $0.isAlive } }

    /// The shim leaves: what has not ended until now is told to.
    func endLoggers() {
        first.logger?.signal(SIGTERM)
        for logger in dismissed { logger.signal(SIGTERM) }
    }
}

extension StreamPlace {
    var isLogger: Bool {
        if case .logger = self { return true }
        return false
    }
}
