import CLinux
import Glibc
import Linux

/// Events that nobody has taken yet, in BUNDLE/events, in the order in which they happened: they outlive the shim. Bounded.
///
/// The file is little-endian: a header of 16 bytes (u32 magic, u32 the first process's events that were ever put in as bits of their kinds,
/// u64 offset of the oldest event that was not taken), then one entry an event: u32 length, u32 CRC-32 of kind and message, u32 kind, message.
/// A torn tail is cut. An event that was taken, and whose taking was not written any more, is given out again.
final class EventSpool {
    /// What it holds at most; beyond that the oldest events of execs go first, and no event of the first process's life ever does.
    static let limit = 256 << 10
    static let countLimit = 512

    private static let magic: UInt32 = 0x4552_5443
    private static let headerLength: Int64 = 16
    private static let entryLength: Int64 = 12
    private static let fileName = "events"

    private struct Entry {
        /// Of the entry in the file.
        var offset: Int64
        /// Of its message.
        var length: Int64
        var kind: UInt32
        var end: Int64 { offset + EventSpool.entryLength + length }
        var isKept: Bool { kind & Kind.kept != 0 }
    }

    /// What sort of event it is: one bit each. Those of the first process's life happen once and are never dropped.
    enum Kind {
        static let created: UInt32 = 1
        static let started: UInt32 = 2
        static let exited: UInt32 = 4
        static let deleted: UInt32 = 8
        static let kept: UInt32 = 15
        /// Of an exec, or one that says what holds now.
        static let other: UInt32 = 16
        /// May happen often; that it was told is remembered.
        static let oom: UInt32 = 32
    }

    private let directory: Int32
    private var file: SharedDescriptor
    private var pending: [Entry] = []
    /// Kinds that were ever put in.
    private var said: UInt32 = 0
    private var end = headerLength

    /// Opens or makes the file in `directory`, which stays the caller's.
    init(in directory: Int32) throws(SysError) {
        self.directory = directory
        file = SharedDescriptor(try Linux.open(Self.fileName, O_RDWR | O_CREAT | O_NOFOLLOW, mode: 0o600, at: directory))
        // A pile that was about to be dropped may be twice the limit; more is not ours.
        load((try? readAll(file.raw, name: Self.fileName, limit: 4 * Self.limit)) ?? [])
    }

    private func load(_ bytes: [UInt8]) {
        func number(_ at: Int) -> UInt32 {
            UInt32(bytes[at]) | UInt32(bytes[at + 1]) << 8 | UInt32(bytes[at + 2]) << 16 | UInt32(bytes[at + 3]) << 24
        }
        guard bytes.count >= 16, number(0) == Self.magic else { return reset() }
        said = number(4)
        let position = Int64(number(8)) | Int64(number(12)) << 32
        var at = 16
        while at + 12 <= bytes.count {
            let length = Int(number(at))
            guard length <= bytes.count - at - 12 else { break }
            let kind = number(at + 8)
            if Self.checksum(bytes[(at + 8)..<(at + 12 + length)]) != number(at + 4) { break }
            said |= kind
            if Int64(at) >= position { pending.append(Entry(offset: Int64(at), length: Int64(length), kind: kind)) }
            at += 12 + length
        }
        end = Int64(at)
        if pending.isEmpty { reset() } else { _ = ftruncate(file.raw, off_t(end)) }
    }

    private static func checksum(_ bytes: ArraySlice<UInt8>) -> UInt32 {
        bytes.withUnsafeBytes { ctr_crc32(0, $0.baseAddress, $0.count) }
    }

    private static func append(_ value: UInt64, bytes count: Int, to out: inout [UInt8]) {
        for index in 0..<count { out.append(UInt8(truncatingIfNeeded: value >> (8 * UInt64(index)))) }
    }

    private static func header(said: UInt32, position: Int64) -> [UInt8] {
        var out: [UInt8] = []
        append(UInt64(magic), bytes: 4, to: &out)
        append(UInt64(said), bytes: 4, to: &out)
        append(UInt64(position), bytes: 8, to: &out)
        return out
    }

    private static func entry(_ kind: UInt32, _ message: [UInt8]) -> [UInt8] {
        var covered: [UInt8] = []
        append(UInt64(kind), bytes: 4, to: &covered)
        covered += message
        var out: [UInt8] = []
        append(UInt64(message.count), bytes: 4, to: &out)
        append(UInt64(checksum(covered[...])), bytes: 4, to: &out)
        return out + covered
    }

