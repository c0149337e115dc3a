import CLinux
import Glibc
import Linux

/// The shim's one epoll set, and who is meant by an event.
final class Loop {
    enum Source: UInt64 {
        case listener = 1
        case signals, connection
        /// Of one process, by its number: its pidfd, its output pipes, whatever its sinks watch, where its input goes and comes from, its
        /// terminal, and the socket at which the runtime leaves that.
        case process, stdout, stderr, sink, stdin, inputSource, terminal, console
        /// The kernel's word of a process's end (``Witness``), by its number.
        case exitEvents
        /// The container's memory (``MemoryWatch``).
        case memory
        /// What an event publisher watches.
        case publisher
    }

    private let epoll: Epoll

    init() throws(SysError) { epoll = try Epoll() }

    private func token(_ source: Source, _ number: UInt32) -> UInt64 { source.rawValue << 32 | UInt64(number) }

    func add(_ file: Int32, _ interest: Epoll.Interest = .readable, _ source: Source, number: UInt32 = 0) throws(SysError) {
        try epoll.add(file, interest, token: token(source, number))
    }

    func modify(_ file: Int32, _ interest: Epoll.Interest, _ source: Source, number: UInt32 = 0) {
        try? epoll.modify(file, interest, token: token(source, number))
    }

    func remove(_ file: Int32) { epoll.remove(file) }

    /// Waits until something happens or `deadline` (CLOCK_MONOTONIC, nanoseconds) has come.
    func wait(until deadline: Int64, _ body: (Source, UInt32, Epoll.Interest) -> Void) throws(SysError) {
        var milliseconds: Int32 = -1
        if deadline != .max { milliseconds = Int32(clamping: max(deadline - now(CLOCK_MONOTONIC) + 999_999, 0) / 1_000_000) }
        try epoll.wait(milliseconds: milliseconds) { token, events in
            if let source = Source(rawValue: token >> 32) { body(source, UInt32(truncatingIfNeeded: token), events) }
        }
    }
}

/// A descriptor that several values of the shim look at; closed with the last, or earlier.
final class SharedDescriptor {
    private(set) var raw: Int32
    init(_ descriptor: consuming Descriptor) { raw = descriptor.release() }

    /// Gives the number away; the caller closes it.
    func release() -> Int32 {
        let number = raw
        raw = -1
        return number
    }

    func closeNow() {
        if raw >= 0 { close(raw) }
        raw = -1
    }

    deinit { closeNow() }
}
