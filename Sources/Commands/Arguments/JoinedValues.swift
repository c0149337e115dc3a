/// Command lines whose rest belongs to another program: `run` and `exec`. The parser takes `-eA=1` for a long option "eA" with the
/// value 1, where Docker's users mean the variable A; so such words are taken apart before it sees them.
struct JoinedValues: Sendable {
    /// Options with a value.
    let short: Set<Character>
    let long: Set<String>

    static let run = JoinedValues(
        short: ["e", "w", "u", "v", "m", "h", "l", "a"],
        long: [
            "name", "env", "env-file", "workdir", "user", "volume", "memory", "cpus", "pids-limit", "hostname", "network", "net", "runtime",
            "entrypoint", "label", "stop-signal", "cidfile", "log-driver", "log-opt", "attach", "detach-keys", "sig-proxy", "address",
            "namespace",
        ])
    static let exec = JoinedValues(
        short: ["e", "w", "u"], long: ["env", "env-file", "workdir", "user", "detach-keys", "sig-proxy", "address", "namespace"])

    /// Options that are on when they stand alone, and take "=false".
    static let switches: Set<String> = ["--sig-proxy"]

    /// `arguments` with `-eA=1` written as `-e A=1`, up to the first word that is no option; what is behind it stays as it is.
    func separated(_ arguments: [String]) -> [String] {
        var result: [String] = []
        var rest = arguments[...]
        while var word = rest.first, word.hasPrefix("-"), word != "-", word != "--" {
            rest.removeFirst()
            if Self.switches.contains(word) { word += "=true" }
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

    /// The same for a command whose words are all its own.
    static func switched(_ arguments: [String]) -> [String] { arguments.map { switches.contains($0) ? $0 + "=true" : $0 } }
}
