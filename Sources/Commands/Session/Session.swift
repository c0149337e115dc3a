import CLinux
import CtrProto
import Glibc
import Linux
import SwiftProtobuf
import TTRPC

/// A process with this program in front of it: its output comes here, input and signals go there, and its end is this program's.
///
/// Everything goes over one connection, so a program costs the manager no more than it must. What is not written is not read, and then
/// no answer comes either: neither direction can outrun the other. Nothing is remembered about a connection but what it still owes.
/// When it breaks, ``issue()`` asks again for whatever has no answer, under the same ids and at the same offsets.
final class Session {
    /// What a request was for.
    enum Owed: Equatable { case open, look, wait, logs, delete, kill(Int32), input, resize(TerminalSize) }

    let manager: Manager
    var plan: SessionPlan
    var connection: Connection?
    var owed: [UInt32: Owed] = [:]
    var sink: LogSink
    var input: InputPump?
    var reconnector: Reconnector
    private var signals: SignalSource
    private let terminal: RawTerminal?

    /// Whether the process is there: made by us, or found running.
    var isOpen = false
    /// A start whose answer was lost: whether it happened is to be looked up.
    var isOpeningDoubtful = false
    var exit: Ctr_V1_Exit?
    var isDeleted = false
    var toSend: Set<Int32> = []
    /// The sizes that the process's terminal is still to be given.
    var sizes: [TerminalSize] = []
    private var knownSize: TerminalSize?
    private var end: SessionEnd?

    private static let bufferSize = 64 << 10

    /// `connection`: one that is open already. Fails at once when there is no manager.
    init(_ plan: SessionPlan, _ manager: Manager, connection: Connection? = nil) throws {
        self.manager = manager
        self.plan = plan
        sink = LogSink(plan.output ?? LogSelection())
        if plan.output == nil { sink.end() }
        reconnector = Reconnector(path: manager.address)
        self.connection = try connection ?? Connection(path: manager.address, bufferSize: Self.bufferSize)
        let isRaw = plan.terminal && plan.input != nil && isatty(STDIN_FILENO) == 1
        terminal = isRaw ? RawTerminal() : nil
        input = plan.input.map {
            InputPump($0.addressing, closesAtEnd: $0.closesAtEnd, keys: isRaw ? plan.detachKeys : nil)
        }
        knownSize = plan.initialSize
        signals = try SignalSource(terminal: isRaw)
        // A reader of the output that goes away must not end the program before the terminal is as it was.
        if isRaw { signal(SIGPIPE, SIG_IGN) }
    }

    /// Runs until the process has ended and all of its output is written, or the user goes. Throws ``ClientError`` when the manager
    /// refuses. The terminal is as it was whenever this returns.
    func run() throws -> SessionEnd {
        defer { terminal?.restore() }
        if case .attach = plan.opening { try opened() }
        while true {
            do throws(ClientError) {
                try issue()
                if let end { return end }
                if let exit, sink.isFinished, isDeleted || !plan.removes { return .exited(exit) }
            } catch { try outage(error) }
            try step()
        }
    }

    /// The process runs: from now on keys are its.
    func opened() throws(SysError) {
        isOpen = true
        if plan.terminal { noteSize(redraws: plan.redraws) }
        try terminal?.enter()
    }

    /// Waits for news and takes it in.
    private func step() throws {
        var output: Int32 = -1
        if let notice = sink.takeNotice() { tell(notice) }
        if !sink.isDrained {
            switch try sink.write() {
            case .drained: return
            case .blocked(let descriptor): output = descriptor
            case .closed:
                end = .outputClosed
                return
            }
        }
        if let connection, output < 0, try guarded({ try self.takeAnswers(connection) }) { return }
        try guarded { try self.connection?.flush() }
        var events: Int16 = 0
        if let connection {
            // As long as output is blocked nothing more is read, and the manager's socket fills up: that is the flow control.
            events = output < 0 ? connection.pollEvents : connection.pollEvents & ~Int16(POLLIN)
        }
        var set = [
            pollfd(fd: signals.descriptor, events: Int16(POLLIN), revents: 0),
            pollfd(fd: events == 0 ? -1 : connection?.descriptor ?? -1, events: events, revents: 0),
            pollfd(fd: isOpen && exit == nil ? input?.pollDescriptor ?? -1 : -1, events: Int16(POLLIN), revents: 0),
            pollfd(fd: output, events: Int16(POLLOUT), revents: 0),
            pollfd(fd: connection == nil ? reconnector.descriptor : -1, events: Int16(POLLIN), revents: 0),
        ]
        poll(&set, until: connection == nil ? reconnector.deadline : nil)
        if set[0].revents != 0 { try takeSignals() }
        if set[2].revents != 0 { takeInput() }
        if set[1].revents & ~Int16(POLLOUT) != 0, let connection, output < 0 {
            try guarded { try connection.receive() }
        }
        if set[4].revents != 0 { reconnector.look() }
    }

    /// Does it, and takes a broken connection for what it is.
    private func guarded(_ body: () throws -> Void) throws {
        do { try body() } catch let error as ClientError { try outage(error) }
    }

    /// The same for what says whether it did something; a broken connection is something.
    private func guarded(_ body: () throws -> Bool) throws -> Bool {
        var result = true
        try guarded { () throws -> Void in result = try body() }
        return result
    }

    private func takeInput() {
        switch input?.read() {
        case .detach: end = .detached
        case .hungUp: end = .signalled(SIGHUP)
        case .some(.some), .none: break
        }
    }

    private func takeSignals() throws {
        for event in signals.read() {
            switch event.signal {
            case SIGWINCH where event.isFromKernel || plan.terminal:
                // To a container without a terminal its size is nothing; a web server takes the signal for "stop gracefully".
                if isOpen && plan.terminal { noteSize() }
            case SIGTSTP: terminal?.suspend()
            case SIGCONT:
                if isOpen {
                    try terminal?.enter()
                    noteSize()
                }
            case _ where signals.isThirdInterrupt && terminal == nil: end = .letGo
            case let signal where !plan.proxiesSignals || !SignalSource.forwarded.contains(signal): end = .signalled(signal)
            case let signal: if exit == nil { toSend.insert(signal) }
            }
        }
    }

    /// Looks at the size of the terminal here, and has the process's follow.
    private func noteSize(redraws: Bool = false) {
        guard let size = TerminalSize.current(), size != knownSize || redraws else { return }
        knownSize = size
        sizes = redraws ? [TerminalSize(width: size.width, height: size.height + 1), size] : [size]
    }

    private func outage(_ error: ClientError) throws {
        guard error.isOutage else { throw error }
        for what in owed.values {
            switch what {
            case .kill(let signal): if exit == nil { toSend.insert(signal) }
            case .resize(let size): if sizes.isEmpty { sizes = [size] }
            case .open: if case .start = plan.opening { isOpeningDoubtful = true }
            case .input: input?.lost()
            case .look, .wait, .logs, .delete: break
            }
        }
        let wasAnswered = connection?.wasAnswered == true
        connection = nil
        owed = [:]
        if reconnector.broke(wasAnswered: wasAnswered) { tell(Console.outageText) }
    }

    /// One line on standard error, which in a raw terminal needs to be told where lines begin.
    func tell(_ text: String) { Console.error(text, isRaw: terminal?.isRaw == true) }
}
