import CLinux
import Glibc
import Linux
import TTRPC

/// Standard input of one process that `Guard.WriteInput` writes: a memfd whose size is what was received and whose position is what was
/// delivered. The kernel moves the position as it moves the bytes, so a successor of a killed shim goes on at the byte. Nothing is held here
/// for longer than it takes to write it there.
final class Input {
    /// Bytes that are held and not delivered at most; further calls wait.
    static let limit: Int64 = 256 << 10
    /// Calls that wait for room at most, and their bytes.
    static let waitLimit = 16

    struct Write: Equatable {
        var data: [UInt8]
        /// Of the first byte in the whole input; nil: behind what is held.
        var offset: UInt64?
        var close: Bool
    }

    private let loop: Loop
    private let number: UInt32
    private let answer: (Call, Result<[UInt8], Status>) -> Void
    /// The spool, and who gets its bytes once the process runs: the pipe's write end, or the terminal's master.
    private(set) var spool: SharedDescriptor?
    private(set) var pipe: SharedDescriptor?
    private var terminal: SharedDescriptor?
    private var isTerminal = false
    /// `.close` was asked for; what is held is still delivered.
    private var closed = false
    /// The process takes nothing more.
    private var over = false
    /// It was opened, by this shim or by a predecessor.
    private var asked = false
    private var size: Int64 = 0
    private var delivered: Int64 = 0
    private var punched: Int64 = 0
    private var watched: Int32 = -1
    private(set) var waits: [(call: Call, write: Write)] = []
    /// The write end is closed: it is not to be parked any more.
    var onClosed: () -> Void = {}

    init(number: UInt32, loop: Loop, answer: @escaping (Call, Result<[UInt8], Status>) -> Void) {
        self.number = number
        self.loop = loop
        self.answer = answer
    }

    deinit { unwatch() }

    /// Whether there is a spool, or was one until its end.
    var isThere: Bool { asked }
    /// Whether it was asked for and is not closed.
    var isOpen: Bool { spool != nil && !closed && !over }

    /// Bytes of calls that wait for room.
    var waitingBytes: Int { waits.reduce(0) { $0 + $1.write.data.count } }

    // MARK: its ends

    /// An empty spool.
    func open(terminal: Bool) throws(SysError) {
        // MFD_CLOEXEC | MFD_ALLOW_SEALING
        spool = SharedDescriptor(Descriptor(owning: try check("make spool", "stdin", ctr_memfd_create("stdin", 1 | 2))))
        isTerminal = terminal
        asked = true
    }

    /// What a predecessor parked.
    func adopt(spool: SharedDescriptor, terminal: Bool) throws(SysError) {
        self.spool = spool
        isTerminal = terminal
        asked = true
        delivered = Int64(try checkErrno("look at spool", "stdin", lseek(spool.raw, 0, SEEK_CUR)))
        var status = stat()
        try checkErrno("look at spool", "stdin", fstat(spool.raw, &status))
        size = Int64(status.st_size)
        closed = try check("look at spool", "stdin", ctr_seals_size(spool.raw)) == 1
        // Where a predecessor has punched is not known; a hole is punched again at no cost.
    }

    /// The write end of the process's pipe.
    func connect(pipe: SharedDescriptor) throws(SysError) {
        let flags = try check("prepare pipe", "stdin", ctr_fcntl_int(pipe.raw, F_GETFL, 0))
        try check("prepare pipe", "stdin", ctr_fcntl_int(pipe.raw, F_SETFL, flags | O_NONBLOCK))
        self.pipe = pipe
        deliver()
    }

    /// A descriptor of its own: the loop watches the terminal's output by another.
    func connect(terminal: SharedDescriptor) throws(SysError) {
        self.terminal = SharedDescriptor(
            Descriptor(owning: try check("duplicate descriptor", "terminal", ctr_fcntl_int(terminal.raw, F_DUPFD_CLOEXEC, 3))))
        deliver()
    }

    /// As it was before anybody asked for it: the process never ran.
    func reset() {
        unwatch()
        spool = nil
        pipe = nil
        terminal = nil
        (asked, closed, over) = (false, false, false)
        (size, delivered, punched) = (0, 0, 0)
        failWaits()
        onClosed()
    }

    // MARK: calls

    /// CloseIO: behind the calls that wait. Closed once is closed.
    func close(_ call: Call) {
        if !asked || closed || over { return answer(call, .success([])) }
        waits.append((call, Write(data: [], offset: nil, close: true)))
        move()
    }

    func write(_ call: Call, _ write: Write) {
        if !asked { return answer(call, .failure(Status(.failedPrecondition, "the process has no standard input of this kind"))) }
        if waits.count >= Self.waitLimit {
            return answer(call, .failure(Status(.resourceExhausted, "too many calls wait for room in the standard input")))
        }
        waits.append((call, write))
        move()
    }

    /// Takes from the waiting calls, in their order, what there is room for.
    private func advance() {
        while let first = waits.first, let result = hold(first.write) {
            waits.removeFirst()
            answer(first.call, result)
        }
        if waits.isEmpty { waits = [] }
    }