    private func writeHeader(position: Int64) {
        let header = Self.header(said: said, position: position)
        _ = header.withUnsafeBytes { pwrite(file.raw, $0.baseAddress, $0.count, 0) }
    }

    /// No event waits: the file is its header. Each cut in between leaves a file that says the same, or whose position is beyond its end.
    private func reset() {
        writeHeader(position: end)
        _ = ftruncate(file.raw, off_t(Self.headerLength))
        end = Self.headerLength
        writeHeader(position: end)
    }

    var isEmpty: Bool { pending.isEmpty }

    /// Whether an event of this kind was ever put in.
    func knows(_ kind: UInt32) -> Bool { said & kind & Kind.kept != 0 }

    /// Whether memory was ever said to have run out.
    var knowsOOM: Bool { said & Kind.oom != 0 }

    /// Whether an event that waits has `body` in it.
    func holds(_ body: [UInt8]) -> Bool {
        pending.contains { entry in
            guard entry.length >= body.count, let message = read(entry) else { return false }
            return (0...(message.count - body.count)).contains { at in message[at..<(at + body.count)].elementsEqual(body) }
        }
    }

    private func read(_ entry: Entry) -> [UInt8]? {
        var message = [UInt8](repeating: 0, count: Int(entry.length))
        let got = message.withUnsafeMutableBytes { pread(file.raw, $0.baseAddress, $0.count, off_t(entry.offset + Self.entryLength)) }
        return got == message.count ? message : nil
    }

    /// Puts an event behind the others; whether the disk took it. One that it does not take is kept out: the records say what happened.
    @discardableResult
    func append(_ kind: UInt32, _ message: [UInt8]) -> Bool {
        if end + Int64(message.count) > Int64(Self.limit) || pending.count >= Self.countLimit { drop() }
        let entry = Self.entry(kind, message)
        let written = entry.withUnsafeBytes { pwrite(file.raw, $0.baseAddress, $0.count, off_t(end)) }
        guard written == entry.count else {
            _ = ftruncate(file.raw, off_t(end))
            return false
        }
        said |= kind
        pending.append(Entry(offset: end, length: Int64(message.count), kind: kind))
        end += Int64(entry.count)
        return true
    }

    /// The oldest event; nil when there is none.
    func first() -> [UInt8]? {
        while let entry = pending.first {
            if let message = read(entry) { return message }
            // Somebody else's hand is in the file: what cannot be read cannot be said.
            removeFirst()
        }
        return nil
    }

    /// The oldest event was taken.
    func removeFirst() {
        guard let entry = pending.first else { return }
        pending.removeFirst()
        if pending.isEmpty {
            pending = []
            return reset()
        }
        writeHeader(position: entry.end)
    }

    /// Leaves what waits in a new file, where it is too much without the older half of what is not kept. The old file holds until the rename.
    /// The first is never dropped: it may be under way, and its answer takes it out.
    private func drop() {
        let size = pending.reduce(0) { $0 + $1.end - $1.offset }
        let droppable = pending.dropFirst().reduce(0) { $0 + ($1.isKept ? 0 : 1) }
        var toDrop = pending.count < Self.countLimit && size < Int64(Self.limit) / 2 ? 0 : (droppable + 1) / 2
        var bytes = Self.header(said: said, position: Self.headerLength)
        var kept: [Entry] = []
        for (index, entry) in pending.enumerated() {
            if index > 0 && !entry.isKept && toDrop > 0 {
                toDrop -= 1
                continue
            }
            var raw = [UInt8](repeating: 0, count: Int(entry.end - entry.offset))
            let got = raw.withUnsafeMutableBytes { pread(file.raw, $0.baseAddress, $0.count, off_t(entry.offset)) }
            if got != raw.count { continue }
            kept.append(Entry(offset: Int64(bytes.count), length: entry.length, kind: entry.kind))
            bytes += raw
        }
        let temporary = Self.fileName + ".tmp"
        do throws(SysError) {
            let made = try Linux.open(temporary, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW, mode: 0o600, at: directory)
            try writeAll(made.raw, bytes, name: temporary)
            try checkErrno("rename", temporary, renameat(directory, temporary, directory, Self.fileName))
            file = SharedDescriptor(made)
            pending = kept
            end = Int64(bytes.count)
        } catch {
            // The disk is full: the pile stays as it is, and what does not fit is kept out.
        }
    }
}
