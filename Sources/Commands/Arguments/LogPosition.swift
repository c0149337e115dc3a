import CtrProto

/// A place in the output of one run of a container, as text: "1/stdout:1:4096,stderr:1:0" is the incarnation, and for each stream its
/// segment and the offset there. A stream that is not named is read from its beginning.
struct LogPosition: Equatable, Sendable {
    var incarnation: UInt32
    var cursors: [Ctr_V1_LogCursor]

    init(incarnation: UInt32, cursors: [Ctr_V1_LogCursor]) {
        self.incarnation = incarnation
        self.cursors = cursors.sorted { $0.stream.rawValue < $1.stream.rawValue }
    }

    init(_ text: String) throws(Failure) {
        let problem = Failure(
            "invalid position \"\(text)\": use what ctrctl printed, such as 1/stdout:1:4096,stderr:1:0", code: Failure.usage)
        let halves = text.split(separator: "/", omittingEmptySubsequences: false)
        guard halves.count == 2, let incarnation = number(halves[0], UInt32.self), incarnation > 0 else { throw problem }
        var cursors: [Ctr_V1_LogCursor] = []
        if !halves[1].isEmpty {
            for part in halves[1].split(separator: ",", omittingEmptySubsequences: false) {
                let fields = part.split(separator: ":", omittingEmptySubsequences: false)
                guard fields.count == 3, let segment = number(fields[1], UInt32.self), let offset = number(fields[2], UInt64.self) else {
                    throw problem
                }
                var cursor = Ctr_V1_LogCursor()
                switch fields[0] {
                case "stdout": cursor.stream = .stdout
                case "stderr": cursor.stream = .stderr
                default: throw problem
                }
                if cursors.contains(where: { $0.stream == cursor.stream }) { throw problem }
                cursor.segment = segment
                cursor.offset = offset
                cursors.append(cursor)
            }
        }
        self.init(incarnation: incarnation, cursors: cursors)
    }

    /// Whether `text` is meant to be a position and not a time.
    static func isOne(_ text: String) -> Bool { text.contains("/") }

    var description: String {
        "\(incarnation)/"
            + cursors.map { "\($0.stream == .stderr ? "stderr" : "stdout"):\($0.segment):\($0.offset)" }.joined(separator: ",")
    }
}

/// Decimal digits and nothing else.
private func number<Value: FixedWidthInteger>(_ text: Substring, _: Value.Type) -> Value? {
    text.utf8.allSatisfy { (0x30...0x39).contains($0) } ? Value(text) : nil
}
