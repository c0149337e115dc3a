import CLinux
import Glibc

/// An open file descriptor with exactly one owner; closed when the owner lets go of it.
public struct Descriptor: ~Copyable, Sendable {
    /// The number, borrowed: valid only while this value lives.
    public let raw: Int32

    /// Takes over `raw`, which must be open and owned by nobody else.
    @inlinable
    public init(owning raw: Int32) { self.raw = raw }

    @inlinable
    deinit { _ = Glibc.close(raw) }

    /// Gives the number away; the caller closes it.
    public consuming func release() -> Int32 {
        let number = raw
        discard self
        return number
    }

    /// A second descriptor of the same open file description, close-on-exec (F_DUPFD_CLOEXEC, fcntl(2)).
    public borrowing func duplicate() throws(SysError) -> Descriptor {
        Descriptor(owning: try check("duplicate descriptor", "", ctr_fcntl_int(raw, F_DUPFD_CLOEXEC, 3)))
    }
}

extension Optional where Wrapped == Descriptor {
    /// Gives the number away, or -1 when there is none; the caller closes it.
    public consuming func release() -> Int32 {
        switch consume self {
        case .some(let descriptor): descriptor.release()
        case .none: -1
        }
    }
}

/// Opens `path` below `directory` (AT_FDCWD by default), always close-on-exec. Paths are the engine's own:
/// what lies in a container's root file system is opened through `RootFS`.
public func open(
    _ path: String, _ flags: Int32, mode: UInt32 = 0, at directory: Int32 = AT_FDCWD
) throws(SysError) -> Descriptor {
    Descriptor(owning: try check("open", path, ctr_openat(directory, path, flags | O_CLOEXEC, mode)))
}

/// Reads a whole regular file of at most `limit` bytes; EFBIG beyond it.
public func readFile(_ path: String, limit: Int, at directory: Int32 = AT_FDCWD) throws(SysError) -> [UInt8] {
    let file = try open(path, O_RDONLY | O_NOCTTY, at: directory)
    return try readAll(file.raw, name: path, limit: limit)
}

/// Reads to the end of `descriptor`, at most `limit` bytes; EFBIG beyond it. The descriptor stays the caller's.
public func readAll(_ descriptor: Int32, name: String, limit: Int) throws(SysError) -> [UInt8] {
    var bytes: [UInt8] = []
    var chunk = 4096
    while true {
        let wanted = min(chunk, limit + 1 - bytes.count)
        let old = bytes.count
        bytes.append(contentsOf: repeatElement(0, count: wanted))
        let got = bytes.withUnsafeMutableBytes { Glibc.read(descriptor, $0.baseAddress?.advanced(by: old), wanted) }
        let failure = errno
        bytes.removeLast(wanted - max(got, 0))
        if got < 0 {
            if failure == EINTR { continue }
            throw SysError("read", name, code: failure)
        }
        if got == 0 { return bytes }
        if bytes.count > limit { throw SysError("read", name, code: EFBIG) }
        chunk = min(chunk * 2, 1 << 20)
    }
}

/// Writes all of `bytes`, going on after short writes and EINTR. The descriptor stays the caller's.
public func writeAll(_ descriptor: Int32, _ bytes: UnsafeRawBufferPointer, name: String) throws(SysError) {
    var rest = bytes
    while !rest.isEmpty {
        let written = Glibc.write(descriptor, rest.baseAddress, rest.count)
        if written < 0 {
            if errno == EINTR { continue }
            throw SysError("write", name, code: errno)
        }
        rest = UnsafeRawBufferPointer(rebasing: rest[written...])
    }
}

public func writeAll(_ descriptor: Int32, _ bytes: [UInt8], name: String) throws(SysError) {
    var failure: SysError?
    bytes.withUnsafeBytes { buffer in
        do throws(SysError) { try writeAll(descriptor, buffer, name: name) } catch { failure = error }
    }
    if let failure { throw failure }
}

/// mkdirat(2) with an exact mode, whatever the umask; with `existing` an existing directory is no error.
public func makeDirectory(
    _ path: String, mode: mode_t, at directory: Int32 = AT_FDCWD, existing: Bool = true
) throws(SysError) {
    if mkdirat(directory, path, mode) < 0 {
        if errno == EEXIST && existing { return }
        throw SysError("create directory", path, code: errno)
    }
    try checkErrno("set mode of", path, fchmodat(directory, path, mode, 0))
}

/// Nanoseconds of CLOCK_REALTIME, CLOCK_BOOTTIME or another clock of clock_gettime(2).
public func now(_ clock: Int32) -> Int64 { ctr_clock_ns(clock) }
