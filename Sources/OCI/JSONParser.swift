extension JSON {
    /// Deepest nesting that a document may have.
    public static let depthLimit = 64

    /// Reads one document. The caller bounds the size of `bytes`.
    public init(parsing bytes: [UInt8]) throws(SyntaxError) {
        var failure: SyntaxError?
        var result = JSON.null
        bytes.withUnsafeBufferPointer { buffer in
            var parser = JSONParser(buffer)
            do throws(SyntaxError) { result = try parser.document() } catch { failure = error }
        }
        if let failure { throw failure }
        self = result
    }
}

/// Recursive descent over borrowed bytes; ASCII structure, UTF-8 checked in strings.
private struct JSONParser {
    private let bytes: UnsafeBufferPointer<UInt8>
    private var position = 0

    init(_ bytes: UnsafeBufferPointer<UInt8>) { self.bytes = bytes }

    mutating func document() throws(JSON.SyntaxError) -> JSON {
        skipSpace()
        let value = try value(depth: 0)
        skipSpace()
        if position < bytes.count { throw error("trailing bytes") }
        return value
    }

    private func error(_ reason: String) -> JSON.SyntaxError { JSON.SyntaxError(reason: reason, offset: position) }

    private mutating func skipSpace() {
        while position < bytes.count, case let byte = bytes[position], byte == 0x20 || byte == 0x0a || byte == 0x0d || byte == 0x09 {
            position += 1
        }
    }

    private var current: UInt8 { position < bytes.count ? bytes[position] : 0 }

    private mutating func value(depth: Int) throws(JSON.SyntaxError) -> JSON {
        if depth > JSON.depthLimit { throw error("nested too deeply") }
        switch current {
        case UInt8(ascii: "{"): return try object(depth: depth)
        case UInt8(ascii: "["): return try array(depth: depth)
        case UInt8(ascii: "\""): return .string(try string())
        case UInt8(ascii: "t"): return try word("true", .bool(true))
        case UInt8(ascii: "f"): return try word("false", .bool(false))
        case UInt8(ascii: "n"): return try word("null", .null)
        case UInt8(ascii: "-"), UInt8(ascii: "0")...UInt8(ascii: "9"): return try number()
        default: throw error(position < bytes.count ? "unexpected byte" : "unexpected end")
        }
    }

    private mutating func word(_ text: StaticString, _ value: JSON) throws(JSON.SyntaxError) -> JSON {
        for index in 0..<text.utf8CodeUnitCount {
            if position + index >= bytes.count || bytes[position + index] != text.utf8Start[index] { throw error("unexpected word") }
        }
        position += text.utf8CodeUnitCount
        return value
    }

    private mutating func object(depth: Int) throws(JSON.SyntaxError) -> JSON {
        position += 1
        var members: [JSON.Member] = []
        var seen: Set<String> = []
        skipSpace()
        if current == UInt8(ascii: "}") {
            position += 1
            return .object([])
        }
        while true {
            skipSpace()
            guard current == UInt8(ascii: "\"") else { throw error("expected a key") }
            let key = try string()
            skipSpace()
            guard current == UInt8(ascii: ":") else { throw error("expected ':'") }
            position += 1
            skipSpace()
            // Small objects are compared directly; a set pays only for large ones.
            let duplicate = members.count < 8 ? members.contains { $0.key == key } : seen.contains(key)
            if duplicate { throw error("duplicate key \"\(key.prefix(64))\"") }
            members.append(JSON.Member(key, try value(depth: depth + 1)))
            if members.count == 8 { for member in members { seen.insert(member.key) } } else if members.count > 8 { seen.insert(key) }
            skipSpace()
            switch current {
            case UInt8(ascii: ","): position += 1
            case UInt8(ascii: "}"):
                position += 1
                return .object(members)
            default: throw error("expected ',' or '}'")
            }
        }
    }

    private mutating func array(depth: Int) throws(JSON.SyntaxError) -> JSON {
        position += 1
        var elements: [JSON] = []
        skipSpace()
        if current == UInt8(ascii: "]") {
            position += 1
            return .array([])
        }
        while true {
            skipSpace()
            elements.append(try value(depth: depth + 1))
            skipSpace()
            switch current {
            case UInt8(ascii: ","): position += 1
            case UInt8(ascii: "]"):
                position += 1
                return .array(elements)
            default: throw error("expected ',' or ']'")
            }
        }
    }

