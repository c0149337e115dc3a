import CLinux
import Glibc
import Linux

/// Counts what of one stream the disk does not take, in a file in memory that outlives whoever counts as long as somebody has it open.
///
/// Its size is the count: splice(2) takes bytes out of the pipe and adds them to the size in one call, so a writer that is killed has done
/// both or neither. The bytes are given back at once. The first page says how much of the count the index speaks of, and where in the log
/// the rest is missing.
final class DropCounter {
    /// Where bytes are missing; segment 0 is behind all that there is.
    struct Place: Equatable {
        var segment: UInt32 = 0
        var offset: UInt64 = 0
    }

    private static let headerLength: Int64 = 4096
    private static let magic: UInt64 = 0x3150_4F52_4452_5443
    private static let fieldsLength = 48
    /// Bytes of memory that dropping takes for a moment.
    private static let step = 64 << 10

    let file: SegmentFile
    /// Somebody else has the file open too: the count outlives this process.
    var isKept: Bool
    private var size: Int64
    /// What the index speaks of already; negative where bytes were dropped that this file did not take.
    private var told: Int64 = 0
    private(set) var place = Place()
    /// The entry that is being written: where in the index (of all that was ever written), and what it says.
    private var telling: (position: UInt64, length: UInt32)?
    /// The index is to say that something is missing and nobody knows how much.
    var owes = false { didSet { if owes != oldValue { save() } } }

    /// nil when the kernel gives no memory. `dropped`: what was counted elsewhere before.
    init?(dropped: UInt64) {
        let made = ctr_memfd_create("dropped", 1 /* MFD_CLOEXEC */)
        if made < 0 { return nil }
        file = SegmentFile(owning: made)
        isKept = false
        size = Self.headerLength
        told = -Int64(clamping: dropped)
        if ftruncate(made, off_t(size)) < 0 || !save() { return nil }
    }

    /// Takes over what a predecessor counted in `raw`, which is this one's from now on; nil for what is no such file.
    init?(adopting raw: Int32) {
        file = SegmentFile(owning: raw)
        isKept = true
        size = Int64(lseek(raw, 0, SEEK_END))
        if size < Self.headerLength { return nil }
        let known = withUnsafeTemporaryAllocation(byteCount: Self.fieldsLength, alignment: 8) { buffer -> Bool in
            guard pread(raw, buffer.baseAddress, buffer.count, 0) == buffer.count, buffer.load(as: UInt64.self) == Self.magic else {
                return false
            }
            told = buffer.load(fromByteOffset: 8, as: Int64.self)
            place = Place(
                segment: buffer.load(fromByteOffset: 28, as: UInt32.self), offset: buffer.load(fromByteOffset: 32, as: UInt64.self))
            let flags = buffer.load(fromByteOffset: 40, as: UInt64.self)
            if flags & 1 != 0 {
                telling = (buffer.load(fromByteOffset: 16, as: UInt64.self), buffer.load(fromByteOffset: 24, as: UInt32.self))
            }
            owes = flags & 2 != 0
            return true
        }
        if !known { return nil }
    }

    /// One write within a page: a killed process has done it or has not.
    @discardableResult
    private func save(isReading: Bool = false) -> Bool {
        withUnsafeTemporaryAllocation(byteCount: Self.fieldsLength, alignment: 8) { buffer in
            buffer.storeBytes(of: Self.magic, as: UInt64.self)
            buffer.storeBytes(of: told, toByteOffset: 8, as: Int64.self)
            buffer.storeBytes(of: telling?.position ?? 0, toByteOffset: 16, as: UInt64.self)
            buffer.storeBytes(of: telling?.length ?? 0, toByteOffset: 24, as: UInt32.self)
            buffer.storeBytes(of: place.segment, toByteOffset: 28, as: UInt32.self)
            buffer.storeBytes(of: place.offset, toByteOffset: 32, as: UInt64.self)
            buffer.storeBytes(of: (telling == nil ? 0 : 1) | (owes || isReading ? 2 : 0), toByteOffset: 40, as: UInt64.self)
            return pwrite(file.raw, buffer.baseAddress, buffer.count, 0) == buffer.count
        }
    }

    /// Dropped bytes that the index does not speak of.
    var pending: UInt64 { UInt64(max(size - Self.headerLength - told, 0)) }

    /// What is dropped from now on is missing there.
    func begin(_ place: Place) {
        if self.place == place { return }
        self.place = place
        save()
    }

    /// Takes at most `limit` bytes out of `pipe` and counts them: their number, 0 at the pipe's end, or -errno when it is empty.
    func take(from pipe: Int32, limit: Int) -> Int {
        var offset = size
        let moved = ctr_splice_to_offset(pipe, file.raw, &offset, min(limit, Self.step), spliceFlags)
        if moved > 0 {
            size += Int64(moved)
            _ = ctr_punch_hole(file.raw, Self.headerLength, size - Self.headerLength)
        }
        if moved >= 0 || moved == -Int(EAGAIN) || moved == -Int(EINTR) { return moved }
        // Not even memory for a page: who is killed between the next two steps leaves word that a number is not known.
        save(isReading: true)
        let got = LogWriter.discard(from: pipe, limit: limit)
        if got > 0 { told -= Int64(got) }
        save()
        return got
    }

    /// An entry that speaks of `length` bytes is about to be written at `position`.
    func begin(telling length: UInt32, at position: UInt64) {
        telling = (position, length)
        save()
    }

    /// It is written, or is not.
    func end(telling length: UInt32) {
        told += Int64(length)
        telling = nil
        save()
    }

    /// A predecessor may have been killed over an entry: `isThere` knows whether the index has it.
    func settle(_ isThere: (_ position: UInt64, _ length: UInt32) -> Bool) {
        guard let telling else { return }
        end(telling: isThere(telling.position, telling.length) ? telling.length : 0)
    }
}
