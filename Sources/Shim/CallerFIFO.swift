import CLinux
import Glibc
import Linux
import Logs

/// A FIFO of the caller's that one stream of a process flows into. It is held for reading and writing, so that a reader who goes away neither
/// ends the process nor loses what waits in the FIFO: it fills up, and then the process waits for the next reader, as with every shim of
/// containerd.
///
/// When the stream ends the writing side is closed, which is the reader's end of file. What nobody has read by then is held by a reading side
/// until the process is deleted.
final class CallerFIFO: Sink {
    private let loop: Loop
    private let number: UInt32
    /// For reading and writing while the stream flows, for reading alone when it has ended and something is unread, else nil.
    private(set) var file: SharedDescriptor?
    private(set) var hasEnded = false
    private var watched = false
    /// The FIFO takes more; and it is held in another way than before.
    var onRoom: () -> Void = {}
    var onChange: () -> Void = {}

    /// nil when `path` names something that is no FIFO.
    init?(_ path: String, number: UInt32, loop: Loop) throws(SysError) {
        self.number = number
        self.loop = loop
        let opened = try Linux.open(path, O_RDWR | O_NONBLOCK | O_NOCTTY)
        var status = stat()
        try checkErrno("look at", path, fstat(opened.raw, &status))
        if status.st_mode & S_IFMT != S_IFIFO { return nil }
        file = SharedDescriptor(opened)
    }

    /// One that a predecessor has parked; the caller may have removed its name.
    init(parked: SharedDescriptor, number: UInt32, loop: Loop) throws(SysError) {
        self.number = number
        self.loop = loop
        file = parked
        hasEnded = try check("look at FIFO", "", ctr_fcntl_int(parked.raw, F_GETFL, 0)) & O_ACCMODE == O_RDONLY
    }

    deinit { unwatch() }

    func hasEnded(_ stream: LogStream) -> Bool { hasEnded }

    func drain(_ stream: LogStream, from pipe: Int32) -> Drained {
        guard let file, !hasEnded else { return .ended }
        switch ctr_splice(pipe, file.raw, LogWriter.step, UInt32(spliceFlags)) {
        case let moved where moved > 0: return .moved(moved)
        case -Int(EAGAIN), -Int(EINTR):
            // Either of the two stands in the way.
            if Self.unread(in: pipe) == 0 { return .empty }
            if !watched, (try? loop.add(file.raw, .writable, .sink, number: number)) != nil { watched = true }
            return .full
        default: return .ended
        }
    }

    func ready() {
        unwatch()
        onRoom()
    }

    private func unwatch() {
        if watched, let file { loop.remove(file.raw) }
        watched = false
    }

    func end(_ stream: LogStream) {
        guard let held = file, !hasEnded else { return }
        unwatch()
        hasEnded = true
        file = nil
        if Self.unread(in: held.raw) > 0 {
            // Opened before the other is closed: at no moment nobody holds the bytes.
            let reading = ctr_openat(AT_FDCWD, "/proc/self/fd/\(held.raw)", O_RDONLY | O_NONBLOCK | O_CLOEXEC, 0)
            if reading >= 0 { file = SharedDescriptor(Descriptor(owning: reading)) }
        }
        onChange()
    }

    /// A reader that comes after the end would wait for a writer for ever: it gets one for a moment, reads what is left and sees the end.
    func greetReader() {
        guard hasEnded, let file else { return }
        _ = try? Linux.open("/proc/self/fd/\(file.raw)", O_WRONLY | O_NONBLOCK)
    }

    /// The process is deleted: what nobody wanted goes.
    func forget() {
        unwatch()
        hasEnded = true
        file = nil
    }

    static func unread(in pipe: Int32) -> Int { Int(max(ctr_unread(pipe), 0)) }
}
