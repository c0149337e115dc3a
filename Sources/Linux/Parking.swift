import CLinux
import Glibc

/// Descriptors parked in the queue of a SOCK_SEQPACKET pair whose ends some process holds open (unix(7), SCM_RIGHTS): they outlive their
/// sender, and whoever inherits the pair finds them again. Both ends stay the caller's.
public struct Parking: Sendable {
    private let receiving: Int32
    private let sending: Int32

    public init(receiving: Int32, sending: Int32) {
        self.receiving = receiving
        self.sending = sending
    }

    /// Puts a reference to `file` into the queue under `name`; EAGAIN when the queue is full.
    public func park(_ name: StaticString, _ file: Int32) throws(SysError) {
        try check(
            "park descriptor", "\(name)",
            ctr_send_fd(sending, name.utf8Start, name.utf8CodeUnitCount, file, Int32(MSG_DONTWAIT)))
    }

    /// A new descriptor for the last that was parked under `name`, nil when there is none. The queue keeps its own (SO_PEEK_OFF,
    /// socket(7)).
    public func peek(_ name: StaticString) throws(SysError) -> Descriptor? {
        try check("look at parked descriptors", "", ctr_set_peek_offset(receiving, 0))
        var found: Int32 = -1
        try receive(flags: Int32(MSG_PEEK)) { text, file in
            if text.elementsEqual(UnsafeBufferPointer(start: name.utf8Start, count: name.utf8CodeUnitCount)) {
                if found >= 0 { close(found) }
                found = file
            } else if file >= 0 {
                close(file)
            }
        }
        return found < 0 ? nil : Descriptor(owning: found)
    }

    /// Takes everything out of the queue; the descriptors are the caller's.
    public func drain() throws(SysError) -> [Int32] {
        var files: [Int32] = []
        try check("look at parked descriptors", "", ctr_set_peek_offset(receiving, 0))
        try receive(flags: 0) { _, file in if file >= 0 { files.append(file) } }
        return files
    }

    private func receive(flags: Int32, _ body: (UnsafeRawBufferPointer, Int32) -> Void) throws(SysError) {
        while true {
            var result = 0
            withUnsafeTemporaryAllocation(byteCount: 64, alignment: 8) { buffer in
                guard let base = buffer.baseAddress else { return }
                var file: Int32 = -1
                result = ctr_recv_fd(receiving, base, buffer.count, &file, flags | Int32(MSG_DONTWAIT))
                if result > 0 { body(UnsafeRawBufferPointer(rebasing: buffer[..<result]), file) }
            }
            if result == -Int(EAGAIN) || result == 0 { return }
            try check("look at parked descriptors", "", result)
        }
    }

}
