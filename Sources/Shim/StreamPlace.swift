import Records
import TTRPC

/// Where a process's standard streams go, as Create and Exec name it.
struct StreamNames: Equatable {
    var terminal = false
    var stdin = ""
    var stdout = ""
    var stderr = ""
}

extension PidRecord {
    var streams: StreamNames {
        get { StreamNames(terminal: terminal, stdin: stdin, stdout: stdout, stderr: stderr) }
        set {
            terminal = newValue.terminal
            stdin = newValue.stdin
            stdout = newValue.stdout
            stderr = newValue.stderr
        }
    }
}

/// What the name of one stream means (docs/architecture.md, "Standard streams").
enum StreamPlace: Equatable {
    /// /dev/null.
    case nothing
    /// Segments and an index; `attached` when a client reads them and room is made behind it.
    case log(attached: Bool)
    /// Standard input that `Guard.WriteInput` writes.
    case spool
    /// A FIFO of the caller's.
    case fifo(String)
    /// A file that is appended to.
    case file(String)
    /// A logger: its program, and its arguments as the query of the address gives them.
    case logger(program: String, arguments: [String])

    /// INVALID_ARGUMENT for a name that means nothing here.
    static func output(_ name: String) throws(Status) -> StreamPlace {
        switch name {
        case "": return .nothing
        case "log:": return .log(attached: false)
        case "log:attached": return .log(attached: true)
        default: break
        }
        if name.utf8.count <= 4096 && !name.utf8.contains(0) {
            if name.hasPrefix("/") { return .fifo(name) }
            if name.hasPrefix("fifo:///") { return .fifo(String(name.dropFirst(7))) }
            if name.hasPrefix("file:///") { return .file(String(name.dropFirst(7))) }
            if name.hasPrefix("binary:///") { return logger(name.dropFirst(9)) }
        }
        throw Status(.invalidArgument, "output \(name.prefix(200)) is neither log:, log:attached, a path, file:// nor binary://")
    }

    static func input(_ name: String) throws(Status) -> StreamPlace {
        switch name {
        case "": return .nothing
        case "spool:": return .spool
        default: break
        }
        if name.utf8.count <= 4096 && !name.utf8.contains(0) {
            if name.hasPrefix("/") { return .fifo(name) }
            if name.hasPrefix("fifo:///") { return .fifo(String(name.dropFirst(7))) }
        }
        throw Status(.invalidArgument, "input \(name.prefix(200)) is neither spool: nor a path")
    }

    /// `/program?key=value&key=value`, percent-decoded.
    private static func logger(_ address: Substring) -> StreamPlace {
        let parts = address.split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false)
        var arguments: [String] = []
        if parts.count == 2 {
            for pair in parts[1].split(separator: "&") {
                let sides = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
                arguments.append(decoded(sides[0]))
                if sides.count == 2 && !sides[1].isEmpty { arguments.append(decoded(sides[1])) }
            }
        }
        return .logger(program: decoded(parts[0]), arguments: arguments)
    }

    private static func decoded(_ text: Substring) -> String {
        var out: [UInt8] = []
        var rest = Array(text.utf8)[...]
        while let byte = rest.popFirst() {
            if byte == UInt8(ascii: "%"), let high = rest.first, let low = rest.dropFirst().first,
                let value = UInt8(String(decoding: [high, low], as: UTF8.self), radix: 16)
            {
                out.append(value)
                rest = rest.dropFirst(2)
            } else {
                out.append(byte)
            }
        }
        return String(decoding: out, as: UTF8.self)
    }
}
