import CLinux
import Glibc

/// Descriptors parked in the queue of a SOCK_SEQPACKET pair whose ends some process holds open (unix(7), SCM_RIGHTS): they outlive their
/// sender, and whoever inherits the pair finds them again. Both ends stay the caller's.
public struct Parking: Sendable {
    /// Descriptors that one message carries at most.
    public static let limit = 16

    /// One message of the queue: what it says, and new descriptors for what it carries, which are the receiver's.
    public struct Message: Sendable {
        public let text: String
        public let files: [Int32]
    }

    private let receiving: Int32
    private let sending: Int32

    public init(receiving: Int32, sending: Int32) {
        self.receiving = receiving
        self.sending = sending
    }

    /// Makes room for some hundred messages, where the host allows it.
    public func widen() { _ = ctr_queue_size(sending, 1 << 20) }

    /// Puts references to `files` into the queue, behind what is there; EAGAIN when the queue is full.
    public func park(_ text: String, _ files: [Int32]) throws(SysError) {
        var text = text
        let sent = text.withUTF8 { bytes in
            files.withUnsafeBufferPointer { files in
                ctr_send_fds(sending, bytes.baseAddress, bytes.count, files.baseAddress, Int32(files.count), Int32(MSG_DONTWAIT))
            }
        }
        try check("park descriptors", text, sent)
    }

    /// Everything that is parked, in its order; the queue keeps its own (SO_PEEK_OFF, socket(7)).
    public func peek() throws(SysError) -> [Message] {
        try check("look at parked descriptors", "", ctr_set_peek_offset(receiving, 0))
        var messages: [Message] = []
        while let message = try receive(flags: Int32(MSG_PEEK)) { messages.append(message) }
        return messages
    }

    /// Takes the first `count` messages out of the queue and closes what they hold.
    public func drop(_ count: Int) throws(SysError) {
        try check("look at parked descriptors", "", ctr_set_peek_offset(receiving, 0))
        for _ in 0..<count {
            guard let message = try receive(flags: 0) else { return }
            for file in message.files { close(file) }
        }
    }

    /// Takes everything out of the queue; the descriptors are the caller's.
    public func drain() throws(SysError) -> [Int32] {
        var files: [Int32] = []
        try check("look at parked descriptors", "", ctr_set_peek_offset(receiving, 0))
        while let message = try receive(flags: 0) { files += message.files }
        return files
    }

    /// nil when the queue is empty.
    private func receive(flags: Int32) throws(SysError) -> Message? {
        var result = 0
        var message: Message?
        withUnsafeTemporaryAllocation(byteCount: 512, alignment: 8) { buffer in
            withUnsafeTemporaryAllocation(of: Int32.self, capacity: Self.limit) { files in
                guard let base = buffer.baseAddress, let first = files.baseAddress else { return }
                var count = Int32(files.count)
                result = ctr_recv_fds(receiving, base, buffer.count, first, &count, flags | Int32(MSG_DONTWAIT))
                if result <= 0 { return }
                let text = String(decoding: UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(buffer)[..<result]), as: UTF8.self)
                message = Message(text: text, files: Array(files[..<Int(count)]))
            }
        }
        if result == -Int(EAGAIN) || result == 0 { return nil }
        try check("look at parked descriptors", "", result)
        return message
    }
}
