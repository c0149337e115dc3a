import CtrProto
import Glibc
import Linux

/// Carries this program's standard input to a process. Each byte has its offset, so what had no answer is sent again after a lost
/// connection and still arrives once. No more is read before the manager has taken what was sent; only a terminal is read on, so that
/// the detach keys are seen whatever the manager does.
struct InputPump {
    enum Taken: Equatable {
        case some
        /// The detach keys were typed.
        case detach
        /// The terminal is gone.
        case hungUp
    }

    /// What one request says of offsets.
    enum Addressing: Equatable {
        /// All input of the process comes from here, from its first byte on.
        case whole
        /// Others write too: bytes go behind what is there.
        case shared
    }

    /// Bytes of one request; and of what is typed that may wait.
    private static let chunk = 64 << 10
    private static let typedAhead = 16 << 10

    private let descriptor: Int32
    private let addressing: Addressing
    private let closesAtEnd: Bool
    private var filter: DetachFilter?
    private var buffer: [UInt8] = []
    /// Place of the first byte of ``buffer`` in the whole input; with ``Addressing/shared`` known once the manager was asked.
    private var offset: UInt64?
    /// Bytes of ``buffer`` in the request that has no answer yet.
    private var inFlight = 0
    private var isUnderWay = false
    private var isClosing = false
    /// Bytes of a shared input that were sent and perhaps taken when the connection broke.
    private var doubtful = 0
    private var isEnded = false
    /// Nothing more is wanted by the process, or all was delivered.
    private(set) var isOver = false

    /// `keys`: standard input is a terminal in raw mode, and these let go.
    init(descriptor: Int32 = STDIN_FILENO, _ addressing: Addressing, closesAtEnd: Bool, keys: DetachKeys?) {
        self.descriptor = descriptor
        self.addressing = addressing
        self.closesAtEnd = closesAtEnd
        filter = keys.map { DetachFilter($0) }
        offset = addressing == .whole ? 0 : nil
    }

    /// What to poll; negative when nothing is to be read now.
    var pollDescriptor: Int32 { wantsRead ? descriptor : -1 }

    private var wantsRead: Bool {
        if isOver || isEnded { return false }
        return filter == nil ? buffer.isEmpty : buffer.count < Self.typedAhead
    }

    /// Reads once; only after poll(2) said that there is something.
    mutating func read() -> Taken {
        let size = filter == nil ? Self.chunk : 4096
        var room = [UInt8](repeating: 0, count: size)
        let got = room.withUnsafeMutableBytes { Glibc.read(descriptor, $0.baseAddress, $0.count) }
        if got < 0 && (errno == EINTR || errno == EAGAIN) { return .some }
        if filter != nil {
            if got <= 0 { return .hungUp }
            if let passed = filter?.pass(room[..<got]) {
                buffer += passed.bytes
                if passed.detaches { return .detach }
            }
            return .some
        }
        // A terminal that this program may not read any more is as good as its end.
        if got <= 0 { isEnded = true } else { buffer += room[..<got] }
        return .some
    }

    /// The next request, if one is due and none is under way; the names are the caller's to fill in.
    mutating func request() -> Ctr_V1_WriteInputRequest? {
        if isOver || isUnderWay { return nil }
        var request = Ctr_V1_WriteInputRequest()
        guard let offset, doubtful == 0 else {
            // Adds nothing; the answer says how much there is.
            request.append = true
            isUnderWay = true
            return request
        }
        let part = buffer.prefix(Self.chunk)
        request.close = isEnded && closesAtEnd && part.count == buffer.count
        if part.isEmpty && !request.close {
            if isEnded { isOver = true }
            return nil
        }
        request.data.append(contentsOf: part)
        if addressing == .shared { request.append = true } else { request.offset = offset }
        inFlight = part.count
        isClosing = request.close
        isUnderWay = true
        return request
    }

    /// The answer to the request under way.
    mutating func accept(_ response: Ctr_V1_WriteInputResponse) {
        let moved = Int(clamping: response.offset &- (offset ?? response.offset))
        let taken: Int
        if doubtful > 0 {
            // Of an input that others write too only this is known: how far its end has moved.
            taken = min(doubtful, moved)
            doubtful = 0
        } else {
            taken = addressing == .shared ? inFlight : min(moved, buffer.count)
        }
        let isStuck = inFlight > 0 && taken == 0
        buffer.removeFirst(max(0, taken))
        offset = response.offset
        inFlight = 0
        isUnderWay = false
        if response.closed || isClosing && buffer.isEmpty || isStuck { isOver = true }
    }

    /// The process takes no input any more.
    mutating func end() { isOver = true }

    /// The connection broke: whether the request under way was carried out is not known.
    mutating func lost() {
        if addressing == .shared { doubtful = max(doubtful, inFlight) }
        inFlight = 0
        isUnderWay = false
        isClosing = false
    }
}
