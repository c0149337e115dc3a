/// What the shim has to tell of its container, in the order in which it happens: create, start, exec-added, exec-started, exit, delete;
/// oom, paused and resumed in between. One place says each (``Container/publish(_:again:)``).
enum TaskEvent: Equatable {
    case created(pid: Int32, streams: StreamNames, mounts: [MountRequest])
    case started(pid: Int32)
    case execAdded(execID: String)
    case execStarted(execID: String, pid: Int32)
    /// `execID` is empty for the first process.
    case exited(execID: String, pid: Int32, status: UInt32, at: Int64)
    case deleted(execID: String, pid: Int32, status: UInt32, at: Int64)
    case oom
    case paused
    case resumed
}
