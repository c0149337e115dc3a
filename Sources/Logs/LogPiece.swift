/// The place just behind the last byte that a reader has of a stream.
public struct LogCursor: Equatable, Comparable, Sendable {
    public var segment: UInt32
    public var offset: UInt64

    public init(segment: UInt32, offset: UInt64) {
        self.segment = segment
        self.offset = offset
    }

    /// Before everything.
    public static let start = LogCursor(segment: 0, offset: 0)

    public static func < (left: Self, right: Self) -> Bool {
        (left.segment, left.offset) < (right.segment, right.offset)
    }
}

/// Two values, one for each stream.
public struct LogPair<Value> {
    public var stdout: Value
    public var stderr: Value

    public init(stdout: Value, stderr: Value) {
        self.stdout = stdout
        self.stderr = stderr
    }

    public init(both value: Value) { self.init(stdout: value, stderr: value) }

    public subscript(stream: LogStream) -> Value {
        get { stream == .stdout ? stdout : stderr }
        set {
            switch stream {
            case .stdout: stdout = newValue
            case .stderr: stderr = newValue
            }
        }
    }
}

extension LogPair: Sendable where Value: Sendable {}
extension LogPair: Equatable where Value: Equatable {}

/// Which of the two streams.
public struct LogStreams: OptionSet, Equatable, Sendable {
    public let rawValue: UInt8
    public init(rawValue: UInt8) { self.rawValue = rawValue }
    public static let stdout = LogStreams(rawValue: 1)
    public static let stderr = LogStreams(rawValue: 2)
    public static let both: LogStreams = [.stdout, .stderr]

    public func contains(_ stream: LogStream) -> Bool { contains(LogStreams(rawValue: stream.rawValue)) }
}

/// A piece of a container's output whose bytes the reader has put into its caller's buffer, or a fact about the output.
public struct LogPiece: Equatable, Sendable {
    public enum Kind: Equatable, Sendable {
        /// So many bytes are in the buffer.
        case bytes(Int)
        /// So many bytes of the stream are lost: dropped while the disk was full, or gone from a segment; 0: nobody knows how many.
        case gap(UInt64)
        /// The stream is closed and drained.
        case end
    }

    public var stream: LogStream
    /// Where it begins.
    public var segment: UInt32
    public var offset: UInt64
    public var kind: Kind
    /// CLOCK_REALTIME, nanoseconds: when it arrived, or with `recovered` when it was found.
    public var time: Int64
    public var recovered: Bool

    /// Behind the piece.
    public var cursor: LogCursor {
        guard case .bytes(let count) = kind else { return LogCursor(segment: segment, offset: offset) }
        return LogCursor(segment: segment, offset: offset + UInt64(count))
    }
}
