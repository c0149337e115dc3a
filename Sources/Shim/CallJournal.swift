import CLinux
import Glibc
import Linux

/// Calls that were taken from a connection and are not answered, in BUNDLE/calls: a successor of a killed shim carries them on. In the file a
/// call stands before it is taken from its socket and until its answer is in there.
///
/// Entries are little-endian: u32 length, u32 CRC-32 of what follows, u32 what it says, u32 connection, u32 stream, then the request. A torn tail
/// is cut. With no open call the file is empty.
final class CallJournal {
    struct Call: Equatable {
        let connection: UInt32
        let stream: UInt32
        /// ttrpc.Request.
        let request: [UInt8]
        /// How many shims were killed over it.
        var repeats: UInt32 = 0
    }

    private enum Word: UInt32 { case begun = 1, answered, closed, repeated }

    /// A file longer than this is written anew with the open calls alone.
    private static let limit = 1 << 20
    /// Bytes of open calls at most.
    private static let openLimit = 4 << 20
    private static let fileName = "calls"
    private static let headerLength = 20

    private let directory: Int32
    private var file: SharedDescriptor
    private var end = 0
    private(set) var open: [Call] = []

    /// Opens or makes the file in `directory`, which stays the caller's.
    init(in directory: Int32) throws(SysError) {
        self.directory = directory
        file = SharedDescriptor(try Linux.open(Self.fileName, O_RDWR | O_CREAT | O_NOFOLLOW, mode: 0o600, at: directory))
        // More is not ours, and what cannot be read is carried on by nobody.
        load((try? readAll(file.raw, name: Self.fileName, limit: 16 << 20)) ?? [])
    }

    private func load(_ bytes: [UInt8]) {
        func number(_ at: Int) -> UInt32 {
            UInt32(bytes[at]) | UInt32(bytes[at + 1]) << 8 | UInt32(bytes[at + 2]) << 16 | UInt32(bytes[at + 3]) << 24
        }
        var at = 0
        while at + Self.headerLength <= bytes.count {
            let length = Int(number(at))
            guard length <= bytes.count - at - Self.headerLength, let word = Word(rawValue: number(at + 8)) else { break }
            let next = at + Self.headerLength + length
            let sum = bytes[(at + 8)..<next].withUnsafeBytes { ctr_crc32(0, $0.baseAddress, $0.count) }
            if sum != number(at + 4) { break }
            let (connection, stream) = (number(at + 12), number(at + 16))
            let body = bytes[(at + Self.headerLength)..<next]
            switch word {
            case .begun: open.append(Call(connection: connection, stream: stream, request: Array(body)))
            case .answered: open.removeAll { $0.connection == connection && $0.stream == stream }
            case .closed: open.removeAll { $0.connection == connection }
            case .repeated:
                for index in open.indices where open[index].connection == connection && open[index].stream == stream {
                    open[index].repeats += 1
                }
            }
            at = next
        }
        end = at
        if open.isEmpty { empty() } else { _ = ftruncate(file.raw, off_t(end)) }
    }

    private static func entry(_ word: Word, _ connection: UInt32, _ stream: UInt32, _ body: [UInt8]) -> [UInt8] {
        func append(_ value: UInt32, to out: inout [UInt8]) {
            for shift in [0, 8, 16, 24] as [UInt32] { out.append(UInt8(truncatingIfNeeded: value >> shift)) }
        }
        var covered: [UInt8] = []
        for value in [word.rawValue, connection, stream] { append(value, to: &covered) }
        covered += body
        var out: [UInt8] = []
        append(UInt32(body.count), to: &out)
        append(covered.withUnsafeBytes { ctr_crc32(0, $0.baseAddress, $0.count) }, to: &out)
        return out + covered
    }

    private func write(_ entry: [UInt8]) {
        let written = entry.withUnsafeBytes { pwrite(file.raw, $0.baseAddress, $0.count, off_t(end)) }
        // A full disk: what is not written is not carried on by a successor.
        if written == entry.count { end += entry.count } else { _ = ftruncate(file.raw, off_t(end)) }
    }

    private func empty() {
        if end > 0 || open.isEmpty { _ = ftruncate(file.raw, 0) }
        end = 0
    }

    // MARK: what happens to calls

    /// Whether one more call of so many bytes may be put in.
    func hasRoom(for count: Int) -> Bool { open.reduce(count) { $0 + $1.request.count } <= Self.openLimit }

    func begin(connection: UInt32, stream: UInt32, request: [UInt8]) {
        open.append(Call(connection: connection, stream: stream, request: request))
        if end + request.count > Self.limit { rewrite() } else { write(Self.entry(.begun, connection, stream, request)) }
    }

    func answered(connection: UInt32, stream: UInt32) {
        guard let index = open.firstIndex(where: { $0.connection == connection && $0.stream == stream }) else { return }
        open.remove(at: index)
        if open.isEmpty { empty() } else { write(Self.entry(.answered, connection, stream, [])) }
    }

    func closed(connection: UInt32) {
        guard open.contains(where: { $0.connection == connection }) else { return }
        open.removeAll { $0.connection == connection }
        if open.isEmpty { empty() } else { write(Self.entry(.closed, connection, 0, [])) }
    }

    /// A successor is about to carry it on.
    func repeating(connection: UInt32, stream: UInt32) { write(Self.entry(.repeated, connection, stream, [])) }

    private func rewrite() {
        var bytes: [UInt8] = []
        for call in open {
            bytes += Self.entry(.begun, call.connection, call.stream, call.request)
            for _ in 0..<call.repeats { bytes += Self.entry(.repeated, call.connection, call.stream, []) }
        }
        let temporary = Self.fileName + ".tmp"
        do throws(SysError) {
            let made = try Linux.open(temporary, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW, mode: 0o600, at: directory)
            try writeAll(made.raw, bytes, name: temporary)
            try checkErrno("rename", temporary, renameat(directory, temporary, directory, Self.fileName))
            file = SharedDescriptor(made)
            end = bytes.count
        } catch {}
    }
}
