import CtrProto
import Glibc
import Linux

/// SRC:DST[:OPTIONS] of `-v`. A source that begins with a dot is taken from the working directory.
func parseVolume(_ text: String) throws(Failure) -> Ctr_V1_BindMount {
    func problem(_ reason: String) -> Failure { Failure("invalid volume \"\(text)\": \(reason)", code: Failure.usage) }
    let parts = text.split(separator: ":", omittingEmptySubsequences: false).map(String.init)
    guard parts.count == 2 || parts.count == 3 else { throw problem("use SOURCE:DESTINATION, or SOURCE:DESTINATION:ro") }
    guard parts[0].hasPrefix("/") || parts[0].hasPrefix(".") else {
        throw problem("the source is a path on the host: absolute, or beginning with ./")
    }
    guard parts[1].hasPrefix("/"), parts[1].contains(where: { $0 != "/" }) else {
        throw problem("the destination is an absolute path in the container, and not /")
    }
    var mount = Ctr_V1_BindMount()
    mount.source = try absolutePath(parts[0])
    mount.destination = parts[1]
    if parts.count == 3 {
        switch parts[2] {
        case "ro": mount.readOnly = true
        case "rw": break
        default: throw problem("unknown option \"\(parts[2])\", use ro or rw")
        }
    }
    return mount
}

/// `path` from the root, joined to the working directory if it is relative. Links are the manager's to follow.
func absolutePath(_ path: String) throws(Failure) -> String {
    if path.hasPrefix("/") { return path }
    guard let buffer = getcwd(nil, 0) else { throw Failure(SysError("find working directory", code: errno).description) }
    defer { free(buffer) }
    let directory = String(cString: buffer)
    return (directory == "/" ? "" : directory) + "/" + path
}

/// KEY=VALUE, or KEY to take the value from this program's environment; nil when it is not set there, as Docker does.
func parseEnvironment(_ text: String, lookup: (String) -> String? = environment) throws(Failure) -> String? {
    let name = String(text.prefix { $0 != "=" })
    if name.isEmpty { throw Failure("invalid environment variable \"\(text)\": the name is missing", code: Failure.usage) }
    if text.contains("=") { return text }
    return lookup(name).map { "\(name)=\($0)" }
}

/// The variables of `--env-file` and, behind them, of `--env`.
func parseEnvironment(files: [String], variables: [String]) throws(Failure) -> [String] {
    var result: [String] = []
    for file in files {
        let content: [UInt8]
        do throws(SysError) { content = try readFile(file, limit: 1 << 20) } catch { throw Failure(error.description, code: Failure.usage) }
        result += try parseEnvironmentFile(content, name: file)
    }
    for text in variables { if let variable = try parseEnvironment(text) { result.append(variable) } }
    return result
}

func environment(_ name: String) -> String? { getenv(name).map { String(cString: $0) } }

/// The lines of an `--env-file`: as ``parseEnvironment(_:lookup:)``, with comments behind # and empty lines.
func parseEnvironmentFile(
    _ content: [UInt8], name: String, lookup: (String) -> String? = environment
) throws(Failure) -> [String] {
    var result: [String] = []
    for (index, bytes) in content.split(separator: 0x0a, omittingEmptySubsequences: false).enumerated() {
        func problem(_ reason: String) -> Failure { Failure("\(name), line \(index + 1): \(reason)", code: Failure.usage) }
        guard var line = String(validating: bytes, as: UTF8.self)?[...] else { throw problem("invalid UTF-8") }
        if line.unicodeScalars.last == "\r" { line.unicodeScalars.removeLast() }
        line = line.drop { $0 == " " || $0 == "\t" }
        if line.isEmpty || line.hasPrefix("#") { continue }
        if line.prefix(while: { $0 != "=" }).contains(where: \.isWhitespace) { throw problem("the name contains white space") }
        if line.hasPrefix("=") { throw problem("the name is missing") }
        if let variable = try parseEnvironment(String(line), lookup: lookup) { result.append(variable) }
    }
    return result
}

/// KEY=VALUE, or KEY for an empty value.
func parseLabel(_ text: String) throws(Failure) -> (key: String, value: String) {
    let key = String(text.prefix { $0 != "=" })
    if key.isEmpty { throw Failure("invalid label \"\(text)\": the name is missing", code: Failure.usage) }
    return (key, String(text.dropFirst(key.count + 1)))
}

/// KEY=VALUE of `--log-opt`; which there are is for the manager to say.
func parseLogOption(_ text: String) throws(Failure) -> (key: String, value: String) {
    let key = String(text.prefix { $0 != "=" })
    if key.isEmpty || key == text {
        throw Failure("invalid log option \"\(text)\": use KEY=VALUE, such as max-size=10m", code: Failure.usage)
    }
    return (key, String(text.dropFirst(key.count + 1)))
}

/// USER[:GROUP], names or numbers; whether they exist is for the manager to find out in the image.
func parseUser(_ text: String) throws(Failure) -> String {
    let parts = text.split(separator: ":", omittingEmptySubsequences: false)
    if parts.count > 2 || parts[0].isEmpty || parts.last?.isEmpty == true || text.unicodeScalars.contains(where: { $0.value <= 0x20 }) {
        throw Failure("invalid user \"\(text)\": use USER or USER:GROUP, names or numbers", code: Failure.usage)
    }
    return text
}

func parseNetwork(_ text: String) throws(Failure) -> String {
    guard text == "none" || text == "host" else {
        throw Failure("invalid network \"\(text)\": use none or host", code: Failure.usage)
    }
    return text
}

/// 64 lower-case hexadecimal digits that nobody else has; getentropy(3) is getrandom(2).
func newContainerID() throws(Failure) -> String {
    var bytes = [UInt8](repeating: 0, count: 32)
    guard getentropy(&bytes, bytes.count) == 0 else { throw Failure(SysError("choose an id", code: errno).description) }
    let digits = Array("0123456789abcdef".utf8)
    return String(decoding: bytes.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }, as: UTF8.self)
}
