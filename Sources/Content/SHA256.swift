import CCrypto
import OCI

/// SHA-256 over bytes as they pass; libcrypto picks the processor's own instructions. One thread at a time.
public final class SHA256 {
    private let context: OpaquePointer

    public init() throws {
        guard let context = EVP_MD_CTX_new() else { throw ContentError(.system(12), "hash", "", "out of memory") }
        self.context = context
        guard EVP_DigestInit_ex(context, EVP_sha256(), nil) == 1 else {
            throw ContentError(.system(95), "hash", "", "libcrypto offers no SHA-256")
        }
    }

    deinit { EVP_MD_CTX_free(context) }

    public func update(_ bytes: UnsafeRawBufferPointer) {
        _ = EVP_DigestUpdate(context, bytes.baseAddress, bytes.count)
    }

    /// The digest of all that was fed so far; nothing may be fed afterwards.
    public func finish() throws -> Digest {
        var bytes = [UInt8](repeating: 0, count: 32)
        var length: UInt32 = 32
        guard EVP_DigestFinal_ex(context, &bytes, &length) == 1, let digest = Digest(bytes: bytes) else {
            throw ContentError(.system(5), "hash", "", "libcrypto failed")
        }
        return digest
    }

    /// The digest of bytes that are in memory already.
    public static func digest(of bytes: [UInt8]) throws -> Digest {
        let hash = try SHA256()
        bytes.withUnsafeBytes { hash.update($0) }
        return try hash.finish()
    }

    /// The chain ids of layers whose uncompressed digests are `diffIDs`, bottom first (image-spec, config.md, "Layer ChainID").
    public static func chainIDs(_ diffIDs: [Digest]) throws -> [Digest] {
        var chain: [Digest] = []
        for diffID in diffIDs {
            if let below = chain.last {
                chain.append(try digest(of: Array("\(below) \(diffID)".utf8)))
            } else {
                chain.append(diffID)
            }
        }
        return chain
    }
}
