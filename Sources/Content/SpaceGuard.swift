import CLinux
import Linux

/// Stops large writes before a file system is full, so that an archive that expands without end does not take the last block from logs and
/// records.
public struct SpaceGuard {
    private let descriptor: Int32
    private var written: Int64 = 0
    private static let interval: Int64 = 64 << 20

    /// `descriptor` is anything on the file system in question; it stays the caller's.
    public init(_ descriptor: Int32) { self.descriptor = descriptor }

    /// Called for `count` bytes that are about to be written; looks at the file system once in 64 MiB.
    public mutating func willWrite(_ count: Int) throws {
        written += Int64(count)
        guard written >= Self.interval else { return }
        written = 0
        var available: UInt64 = 0
        var total: UInt64 = 0
        guard ctr_free_space(descriptor, &available, &total) == 0 else { return }
        let reserve = min(total / 50, 512 << 20) + UInt64(Self.interval)
        if available < reserve {
            throw ContentError(.system(28), "write", "", "the disk has only \(available >> 20) MiB left")
        }
    }
}
