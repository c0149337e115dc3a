import CLinux
import Glibc
import Linux
import Logs
import TTRPC

/// The output of one process: its two pipes, each flowing into a sink, or the terminal whose master flows through the first of them, which may
/// be one that a logger reads. Also answers the callers that wait for more of its log.
final class Output {
    /// After the process's end: how long others that still hold the pipes open are listened to.
    static let drainTime: Int64 = 2_000_000_000

    private struct Flow {
        /// Read end, -1 once the stream has ended or when it has none.
        var pipe: Int32 = -1
        var sink: (any Sink)?
        var watched = false
    }

    private let loop: Loop
    private let number: UInt32
    private let answer: (Call, Result<[UInt8], Status>) -> Void
    private var stdout = Flow()
    private var stderr = Flow()
    /// The sink that is a log, if there is one.
    private(set) var log: LogSink?
    /// There will be one once the process runs; its reader may have left before.
    var expectsLog = false
    private var farewell = false
    private(set) var waits: [(call: Call, indexSize: UInt64)] = []

    /// Both streams are closed and drained; set once.
    var onEnded: () -> Void = {}

    /// A terminal's master, and the write end of the first pipe, which then is ours.
    private(set) var master: SharedDescriptor?
    private(set) var terminalWriter: SharedDescriptor?
    private var masterWatched = false
    /// The logger at the other end of the terminal's pipe is behind: the loop tells when the pipe takes more.
    private var writerWatched = false
    /// Steps of the terminal that are still taken once the end has come: one who writes on without end is cut.
    private var lastSteps = 64

    /// CLOCK_MONOTONIC, nanoseconds: when both streams are ended, whoever holds them open.
    private(set) var drainDeadline = Int64.max
    /// That moment has come; what still flows is what a full sink does not take.
    private var closing = false

    /// `number` is the process's in the epoll set.
    init(number: UInt32, loop: Loop, answer: @escaping (Call, Result<[UInt8], Status>) -> Void) {
        self.number = number
        self.loop = loop
        self.answer = answer
    }

    deinit {
        for stream in LogStream.allCases { close(stream) }
        unwatchTerminal()
    }

    /// Whether both streams are closed and drained.
    var ended: Bool { stdout.pipe < 0 && stderr.pipe < 0 && master == nil }

    /// Its read end, -1 when there is none.
    func pipe(of stream: LogStream) -> Int32 { self[stream].pipe }

    private subscript(_ stream: LogStream) -> Flow {
        get { stream == .stdout ? stdout : stderr }
        set { if stream == .stdout { stdout = newValue } else { stderr = newValue } }
    }

    // MARK: what flows where

    /// Lets `stream` flow from `pipe`, which is this one's from now on, into `sink`.
    func connect(_ stream: LogStream, _ pipe: Int32, to sink: any Sink) throws(SysError) {
        if let log = sink as? LogSink { self.log = log }
        if sink.hasEnded(stream) { return Inherited.giveBack(pipe) }
        self[stream] = Flow(pipe: pipe, sink: sink)
        if master == nil { try watch(stream) }
    }

    /// Takes the read end of `stream` back, which then is the caller's; -1 when there is none.
    func disconnect(_ stream: LogStream) -> Int32 {
        unwatch(stream)
        let pipe = self[stream].pipe
        self[stream] = Flow()
        log = nil
        return pipe
    }

    /// The log of a process that is known from its records alone.
    func keep(log: LogSink) {
        self.log = log
        if farewell { _ = log.acknowledge(.max) }
    }

    /// The terminal of the process, whose output is `writer`'s pipe's from now on.
    func connect(terminal: SharedDescriptor, writer: SharedDescriptor) throws(SysError) {
        for stream in LogStream.allCases { unwatch(stream) }
        end(.stderr)
        let flags = try check("prepare terminal", "", ctr_fcntl_int(terminal.raw, F_GETFL, 0))
        try check("prepare terminal", "", ctr_fcntl_int(terminal.raw, F_SETFL, flags | O_NONBLOCK))
        master = terminal
        terminalWriter = writer
        try watchTerminal()
        drainTerminalPipe()
        wakeWaits()
    }

