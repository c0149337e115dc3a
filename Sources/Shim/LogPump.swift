import Glibc
import Linux
import Logs
import TTRPC

/// Moves the container's two output pipes into its log and answers the callers that wait for more of it.
final class LogPump {
    /// After init's end: how long a process that still holds the pipes open is listened to.
    static let drainTime: Int64 = 2_000_000_000

    private var writer: LogWriter
    private let loop: Loop
    /// Read ends of the pipes, -1 once their stream has ended.
    private var stdout: Int32
    private var stderr: Int32
    private var waits: [(call: Call, indexSize: UInt64)] = []
    private let answer: (Call, Result<[UInt8], Status>) -> Void
    /// CLOCK_MONOTONIC, nanoseconds: when both streams are ended, whoever holds them open.
    private(set) var drainDeadline = Int64.max

    /// Opens the log in `incarnation`/log and watches the pipes, which are the pump's from now on.
    init(
        incarnation: Int32, segmentBytes: UInt64, segmentCount: UInt32, stdout: Int32, stderr: Int32, loop: Loop,
        answer: @escaping (Call, Result<[UInt8], Status>) -> Void
    ) throws(SysError) {
        try makeDirectory("log", mode: 0o700, at: incarnation)
        writer = try LogWriter(
            directory: Linux.open("log", O_RDONLY | O_DIRECTORY | O_NOFOLLOW, at: incarnation), segmentBytes: segmentBytes,
            segmentCount: segmentCount)
        self.loop = loop
        self.stdout = stdout
        self.stderr = stderr
        self.answer = answer
        try watch(.stdout)
        try watch(.stderr)
    }

    /// Whether both streams are closed and drained.
    var ended: Bool { writer.ended }

    private func pipe(of stream: LogStream) -> Int32 { stream == .stdout ? stdout : stderr }

    private func watch(_ stream: LogStream) throws(SysError) {
        if writer.hasEnded(stream) { return close(stream) }
        try loop.add(pipe(of: stream), .readable, stream == .stdout ? .stdout : .stderr)
    }

    private func close(_ stream: LogStream) {
        let pipe = pipe(of: stream)
        if pipe < 0 { return }
        loop.remove(pipe)
        _ = Glibc.close(pipe)
        if stream == .stdout { stdout = -1 } else { stderr = -1 }
    }

    /// One step of `stream`, which is ready; the loop comes back for the rest, so that a loud container delays nobody.
    func pump(_ stream: LogStream) {
        if step(stream) != .empty { wakeWaits() }
    }

    @discardableResult
    private func step(_ stream: LogStream) -> LogWriter.Drained {
        let pipe = pipe(of: stream)
        if pipe < 0 { return .ended }
        let drained = writer.drain(stream, from: pipe)
        if drained == .ended {
            writer.end(stream)
            close(stream)
        }
        return drained
    }

    /// Takes what is in the pipes now, at most `steps` times each.
    func drainNow(steps: Int) {
        for stream in LogStream.allCases {
            for _ in 0..<steps {
                guard case .moved = step(stream) else { break }
            }
        }
        writer.retry()
        wakeWaits()
    }

    /// Init has ended: what is not closed in two seconds is closed then.
    func initEnded() {
        if !ended && drainDeadline == .max { drainDeadline = now(CLOCK_MONOTONIC) + Self.drainTime }
    }

    /// Takes what is in the pipes and ends both streams, whoever still holds them open.
    func finish() {
        drainDeadline = .max
        drainNow(steps: 16)
        for stream in LogStream.allCases where !writer.hasEnded(stream) {
            writer.end(stream)
            close(stream)
        }
        wakeWaits()
    }

    // MARK: waiting

    func wait(_ call: Call, indexSize: UInt64) {
        writer.retry()
        waits.append((call, indexSize))
        wakeWaits()
    }

    private func wakeWaits() {
        if waits.isEmpty { return }
        let size = writer.indexSize
        let ended = writer.ended
        let ready = waits.filter { ended || size > $0.indexSize }
        if ready.isEmpty { return }
        waits = ended ? [] : waits.filter { size <= $0.indexSize }
        let response = Messages.logWaited(indexSize: size, ended: ended)
        for wait in ready { answer(wait.call, .success(response)) }
    }

    /// The nearest moment at which something is due.
    var deadline: Int64 { waits.reduce(drainDeadline) { min($0, $1.call.deadline) } }

    func expire(at time: Int64) {
        if drainDeadline <= time { finish() }
        let late = waits.filter { $0.call.deadline <= time }
        if late.isEmpty { return }
        waits.removeAll { $0.call.deadline <= time }
        for wait in late { answer(wait.call, .failure(Status(.deadlineExceeded, "no more output in time"))) }
    }

    func forget(connection: UInt32) { waits.removeAll { $0.call.connection == connection } }
}
