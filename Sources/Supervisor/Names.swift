import Linux

/// The rules for ids and names.
public enum Names {
    /// 64 lower-case hex digits, as ids are; a name may not look like one.
    public static func isID(_ text: String) -> Bool { text.utf8.count == 64 && text.utf8.allSatisfy(isHexDigit) }

    static func isHexDigit(_ byte: UInt8) -> Bool {
        (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) || (UInt8(ascii: "a")...UInt8(ascii: "f")).contains(byte)
    }

    /// `[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}`, and not like an id.
    public static func isName(_ text: String) -> Bool {
        let bytes = text.utf8
        guard let first = bytes.first, bytes.count <= 128, isLetterOrDigit(first) else { return false }
        guard bytes.allSatisfy({ isLetterOrDigit($0) || "_.-".utf8.contains($0) }) else { return false }
        return !isID(text)
    }

    /// Namespaces become directory names and parts of cgroup paths: a name without a leading dot, at most 64 bytes.
    public static func isNamespace(_ text: String) -> Bool { text.utf8.count <= 64 && isName(text) }

    private static func isLetterOrDigit(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"): true
        default: false
        }
    }

    /// A new id: 32 random bytes in hex.
    static func makeID() -> String {
        var generator = SystemRandomNumberGenerator()
        return (0..<4).map { _ in hex(generator.next() as UInt64) }.joined()
    }

    /// 16 lower-case hex digits.
    static func hex(_ value: UInt64) -> String {
        let digits = String(value, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }

    /// The name of a shim's listening socket: FNV-1a 64 of "<namespace>/<id>/<incarnation>" in 16 hex digits.
    public static func socketName(namespace: String, id: String, incarnation: UInt32) -> String {
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        for byte in "\(namespace)/\(id)/\(incarnation)".utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
        return hex(hash)
    }

    /// A name that reads well, free by `isFree`; after a few collisions a number is appended.
    static func invent(isFree: (String) -> Bool) -> String {
        for attempt in 0..<64 {
            let pair = "\(adjectives.randomElement() ?? "calm")_\(nouns.randomElement() ?? "otter")"
            let name = attempt < 8 ? pair : pair + "\(Int.random(in: 1...(10 << attempt.clamped(to: 0...20))))"
            if isFree(name) { return name }
        }
        return "container_\(hex(UInt64.random(in: .min ... .max)))"
    }

    private static let adjectives = [
        "agile", "amber", "bold", "brave", "brisk", "calm", "candid", "clever", "copper", "curious", "dapper", "deft", "eager", "early",
        "earnest", "fair", "fleet", "fond", "frank", "gentle", "glad", "golden", "hardy", "honest", "humble", "jolly", "keen", "kind",
        "lively", "lucid", "merry", "mild", "modest", "neat", "nimble", "noble", "patient", "placid", "plucky", "polite", "prompt", "proud",
        "quick", "quiet", "rapid", "ready", "serene", "sharp", "silver", "sleepy", "sober", "steady", "stoic", "sturdy", "subtle", "sunny",
        "swift", "tidy", "true", "upbeat", "vivid", "warm", "wise", "witty",
    ]
    private static let nouns = [
        "acorn", "badger", "beacon", "birch", "bison", "brook", "canyon", "cedar", "comet", "coral", "crane", "delta", "dune", "ember",
        "falcon", "fern", "finch", "fjord", "fox", "glacier", "grove", "harbor", "hazel", "heron", "ibis", "island", "juniper", "kestrel",
        "lagoon", "lark", "lichen", "lynx", "maple", "marten", "meadow", "meteor", "moss", "oak", "orbit", "osprey", "otter", "pebble",
        "pine", "plover", "puffin", "quartz", "raven", "reef", "river", "robin", "rowan", "sparrow", "spruce", "swallow", "tern", "thistle",
        "tide", "tundra", "valley", "walrus", "willow", "wren", "yak", "zephyr",
    ]
}

extension Int {
    func clamped(to range: ClosedRange<Int>) -> Int { Swift.min(Swift.max(self, range.lowerBound), range.upperBound) }
}
