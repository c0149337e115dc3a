/// The keys that let go of a container: Docker's notation, one key or several behind each other ("ctrl-p,ctrl-q", "q", "ctrl-],x").
struct DetachKeys: Equatable, Sendable {
    let bytes: [UInt8]

    static let standard = DetachKeys(bytes: [0x10, 0x11])

    private init(bytes: [UInt8]) { self.bytes = bytes }

    /// Keys are single characters or "ctrl-" with a letter or one of @ [ \ ] ^ _. The empty text is no keys: nothing detaches.
    init(_ text: String) throws(Failure) {
        var bytes: [UInt8] = []
        if !text.isEmpty {
            for part in text.split(separator: ",", omittingEmptySubsequences: false) {
                guard let byte = Self.byte(part) else {
                    throw Failure(
                        "invalid detach key \"\(part)\" in \"\(text)\": use characters and ctrl-KEY separated by commas, such as ctrl-p,ctrl-q",
                        code: Failure.usage)
                }
                bytes.append(byte)
            }
        }
        self.init(bytes: bytes)
    }

    private static func byte(_ key: Substring) -> UInt8? {
        let plain = Array(key.utf8)
        if plain.count == 1 { return plain[0] < 0x80 ? plain[0] : nil }
        guard plain.count == 6, key.lowercased().hasPrefix("ctrl-") else { return nil }
        switch plain[5] {
        case UInt8(ascii: "a")...UInt8(ascii: "z"): return plain[5] - 0x60
        // @ A-Z [ \ ] ^ _ are the control characters in their order.
        case 0x40...0x5f: return plain[5] - 0x40
        default: return nil
        }
    }

    /// As the user would type it.
    var description: String {
        bytes.map { byte in
            switch byte {
            case 1...26: return "ctrl-" + String(UnicodeScalar(byte + 0x60))
            case 0..<32: return "ctrl-" + String(UnicodeScalar(byte + 0x40))
            default: return String(UnicodeScalar(byte))
            }
        }.joined(separator: ",")
    }
}

/// Finds the detach keys in what is typed. Bytes that begin the keys are held back until the next one tells what they are.
struct DetachFilter {
    private let keys: [UInt8]
    /// How many of the keys the last bytes were.
    private var matched = 0

    init(_ keys: DetachKeys) { self.keys = keys.bytes }

    /// What of `typed` is for the container; nil behind it when the keys were found, and what follows them is dropped.
    mutating func pass(_ typed: some Sequence<UInt8>) -> (bytes: [UInt8], detaches: Bool) {
        if keys.isEmpty { return (Array(typed), false) }
        var passed: [UInt8] = []
        for byte in typed {
            // What was held and turns out to be something else goes on, except its longest end that begins the keys again.
            while matched > 0 && keys[matched] != byte {
                let held = keys[..<matched]
                var rest = matched - 1
                while rest > 0 && !held.suffix(rest).elementsEqual(keys[..<rest]) { rest -= 1 }
                passed += held.prefix(matched - rest)
                matched = rest
            }
            guard keys[matched] == byte else {
                passed.append(byte)
                continue
            }
            matched += 1
            if matched == keys.count { return (passed, true) }
        }
        return (passed, false)
    }
}
