import CZlib

/// How far decompression may go. A gzip stream expands at most about a thousandfold, so small blobs need only the absolute limit.
public struct ExpansionLimit: Sendable {
    /// Bytes that are always allowed.
    public var free: Int64
    /// Beyond them: so many bytes of output for each byte of input.
    public var ratio: Int64
    /// Bytes that are never exceeded.
    public var total: Int64

    public init(free: Int64 = 1 << 30, ratio: Int64 = 200, total: Int64 = 256 << 30) {
        self.free = free
        self.ratio = ratio
        self.total = total
    }

    func allows(output: Int64, input: Int64) -> Bool {
        output <= total && (output <= free || output / ratio <= input)
    }
}

/// Inflates gzip (RFC 1952), all members of it; what is no gzip, or ends too early, is an error.
public final class GzipSource: ByteSource {
    private let upstream: any ByteSource
    private let limit: ExpansionLimit
    /// At an address that does not change: zlib remembers it.
    private let stream: UnsafeMutablePointer<z_stream>
    private let input: UnsafeMutableRawBufferPointer
    private var betweenMembers = false
    private var ended = false
    private var taken: Int64 = 0
    private var given: Int64 = 0

    public init(_ upstream: any ByteSource, limit: ExpansionLimit = ExpansionLimit()) throws {
        self.upstream = upstream
        self.limit = limit
        input = UnsafeMutableRawBufferPointer.allocate(byteCount: 256 << 10, alignment: 64)
        stream = .allocate(capacity: 1)
        stream.initialize(to: z_stream())
        // 16 + 15: gzip framing only, largest window.
        guard inflateInit2_(stream, 31, ZLIB_VERSION, Int32(MemoryLayout<z_stream>.size)) == Z_OK else {
            throw ContentError(.system(12), "inflate", "", "zlib could not be set up")
        }
    }

    deinit {
        inflateEnd(stream)
        stream.deallocate()
        input.deallocate()
    }

    public func read(into buffer: UnsafeMutableRawBufferPointer) throws -> Int {
        guard !ended, buffer.count > 0 else { return 0 }
        stream.pointee.next_out = buffer.baseAddress?.assumingMemoryBound(to: UInt8.self)
        stream.pointee.avail_out = UInt32(buffer.count)
        while stream.pointee.avail_out == UInt32(buffer.count) {
            if stream.pointee.avail_in == 0 {
                let got = try upstream.read(into: input)
                if got == 0 {
                    guard betweenMembers else { throw ContentError(.corrupt, "inflate", "", "the gzip stream is truncated") }
                    ended = true
                    return 0
                }
                taken += Int64(got)
                stream.pointee.next_in = input.baseAddress?.assumingMemoryBound(to: UInt8.self)
                stream.pointee.avail_in = UInt32(got)
            }
            if betweenMembers {
                inflateReset(stream)
                betweenMembers = false
            }
            let result = inflate(stream, Z_NO_FLUSH)
            switch result {
            case Z_OK: break
            case Z_STREAM_END: betweenMembers = true
            case Z_BUF_ERROR where stream.pointee.avail_in == 0: break
            default:
                throw ContentError(
                    .corrupt, "inflate", "", stream.pointee.msg.map { "gzip: " + String(cString: $0) } ?? "malformed gzip stream")
            }
        }
        let count = buffer.count - Int(stream.pointee.avail_out)
        given += Int64(count)
        guard limit.allows(output: given, input: taken) else {
            throw ContentError(
                .tooLarge, "inflate", "", "it expands to more than \(limit.ratio) times its size, or to more than \(limit.total) bytes")
        }
        return count
    }
}

/// What a stream begins with, as far as archives go.
public enum Packing: Sendable, Equatable {
    case gzip, zstd, bzip2, xz, none

    /// Looks at the magic number; six bytes are enough.
    public init(magic bytes: UnsafeRawBufferPointer) {
        if bytes.starts(with: [0x1f, 0x8b]) {
            self = .gzip
        } else if bytes.starts(with: [0x28, 0xb5, 0x2f, 0xfd]) {
            self = .zstd
        } else if bytes.starts(with: [0x42, 0x5a, 0x68]) {
            self = .bzip2
        } else if bytes.starts(with: [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00]) {
            self = .xz
        } else {
            self = .none
        }
    }
}
