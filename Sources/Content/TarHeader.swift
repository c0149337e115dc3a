/// One 512-byte header block, its fields checked: pax(1) "ustar Interchange Format", and the GNU and V7 variants of it.
struct TarHeader {
    enum Dialect { case v7, ustar, gnu }

    static let size = 512

    let type: UInt8
    let dialect: Dialect
    let path: [UInt8]
    let link: [UInt8]
    let mode: UInt32
    let uid: Int64
    let gid: Int64
    let size: Int64
    let modified: Int64
    let deviceMajor: Int64
    let deviceMinor: Int64

    /// Why a block is no header.
    struct Malformed: Error { let cause: String }

    static func isZero(_ block: UnsafeRawBufferPointer) -> Bool { block.prefix(size).allSatisfy { $0 == 0 } }

    init(_ block: UnsafeRawBufferPointer) throws(Malformed) {
        let sums = Self.sums(block)
        let stored = try Self.octal(block[148..<156], "checksum")
        guard stored == sums.unsigned || stored == sums.signed else { throw Malformed(cause: "wrong header checksum") }

        switch Array(block[257..<265]) {
        case Array("ustar\u{0}00".utf8): dialect = .ustar
        case Array("ustar  \u{0}".utf8): dialect = .gnu
        default:
            guard block[257] == 0 else { throw Malformed(cause: "unknown tar format") }
            dialect = .v7
        }
        type = block[156]
        let name = Self.text(block[0..<100])
        let prefix = Self.text(block[345..<500])
        // Some readers take it for a part of the name all the same.
        if dialect != .ustar && !prefix.isEmpty { throw Malformed(cause: "a name prefix in a format that has none") }
        path = prefix.isEmpty ? name : prefix + [UInt8(ascii: "/")] + name
        link = Self.text(block[157..<257])
        if name.isEmpty && !prefix.isEmpty { throw Malformed(cause: "a name prefix without a name") }
        // Some writers put the type of the file in front of the permissions.
        let modeField = try Self.number(block[100..<108], "mode")
        guard modeField >= 0, modeField <= 0o7_777_777 else { throw Malformed(cause: "mode is out of range") }
        mode = UInt32(modeField & 0o7777)
        uid = try Self.number(block[108..<116], "uid")
        gid = try Self.number(block[116..<124], "gid")
        size = try Self.number(block[124..<136], "size")
        guard size >= 0 else { throw Malformed(cause: "negative size") }
        modified = try Self.number(block[136..<148], "mtime")
        // Read for every type: a reader that takes a malformed field for the end of the archive would see fewer entries.
        let major = dialect == .v7 ? 0 : try Self.number(block[329..<337], "devmajor")
        let minor = dialect == .v7 ? 0 : try Self.number(block[337..<345], "devminor")
        let isDevice = type == UInt8(ascii: "3") || type == UInt8(ascii: "4")
        deviceMajor = isDevice ? major : 0
        deviceMinor = isDevice ? minor : 0
    }

    /// The sum of all bytes with the checksum field taken as spaces; some old writers added signed bytes.
    private static func sums(_ block: UnsafeRawBufferPointer) -> (unsigned: Int64, signed: Int64) {
        var unsigned: Int64 = 8 * 32
        var signed: Int64 = 8 * 32
        for index in 0..<size where !(148..<156).contains(index) {
            unsigned += Int64(block[index])
            signed += Int64(Int8(bitPattern: block[index]))
        }
        return (unsigned, signed)
    }

    /// Bytes up to the first NUL.
    static func text(_ field: Slice<UnsafeRawBufferPointer>) -> [UInt8] { Array(field.prefix { $0 != 0 }) }

    /// Octal digits, or GNU's base-256: first bit set, the rest a big-endian two's complement number.
    private static func number(_ field: Slice<UnsafeRawBufferPointer>, _ name: String) throws(Malformed) -> Int64 {
        guard let first = field.first, first & 0x80 != 0 else { return try octal(field, name) }
        let negative = first & 0x40 != 0
        var value: Int64 = negative ? -1 : 0
        for (index, byte) in field.enumerated() {
            let digit = index == 0 ? (negative ? byte | 0x80 : byte & 0x7f) : byte
            if value > Int64.max >> 8 || value < Int64.min >> 8 { throw Malformed(cause: "\(name) is too large") }
            value = value << 8 | Int64(digit)
        }
        return value
    }

    private static func octal(_ field: Slice<UnsafeRawBufferPointer>, _ name: String) throws(Malformed) -> Int64 {
        var value: Int64 = 0
        var rest = field.drop { $0 == 0x20 }
        while let byte = rest.first, byte != 0, byte != 0x20 {
            guard byte >= UInt8(ascii: "0"), byte <= UInt8(ascii: "7") else { throw Malformed(cause: "\(name) is no octal number") }
            value = value << 3 | Int64(byte - UInt8(ascii: "0"))
            rest = rest.dropFirst()
        }
        guard rest.allSatisfy({ $0 == 0 || $0 == 0x20 }) else { throw Malformed(cause: "\(name) is no octal number") }
        return value
    }
}
