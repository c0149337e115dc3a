import CtrProto
import Glibc
import LogDrivers
import TTRPC

/// What a request for a new container may contain. Everything here is the client's word, and becomes paths, arguments and limits.
struct RequestChecks {
    let request: Ctr_V1_CreateContainerRequest

    private func refuse(_ message: String) -> SupervisorError {
        let object = request.name.isEmpty ? String(request.id.prefix(12)) : request.name.shown
        return SupervisorError(.invalidArgument, "create container", object, message, exitCode: 125)
    }

    /// All that can be checked without looking at the host.
    func check() throws(SupervisorError) {
        if !Names.isNamespace(request.namespace) { throw refuse("invalid namespace \"\(request.namespace.shown)\"") }
        if !request.id.isEmpty && !Names.isID(request.id) {
            throw refuse("invalid container id \"\(request.id.shown)\": 64 lower-case hex digits are wanted")
        }
        if !request.name.isEmpty && !Names.isName(request.name) {
            throw refuse(
                "invalid container name \"\(request.name.shown)\": [a-zA-Z0-9][a-zA-Z0-9_.-]{0,127} is allowed, and nothing that looks like an id"
            )
        }
        if request.image.isEmpty { throw refuse("no image given") }
        let config = request.config
        let texts = config.args + config.entrypoint + config.env + [config.cwd, config.user, config.hostname, config.runtime]
        if texts.contains(where: { $0.utf8.contains(0) }) {
            throw refuse("arguments, environment, user and paths must not contain NUL bytes")
        }
        for variable in config.env {
            guard let equals = variable.firstIndex(of: "="), equals > variable.startIndex else {
                throw refuse("invalid environment variable \"\(variable.shown)\": KEY=VALUE is wanted")
            }
        }
        if !config.cwd.isEmpty && !config.cwd.hasPrefix("/") {
            throw refuse("working directory \"\(config.cwd.shown)\" is not an absolute path")
        }
        if config.terminalWidth > UInt16.max || config.terminalHeight > UInt16.max {
            throw refuse("terminal size \(config.terminalWidth)x\(config.terminalHeight) is too large")
        }
        try checkMounts()
        try checkLimits()
        if !["", "none", "host"].contains(config.network) { throw refuse("unknown network \"\(config.network.shown)\": none or host") }
        if config.hostname.utf8.count > 63 || config.hostname.unicodeScalars.contains(where: { $0.value <= 0x20 || $0.value >= 0x7f }) {
            throw refuse("invalid host name \"\(config.hostname.shown)\"")
        }
        if !config.stopSignal.isEmpty && Signals.number(config.stopSignal) == nil {
            throw refuse("unknown stop signal \"\(config.stopSignal.shown)\"")
        }
        do throws(LogOptionError) { _ = try LogOptions(driver: config.logDriver, options: config.logOptions) } catch {
            throw refuse(error.description)
        }
        if !config.runtime.isEmpty && !config.runtime.hasPrefix("/") && ForeignRuntime(config.runtime) == nil {
            throw refuse(
                "runtime \"\(config.runtime.shown)\" is neither an absolute path nor the name of a containerd shim (io.containerd.NAME.VERSION)"
            )
        }
    }

    private func checkMounts() throws(SupervisorError) {
        var destinations: Set<String> = []
        for mount in request.config.mounts {
            for path in [mount.source, mount.destination] where !path.hasPrefix("/") || path.utf8.contains(0) {
                throw refuse("mount path \"\(path.shown)\" is not an absolute path")
            }
            if mount.destination.split(separator: "/").contains("..") {
                throw refuse("mount destination \"\(mount.destination.shown)\" contains ..")
            }
            if mount.destination.allSatisfy({ $0 == "/" }) { throw refuse("the root directory cannot be a mount destination") }
            if !destinations.insert(mount.destination).inserted { throw refuse("two mounts at \(mount.destination.shown)") }
        }
    }

    private func checkLimits() throws(SupervisorError) {
        let config = request.config
        if config.memoryBytes != 0 && config.memoryBytes < 6 << 20 {
            throw refuse("memory limit of \(config.memoryBytes) bytes is below the minimum of 6 MiB")
        }
        if config.nanoCpus != 0 && config.nanoCpus < 10_000_000 { throw refuse("cpu limit is below the minimum of 0.01") }
        if config.pidsLimit < 0 { throw refuse("pids limit \(config.pidsLimit) is negative") }
    }

    /// What only the host can tell. Blocking.
    func checkHost(_ configuration: Configuration) throws(SupervisorError) {
        do throws(LogOptionError) { try logOptions?.checkHost() } catch { throw refuse(error.description) }
        let runtime = request.config.runtime
        if let foreign = ForeignRuntime(runtime) {
            _ = try foreign.find(configuration)
            return
        }
        if !runtime.isEmpty && access(runtime, X_OK) != 0 { throw refuse("runtime \(runtime.shown): \(String(cString: strerror(errno)))") }
    }

    /// Whether the host has to be looked at.
    var concernsHost: Bool { !request.config.runtime.isEmpty || logOptions?.hasFollower == true }

    private var logOptions: LogOptions? { try? LogOptions(driver: request.config.logDriver, options: request.config.logOptions) }
}
