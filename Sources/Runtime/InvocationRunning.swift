extension Invocation {
    /// True when the next word is a flag that asks for help; the command is that then.
    private mutating func isHelp(_ flag: String, of name: String) -> Bool {
        guard flag == "help" || flag == "h" else { return false }
        command = .help(name)
        return true
    }

    private mutating func takeID(of name: String, _ words: inout Words) throws(RuntimeError) {
        guard let word = words.positional() else { throw RuntimeError("\(name) takes a container ID; see ctrun \(name) --help") }
        id = word
        guard Self.isValid(id: id) else { throw RuntimeError("invalid container ID format: \"\(id.prefix(64))\"") }
    }

    /// Flags end at the id: what follows it is the program's.
    mutating func parseExec(_ words: inout Words) throws(RuntimeError) {
        var options = ExecOptions()
        while let flag = try words.flag() {
            if isHelp(flag, of: "exec") { return }
            try options.take(flag, &words)
        }
        try takeID(of: "exec", &words)
        options.args = words.rest()
        if options.processFile != nil && !options.args.isEmpty {
            throw RuntimeError("exec takes either --process or a command, not both")
        }
        if options.processFile == nil && options.args.isEmpty { throw RuntimeError("exec: process args cannot be empty") }
        command = .exec(options)
    }

    /// What follows the id is for ps.
    mutating func parsePs(_ words: inout Words) throws(RuntimeError) {
        var json = false
        while let flag = try words.flag() {
            if isHelp(flag, of: "ps") { return }
            guard flag == "format" || flag == "f" else { throw RuntimeError("unknown flag --\(flag) of ps; see ctrun --help") }
            json = try words.isJSON(flag)
        }
        try takeID(of: "ps", &words)
        command = .ps(json: json, options: words.rest())
    }

    mutating func parseUpdate(_ words: inout Words) throws(RuntimeError) {
        var options = UpdateOptions()
        while true {
            if let flag = try words.flag() {
                if isHelp(flag, of: "update") { return }
                try options.take(flag, &words)
            } else if id.isEmpty {
                try takeID(of: "update", &words)
            } else if words.positional() != nil {
                throw RuntimeError("update takes exactly one container ID; see ctrun update --help")
            } else {
                break
            }
        }
        command = .update(options)
    }

    mutating func parseEvents(_ words: inout Words) throws(RuntimeError) {
        var once = false
        var interval: Int64 = 5_000_000_000
        while true {
            if let flag = try words.flag() {
                if isHelp(flag, of: "events") { return }
                switch flag {
                case "stats": once = try words.bool()
                case "interval":
                    let text = try words.value(flag)
                    guard let value = Quantity.duration(text) else {
                        throw RuntimeError("events: \"\(text.prefix(64))\" is no interval such as 5s or 500ms")
                    }
                    interval = value
                default: throw RuntimeError("unknown flag --\(flag) of events; see ctrun --help")
                }
            } else if id.isEmpty {
                try takeID(of: "events", &words)
            } else if words.positional() != nil {
                throw RuntimeError("events takes exactly one container ID; see ctrun events --help")
            } else {
                break
            }
        }
        command = .events(once: once, interval: interval)
    }
}