    /// nil when there is no room for all of it; the first of the waiting calls then speaks of the rest.
    private func hold(_ write: Write) -> Result<[UInt8], Status>? {
        let offset = write.offset ?? UInt64(size)
        guard offset <= UInt64(size) else {
            return .failure(Status(.outOfRange, "offset \(offset) is beyond the \(size) bytes that are held"))
        }
        let known = Int(min(UInt64(size) - offset, UInt64(write.data.count)))
        if closed && known == write.data.count { return .success(Messages.inputWritten(offset: UInt64(size), closed: true)) }
        guard let spool, !over else { return .failure(Status(.failedPrecondition, "the process has ended, or closed its standard input")) }
        if closed { return .failure(Status(.failedPrecondition, "the standard input is closed")) }
        let room = Int(max(Self.limit - (size - delivered), 0))
        let count = min(room, write.data.count - known)
        if count > 0 {
            let written = write.data.withUnsafeBytes { bytes in
                bytes.baseAddress.map { pwrite(spool.raw, $0 + known, count, off_t(size)) } ?? 0
            }
            if written < 0 { return .failure(Status(.unknown, SysError("write spool", "stdin", code: errno).description)) }
            size += Int64(written)
        }
        if known + count < write.data.count {
            waits[0].write = Write(data: Array(write.data[(known + count)...]), offset: UInt64(size), close: write.close)
            return nil
        }
        if write.close { close(spool) }
        return .success(Messages.inputWritten(offset: UInt64(size), closed: closed))
    }

    /// No more bytes come. A terminal's input ends by its character, twice where a line is half typed: the first ends the line.
    private func close(_ spool: SharedDescriptor) {
        if isTerminal {
            let found = terminal.map { ctr_pty_end_of_file($0.raw) } ?? 4
            var end = [UInt8(truncatingIfNeeded: found > 0 ? found : 4)]
            var last: UInt8 = 0x0a
            if size > 0 { _ = pread(spool.raw, &last, 1, off_t(size - 1)) }
            if last != 0x0a && last != end[0] { end.append(end[0]) }
            let written = pwrite(spool.raw, end, end.count, off_t(size))
            size += Int64(max(written, 0))
        }
        _ = ctr_seal_size(spool.raw)
        closed = true
    }

    // MARK: delivery

    /// The pipe or the terminal takes more, or its other side is gone.
    func writable() { move() }

    /// Until nothing more is held: then either all is delivered, or the loop tells when the other side takes more.
    private func move() {
        var before: Int64
        repeat {
            deliver()
            before = size
            advance()
        } while size > before
        deliver()
    }

    private func deliver() {
        guard let spool, !over else { return }
        let target = terminal ?? pipe
        guard let target else { return }
        while delivered < size {
            let wanted = Int(min(size - delivered, 64 << 10))
            let moved =
                terminal != nil
                ? ctr_sendfile(target.raw, spool.raw, wanted) : ctr_splice(spool.raw, target.raw, wanted, UInt32(spliceFlags))
            if moved > 0 {
                delivered += Int64(moved)
            } else if moved == 0 || moved == -Int(EAGAIN) || moved == -Int(EINTR) {
                punch(spool, behind: target)
                if watched < 0, (try? loop.add(target.raw, .writable, .stdin, number: number)) != nil { watched = target.raw }
                return
            } else {
                // Nobody reads it any more.
                return stop()
            }
        }
        unwatch()
        punch(spool, behind: target)
        if closed && pipe != nil { stop() }
    }

    private func unwatch() {
        if watched >= 0 { loop.remove(watched) }
        watched = -1
    }

    /// Gives back what was delivered. Pages that the pipe may still refer to stay: a hole can blank them.
    private func punch(_ spool: SharedDescriptor, behind target: SharedDescriptor) {
        let lag = max(Int64(ctr_pipe_size(target.raw)), 64 << 10)
        let end = (delivered - lag) & ~4095
        if end - punched < 64 << 10 { return }
        if ctr_punch_hole(spool.raw, punched, end - punched) == 0 { punched = end }
    }

    /// All was delivered after a close, or the other side is gone: the write end is closed, and what is left is nobody's.
    private func stop() {
        unwatch()
        over = true
        pipe = nil
        terminal = nil
        spool = nil
        failWaits()
        onClosed()
    }

    func processEnded() {
        closed = false
        if spool == nil && over { return }
        stop()
    }

    private func failWaits() {
        let callers = waits
        waits = []
        for wait in callers {
            answer(wait.call, .failure(Status(.failedPrecondition, "the process has ended, or closed its standard input")))
        }
    }

    // MARK: time and connections

    var deadline: Int64 { waits.reduce(.max) { min($0, $1.call.deadline) } }

    func takeLate(_ time: Int64, into late: inout [Call]) {
        late += waits.filter { $0.call.deadline <= time }.map { $0.call }
        waits.removeAll { $0.call.deadline <= time }
    }

    func forget(connection: UInt32) { waits.removeAll { $0.call.connection == connection } }
}
