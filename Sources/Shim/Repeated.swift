import TTRPC

extension Container {
    /// A predecessor may have carried a call out and died before it answered: where the container is as the caller wants it, that is success.
    func outcome(ofRepeated method: String, _ execID: String, _ failure: Status) -> Result<[UInt8], Status> {
        switch (method, failure.code) {
        case ("Create", .alreadyExists) where pid > 0: return .success(Messages.created(pid: pid))
        case ("Start", .failedPrecondition):
            guard let process = find(execID), process.pid > 0, process.phase != .created, process.phase != .none else { break }
            return .success(Messages.started(pid: process.pid))
        case ("Exec", .alreadyExists): return .success([])
        default: break
        }
        return .failure(failure)
    }
}
