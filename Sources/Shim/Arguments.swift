/// The command line of ctr-shim: that of every containerd shim (single dash, any order, the action is the first word without one),
/// and `-dir` for the daemon.
struct Arguments: Equatable {
    enum Action: Equatable { case start, delete, run, version, info, checkState }

    var action: Action
    var namespace = ""
    var id = ""
    /// Absolute; the working directory where the caller does not say.
    var bundle = ""
    /// The caller's own socket.
    var address = ""
    /// ROOT/containers/NS/ID/N, for the daemon.
    var directory = ""
    /// Where the daemon finds what the program that it was before has left.
    var state: Int32?

    /// `words` without the program's name; `workingDirectory` stands for a missing `-bundle`.
    init(_ words: [String], workingDirectory: String) throws(ShimError) {
        func wrong(_ object: String, _ cause: String) -> ShimError { ShimError("read arguments", object, cause) }
        var action: Action?
        bundle = workingDirectory
        var index = 0
        while index < words.count {
            var word = Substring(words[index])
            index += 1
            guard word.hasPrefix("-") else {
                switch word {
                case "start": action = action ?? .start
                case "delete": action = action ?? .delete
                case "run": action = action ?? .run
                case "check-state": action = action ?? .checkState
                default: throw wrong(String(word), "unknown action (start, delete or run)")
                }
                continue
            }
            word = word.hasPrefix("--") ? word.dropFirst(2) : word.dropFirst()
            var value: Substring?
            if let equals = word.firstIndex(of: "=") {
                value = word[word.index(after: equals)...]
                word = word[..<equals]
            }
            switch word {
            case "v", "version": action = action ?? .version
            case "info": action = action ?? .info
            case "debug": break
            case "namespace", "id", "bundle", "dir", "address", "publish-binary", "socket", "state":
                if value == nil {
                    guard index < words.count else { throw wrong("-\(word)", "no value") }
                    value = words[index][...]
                    index += 1
                }
                let text = String(value ?? "")
                switch word {
                case "namespace": namespace = text
                case "id": id = text
                case "bundle": bundle = text
                case "dir": directory = text
                case "state": state = Int32(text)
                case "address": address = text
                default: break
                }
            default: throw wrong("-\(word)", "unknown flag")
            }
        }
        guard let action else { throw wrong("", "no action (start, delete or run)") }
        self.action = action
        if action == .version || action == .info || action == .checkState { return }
        for (flag, value) in [("-namespace", namespace), ("-id", id)] {
            if value.isEmpty || value.utf8.count > 255 || value.utf8.contains(UInt8(ascii: "/")) || value == "." || value == ".." {
                throw wrong(flag, value.isEmpty ? "missing" : "not usable as a name: \(value.prefix(64))")
            }
        }
        if !bundle.hasPrefix("/") { throw wrong("-bundle", "not an absolute path") }
        if action == .run && !directory.hasPrefix("/") { throw wrong("-dir", "not an absolute path") }
    }
}
