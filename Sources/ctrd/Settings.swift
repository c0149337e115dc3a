import Glibc
import Linux
import Logging
import Supervisor
import TOMLKit

/// The configuration file and the flags, which beat it.
struct Settings {
    static let defaultFile = "/etc/ctrd/config.toml"
    static let defaultRoot = "/var/lib/ctrd"
    static let defaultState = "/run/ctrd"
    private static let keys = ["root", "state", "address", "log_level", "log_format", "cgroup_parent", "runtime", "shim", "keeper"]

    private var values: [String: String] = [:]
    /// Where a value was written, for messages: "FILE:LINE: " or "--flag: ".
    private var origins: [String: String] = [:]

    /// Reads `file`, or the default file if it exists. A key that is unknown or of the wrong type is an error with file and line.
    init(file: String?) throws(StartupError) {
        let path = file ?? Self.defaultFile
        let bytes: [UInt8]
        do throws(SysError) { bytes = try readFile(path, limit: 1 << 20) } catch {
            if file == nil && error.code == ENOENT { return }
            throw StartupError("cannot read configuration: \(error)")
        }
        guard let text = String(validating: bytes, as: UTF8.self), !bytes.contains(0) else {
            throw StartupError("\(path): not a text in UTF-8")
        }
        let table: TOMLTable
        do { table = try TOMLTable(string: text) } catch let error as TOMLParseError {
            throw StartupError("\(path):\(error.source.begin.line): \(error.description)")
        } catch { throw StartupError("\(path): \(error)") }
        for key in table.keys.sorted(by: { Self.line(of: $0, in: text) < Self.line(of: $1, in: text) }) {
            let origin = "\(path):\(Self.line(of: key, in: text)): "
            guard Self.keys.contains(key) else { throw StartupError("\(origin)unknown key \"\(key)\"") }
            guard let value = table[key]?.string else { throw StartupError("\(origin)\"\(key)\" must be a string") }
            values[key] = value
            origins[key] = origin
        }
    }

    /// The line where `key` is set; the parser does not say.
    private static func line(of key: String, in text: String) -> Int {
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
        for (index, line) in lines.enumerated() {
            let start = line.drop { $0 == " " || $0 == "\t" }.drop { "[\"'".contains($0) }
            guard start.hasPrefix(key) else { continue }
            let rest = start.dropFirst(key.count).drop { " \t\"']".contains($0) }
            if rest.isEmpty || rest.first == "=" || rest.first == "." || rest.first == "\r" { return index + 1 }
        }
        return 1
    }

    mutating func override(_ key: String, _ value: String?) {
        guard let value else { return }
        values[key] = value
        origins[key] = "--\(String(key.map { $0 == "_" ? "-" : $0 })): "
    }

    func configuration() throws(StartupError) -> Configuration {
        let root = try absolute("root", values["root"] ?? Self.defaultRoot)
        let state = try absolute("state", values["state"] ?? Self.defaultState)
        let address = try absolute("address", values["address"] ?? state + "/ctrd.sock")
        guard address.utf8.count <= 107 else {
            throw StartupError("\(origin("address"))a socket path may have at most 107 bytes: \(address)")
        }
        // STATE/s/ and 16 digits must fit into a socket address too.
        guard state.utf8.count <= 107 - 19 else { throw StartupError("\(origin("state"))may have at most 88 bytes: \(state)") }
        let parent = values["cgroup_parent"] ?? "ctrd"
        guard Names.isNamespace(parent) else {
            throw StartupError("\(origin("cgroup_parent"))must be one name of letters, digits and _.-: \"\(parent)\"")
        }
        return Configuration(
            root: root, state: state, address: address, cgroupParent: parent, runtime: try program("runtime", "ctrun"),
            shim: try program("shim", "ctr-shim"), keeper: try program("keeper", "ctr-keeper"))
    }

    func logLevel() throws(StartupError) -> Logger.Level {
        guard let text = values["log_level"] else { return .info }
        guard let level = Logger.Level(rawValue: text) else {
            let known = Logger.Level.allCases.map(\.rawValue).joined(separator: ", ")
            throw StartupError("\(origin("log_level"))unknown log level \"\(text)\": one of \(known)")
        }
        return level
    }

    func logFormat() throws(StartupError) -> LineLogHandler.Format {
        guard let text = values["log_format"] else { return .text }
        guard let format = LineLogHandler.Format(rawValue: text) else {
            throw StartupError("\(origin("log_format"))unknown log format \"\(text)\": text or json")
        }
        return format
    }

    private func origin(_ key: String) -> String { origins[key] ?? "" }

    private func absolute(_ key: String, _ path: String) throws(StartupError) -> String {
        guard !path.isEmpty else { throw StartupError("\(origin(key))must not be empty") }
        var path = path
        if !path.hasPrefix("/") {
            guard origin(key).hasPrefix("--"), let directory = getcwd(nil, 0) else {
                throw StartupError("\(origin(key))must be an absolute path: \"\(path)\"")
            }
            path = String(cString: directory) + "/" + path
            free(directory)
        }
        while path.count > 1 && path.hasSuffix("/") { path.removeLast() }
        guard path.utf8.allSatisfy({ $0 >= 0x20 && $0 != 0x7f }) else { throw StartupError("\(origin(key))control characters in a path") }
        return path
    }

    /// The program of that key, else the one beside this program.
    private func program(_ key: String, _ name: String) throws(StartupError) -> String {
        if let path = values[key] { return try absolute(key, path) }
        guard let own = realpath("/proc/self/exe", nil) else { return "/usr/bin/" + name }
        defer { free(own) }
        let path = String(cString: own)
        return path.prefix(upTo: path.lastIndex(of: "/") ?? path.startIndex) + "/" + name
    }
}
