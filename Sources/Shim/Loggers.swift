import CLinux
import Glibc
import Linux
import TTRPC

/// Programs of the caller's that read a process's output (`binary://`).
extension Container {
    /// The one for `process`, when its streams name one; both streams go to it. The read ends stay the caller's.
    private func makeLogger(of process: Process, stdout: Int32, stderr: Int32) throws(Status) -> LoggerProcess? {
        let names = process.names
        let out = try StreamPlace.output(names.stdout)
        let err = names.terminal ? .nothing : try StreamPlace.output(names.stderr)
        guard case .logger(let program, let arguments) = out.isLogger ? out : err else { return nil }
        if names.terminal { throw Status(.invalidArgument, "the output of a terminal cannot go to a program; name a FIFO, a file or log:") }
        do throws(SysError) {
            return try LoggerProcess(
                program, arguments: arguments, id: place.id, namespace: place.namespace, stdout: out.isLogger ? stdout : -1,
                stderr: err.isLogger ? stderr : -1, number: process.number, loop: loop)
        } catch {
            throw Status(error.code == ENOENT || error.code == EACCES ? .invalidArgument : .unknown, error.description)
        }
    }

    /// For the first process, from the keeper's pipes.
    func startLogger(first names: StreamNames, stdout: Int32, stderr: Int32) throws(Status) {
        first.logger = try makeLogger(of: first, stdout: stdout, stderr: stderr)
    }

    /// For an exec; nil where its output goes elsewhere. What it writes before the logger is ready waits in the pipes.
    func startLogger(of exec: Process, owner: PipeOwner) throws -> [Int32: Pipe]? {
        let names = exec.names
        guard try StreamPlace.output(names.stdout).isLogger || StreamPlace.output(names.stderr).isLogger else { return nil }
        let (stdout, stderr) = (try Pipe(owner: owner), try Pipe(owner: owner))
        let readers = (SharedDescriptor(stdout.takeReader()), SharedDescriptor(stderr.takeReader()))
        exec.logger = try makeLogger(of: exec, stdout: readers.0.raw, stderr: readers.1.raw)
        exec.logger?.settle()
        return [1: stdout, 2: stderr]
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
