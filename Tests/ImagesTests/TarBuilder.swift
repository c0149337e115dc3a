import CZlib
import Content

/// Writes tar archives byte by byte, right ones and wrong ones.
struct TarBuilder {
    var bytes: [UInt8] = []

    struct Header {
        var name: [UInt8]
        var type: UInt8 = UInt8(ascii: "0")
        var size: [UInt8]
        var mode: UInt32 = 0o644
        var uid: [UInt8] = octal(0, 8)
        var gid: [UInt8] = octal(0, 8)
        var modified: [UInt8] = octal(1_700_000_000, 12)
        var link: [UInt8] = []
        var magic = Array("ustar\u{0}00".utf8)
        var major: UInt32 = 0
        var minor: UInt32 = 0
        var prefix: [UInt8] = []

        init(_ name: String, size: Int = 0) {
            self.name = Array(name.utf8)
            self.size = octal(size, 12)
        }

        var block: [UInt8] {
            var block = [UInt8](repeating: 0, count: 512)
            func put(_ value: [UInt8], _ offset: Int, _ width: Int) {
                for (index, byte) in value.prefix(width).enumerated() { block[offset + index] = byte }
            }
            put(name, 0, 100)
            put(octal(Int(mode), 8), 100, 8)
            put(uid, 108, 8)
            put(gid, 116, 8)
            put(size, 124, 12)
            put(modified, 136, 12)
            block[156] = type
            put(link, 157, 100)
            put(magic, 257, 8)
            put(octal(Int(major), 8), 329, 8)
            put(octal(Int(minor), 8), 337, 8)
            put(prefix, 345, 155)
            put([UInt8](repeating: 0x20, count: 8), 148, 8)
            let sum = block.reduce(0) { $0 + Int($1) }
            put(octal(sum, 7) + [0x20], 148, 8)
            return block
        }
    }

    /// `value` in `width` - 1 octal digits and a NUL.
    static func octal(_ value: Int, _ width: Int) -> [UInt8] {
        let digits = Array(String(value, radix: 8).utf8)
        return [UInt8](repeating: UInt8(ascii: "0"), count: max(0, width - 1 - digits.count)) + digits + [0]
    }

    mutating func add(_ header: Header, _ content: [UInt8] = []) {
        bytes += header.block + content
        bytes += [UInt8](repeating: 0, count: (512 - content.count % 512) % 512)
    }

    mutating func file(_ name: String, _ content: String = "", mode: UInt32 = 0o644, uid: Int = 0, gid: Int = 0) {
        var header = Header(name, size: content.utf8.count)
        header.mode = mode
        header.uid = Self.octal(uid, 8)
        header.gid = Self.octal(gid, 8)
        add(header, Array(content.utf8))
    }

    mutating func directory(_ name: String, mode: UInt32 = 0o755, uid: Int = 0, gid: Int = 0, modified: Int = 1_700_000_000) {
        var header = Header(name)
        header.type = UInt8(ascii: "5")
        header.mode = mode
        header.uid = Self.octal(uid, 8)
        header.gid = Self.octal(gid, 8)
        header.modified = Self.octal(modified, 12)
        add(header)
    }

    mutating func link(_ name: String, to target: String, hard: Bool = false) {
        var header = Header(name)
        header.type = UInt8(ascii: hard ? "1" : "2")
        header.link = Array(target.utf8)
        add(header)
    }

    mutating func node(_ name: String, type: Unicode.Scalar, major: UInt32 = 0, minor: UInt32 = 0, mode: UInt32 = 0o600) {
        var header = Header(name)
        header.type = UInt8(ascii: type)
        header.major = major
        header.minor = minor
        header.mode = mode
        add(header)
    }

    /// An extended header of `type` (x or g) with these records.
    mutating func pax(_ records: [(String, [UInt8])], type: Unicode.Scalar = "x") {
        pax(raw: records.flatMap { Self.record($0.0, $0.1) }, type: type)
    }

    mutating func pax(_ records: [(String, String)], type: Unicode.Scalar = "x") {
        pax(records.map { ($0.0, Array($0.1.utf8)) }, type: type)
    }

    mutating func pax(raw content: [UInt8], type: Unicode.Scalar = "x") {
        var header = Header("PaxHeaders/x", size: content.count)
        header.type = UInt8(ascii: type)
        add(header, content)
    }

    mutating func long(_ type: Unicode.Scalar, _ text: String) {
        let content = Array(text.utf8) + [0]
        var header = Header("././@LongLink", size: content.count)
        header.type = UInt8(ascii: type)
        header.magic = Array("ustar  \u{0}".utf8)
        add(header, content)
    }

    static func record(_ key: String, _ value: [UInt8]) -> [UInt8] {
        let rest = 1 + key.utf8.count + 1 + value.count + 1
        var length = rest + 1
        while String(length).utf8.count + rest != length { length = String(length).utf8.count + rest }
        return Array("\(length) \(key)=".utf8) + value + [0x0a]
    }

    /// The archive with its two zero blocks.
    var finished: [UInt8] { bytes + [UInt8](repeating: 0, count: 1024) }
}

private func octal(_ value: Int, _ width: Int) -> [UInt8] { TarBuilder.octal(value, width) }

/// One gzip member.
func gzip(_ bytes: [UInt8]) -> [UInt8] {
    var stream = z_stream()
    var input = bytes
    var output = [UInt8](repeating: 0, count: bytes.count + bytes.count / 100 + 1024)
    guard deflateInit2_(&stream, 6, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY, ZLIB_VERSION, Int32(MemoryLayout<z_stream>.size)) == Z_OK else {
        return []
    }
    defer { deflateEnd(&stream) }
    let length = input.withUnsafeMutableBufferPointer { source in
        output.withUnsafeMutableBufferPointer { target in
            stream.next_in = source.baseAddress
            stream.avail_in = UInt32(source.count)
            stream.next_out = target.baseAddress
            stream.avail_out = UInt32(target.count)
            deflate(&stream, Z_FINISH)
            return target.count - Int(stream.avail_out)
        }
    }
    return Array(output.prefix(length))
}

/// Numbers that are the same in each run (xorshift64*).
struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64
    init(seed: UInt64) { state = seed | 1 }
    mutating func next() -> UInt64 {
        state ^= state >> 12
        state ^= state << 25
        state ^= state >> 27
        return state &* 2_685_821_657_736_338_717
    }
}