    private mutating func string() throws(JSON.SyntaxError) -> String {
        position += 1
        let begin = position
        while position < bytes.count, case let byte = bytes[position], byte != UInt8(ascii: "\""), byte != UInt8(ascii: "\\"), byte >= 0x20
        {
            position += 1
        }
        guard position < bytes.count else { throw error("unfinished string") }
        if bytes[position] == UInt8(ascii: "\"") {
            let text = UnsafeBufferPointer(rebasing: bytes[begin..<position])
            guard let result = String(validating: text, as: UTF8.self) else { throw error("invalid UTF-8") }
            position += 1
            return result
        }
        return try escapedString(Array(bytes[begin..<position]))
    }

    private mutating func escapedString(_ prefix: [UInt8]) throws(JSON.SyntaxError) -> String {
        var text = prefix
        while position < bytes.count {
            let byte = bytes[position]
            if byte < 0x20 { throw error("control character in string") }
            position += 1
            if byte == UInt8(ascii: "\"") {
                guard let result = String(validating: text, as: UTF8.self) else { throw error("invalid UTF-8") }
                return result
            }
            if byte != UInt8(ascii: "\\") {
                text.append(byte)
                continue
            }
            let escape = current
            position += 1
            switch escape {
            case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): text.append(escape)
            case UInt8(ascii: "b"): text.append(0x08)
            case UInt8(ascii: "f"): text.append(0x0c)
            case UInt8(ascii: "n"): text.append(0x0a)
            case UInt8(ascii: "r"): text.append(0x0d)
            case UInt8(ascii: "t"): text.append(0x09)
            case UInt8(ascii: "u"):
                var scalar = try hexadecimal()
                if scalar & 0xfc00 == 0xd800 {
                    guard current == UInt8(ascii: "\\"), position + 1 < bytes.count, bytes[position + 1] == UInt8(ascii: "u") else {
                        throw error("lone surrogate")
                    }
                    position += 2
                    let low = try hexadecimal()
                    guard low & 0xfc00 == 0xdc00 else { throw error("lone surrogate") }
                    scalar = 0x10000 + (scalar & 0x3ff) << 10 + (low & 0x3ff)
                }
                guard let unicode = Unicode.Scalar(scalar) else { throw error("lone surrogate") }
                text.append(contentsOf: Array(String(Character(unicode)).utf8))
            default: throw error("unknown escape")
            }
        }
        throw error("unfinished string")
    }

    private mutating func hexadecimal() throws(JSON.SyntaxError) -> UInt32 {
        var value: UInt32 = 0
        for _ in 0..<4 {
            let digit: UInt32
            switch current {
            case UInt8(ascii: "0")...UInt8(ascii: "9"): digit = UInt32(current - UInt8(ascii: "0"))
            case UInt8(ascii: "a")...UInt8(ascii: "f"): digit = UInt32(current - UInt8(ascii: "a")) + 10
            case UInt8(ascii: "A")...UInt8(ascii: "F"): digit = UInt32(current - UInt8(ascii: "A")) + 10
            default: throw error("expected four hexadecimal digits")
            }
            value = value << 4 | digit
            position += 1
        }
        return value
    }

    private mutating func number() throws(JSON.SyntaxError) -> JSON {
        let begin = position
        let negative = current == UInt8(ascii: "-")
        if negative { position += 1 }
        let firstDigit = position
        try digits()
        if bytes[firstDigit] == UInt8(ascii: "0") && position > firstDigit + 1 { throw error("leading zero") }
        var whole = true
        if current == UInt8(ascii: ".") {
            whole = false
            position += 1
            try digits()
        }
        if current | 0x20 == UInt8(ascii: "e") {
            whole = false
            position += 1
            if current == UInt8(ascii: "+") || current == UInt8(ascii: "-") { position += 1 }
            try digits()
        }
        let text = String(decoding: UnsafeBufferPointer(rebasing: bytes[begin..<position]), as: UTF8.self)
        if whole {
            if let value = Int64(text) { return .integer(value) }
            if let value = UInt64(text) { return .unsigned(value) }
        }
        guard text.utf8.count <= 64, let value = Double(text), value.isFinite else { throw error("number out of range") }
        return .double(value)
    }

    private mutating func digits() throws(JSON.SyntaxError) {
        let begin = position
        while position < bytes.count, bytes[position] >= UInt8(ascii: "0"), bytes[position] <= UInt8(ascii: "9") { position += 1 }
        if begin == position { throw error("expected a digit") }
    }
}
