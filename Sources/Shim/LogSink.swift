import CLinux
import Glibc
import Linux
import Logs

/// A log of segments and an index as the end of a process's output.
class LogSink: Sink {
    private var writer: LogWriter
    /// Count what was dropped of each stream, -1 where nothing was; the writer's.
    private(set) var dropFiles: (stdout: Int32, stderr: Int32)
    /// ``dropFiles`` has a new one: parks it. Whether that was done.
    var onDropping: () -> Bool = { false }

    /// Opens or goes on with the log in `directory`/log. `dropped`: what a killed predecessor parked of ``dropFiles``.
    init(
        in directory: Int32, segmentBytes: UInt64, segmentCount: UInt32 = 0, dropped: ParkedDrops
    ) throws(SysError) {
        try makeDirectory("log", mode: 0o700, at: directory)
        writer = try LogWriter(
            directory: Linux.open("log", O_RDONLY | O_DIRECTORY | O_NOFOLLOW, at: directory), segmentBytes: segmentBytes,
            segmentCount: segmentCount, dropFiles: (dropped.stdout?.release() ?? -1, dropped.stderr?.release() ?? -1))
        dropFiles = (writer.dropFile(.stdout), writer.dropFile(.stderr))
        writer.onDropping = { [unowned self] stream, file in
            if stream == .stdout { dropFiles.stdout = file } else { dropFiles.stderr = file }
            return onDropping()
        }
    }

    /// Whether there is something that a successor has to know.
    var isCounting: Bool { dropFiles.stdout >= 0 || dropFiles.stderr >= 0 }

    /// The writer may have closed one: all of it is in the index.
    private func forgetDrops() {
        if isCounting { dropFiles = (writer.dropFile(.stdout), writer.dropFile(.stderr)) }
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
    func end(_ stream: LogStream) {
        writer.end(stream)
        forgetDrops()
    }

    func retry() {
        writer.retry()
        forgetDrops()
    }

    /// There may be no later.
    func retryAtOnce() {
        writer.retry(atOnce: true)
        forgetDrops()
    }

    /// A reader has everything up to `indexSize` of the index; whether that made room.
    func acknowledge(_ indexSize: UInt64) -> Bool { false }
    /// What its reader has said that it has; nil where nobody is waited for.
    var acknowledged: UInt64? { nil }
    /// The process has ended: nothing is held back any more.
    func close() {}
}

/// What a predecessor parked of ``LogSink/dropFiles``.
struct ParkedDrops {
    var stdout: SharedDescriptor?
    var stderr: SharedDescriptor?
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
