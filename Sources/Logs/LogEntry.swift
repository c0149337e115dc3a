import CLinux
import Glibc
import Linux

/// One of a container's two output streams.
public enum LogStream: UInt8, CaseIterable, Sendable {
    case stdout = 1
    case stderr = 2

    /// The name of its segment `number` in the log directory.
    public func segmentName(_ number: UInt32) -> String {
        let digits = String(number)
        let name = self == .stdout ? "stdout." : "stderr."
        return name + String(repeating: "0", count: max(0, 6 - digits.utf8.count)) + digits
    }
}

/// One entry of the log index: which bytes of which segment arrived when.
public struct LogEntry: Equatable, Sendable {
    public struct Flags: OptionSet, Equatable, Sendable {
        public let rawValue: UInt8
        public init(rawValue: UInt8) { self.rawValue = rawValue }
        /// Found after a crash: the time is when it was found.
        public static let recovered = Flags(rawValue: 1)
        /// `length` counts bytes that were dropped because the disk took none; they are in no segment.
        public static let gap = Flags(rawValue: 2)
        /// The stream is closed and drained; length 0.
        public static let end = Flags(rawValue: 4)
        /// The segments of the stream up to `segment` are removed, or about to be; `offset` counts the bytes of all that ever were, and
        /// `length` the entries by which this index file is shorter than all that were written.
        public static let removed = Flags(rawValue: 8)
    }

    /// Bytes of an entry in the file.
    public static let length = 40
    /// Name of the index in the log directory.
    public static let indexName = "index"
    /// Name of an index that is to replace it.
    static let newIndexName = "index.new"
    private static let magic: UInt32 = 0x4C52_5443

    public var stream: LogStream
    public var flags: Flags
    public var segment: UInt32
    public var length: UInt32
    /// In the segment.
    public var offset: UInt64
    /// CLOCK_REALTIME, nanoseconds.
    public var time: Int64
    /// CLOCK_BOOTTIME in units of 1/65536 s, low 32 bits.
    public var boot: UInt32

    public init(stream: LogStream, flags: Flags, segment: UInt32, length: UInt32, offset: UInt64, time: Int64, boot: UInt32) {
        self.stream = stream
        self.flags = flags
        self.segment = segment
        self.length = length
        self.offset = offset
        self.time = time
        self.boot = boot
    }

    /// Of now.
    init(stream: LogStream, flags: Flags, segment: UInt32, length: UInt32, offset: UInt64) {
        let boot = now(CLOCK_BOOTTIME)
        let units = boot / 1_000_000_000 * 65536 + boot % 1_000_000_000 * 65536 / 1_000_000_000
        self.init(
            stream: stream, flags: flags, segment: segment, length: length, offset: offset, time: now(CLOCK_REALTIME),
            boot: UInt32(truncatingIfNeeded: units))
    }

    /// Writes the 40 bytes of the entry to `buffer`, which has room for them.
    public func encode(to buffer: UnsafeMutableRawBufferPointer) {
        buffer.storeBytes(of: Self.magic.littleEndian, toByteOffset: 0, as: UInt32.self)
        buffer.storeBytes(of: stream.rawValue, toByteOffset: 4, as: UInt8.self)
        buffer.storeBytes(of: flags.rawValue, toByteOffset: 5, as: UInt8.self)
        buffer.storeBytes(of: 0, toByteOffset: 6, as: UInt16.self)
        buffer.storeBytes(of: segment.littleEndian, toByteOffset: 8, as: UInt32.self)
        buffer.storeBytes(of: length.littleEndian, toByteOffset: 12, as: UInt32.self)
        buffer.storeBytes(of: offset.littleEndian, toByteOffset: 16, as: UInt64.self)
        buffer.storeBytes(of: time.littleEndian, toByteOffset: 24, as: Int64.self)
        buffer.storeBytes(of: boot.littleEndian, toByteOffset: 32, as: UInt32.self)
        buffer.storeBytes(of: Self.checksum(UnsafeRawBufferPointer(buffer)).littleEndian, toByteOffset: 36, as: UInt32.self)
    }

    /// nil when the 40 bytes of `buffer` are no entry: cut, or still being written.
    public init?(_ buffer: UnsafeRawBufferPointer) {
        guard buffer.count >= Self.length,
            UInt32(littleEndian: buffer.loadUnaligned(fromByteOffset: 0, as: UInt32.self)) == Self.magic,
            UInt32(littleEndian: buffer.loadUnaligned(fromByteOffset: 36, as: UInt32.self)) == Self.checksum(buffer),
            let stream = LogStream(rawValue: buffer[4]), buffer[6] == 0, buffer[7] == 0
        else { return nil }
        self.init(
            stream: stream, flags: Flags(rawValue: buffer[5]),
            segment: UInt32(littleEndian: buffer.loadUnaligned(fromByteOffset: 8, as: UInt32.self)),
            length: UInt32(littleEndian: buffer.loadUnaligned(fromByteOffset: 12, as: UInt32.self)),
            offset: UInt64(littleEndian: buffer.loadUnaligned(fromByteOffset: 16, as: UInt64.self)),
            time: Int64(littleEndian: buffer.loadUnaligned(fromByteOffset: 24, as: Int64.self)),
            boot: UInt32(littleEndian: buffer.loadUnaligned(fromByteOffset: 32, as: UInt32.self)))
        let (_, overflow) = offset.addingReportingOverflow(UInt64(length))
        if overflow || segment == 0 { return nil }
    }

    /// Whether it speaks of bytes in a segment.
    public var hasBytes: Bool { flags.isDisjoint(with: [.gap, .end, .removed]) && length > 0 }

    /// Behind the entry's last byte in its segment; a gap takes no room there.
    public var endOffset: UInt64 { hasBytes ? offset + UInt64(length) : offset }

    private static func checksum(_ buffer: UnsafeRawBufferPointer) -> UInt32 {
        guard let base = buffer.baseAddress else { return 0 }
        return ctr_crc32(0, base, 36)
    }
}

/// Reads entries from `index` at `offset` on into `body`, a page at a time, until `body` returns false, the file ends, or what
/// follows is no entry. Returns the offset behind the last entry that `body` saw.
func forEachEntry(in index: Int32, from offset: UInt64, _ body: (LogEntry) -> Bool) throws(SysError) -> UInt64 {
    var at = offset
    while true {
        var failure: Int32 = 0
        var finished = false
        withUnsafeTemporaryAllocation(byteCount: 100 * LogEntry.length, alignment: 8) { buffer in
            let got = pread(index, buffer.baseAddress, buffer.count, off_t(clamping: at))
            if got < 0 { failure = errno }
            let whole = max(got, 0) / LogEntry.length
            for number in 0..<whole {
                let begin = number * LogEntry.length
                guard let entry = LogEntry(UnsafeRawBufferPointer(rebasing: buffer[begin..<(begin + LogEntry.length)])) else {
                    finished = true
                    return
                }
                at += UInt64(LogEntry.length)
                if !body(entry) {
                    finished = true
                    return
                }
            }
            if got >= 0 && whole == 0 { finished = true }
        }
        if failure != 0 && failure != EINTR { throw SysError("read log index", "", code: failure) }
        if finished { return at }
    }
}

/// An open file of the log, closed with its last user.
final class SegmentFile: Sendable {
    let raw: Int32

    /// Takes over `raw`.
    init(owning raw: Int32) { self.raw = raw }

    deinit { close(raw) }
}
