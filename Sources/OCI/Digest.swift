/// The name of some content: `sha256:` and 64 lower-case hexadecimal digits (image-spec, descriptor.md).
/// A value of this type is always well-formed, so its `hex` may be used as a file name.
public struct Digest: Hashable, Comparable, Sendable, CustomStringConvertible {
    /// 64 lower-case hexadecimal digits.
    public let hex: String

    /// Takes `sha256:<64 hex>`; nil for everything else, other algorithms included.
    public init?(_ text: some StringProtocol) {
        let prefix = "sha256:"
        guard text.utf8.count == prefix.utf8.count + 64, text.hasPrefix(prefix) else { return nil }
        self.init(hex: text.dropFirst(prefix.count))
    }

    /// Takes the 64 digits alone.
    public init?(hex: some StringProtocol) {
        guard hex.utf8.count == 64 else { return nil }
        for byte in hex.utf8 {
            switch byte {
            case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "a")...UInt8(ascii: "f"): continue
            default: return nil
            }
        }
        self.hex = String(hex)
    }

    /// Takes the 32 bytes that a hash function gave; nil when there are more or fewer.
    public init?(bytes: some Collection<UInt8>) {
        guard bytes.count == 32 else { return nil }
        let digits = Array("0123456789abcdef".utf8)
        var text: [UInt8] = []
        text.reserveCapacity(64)
        for byte in bytes {
            text.append(digits[Int(byte >> 4)])
            text.append(digits[Int(byte & 15)])
        }
        hex = String(decoding: text, as: UTF8.self)
    }

    public var description: String { "sha256:" + hex }

    /// The first twelve digits, as lists show them.
    public var short: String { String(hex.prefix(12)) }

    public static func < (left: Digest, right: Digest) -> Bool { left.hex < right.hex }
}
