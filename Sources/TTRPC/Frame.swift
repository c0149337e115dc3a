/// One frame of ttrpc: a 10-byte header (length, stream id, type, flags; big-endian) and its data.
public struct Frame: Equatable, Sendable {
    public enum Kind: UInt8, Sendable { case request = 1, response = 2, data = 3 }

    public struct Flags: OptionSet, Equatable, Sendable {
        public let rawValue: UInt8
        public init(rawValue: UInt8) { self.rawValue = rawValue }
        public static let remoteClosed = Flags(rawValue: 0x01)
        public static let remoteOpen = Flags(rawValue: 0x02)
        public static let noData = Flags(rawValue: 0x04)
    }

    public static let headerLength = 10
    /// Bytes of data that a frame may carry at most, inclusive.
    public static let limit = 4 << 20

    public var stream: UInt32
    public var kind: Kind
    public var flags: Flags
    public var data: [UInt8]

    public init(stream: UInt32, kind: Kind, flags: Flags = [], data: [UInt8] = []) {
        self.stream = stream
        self.kind = kind
        self.flags = flags
        self.data = data
    }

    /// The frame as it goes onto the wire. The caller keeps `data` within ``limit``.
    public func encoded() -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(Self.headerLength + data.count)
        append(UInt32(data.count), to: &bytes)
        append(stream, to: &bytes)
        bytes.append(kind.rawValue)
        bytes.append(flags.rawValue)
        bytes.append(contentsOf: data)
        return bytes
    }

    private func append(_ value: UInt32, to bytes: inout [UInt8]) {
        for shift in [24, 16, 8, 0] as [UInt32] { bytes.append(UInt8(truncatingIfNeeded: value >> shift)) }
    }
}

/// Cuts a byte stream into frames. Bounded: it holds at most one unfinished frame and what was fed after it.
public struct FrameDecoder: Sendable {
    public enum Event: Equatable, Sendable {
        case frame(Frame)
        /// A frame over the limit. Its bytes are skipped and the connection goes on; its stream is answered with RESOURCE_EXHAUSTED.
        case oversize(stream: UInt32, length: Int)
    }

    private var buffer: [UInt8] = []
    private var start = 0
    private var skip = 0

    public init() {}

    /// Goes on where another has stopped: with bytes that were fed and not taken, and a number of bytes to pass over.
    public init(rest: [UInt8], skip: Int) {
        buffer = rest
        self.skip = skip
    }

    /// What ``init(rest:skip:)`` takes.
    public var rest: (bytes: [UInt8], skip: Int) { (Array(buffer[start...]), skip) }

    /// Whether a frame has begun and not ended: a connection that closes now was cut in its middle.
    public var isInsideFrame: Bool { skip > 0 || buffer.count > start }

    public mutating func feed(_ bytes: some Collection<UInt8>) {
        if skip >= bytes.count {
            skip -= bytes.count
            return
        }
        if start > 0 && start == buffer.count {
            buffer.removeAll(keepingCapacity: buffer.capacity <= 1 << 16)
            start = 0
        }
        buffer.append(contentsOf: bytes.dropFirst(skip))
        skip = 0
    }

    /// The same of bytes that were just read, without the generic machinery: in a small process that costs pages of memory.
    public mutating func feed(_ bytes: UnsafeRawBufferPointer) {
        let skipped = min(skip, bytes.count)
        skip -= skipped
        guard skipped < bytes.count, let base = bytes.baseAddress else { return }
        if start > 0 && start == buffer.count {
            buffer.removeAll(keepingCapacity: buffer.capacity <= 1 << 16)
            start = 0
        }
        buffer.append(contentsOf: UnsafeRawBufferPointer(start: base + skipped, count: bytes.count - skipped))
    }

    /// The next complete frame, nil until more bytes are fed. Frames of unknown type are dropped silently.
    public mutating func next() -> Event? {
        while buffer.count - start >= Frame.headerLength {
            let length = Int(integer(at: start))
            let stream = integer(at: start + 4)
            let available = buffer.count - start - Frame.headerLength
            if length > Frame.limit {
                drop(Frame.headerLength + min(available, length))
                skip = length - min(available, length)
                return .oversize(stream: stream, length: length)
            }
            guard available >= length else { return nil }
            let kind = Frame.Kind(rawValue: buffer[start + 8])
            let flags = Frame.Flags(rawValue: buffer[start + 9])
            let body = start + Frame.headerLength
            let data = kind == nil ? [] : Array(buffer[body..<body + length])
            drop(Frame.headerLength + length)
            if let kind { return .frame(Frame(stream: stream, kind: kind, flags: flags, data: data)) }
        }
        return nil
    }

    private func integer(at index: Int) -> UInt32 {
        var value: UInt32 = 0
        for offset in 0..<4 { value = value << 8 | UInt32(buffer[index + offset]) }
        return value
    }

    private mutating func drop(_ count: Int) {
        start += count
        if start >= 1 << 16 || start == buffer.count {
            buffer.removeFirst(start)
            start = 0
        }
    }
}
