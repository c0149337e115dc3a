import CLinux

/// A record as it lies in its file: a kind and keys with values, in the order in which they were set.
///
///     ctr-record 1 <kind>
///     <key> <value>
///     crc32 <8 hexadecimal digits>
///
/// The typed records (``PidRecord``, ``ExitRecord`` …) are made of this one.
public struct Record: Equatable, Sendable {
    public struct Field: Equatable, Sendable {
        public let key: String
        public let value: String
    }

    /// Bytes that a record may have at most, inclusive.
    public static let limit = 64 << 10

    /// `[a-z]+`, names the type.
    public let kind: String
    public private(set) var fields: [Field] = []

    public init(kind: String) { self.kind = kind }

    public subscript(_ key: String) -> String? {
        for field in fields where field.key == key { return field.value }
        return nil
    }

    /// Adds a field. Keys are `[a-z_]+` and occur once; the caller's own constants.
    public mutating func set(_ key: String, _ value: String) {
        fields.append(Field(key: key, value: value))
    }

    /// The file's bytes with the checksum.
    public func encoded() -> [UInt8] {
        var out: [UInt8] = []
        out.append(contentsOf: "ctr-record 1 ".utf8)
        out.append(contentsOf: kind.utf8)
        out.append(UInt8(ascii: "\n"))
        for field in fields {
            out.append(contentsOf: field.key.utf8)
            out.append(UInt8(ascii: " "))
            for byte in field.value.utf8 {
                if Self.mustEscape(byte) {
                    out.append(UInt8(ascii: "%"))
                    out.append(Self.digit(byte >> 4, alphabet: UInt8(ascii: "A")))
                    out.append(Self.digit(byte & 15, alphabet: UInt8(ascii: "A")))
                } else {
                    out.append(byte)
                }
            }
            out.append(UInt8(ascii: "\n"))
        }
        let sum = checksum(out[...])
        out.append(contentsOf: "crc32 ".utf8)
        for shift in stride(from: UInt32(28), through: 0, by: -4) {
            out.append(Self.digit(UInt8(truncatingIfNeeded: sum >> shift) & 15, alphabet: UInt8(ascii: "a")))
        }
        out.append(UInt8(ascii: "\n"))
        return out
    }

    /// Reads exactly what ``encoded()`` writes; every other byte sequence is refused with `.damaged`.
    public init(decoding bytes: [UInt8], name: String) throws(RecordError) {
        func damaged(_ reason: String) -> RecordError { RecordError("read record", name, .damaged(reason)) }
        if bytes.count > Self.limit { throw damaged("longer than \(Self.limit) bytes") }
        let sumLength = 15
        guard bytes.count >= sumLength else { throw damaged("no checksum") }
        let body = bytes[..<(bytes.count - sumLength)]
        guard bytes[body.count...].starts(with: "crc32 ".utf8), bytes[bytes.count - 1] == UInt8(ascii: "\n"),
            let sum = Self.hexadecimal(bytes[(body.count + 6)..<(bytes.count - 1)])
        else { throw damaged("no checksum") }
        guard sum == checksum(body) else { throw damaged("wrong checksum") }

        var lines = body.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)[...]
        guard body.last == UInt8(ascii: "\n"), lines.popLast() != nil, let first = lines.popFirst(),
            first.starts(with: "ctr-record 1 ".utf8)
        else { throw damaged("no header") }
        let kind = first.dropFirst(13)
        guard Self.isName(kind, underscore: false) else { throw damaged("no kind") }
        self.init(kind: String(decoding: kind, as: UTF8.self))
        for line in lines {
            guard let space = line.firstIndex(of: UInt8(ascii: " ")), Self.isName(line[..<space], underscore: true),
                let value = Self.unescape(line[(space + 1)...])
            else { throw damaged("malformed line") }
            let key = String(decoding: line[..<space], as: UTF8.self)
            if self[key] != nil { throw damaged("key \(key) twice") }
            set(key, value)
        }
    }

    private static func mustEscape(_ byte: UInt8) -> Bool { byte < 0x20 || byte == 0x7f || byte == UInt8(ascii: "%") }

    private static func digit(_ value: UInt8, alphabet: UInt8) -> UInt8 {
        value < 10 ? UInt8(ascii: "0") + value : alphabet + value - 10
    }

    private static func isName(_ text: ArraySlice<UInt8>, underscore: Bool) -> Bool {
        !text.isEmpty
            && text.allSatisfy {
                ($0 >= UInt8(ascii: "a") && $0 <= UInt8(ascii: "z")) || (underscore && $0 == UInt8(ascii: "_"))
            }
    }

    private static func unescape(_ text: ArraySlice<UInt8>) -> String? {
        var out: [UInt8] = []
        out.reserveCapacity(text.count)
        var rest = text
        while let byte = rest.popFirst() {
            if byte != UInt8(ascii: "%") {
                if mustEscape(byte) { return nil }
                out.append(byte)
                continue
            }
            guard let high = rest.popFirst(), let low = rest.popFirst(), let upper = value(high, alphabet: UInt8(ascii: "A")),
                let lower = value(low, alphabet: UInt8(ascii: "A")), mustEscape(upper << 4 | lower)
            else { return nil }
            out.append(upper << 4 | lower)
        }
        // Decoding replaces what is not UTF-8, so it changed nothing exactly when the bytes were valid.
        let text = String(decoding: out, as: UTF8.self)
        return text.utf8.elementsEqual(out) ? text : nil
    }

    private static func value(_ digit: UInt8, alphabet: UInt8) -> UInt8? {
        switch digit {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): digit - UInt8(ascii: "0")
        case alphabet..<(alphabet + 6): digit - alphabet + 10
        default: nil
        }
    }

    private static func hexadecimal(_ text: ArraySlice<UInt8>) -> UInt32? {
        var result: UInt32 = 0
        for digit in text {
            guard let value = value(digit, alphabet: UInt8(ascii: "a")) else { return nil }
            result = result << 4 | UInt32(value)
        }
        return result
    }
}

/// CRC-32 of `bytes`.
private func checksum(_ bytes: ArraySlice<UInt8>) -> UInt32 {
    bytes.withUnsafeBytes { $0.baseAddress.map { [count = $0.count] in ctr_crc32(0, $0, count) } ?? 0 }
}
