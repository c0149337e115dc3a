import CLinux
import Glibc
import Linux
import Logs

/// A file that output is appended to. Bytes go from the pipe to the file's end by splice(2), so that a killed shim has moved them or has not.
/// What the disk does not take is lost, and the process is not held up by it.
final class FileSink: Sink {
    private let file: SharedDescriptor
    private let isRegular: Bool
    private var nothing: SharedDescriptor?

    /// Made with its directory where it is missing.
    init(_ path: String) throws(SysError) {
        if let slash = path.utf8.lastIndex(of: UInt8(ascii: "/")), slash > path.utf8.startIndex {
            try makeDirectories(String(path[..<slash]), mode: 0o755)
        }
        let opened = try Linux.open(path, O_WRONLY | O_CREAT | O_NONBLOCK | O_NOCTTY, mode: 0o644)
        var status = stat()
        try checkErrno("look at", path, fstat(opened.raw, &status))
        isRegular = status.st_mode & S_IFMT == S_IFREG
        file = SharedDescriptor(opened)
    }

    func drain(_ stream: LogStream, from pipe: Int32) -> Drained {
        let moved = move(from: pipe)
        switch moved {
        case 1...: return .moved(moved)
        case 0: return .ended
        case -Int(EAGAIN), -Int(EINTR):
            // Something that is no regular file, and is full: its reader is not waited for.
            return CallerFIFO.unread(in: pipe) == 0 ? .empty : discard(from: pipe)
        default: return discard(from: pipe)
        }
    }

    private func move(from pipe: Int32) -> Int {
        guard isRegular else { return ctr_splice(pipe, file.raw, LogWriter.step, UInt32(spliceFlags)) }
        // Both streams may go to one file, and somebody may have cut it: the end is where it is now. O_APPEND and splice exclude each other.
        var status = stat()
        if fstat(file.raw, &status) < 0 { return Int(-errno) }
        var offset = Int64(status.st_size)
        return ctr_splice_to_offset(pipe, file.raw, &offset, LogWriter.step, UInt32(spliceFlags))
    }

    private func discard(from pipe: Int32) -> Drained {
        if nothing == nil, let opened = try? Linux.open("/dev/null", O_WRONLY) { nothing = SharedDescriptor(opened) }
        guard let nothing else { return .ended }
        let moved = ctr_splice(pipe, nothing.raw, LogWriter.step, UInt32(spliceFlags))
        return moved > 0 ? .moved(moved) : moved == -Int(EAGAIN) || moved == -Int(EINTR) ? .empty : .ended
    }

    func end(_ stream: LogStream) {}
}
