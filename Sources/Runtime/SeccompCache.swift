import CLinux
import CSeccomp
import Glibc
import Linux
import OCI

/// Compiled seccomp programs in ROOT/.seccomp: compiling a usual profile costs some milliseconds, reading it back some microseconds.
///
/// A file is named by a hash and holds the whole text that it was compiled from, so a collision is seen. What is not exactly ours (owner,
/// mode, length, checksum) counts as absent.
struct SeccompCache: ~Copyable {
    private let root: Descriptor
    private static let directory = ".seccomp"
    private static let magic = Array("ctrseccomp 1\n".utf8)
    private static let fileLimit = 1 << 20
    /// Beyond this many profiles the cache starts anew.
    private static let entryLimit = 64

    init(root path: String) throws(RuntimeError) { root = try StateDirectory.openRoot(path) }

    /// The program for `document`, from the cache or compiled now. A cache that cannot be used costs time, nothing else.
    func program(_ document: JSON, _ log: Log) throws(RuntimeError) -> Entry {
        let text = Self.key(document)
        let name = "\(Self.directory)/\(String(fnv1a(text), radix: 16))"
        if let program = Self.read(name, at: root.raw, text: text) { return Entry(program: program, file: name) }
        let program = try SeccompCompiler.compile(try SeccompProfile(document))
        do throws(SysError) { try store(program, name, text) } catch { log.warning("seccomp cache: \(error)") }
        return Entry(program: program, file: name)
    }

    struct Entry {
        let program: SeccompProgram
        /// Below the root, if it could be stored.
        let file: String
    }

    /// Another library or another architecture makes another program of the same profile.
    private static func key(_ document: JSON) -> [UInt8] {
        var text = document.encoded()
        let version = seccomp_version().pointee
        text.append(contentsOf: "\nlibseccomp \(version.major).\(version.minor).\(version.micro) \(seccomp_arch_native()) compiler 2".utf8)
        return text
    }

    /// Layout: magic, u32 flags, u32 text length, u32 program length, u64 checksum of the program, text, program; native byte order.
    private static let headLength = magic.count + 20

    /// The program in a file that was made from exactly `text`, or with nil from whatever.
    static func read(_ name: String, at directory: Int32, text: [UInt8]?) -> SeccompProgram? {
        guard let file = try? Linux.open(name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, at: directory) else { return nil }
        var status = stat()
        guard fstat(file.raw, &status) == 0, ctr_s_isreg(status.st_mode), status.st_uid == geteuid(), status.st_mode & 0o077 == 0,
            status.st_size > Self.headLength, status.st_size <= Self.fileLimit
        else { return nil }
        let size = Int(status.st_size)
        let bytes = [UInt8](unsafeUninitializedCapacity: size) { buffer, count in
            count = max(0, Glibc.read(file.raw, buffer.baseAddress, size))
        }
        guard bytes.count == size, bytes.starts(with: Self.magic) else { return nil }
        return bytes.withUnsafeBytes { (buffer) -> SeccompProgram? in
            let at = Self.magic.count
            let flags = buffer.loadUnaligned(fromByteOffset: at, as: UInt32.self)
            let textLength = Int(buffer.loadUnaligned(fromByteOffset: at + 4, as: UInt32.self))
            let length = Int(buffer.loadUnaligned(fromByteOffset: at + 8, as: UInt32.self))
            let sum = buffer.loadUnaligned(fromByteOffset: at + 12, as: UInt64.self)
            guard text.map({ $0.count == textLength }) ?? true, textLength <= Self.fileLimit, length % 8 == 0, length > 0,
                length / 8 <= SeccompProgram.instructionLimit,
                Self.headLength + textLength + length == size
            else { return nil }
            let same = text.map { buffer[Self.headLength..<(Self.headLength + textLength)].elementsEqual($0) } ?? true
            let program = Array(buffer[(Self.headLength + textLength)...])
            return same && fnv1a(program) == sum ? SeccompProgram(instructions: program, flags: flags) : nil
        }
    }

    static func encoded(_ program: SeccompProgram, text: [UInt8]) -> [UInt8] {
        var bytes = Self.magic
        func put<Value: FixedWidthInteger>(_ value: Value) { withUnsafeBytes(of: value) { bytes.append(contentsOf: $0) } }
        put(program.flags)
        put(UInt32(text.count))
        put(UInt32(program.instructions.count))
        put(fnv1a(program.instructions))
        bytes += text
        bytes += program.instructions
        return bytes
    }

    private func store(_ program: SeccompProgram, _ name: String, _ text: [UInt8]) throws(SysError) {
        let bytes = Self.encoded(program, text: text)
        guard bytes.count <= Self.fileLimit else { return }
        try makeDirectory(Self.directory, mode: 0o700, at: root.raw)
        let directory = try Linux.open(Self.directory, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, at: root.raw)
        let entries = try RootFS.entries(of: directory.raw)
        if entries.count >= Self.entryLimit { for entry in entries { unlinkat(directory.raw, entry, 0) } }
        let temporary = "\(Self.directory)/tmp.\(getpid())"
        unlinkat(root.raw, temporary, 0)
        let file = try Linux.open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, mode: 0o600, at: root.raw)
        do throws(SysError) {
            try writeAll(file.raw, bytes, name: name)
            try checkErrno("rename", name, renameat(root.raw, temporary, root.raw, name))
        } catch {
            unlinkat(root.raw, temporary, 0)
            throw error
        }
    }
}

/// FNV-1a, 64 bit.
func fnv1a(_ bytes: [UInt8]) -> UInt64 {
    var hash: UInt64 = 0xcbf2_9ce4_8422_2325
    for byte in bytes { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
    return hash
}
