import ArgumentParser
import CtrProto
import Glibc
import Linux

extension ContainerOptions {
    /// The image and the command behind it. An option that the parser does not know ends up in front of them.
    func image() throws -> (image: String, command: [String]) {
        let words = try passthrough(words, missing: "an image is required")
        return (words[0], Array(words.dropFirst()))
    }

    /// The request to make this container, under an id chosen here, so that it can be repeated.
    func request(namespace: String) throws -> Ctr_V1_CreateContainerRequest {
        let (image, command) = try image()
        var request = Ctr_V1_CreateContainerRequest()
        request.namespace = namespace
        request.image = image
        request.name = name ?? ""
        request.config = try config(command: command)
        request.id = try newContainerID()
        return request
    }

    private func config(command: [String]) throws(Failure) -> Ctr_V1_ContainerConfig {
        var config = Ctr_V1_ContainerConfig()
        config.args = command
        config.env = try parseEnvironment(files: envFile, variables: env)
        if let workingDirectory { config.cwd = try parseWorkingDirectory(workingDirectory) }
        if let user { config.user = try parseUser(user) }
        for text in volume { config.mounts.append(try parseVolume(text)) }
        config.readOnly = readOnly
        if let memory { config.memoryBytes = try parseMemory(memory) }
        if let cpus { config.nanoCpus = try parseCPUs(cpus) }
        if let pidsLimit { config.pidsLimit = try parsePidsLimit(pidsLimit) }
        config.hostname = hostname ?? ""
        config.network = try parseNetwork(network ?? "none")
        // "io.containerd.NAME.VERSION" is the name of a shim, everything else a path.
        if let runtime { config.runtime = !runtime.contains("/") && runtime.contains(".") ? runtime : try absolutePath(runtime) }
        config.autoRemove = remove
        for text in label {
            let (key, value) = try parseLabel(text)
            config.labels[key] = value
        }
        if let entrypoint { config.entrypoint = [entrypoint] }
        if let stopSignal {
            do { _ = try Signals.number(stopSignal) } catch { throw Failure(error.message, code: Failure.usage) }
            config.stopSignal = stopSignal
        }
        config.openStdin = interactive
        config.terminal = tty
        config.privileged = privileged
        if tty, let size = TerminalSize.current() {
            config.terminalWidth = size.width
            config.terminalHeight = size.height
        }
        config.logDriver = logDriver ?? ""
        for text in logOption {
            let (key, value) = try parseLogOption(text)
            config.logOptions[key] = value
        }
        return config
    }
}

/// A working directory in a container, which is an absolute path.
func parseWorkingDirectory(_ text: String) throws(Failure) -> String {
    if text.hasPrefix("/") { return text }
    throw Failure("invalid working directory \"\(text)\": it must be an absolute path", code: Failure.usage)
}

/// The words that belong to a container, of which the first is not empty. An option that the parser does not know is the first of them.
func passthrough(_ words: [String], missing: String) throws -> [String] {
    var rest = words[...]
    if rest.first == "--help" { throw CleanExit.helpRequest() }
    if rest.first == "--" {
        rest.removeFirst()
    } else if let word = rest.first, word.hasPrefix("-"), word != "-" {
        throw ValidationError("unknown option '\(word)'")
    }
    guard let first = rest.first, !first.isEmpty else { throw ValidationError(missing) }
    return Array(rest)
}

/// A file that tells scripts the id of a container. It is made before the container and taken away when that fails.
struct IDFile {
    private let path: String

    /// Fails when `path` exists.
    init(path: String, id: String) throws(Failure) {
        do throws(SysError) {
            let file = try open(path, O_WRONLY | O_CREAT | O_EXCL, mode: 0o644)
            try writeAll(file.raw, Array(id.utf8), name: path)
        } catch { throw Failure(error.description, code: Failure.usage) }
        self.path = path
    }

    func remove() { unlink(path) }
}
