import CLinux
import Glibc
import Linux
import OCI

/// A blob that is being written: a file in `ingest/` with a random name, hashed as it grows, removed unless it is published.
/// One thread at a time.
public final class Ingest {
    /// Name of the file in `ingest/`.
    let name: String
    private let directory: Descriptor
    private var file: Descriptor?
    private let hash: SHA256
    private var finished: Digest?
    private var space: SpaceGuard
    public private(set) var size: Int64 = 0
    var published = false

    init(directory: consuming Descriptor) throws {
        let name = try randomName()
        file = try checked { try Linux.open(name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, mode: 0o600, at: directory.raw) }
        space = SpaceGuard(directory.raw)
        self.name = name
        self.directory = directory
        hash = try SHA256()
    }

    deinit {
        if !published { unlinkat(directory.raw, name, 0) }
    }

    public func write(_ bytes: UnsafeRawBufferPointer) throws {
        guard let raw = file?.raw else { throw ContentError(SysError("write", name, code: EBADF)) }
        try space.willWrite(bytes.count)
        hash.update(bytes)
        size += Int64(bytes.count)
        try checked { try writeAll(raw, bytes, name: name) }
    }

    /// The content from its beginning. Nothing can be written afterwards.
    public func open() throws -> Descriptor {
        _ = try digest
        return try checked { try Linux.open(name, O_RDONLY | O_NOFOLLOW, at: directory.raw) }
    }

    func sync() throws {
        let file = try open()
        try checked { try checkErrno("fsync", name, fsync(file.raw)) }
    }

    /// Takes all that `source` has, which must not be more than `limit` bytes.
    public func fill(from source: any ByteSource, limit: Int64) throws {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 512 << 10, alignment: 64)
        defer { buffer.deallocate() }
        while case let got = try source.read(into: buffer), got > 0 {
            if size + Int64(got) > limit {
                throw ContentError(.corrupt, "ingest blob", "", "it is larger than its descriptor says (\(limit) bytes)")
            }
            try write(UnsafeRawBufferPointer(rebasing: buffer[..<got]))
        }
    }

    /// Digest of all bytes; the first use ends the writing and closes the file.
    public var digest: Digest {
        get throws {
            if let finished { return finished }
            let digest = try hash.finish()
            finished = digest
            file = nil
            return digest
        }
    }

    /// Compares with what was promised; nil means that nothing was.
    public func verify(digest expected: Digest?, size expectedSize: Int64?) throws {
        if let expectedSize, size != expectedSize {
            throw ContentError(
                .corrupt, "verify blob", expected.map(\.description) ?? "", "it has \(size) bytes, its descriptor says \(expectedSize)")
        }
        if let expected, try digest != expected {
            throw ContentError(.corrupt, "verify blob", "\(expected)", "its content has the digest \(try digest)")
        }
    }
}

/// 32 hexadecimal digits that nobody else has (getrandom(2)).
public func randomName() throws -> String {
    var bytes = [UInt8](repeating: 0, count: 16)
    try checked { try check("get random bytes", "", ctr_getrandom(&bytes, bytes.count)) }
    let digits = Array("0123456789abcdef".utf8)
    return String(decoding: bytes.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }, as: UTF8.self)
}
