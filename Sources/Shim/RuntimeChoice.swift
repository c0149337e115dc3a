import Glibc
import Linux
import Records

/// The OCI runtime that options mean on this host.
struct RuntimeChoice: Equatable {
    static let ownRuntime = "ctrun"

    var runtime: String
    var runtimeRoot: String
    var runtimeFlags: String
    var createFlags: String

    /// `stateDirectory` is containerd's own, in which its runtimes keep their state by the name of the program. NOT a path: a name without a
    /// slash is looked for beside the shim, then in PATH.
    init(_ options: RuntimeOptions, namespace: String, stateDirectory: String, shim: String) throws(ShimError) {
        let wanted = options.binary.isEmpty ? Self.ownRuntime : options.binary
        runtime = try Self.find(wanted, beside: shim)
        let name = runtime.split(separator: "/").last ?? "ctrun"
        let root = options.root.isEmpty ? "\(stateDirectory)/\(name)" : options.root
        guard root.hasPrefix("/") else { throw ShimError("read runtime options", "Root", "not an absolute path: \(root.prefix(100))") }
        runtimeRoot = "\(root)/\(namespace)"
        runtimeFlags = options.systemdCgroup ? "--systemd-cgroup" : ""
        createFlags = [(options.noPivotRoot, "--no-pivot"), (options.noNewKeyring, "--no-new-keyring")].compactMap { $0.0 ? $0.1 : nil }
            .joined(
                separator: " ")
    }

    static func find(_ name: String, beside shim: String) throws(ShimError) -> String {
        if name.hasPrefix("/") {
            if access(name, X_OK) < 0 { throw ShimError("find OCI runtime", name, String(cString: strerror(errno))) }
            return name
        }
        if name.isEmpty || name.contains("/") { throw ShimError("find OCI runtime", name, "neither an absolute path nor a name") }
        let directory = shim.utf8.lastIndex(of: UInt8(ascii: "/")).map { String(shim[..<$0]) } ?? "/"
        let path = getenv("PATH").map { String(cString: $0) } ?? "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        for place in [directory] + path.split(separator: ":").map(String.init) where place.hasPrefix("/") {
            let candidate = place == "/" ? "/" + name : "\(place)/\(name)"
            if access(candidate, X_OK) == 0 { return candidate }
        }
        throw ShimError("find OCI runtime", name, "not beside \(shim) and not in PATH; install it or give its path as BinaryName")
    }

    /// The choice as the start record holds it.
    init(_ start: StartRecord) {
        runtime = start.runtime
        runtimeRoot = start.runtimeRoot
        runtimeFlags = start.runtimeFlags
        createFlags = start.createFlags
    }

    func apply(to start: inout StartRecord) {
        start.runtime = runtime
        start.runtimeRoot = runtimeRoot
        start.runtimeFlags = runtimeFlags
        start.createFlags = createFlags
    }

    /// The file that this program was started from, links resolved, also where another lies under its name now: what is installed beside it
    /// is beside this.
    static func ownProgram() throws(SysError) -> String {
        var buffer = [CChar](repeating: 0, count: 4096)
        let length = try checkErrno("find program", "/proc/self/exe", readlink("/proc/self/exe", &buffer, buffer.count - 1))
        let path = String(decoding: buffer[..<length].map { UInt8(bitPattern: $0) }, as: UTF8.self)
        return path.hasSuffix(" (deleted)") ? String(path.dropLast(10)) : path
    }
}