    private func watchTerminal() throws(SysError) {
        guard !masterWatched, let master else { return }
        try loop.add(master.raw, .readable, .terminal, number: number)
        masterWatched = true
    }

    private func unwatchTerminal() {
        if let master, masterWatched { loop.remove(master.raw) }
        if let terminalWriter, writerWatched { loop.remove(terminalWriter.raw) }
        (masterWatched, writerWatched) = (false, false)
    }

    private func watch(_ stream: LogStream) throws(SysError) {
        if self[stream].watched || self[stream].pipe < 0 { return }
        try loop.add(self[stream].pipe, .readable, stream == .stdout ? .stdout : .stderr, number: number)
        self[stream].watched = true
    }

    private func unwatch(_ stream: LogStream) {
        if !self[stream].watched { return }
        loop.remove(self[stream].pipe)
        self[stream].watched = false
    }

    private func close(_ stream: LogStream) {
        unwatch(stream)
        Inherited.giveBack(self[stream].pipe)
        self[stream].pipe = -1
    }

    private func end(_ stream: LogStream) {
        close(stream)
        guard let sink = self[stream].sink else { return }
        self[stream].sink = nil
        sink.end(stream)
        if ended { onEnded() }
    }

    // MARK: moving

    /// One step of `stream`, which is ready; the loop comes back for the rest, so that a loud process delays nobody.
    func pump(_ stream: LogStream) {
        if step(stream) != .empty { wakeWaits() }
    }

    @discardableResult
    private func step(_ stream: LogStream) -> Drained {
        let flow = self[stream]
        guard flow.pipe >= 0, let sink = flow.sink else { return .ended }
        let drained = sink.drain(stream, from: flow.pipe)
        switch drained {
        case .ended: end(stream)
        case .full: unwatch(stream)
        case .empty: if closing && master == nil { end(stream) }
        case .moved: break
        }
        return drained
    }

    /// The sink had been full.
    func sinkHasRoom() {
        if master != nil {
            terminalReady()
        } else {
            for stream in LogStream.allCases where self[stream].pipe >= 0 {
                if closing { drain(stream, steps: 16) } else { try? watch(stream) }
            }
        }
        wakeWaits()
    }

    /// A descriptor that a sink watches is ready.
    func sinkReady() {
        let sinks = [stdout.sink, stderr.sink]
        sinks[0]?.ready()
        if sinks[0] !== sinks[1] { sinks[1]?.ready() }
    }

    /// The terminal's master is readable or has hung up, or its pipe takes more.
    func terminalReady() {
        defer { wakeWaits() }
        if let terminalWriter, writerWatched {
            loop.remove(terminalWriter.raw)
            writerWatched = false
        }
        while master != nil, drainTerminalPipe() {
            if closing { lastSteps -= 1 }
            switch lastSteps > 0 ? moveTerminal() : .over {
            case .bytes where closing: continue
            case .bytes:
                if drainTerminalPipe() { try? watchTerminal() }
                return
            case .nothing where !closing:
                try? watchTerminal()
                return
            case .full:
                unwatchTerminal()
                if let terminalWriter, (try? loop.add(terminalWriter.raw, .writable, .terminal, number: number)) != nil {
                    writerWatched = true
                }
                return
            case .nothing, .over: terminalEnded()
            }
        }
    }

    private enum Moved { case bytes, nothing, full, over }

    /// One step from the terminal into its pipe.
    private func moveTerminal() -> Moved {
        guard let master, let terminalWriter else { return .over }
        switch ctr_splice(master.raw, terminalWriter.raw, LogWriter.step, UInt32(spliceFlags)) {
        case 1...: return .bytes
        case -Int(EAGAIN), -Int(EINTR):
            // Either of the two stands in the way; a pipe that is drained here is not full.
            if stdout.pipe >= 0 { return .nothing }
            var room = pollfd(fd: terminalWriter.raw, events: Int16(POLLOUT), revents: 0)
            return poll(&room, 1, 0) > 0 ? .nothing : .full
        // EIO: nobody holds the other side any more.
        default: return .over
        }
    }

    /// Whether the pipe of the terminal is empty now, or is drained by another; else the sink is full and the terminal waits.
    @discardableResult
    private func drainTerminalPipe() -> Bool {
        for _ in 0..<64 {
            switch step(.stdout) {
            case .moved: continue
            case .empty, .ended: return true
            case .full: break
            }
            break
        }
        unwatchTerminal()
        return false
    }

