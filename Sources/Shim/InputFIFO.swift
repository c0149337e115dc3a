import CLinux
import Glibc
import Linux

/// Standard input of one process out of a FIFO of the caller's. As long as CloseIO did not come the FIFO is held for writing too, so that a client
/// that goes away ends nothing: the next one goes on. Bytes move by splice(2), from the FIFO into the process's pipe or its terminal.
final class InputFIFO {
    private let loop: Loop
    private let number: UInt32
    /// For reading and writing until CloseIO, then for reading.
    private(set) var file: SharedDescriptor?
    private(set) var isClosed = false
    /// Who gets the bytes: the write end of the process's pipe, or its terminal's master.
    private(set) var pipe: SharedDescriptor?
    private var terminal: SharedDescriptor?
    private var sourceWatched = false
    private var targetWatched: Int32 = -1
    /// Something of it is closed: it is not to be parked as it was.
    var onChange: () -> Void = {}

    init(_ path: String, number: UInt32, loop: Loop) throws(SysError) {
        self.number = number
        self.loop = loop
        let opened = try Linux.open(path, O_RDWR | O_NONBLOCK | O_NOCTTY)
        var status = stat()
        try checkErrno("look at", path, fstat(opened.raw, &status))
        if status.st_mode & S_IFMT != S_IFIFO { throw SysError("use standard input", "\(path): no FIFO", code: EINVAL) }
        file = SharedDescriptor(opened)
    }

    /// One that a predecessor parked.
    init(parked: SharedDescriptor, number: UInt32, loop: Loop) throws(SysError) {
        self.number = number
        self.loop = loop
        file = parked
        isClosed = try check("look at FIFO", "stdin", ctr_fcntl_int(parked.raw, F_GETFL, 0)) & O_ACCMODE == O_RDONLY
    }

    deinit {
        unwatchSource()
        unwatchTarget()
    }

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

    /// Something is in the FIFO, its last writer has gone, or the process takes more.
    func ready() { deliver() }

    private func deliver() {
        guard let file, let target = terminal ?? pipe else { return }
        unwatchTarget()
        // The loop comes back for more: a client that writes without end delays nobody.
        for _ in 0..<16 {
            switch ctr_splice(file.raw, target.raw, 64 << 10, UInt32(spliceFlags)) {
            case 1...: continue
            case 0: return endOfInput()
            case -Int(EAGAIN), -Int(EINTR):
                if CallerFIFO.unread(in: file.raw) == 0 { return watchSource() }
                unwatchSource()
                if (try? loop.add(target.raw, .writable, .stdin, number: number)) != nil { targetWatched = target.raw }
                return
            // Nobody reads it any more.
            default: return end()
            }
        }
        watchSource()
    }

    private func watchSource() {
        guard !sourceWatched, let file else { return }
        if (try? loop.add(file.raw, .readable, .inputSource, number: number)) != nil { sourceWatched = true }
    }

    private func unwatchSource() {
        if sourceWatched, let file { loop.remove(file.raw) }
        sourceWatched = false
    }

    private func unwatchTarget() {
        if targetWatched >= 0 { loop.remove(targetWatched) }
        targetWatched = -1
    }

    /// Every writer has gone, and CloseIO has come. A terminal's input ends by its character.
    private func endOfInput() {
        if let terminal {
            let found = ctr_pty_end_of_file(terminal.raw)
            var character = UInt8(truncatingIfNeeded: found > 0 ? found : 4)
            _ = write(terminal.raw, &character, 1)
        }
        end()
    }

    /// CloseIO: end of file comes behind what is in the FIFO, as soon as the client has closed it too. Closed once is closed.
    func close() {
        guard let held = file, !isClosed else { return }
        unwatchSource()
        // Opened before the other is closed: at no moment nobody holds the bytes.
        let reading = ctr_openat(AT_FDCWD, "/proc/self/fd/\(held.raw)", O_RDONLY | O_NONBLOCK | O_CLOEXEC, 0)
        isClosed = true
        if reading < 0 { return end() }
        file = SharedDescriptor(Descriptor(owning: reading))
        onChange()
        held.closeNow()
        deliver()
    }

    /// The process has ended, or takes nothing more.
    func end() {
        unwatchSource()
        unwatchTarget()
        isClosed = true
        if file == nil && pipe == nil && terminal == nil { return }
        file = nil
        pipe = nil
        terminal = nil
        onChange()
    }
}
