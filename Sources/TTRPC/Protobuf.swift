/// The few lines of protobuf that the two envelopes need, so that shim and manager share them without sharing a codec.
struct ProtobufWriter {
    private(set) var result: [UInt8] = []

    mutating func integer(_ field: UInt64, _ value: UInt64) {
        if value == 0 { return }
        varint(field << 3)
        varint(value)
    }

    mutating func bytes(_ field: UInt64, _ value: [UInt8]) {
        if value.isEmpty { return }
        varint(field << 3 | 2)
        varint(UInt64(value.count))
        result.append(contentsOf: value)
    }

    mutating func string(_ field: UInt64, _ value: String) { bytes(field, Array(value.utf8)) }

    /// Unlike a scalar, a message is written when it is empty too: its presence says something.
    mutating func message(_ field: UInt64, _ value: ProtobufWriter) {
        varint(field << 3 | 2)
        varint(UInt64(value.result.count))
        result.append(contentsOf: value.result)
    }

    private mutating func varint(_ value: UInt64) {
        var rest = value
        while rest >= 0x80 {
            result.append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        result.append(UInt8(rest))
    }
}

/// Reads fields one by one and stops at the first byte that makes no sense.
struct ProtobufReader {
    enum Value: Equatable {
        case integer(UInt64)
        case fixed(UInt64)
        case bytes(ArraySlice<UInt8>)
    }

    private var rest: ArraySlice<UInt8>
    private(set) var malformed = false

    init(_ data: some Collection<UInt8>) { rest = ArraySlice(data) }

    mutating func next() -> (number: UInt64, value: Value)? {
        if rest.isEmpty || malformed { return nil }
        guard let key = varint(), key >> 3 > 0 else { return fail() }
        switch key & 7 {
        case 0:
            guard let value = varint() else { return fail() }
            return (key >> 3, .integer(value))
        case 1: return fixed(key >> 3, 8)
        case 2:
            guard let length = varint(), length <= UInt64(rest.count) else { return fail() }
            let value = rest.prefix(Int(length))
            rest = rest.dropFirst(Int(length))
            return (key >> 3, .bytes(value))
        case 5: return fixed(key >> 3, 4)
        default: return fail()
        }
    }

    private mutating func fixed(_ number: UInt64, _ size: Int) -> (number: UInt64, value: Value)? {
        guard rest.count >= size else { return fail() }
        var value: UInt64 = 0
        for byte in rest.prefix(size).reversed() { value = value << 8 | UInt64(byte) }
        rest = rest.dropFirst(size)
        return (number, .fixed(value))
    }

    private mutating func varint() -> UInt64? {
        var value: UInt64 = 0
        for shift in stride(from: UInt64(0), to: 70, by: 7) {
            guard let byte = rest.popFirst() else { return nil }
            if shift == 63 && byte > 1 { return nil }
            value |= UInt64(byte & 0x7f) << shift
            if byte & 0x80 == 0 { return value }
        }
        return nil
    }

    private mutating func fail() -> (number: UInt64, value: Value)? {
        malformed = true
        return nil
    }
}
