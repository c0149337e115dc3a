import CLinux
import Glibc

/// An epoll set (epoll(7)), level-triggered unless asked otherwise. It owns itself, never the descriptors that are in it: a descriptor's owner takes it out
/// with ``remove(_:)`` before closing it.
public struct Epoll: ~Copyable {
    public struct Interest: OptionSet, Sendable {
        public let rawValue: UInt32
        public init(rawValue: UInt32) { self.rawValue = rawValue }
        public static let readable = Interest(rawValue: 0x001)
        public static let writable = Interest(rawValue: 0x004)
        public static let error = Interest(rawValue: 0x008)
        public static let hangUp = Interest(rawValue: 0x010)
        /// Reports only what has come since the last report (EPOLLET).
        public static let edge = Interest(rawValue: 1 << 31)
    }

    private let descriptor: Descriptor

    public init() throws(SysError) {
        descriptor = Descriptor(owning: try check("create epoll set", "", ctr_epoll_create()))
    }

    /// Events of `file` are reported with `token`.
    public func add(_ file: Int32, _ interest: Interest, token: UInt64) throws(SysError) {
        try check("watch descriptor", "\(file)", ctr_epoll_ctl(descriptor.raw, 1, file, interest.rawValue, token))
    }

    public func modify(_ file: Int32, _ interest: Interest, token: UInt64) throws(SysError) {
        try check("watch descriptor", "\(file)", ctr_epoll_ctl(descriptor.raw, 3, file, interest.rawValue, token))
    }

    /// No error when `file` is not in the set.
    public func remove(_ file: Int32) { _ = ctr_epoll_ctl(descriptor.raw, 2, file, 0, 0) }

    /// Waits until something happens or `milliseconds` have passed (-1: without limit) and calls `body` with up to 16 events.
    public func wait(milliseconds: Int32, _ body: (_ token: UInt64, _ events: Interest) -> Void) throws(SysError) {
        var failure: Int32 = 0
        withUnsafeTemporaryAllocation(of: ctr_event.self, capacity: 16) { events in
            guard let base = events.baseAddress else { return }
            let got = ctr_epoll_wait(descriptor.raw, base, Int32(events.count), milliseconds)
            if got < 0 { failure = -got }
            for index in 0..<Int(max(got, 0)) { body(events[index].token, Interest(rawValue: events[index].events)) }
        }
        if failure != 0 { throw SysError("wait for events", "", code: failure) }
    }
}
