import Glibc
import Linux
import OCI

/// Bytes that come once, in order.
public protocol ByteSource: AnyObject {
    /// Fills the front of `buffer` and says how much; 0 is the end.
    func read(into buffer: UnsafeMutableRawBufferPointer) throws -> Int
}

/// An open file from its current offset. The descriptor stays the caller's.
public final class FileSource: ByteSource {
    private let descriptor: Int32
    private let name: String

    public init(_ descriptor: Int32, name: String) {
        self.descriptor = descriptor
        self.name = name
    }

    public func read(into buffer: UnsafeMutableRawBufferPointer) throws -> Int {
        while true {
            let got = Glibc.read(descriptor, buffer.baseAddress, buffer.count)
            if got >= 0 { return got }
            if errno != EINTR { throw ContentError(SysError("read", name, code: errno)) }
        }
    }
}

/// Bytes in memory.
public final class MemorySource: ByteSource {
    private var rest: ArraySlice<UInt8>

    public init(_ bytes: [UInt8]) { rest = bytes[...] }

    public func read(into buffer: UnsafeMutableRawBufferPointer) throws -> Int {
        let count = min(buffer.count, rest.count)
        buffer.copyBytes(from: rest.prefix(count))
        rest = rest.dropFirst(count)
        return count
    }
}

/// Passes bytes on, and knows their digest and number.
public final class HashingSource: ByteSource {
    private let upstream: any ByteSource
    private let hash: SHA256
    /// Bytes passed on so far.
    public private(set) var count: Int64 = 0

    public init(_ upstream: any ByteSource) throws {
        self.upstream = upstream
        hash = try SHA256()
    }

    public func read(into buffer: UnsafeMutableRawBufferPointer) throws -> Int {
        let got = try upstream.read(into: buffer)
        if got > 0 {
            hash.update(UnsafeRawBufferPointer(rebasing: buffer[..<got]))
            count += Int64(got)
        }
        return got
    }

    /// The digest of all bytes; call it once, after the end.
    public func finish() throws -> Digest { try hash.finish() }
}

/// A window over a source: a large buffer from which small things are taken without copies.
public final class BufferedSource {
    private let upstream: any ByteSource
    private let buffer: UnsafeMutableRawBufferPointer
    private var begin = 0
    private var end = 0
    private var ended = false
    /// Offset of the next byte in the stream.
    public private(set) var position: Int64 = 0

    public init(_ upstream: any ByteSource, capacity: Int = 512 << 10) {
        self.upstream = upstream
        buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: capacity, alignment: 64)
    }

    deinit { buffer.deallocate() }

    /// The next bytes, at least `count` of them unless the stream ends before; valid until the next call.
    /// `count` is at most the capacity.
    public func peek(_ count: Int) throws -> UnsafeRawBufferPointer {
        while end - begin < count && !ended {
            if begin > 0 {
                if let base = buffer.baseAddress { base.copyMemory(from: base + begin, byteCount: end - begin) }
                end -= begin
                begin = 0
            }
            let got = try upstream.read(into: UnsafeMutableRawBufferPointer(rebasing: buffer[end...]))
            if got == 0 { ended = true }
            end += got
        }
        return UnsafeRawBufferPointer(rebasing: buffer[begin..<end])
    }

    /// Goes on after `count` bytes that ``peek(_:)`` has shown.
    public func consume(_ count: Int) {
        begin += count
        position += Int64(count)
        if begin == end {
            begin = 0
            end = 0
        }
    }

    /// Reads to the end of the stream and throws the bytes away, so that whoever counts or hashes upstream sees all of them.
    public func drain() throws {
        while case let bytes = try peek(1), !bytes.isEmpty { consume(bytes.count) }
    }
}
