import CLinux
import Glibc
import Linux
import Logs

/// A connection to a journal that speaks journald's native protocol: a datagram of fields for each entry, a sealed memory file for a large one.
/// One that is busy is waited for a moment, and not longer.
final class Journal {
    /// Milliseconds.
    private static let patience: Int32 = 20

    let path: String
    private var socket: Descriptor?

    init(path: String) { self.path = path }

    /// Sends one entry. EAGAIN: the journal takes nothing at this moment.
    func send(_ entry: [UInt8]) throws(SysError) {
        var failure = EAGAIN
        for _ in 0..<3 {
            if socket == nil { socket = try Self.connect(path) }
            guard let raw = socket?.raw else { break }
            let sent = entry.withUnsafeBytes { ctr_send_fd(raw, $0.baseAddress, $0.count, -1, Int32(MSG_DONTWAIT)) }
            if sent >= 0 { return }
            failure = Int32(-sent)
            switch failure {
            case EMSGSIZE, ENOBUFS: return try sendLarge(entry, raw)
            case EAGAIN: if !isReady(raw) { throw SysError("send to journal", path, code: failure) }
            // The journal was started anew.
            case ECONNREFUSED, ENOTCONN, ECONNRESET, EPIPE: socket = nil
            default: throw SysError("send to journal", path, code: failure)
            }
        }
        throw SysError("send to journal", path, code: failure)
    }

    /// Whether the journal takes something within a moment: its queue holds few entries, and it reads them as they come.
    private func isReady(_ raw: Int32) -> Bool {
        var item = pollfd(fd: raw, events: Int16(POLLOUT), revents: 0)
        return poll(&item, 1, Self.patience) > 0
    }

    private func sendLarge(_ entry: [UInt8], _ raw: Int32) throws(SysError) {
        let file = Descriptor(owning: try check("make memory file", "", ctr_memfd_create("journal-entry", memfdFlags)))
        try writeAll(file.raw, entry, name: "journal entry")
        try check("seal memory file", "", ctr_fcntl_int(file.raw, addSeals, allSeals))
        var nothing: UInt8 = 0
        try check("send to journal", path, ctr_send_fd(raw, &nothing, 0, file.raw, Int32(MSG_DONTWAIT)))
    }

    private static func connect(_ path: String) throws(SysError) -> Descriptor {
        let type = Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue)
        let opened = Descriptor(owning: try checkErrno("open socket", "", Glibc.socket(AF_UNIX, type, 0)))
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        guard path.utf8.count < MemoryLayout.size(ofValue: address.sun_path) else {
            throw SysError("connect to journal", path, code: ENAMETOOLONG)
        }
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
        let result = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                Glibc.connect(opened.raw, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        try checkErrno("connect to journal", path, result)
        return opened
    }

    // MARK: fields

    /// `KEY=value`, or the binary form where the value contains a newline.
    static func field(_ key: String, _ value: some Collection<UInt8>, to entry: inout [UInt8]) {
        entry += key.utf8
        if value.contains(0x0a) {
            entry.append(0x0a)
            for shift in stride(from: 0 as UInt64, to: 64, by: 8) { entry.append(UInt8(truncatingIfNeeded: UInt64(value.count) >> shift)) }
        } else {
            entry.append(0x3d)
        }
        entry += value
        entry.append(0x0a)
    }
}

/// MFD_CLOEXEC | MFD_ALLOW_SEALING of memfd_create(2); F_ADD_SEALS of fcntl(2) with seal, shrink, grow and write.
private let memfdFlags: UInt32 = 1 | 2
private let addSeals: Int32 = 1033
private let allSeals: Int32 = 1 | 2 | 4 | 8
