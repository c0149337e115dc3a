import CLinux
import Glibc
import Linux
import Logs

/// A log of segments and an index as the end of a process's output.
class LogSink: Sink {
    private var writer: LogWriter

    /// Opens or goes on with the log in `directory`/log.
    init(in directory: Int32, segmentBytes: UInt64, segmentCount: UInt32 = 0) throws(SysError) {
        try makeDirectory("log", mode: 0o700, at: directory)
        writer = try LogWriter(
            directory: Linux.open("log", O_RDONLY | O_DIRECTORY | O_NOFOLLOW, at: directory), segmentBytes: segmentBytes,
            segmentCount: segmentCount)
    }

    var indexSize: UInt64 { writer.indexSize }
    var ended: Bool { writer.ended }

    func hasEnded(_ stream: LogStream) -> Bool { writer.hasEnded(stream) }

    func drain(_ stream: LogStream, from pipe: Int32) -> Drained {
        switch writer.drain(stream, from: pipe) {
        case .moved(let count): .moved(count)
        case .empty: .empty
        case .ended: .ended
        }
    }

    /// Entries from a position of the index on; returns the position behind the last.
    func entries(from position: UInt64, _ body: (LogEntry) -> Void) throws(SysError) -> UInt64 {
        try writer.entries(from: position, body)
    }

    func discard(_ stream: LogStream, before segment: UInt32) { writer.discard(stream, before: segment) }
    func end(_ stream: LogStream) { writer.end(stream) }
    func retry() { writer.retry() }

    /// A reader has everything up to `indexSize` of the index; whether that made room.
    func acknowledge(_ indexSize: UInt64) -> Bool { false }
    /// What its reader has said that it has; nil where nobody is waited for.
    var acknowledged: UInt64? { nil }
    /// The process has ended: nothing is held back any more.
    func close() {}
}

/// /dev/null, for a terminal whose output nobody asked for.
final class NothingSink: Sink {
    private let file: SharedDescriptor

    init() throws(SysError) { file = SharedDescriptor(try Linux.open("/dev/null", O_WRONLY)) }

    func drain(_ stream: LogStream, from pipe: Int32) -> Drained {
        let moved = ctr_splice(pipe, file.raw, LogWriter.step, UInt32(spliceFlags))
        switch moved {
        case 1...: return .moved(moved)
        case -Int(EAGAIN), -Int(EINTR): return .empty
        default: return .ended
        }
    }

    func end(_ stream: LogStream) {}
}
