import CLinux
import Glibc
import Linux

/// The talk between the program and the container's first process while that is being made: a SOCK_SEQPACKET pair, one message a step, each
/// at most ``limit`` bytes. The end of the other side is an end of file, so neither outlives the other half-way.
struct Channel: ~Copyable {
    enum Message: Equatable {
        /// The first process has its namespaces and waits for the hooks of the runtime's side.
        case namespacesMade
        /// All is done that `create` answers for.
        case ready
        /// Go on.
        case proceed
        case failed(String)
        case warning(String)
    }

    static let limit = 4096
    let socket: Descriptor

    init(owning socket: consuming Descriptor) { self.socket = socket }

    struct Ends: ~Copyable {
        let ours: Descriptor
        let theirs: Descriptor
    }

    /// Both ends, close-on-exec.
    static func pair() throws(SysError) -> Ends {
        var ends: (Int32, Int32) = (-1, -1)
        let result = withUnsafeMutableBytes(of: &ends) { buffer in
            ctr_socketpair(Int32(SOCK_SEQPACKET.rawValue) | Int32(SOCK_CLOEXEC.rawValue), buffer.bindMemory(to: Int32.self).baseAddress)
        }
        try check("make", "socket pair", result)
        return Ends(ours: Descriptor(owning: ends.0), theirs: Descriptor(owning: ends.1))
    }

    func send(_ message: Message) throws(SysError) {
        var bytes: [UInt8]
        switch message {
        case .namespacesMade: bytes = [UInt8(ascii: "N")]
        case .ready: bytes = [UInt8(ascii: "R")]
        case .proceed: bytes = [UInt8(ascii: "G")]
        case .failed(let text): bytes = [UInt8(ascii: "E")] + text.utf8.prefix(Self.limit - 1)
        case .warning(let text): bytes = [UInt8(ascii: "W")] + text.utf8.prefix(Self.limit - 1)
        }
        try check("tell", "the other process", bytes.withUnsafeMutableBytes { ctr_send_fd(socket.raw, $0.baseAddress, $0.count, -1, 0) })
    }

    /// The next message; nil when the other side is gone. Anything that is no message fails with EBADMSG.
    func receive() throws(SysError) -> Message? {
        var bytes = [UInt8](repeating: 0, count: Self.limit)
        var got = 0
        repeat { got = bytes.withUnsafeMutableBytes { recv(socket.raw, $0.baseAddress, $0.count, 0) } } while got < 0 && errno == EINTR
        if got < 0 { throw SysError("hear from", "the other process", code: errno) }
        if got == 0 { return nil }
        let text = String(decoding: bytes[1..<got], as: UTF8.self)
        switch bytes[0] {
        case UInt8(ascii: "N") where got == 1: return .namespacesMade
        case UInt8(ascii: "R") where got == 1: return .ready
        case UInt8(ascii: "G") where got == 1: return .proceed
        case UInt8(ascii: "E"): return .failed(text)
        case UInt8(ascii: "W"): return .warning(text)
        default: throw SysError("hear from", "the other process", code: EBADMSG)
        }
    }
}