    private func terminalEnded() {
        unwatchTerminal()
        master = nil
        // Ours was the last writer: end of file follows what is in the pipe.
        terminalWriter = nil
        closing = true
        // A logger's pipe ends elsewhere.
        if stdout.sink == nil && ended { return onEnded() }
        drain(.stdout, steps: 16)
    }

    private func drain(_ stream: LogStream, steps: Int) {
        for _ in 0..<steps {
            guard case .moved = step(stream) else { return }
        }
    }

    /// Takes what is in the pipes now, at most `steps` times each.
    func drainNow(steps: Int) {
        if master != nil {
            for _ in 0..<steps { guard drainTerminalPipe(), case .bytes = moveTerminal() else { break } }
            drainTerminalPipe()
        } else {
            for stream in LogStream.allCases { drain(stream, steps: steps) }
        }
        stdout.sink?.retry()
        stderr.sink?.retry()
        log?.retry()
        wakeWaits()
    }

    /// The process has ended: what is not closed in two seconds is closed then.
    func processEnded() {
        if !ended && drainDeadline == .max && !closing { drainDeadline = now(CLOCK_MONOTONIC) + Self.drainTime }
    }

    /// Takes what is in the pipes and ends both streams, whoever still holds them open; only what a full sink does not take flows on.
    func finish() {
        drainDeadline = .max
        log?.close()
        drainNow(steps: 16)
        closing = true
        if master != nil { terminalReady() }
        if master == nil { for stream in LogStream.allCases where self[stream].pipe >= 0 { drain(stream, steps: 16) } }
        log?.retryAtOnce()
        wakeWaits()
    }

    /// Ends both streams with what was taken until now: the process never ran, or is deleted.
    func abandon() {
        drainDeadline = .max
        unwatchTerminal()
        master = nil
        terminalWriter = nil
        for stream in LogStream.allCases { end(stream) }
        wakeWaits()
    }

    /// The process is deleted: nothing of it stays open.
    func drop(_ status: Status) {
        abandon()
        log = nil
        failWaits(status)
    }

    // MARK: waiting

    func wait(_ call: Call, indexSize: UInt64) {
        if log == nil && expectsLog {
            farewell = indexSize == .max
            waits.append((call, indexSize))
            return wakeWaits()
        }
        guard let log else { return answer(call, .failure(Status(.failedPrecondition, "the output of this process goes to no log"))) }
        log.retry()
        if log.acknowledge(indexSize) { sinkHasRoom() }
        waits.append((call, indexSize))
        wakeWaits()
    }

    /// What a reader had said to the program that this one was before.
    func acknowledge(_ indexSize: UInt64) {
        if log?.acknowledge(indexSize) ?? false { sinkHasRoom() }
    }

    private func wakeWaits() {
        if waits.isEmpty { return }
        let size = log?.indexSize ?? 0
        let ended = log?.ended ?? false
        let ready = waits.filter { ended || size > $0.indexSize || $0.indexSize == .max }
        if ready.isEmpty { return }
        waits = ended ? [] : waits.filter { size <= $0.indexSize && $0.indexSize != .max }
        let response = Messages.logWaited(indexSize: size, ended: ended)
        for wait in ready { answer(wait.call, .success(response)) }
    }

    /// Fails every wait: the process is deleted.
    func failWaits(_ status: Status) {
        let callers = waits
        waits = []
        for wait in callers { answer(wait.call, .failure(status)) }
    }

    /// The nearest moment at which something is due.
    var deadline: Int64 { waits.reduce(drainDeadline) { min($0, $1.call.deadline) } }

    func takeLate(_ time: Int64, into late: inout [Call]) {
        if drainDeadline <= time { finish() }
        late += waits.filter { $0.call.deadline <= time }.map { $0.call }
        waits.removeAll { $0.call.deadline <= time }
    }

    func forget(connection: UInt32) { waits.removeAll { $0.call.connection == connection } }
}

/// SPLICE_F_MOVE | SPLICE_F_NONBLOCK of splice(2), which the C library's header shows only with _GNU_SOURCE.
let spliceFlags = 0x01 | 0x02
