import Glibc
import Linux

/// One line of the keeper's append-only file: a process that it reaped in the shim's absence.
public struct KeeperExit: Equatable, Sendable {
    public static let length = 16
    public static let fileName = "exits"

    public let pid: Int32
    /// As wait(2) encodes it.
    public let waitStatus: Int32
    /// CLOCK_BOOTTIME, nanoseconds, when the keeper reaped it.
    public let boot: Int64

    public init(pid: Int32, waitStatus: Int32, boot: Int64) {
        self.pid = pid
        self.waitStatus = waitStatus
        self.boot = boot
    }

    /// `bytes` holds at least ``length`` bytes.
    init(_ bytes: UnsafeRawBufferPointer) {
        pid = Int32(littleEndian: bytes.loadUnaligned(fromByteOffset: 0, as: Int32.self))
        waitStatus = Int32(littleEndian: bytes.loadUnaligned(fromByteOffset: 4, as: Int32.self))
        boot = Int64(littleEndian: bytes.loadUnaligned(fromByteOffset: 8, as: Int64.self))
    }
}

/// Reads the keeper's file entry by entry; a torn tail is not an entry.
public enum ExitsFile {
    /// Calls `body` with each whole entry behind `offset` until it returns false; returns the offset behind the last one it saw.
    /// The descriptor stays the caller's and its file position is not touched (pread(2)).
    @discardableResult
    public static func forEach(
        in file: Int32, from offset: Int64 = 0, _ body: (KeeperExit) -> Bool
    ) throws(RecordError) -> Int64 {
        var at = offset
        while true {
            var failure: Int32 = 0
            var stop = false
            let whole = withUnsafeTemporaryAllocation(byteCount: 64 * KeeperExit.length, alignment: 8) { buffer in
                let got = pread(file, buffer.baseAddress, buffer.count, off_t(at))
                if got < 0 { failure = errno }
                let entries = max(got, 0) / KeeperExit.length
                for index in 0..<entries {
                    let begin = index * KeeperExit.length
                    at += Int64(KeeperExit.length)
                    if !body(KeeperExit(UnsafeRawBufferPointer(rebasing: buffer[begin..<(begin + KeeperExit.length)]))) {
                        stop = true
                        return index + 1
                    }
                }
                return entries
            }
            if failure == EINTR { continue }
            if failure != 0 { throw RecordError("read record", KeeperExit.fileName, .system(failure)) }
            if stop || whole == 0 { return at }
        }
    }

    /// The entry of exactly this process: the first with its pid that is not older than the process. A former owner of the pid
    /// had to be reaped before this process could begin.
    public static func find(_ process: ProcessIdentity, in file: Int32) throws(RecordError) -> KeeperExit? {
        let ticks = UInt64(max(sysconf(Int32(_SC_CLK_TCK)), 1))
        let begin = Int64(clamping: process.startTime / ticks * 1_000_000_000 + process.startTime % ticks * (1_000_000_000 / ticks))
        var found: KeeperExit?
        try forEach(in: file) { entry in
            if entry.pid == process.pid && entry.boot >= begin { found = entry }
            return found == nil
        }
        return found
    }
}
