/// The words of a command line, one after the other.
struct Words {
    private let words: [String]
    private var next = 0
    private var pending: String?
    private var flagsEnded = false

    init(_ words: [String]) { self.words = words }

    /// The name of the next word when it is a flag.
    mutating func flag() throws(RuntimeError) -> String? {
        guard pending == nil, !flagsEnded, next < words.count else { return nil }
        let word = words[next]
        guard word.hasPrefix("-"), word != "-" else { return nil }
        next += 1
        if word == "--" {
            flagsEnded = true
            return nil
        }
        let name = word.dropFirst(word.hasPrefix("--") ? 2 : 1)
        guard let equals = name.firstIndex(of: "=") else { return String(name) }
        pending = String(name[name.index(after: equals)...])
        return String(name[..<equals])
    }

    mutating func value(_ flag: String) throws(RuntimeError) -> String {
        if let value = pending {
            pending = nil
            return value
        }
        guard next < words.count else { throw RuntimeError("flag --\(flag) needs a value") }
        next += 1
        return words[next - 1]
    }

    mutating func bool() throws(RuntimeError) -> Bool {
        guard let value = pending else { return true }
        pending = nil
        switch value {
        case "true", "1": return true
        case "false", "0": return false
        default: throw RuntimeError("\"\(value.prefix(64))\" is neither true nor false")
        }
    }

    mutating func descriptorCount(_ flag: String) throws(RuntimeError) -> Int32 {
        guard let count = Int32(try value(flag)), (0...1024).contains(count) else {
            throw RuntimeError("--\(flag) must be a number from 0 to 1024")
        }
        return count
    }

    /// The value of --format: "table" or "json".
    mutating func isJSON(_ flag: String) throws(RuntimeError) -> Bool {
        let text = try value(flag)
        guard text == "table" || text == "json" else { throw RuntimeError("unknown format \"\(text.prefix(64))\": use table or json") }
        return text == "json"
    }

    mutating func positional() -> String? {
        guard next < words.count else { return nil }
        next += 1
        return words[next - 1]
    }

    /// Everything that is left, without a "--" in front; flags among it are the program's.
    mutating func rest() -> [String] {
        var left = Array(words[min(next, words.count)...])
        if !flagsEnded && left.first == "--" { left.removeFirst() }
        next = words.count
        return left
    }
}
