import Logs

/// What one step of moving output has done.
enum Drained: Equatable {
    /// So many bytes have left the pipe.
    case moved(Int)
    /// Nothing is in the pipe now.
    case empty
    /// The sink takes nothing now; it says so when it does again (``Output/sinkHasRoom()``).
    case full
    /// The last writer has closed the pipe and it is drained.
    case ended
}

/// Where a process's output flows. A sink takes bytes out of the pipe by splice(2): none is ever in the shim's memory, and one that was
/// taken is where a successor of a killed shim counts it as taken. It never waits.
protocol Sink: AnyObject {
    /// Moves a bounded step of `stream` from `pipe`.
    func drain(_ stream: LogStream, from pipe: Int32) -> Drained
    /// `stream` is closed and drained. Idempotent.
    func end(_ stream: LogStream)
    /// Whether a predecessor has ended `stream` already.
    func hasEnded(_ stream: LogStream) -> Bool
    /// A descriptor of the sink that it watches (`Source.sink`) is ready.
    func ready()
    /// Tries again what a full disk has refused.
    func retry()
}

extension Sink {
    func hasEnded(_ stream: LogStream) -> Bool { false }
    func ready() {}
    func retry() {}
}
