/// Short options of `run` with their value in the same word. The parser takes `-eA=1` for a long option "eA" with the value 1, where
/// Docker's users mean the variable A; so such words are taken apart before it sees them.
enum JoinedValues {
    static let short: Set<Character> = ["e", "w", "u", "v", "m", "h", "l"]
    static let long: Set<String> = [
        "name", "env", "env-file", "workdir", "user", "volume", "memory", "cpus", "pids-limit", "hostname", "network", "net", "runtime",
        "entrypoint", "label", "stop-signal", "cidfile", "address", "namespace",
    ]

    /// `arguments` with `-eA=1` written as `-e A=1`, up to the image; what is behind it stays as it is.
    static func separated(_ arguments: [String]) -> [String] {
        var result: [String] = []
        var rest = arguments[...]
        while let word = rest.first, word.hasPrefix("-"), word != "-", word != "--" {
            rest.removeFirst()
            var takesNext = false
            if word.hasPrefix("--") {
                takesNext = long.contains(String(word.dropFirst(2)))
                result.append(word)
            } else if let option = word.dropFirst().first, short.contains(option) {
                takesNext = word.utf8.count == 2
                result.append("-\(option)")
                if !takesNext { result.append(String(word.dropFirst(2))) }
            } else {
                // Flags in one word, the last of which may take a value: -de A=1.
                takesNext = word.last.map(short.contains) ?? false
                result.append(word)
            }
            if takesNext, let value = rest.popFirst() { result.append(value) }
        }
        return result + rest
    }
}
