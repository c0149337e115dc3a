import CLinux
import Glibc
import Linux
import OCI

/// Blobs by digest: `blobs/sha256/<hex>` is always complete and verified; `ingest/` holds what is not.
public struct ContentStore: Sendable {
    private final class Directories: Sendable {
        let root: String
        let blobs: Descriptor
        let ingest: Descriptor
        init(root: String, blobs: consuming Descriptor, ingest: consuming Descriptor) {
            self.root = root
            self.blobs = blobs
            self.ingest = ingest
        }
    }
    private let directories: Directories

    /// Opens the store at `root`, making its directories (0700) where they are missing.
    public init(root: String) throws {
        directories = try checked {
            for directory in ["", "/blobs", "/blobs/sha256", "/ingest"] { try makeDirectory(root + directory, mode: 0o700) }
            return Directories(
                root: root, blobs: try Linux.open(root + "/blobs/sha256", O_RDONLY | O_DIRECTORY),
                ingest: try Linux.open(root + "/ingest", O_RDONLY | O_DIRECTORY))
        }
    }

    public func has(_ digest: Digest) -> Bool { faccessat(directories.blobs.raw, digest.hex, F_OK, 0) == 0 }

    /// A blob for reading; `notFound` when there is none.
    public func open(_ digest: Digest) throws -> Descriptor {
        do { return try Linux.open(digest.hex, O_RDONLY | O_NOFOLLOW, at: directories.blobs.raw) } catch {
            if error.code == ENOENT { throw ContentError(.notFound, "open blob", "\(digest)", "it is not in the content store") }
            throw ContentError(error)
        }
    }

    public func size(of digest: Digest) throws -> Int64 {
        var status = stat()
        guard fstatat(directories.blobs.raw, digest.hex, &status, AT_SYMLINK_NOFOLLOW) == 0 else {
            if errno == ENOENT { throw ContentError(.notFound, "stat blob", "\(digest)", "it is not in the content store") }
            throw ContentError(SysError("stat blob", "\(digest)", code: errno))
        }
        return Int64(status.st_size)
    }

    /// The bytes of a document, verified again: at most `limit`.
    public func read(_ digest: Digest, limit: Int) throws -> [UInt8] {
        let blob = try open(digest)
        let bytes: [UInt8]
        do { bytes = try readAll(blob.raw, name: "\(digest)", limit: limit) } catch { throw ContentError(error) }
        guard try SHA256.digest(of: bytes) == digest else {
            throw ContentError(.corrupt, "read blob", "\(digest)", "its bytes have changed on disk")
        }
        return bytes
    }

    /// Stores what `descriptor` gives until its end. With `expected` and `size`, anything else is refused and leaves nothing behind.
    /// Durable when it returns: blob, then name, then directory. The descriptor stays the caller's.
    public func ingest(from descriptor: Int32, expected: Digest?, size: Int64?) throws -> (digest: Digest, size: Int64) {
        let ingest = try begin()
        try ingest.fill(from: FileSource(descriptor, name: "blob"), limit: size ?? Int64.max)
        try ingest.verify(digest: expected, size: size)
        try ingest.sync()
        try publish([ingest])
        return (try ingest.digest, ingest.size)
    }

    /// Removes a blob; one that is not there is no error.
    public func delete(_ digest: Digest) throws {
        if unlinkat(directories.blobs.raw, digest.hex, 0) < 0 && errno != ENOENT {
            throw ContentError(SysError("delete blob", "\(digest)", code: errno))
        }
    }

    /// All blobs, in no order. Files with other names are not ours and are passed over.
    public func list() throws -> [Digest] {
        try checked { try RootFS.entries(of: directories.blobs.raw) }.compactMap { Digest(hex: $0) }
    }

    /// Removes what a dead manager left in `ingest/`. Only for the start, before anything is ingested.
    public func cleanIngest() throws {
        for name in try checked({ try RootFS.entries(of: directories.ingest.raw) }) {
            try checked { try RootFS.removeTree(directories.ingest.raw, name) }
        }
    }

    /// A new, empty, unverified blob; it is gone again when nobody publishes it.
    public func begin() throws -> Ingest { try Ingest(directory: directories.ingest.duplicate()) }

    /// Makes synced, verified blobs visible, all of their names with one sync of the directory. A blob that is there already stays as it
    /// is; returned are the others. On an error those that this call made visible are taken back.
    @discardableResult
    public func publish(_ ingests: [Ingest]) throws -> [Digest] {
        var made: [Digest] = []
        do {
            for ingest in ingests {
                let digest = try ingest.digest
                let result = ctr_rename(directories.ingest.raw, ingest.name, directories.blobs.raw, digest.hex, false)
                if result == 0 {
                    ingest.published = true
                    made.append(digest)
                } else if result != -EEXIST {
                    throw ContentError(SysError("publish blob", "\(digest)", code: -result))
                }
            }
            if !made.isEmpty { try checked { try checkErrno("fsync", directories.root, fsync(directories.blobs.raw)) } }
            return made
        } catch {
            for digest in made { try? delete(digest) }
            throw error
        }
    }

    /// syncfs(2) on the file system of the store: everything in `ingest/` is on disk when it returns.
    public func syncAll() throws {
        try checked { try check("sync", directories.root, ctr_syncfs(directories.blobs.raw)) }
    }

    /// The file system, as fstat(2) numbers it.
    public var device: UInt64 {
        var status = stat()
        return fstat(directories.blobs.raw, &status) == 0 ? UInt64(status.st_dev) : 0
    }
}

/// Runs `body` and hands its SysError on as a ``ContentError``.
@discardableResult
func checked<Result: ~Copyable>(_ body: () throws -> Result) throws -> Result {
    do { return try body() } catch let error as SysError { throw ContentError(error) }
}
