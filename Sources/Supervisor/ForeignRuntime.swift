import CtrProto
import Glibc
import Linux
import TTRPC

/// A shim of others, as `--runtime` names it: "io.containerd.runc.v2", or the path of a program `containerd-shim-…`.
struct ForeignRuntime: Equatable, Sendable {
    /// As it was asked for.
    let name: String
    /// "containerd-shim-runc-v2".
    let file: String
    private let path: String?

    /// nil for the path of an OCI runtime, and for what is no name.
    init?(_ runtime: String) {
        name = runtime
        if runtime.hasPrefix("/") {
            let last = runtime.split(separator: "/").last.map(String.init) ?? ""
            guard last.hasPrefix("containerd-shim-"), !runtime.utf8.contains(0) else { return nil }
            (file, path) = (last, runtime)
            return
        }
        // As containerd has it: the last two words of the name.
        let parts = runtime.split(separator: ".", omittingEmptySubsequences: false)
        guard parts.count >= 2, parts.allSatisfy({ !$0.isEmpty && $0.utf8.allSatisfy(Self.isNameByte) }), runtime.utf8.count <= 200 else {
            return nil
        }
        (file, path) = ("containerd-shim-\(parts[parts.count - 2])-\(parts[parts.count - 1])", nil)
    }

    private static func isNameByte(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"),
            UInt8(ascii: "-"), UInt8(ascii: "_"):
            true
        default: false
        }
    }

    /// It takes runc's options.
    var isRunc: Bool { file.hasPrefix("containerd-shim-runc-") }

    /// The program: beside the manager's own programs, then along PATH. Blocking.
    func find(_ configuration: Configuration) throws(SupervisorError) -> String {
        let places = path.map { [$0] } ?? Self.directories(configuration).map { "\($0)/\(file)" }
        var found: String?
        for place in places {
            var status = stat()
            guard stat(place, &status) == 0, status.st_mode & S_IFMT == S_IFREG else { continue }
            if access(place, X_OK) == 0 { return place }
            found = found ?? place
        }
        let what =
            found.map { "\($0) cannot be executed" }
            ?? (path == nil
                ? "there is no \(file) in \(Self.directories(configuration).joined(separator: ", "))" : "there is no such file")
        throw SupervisorError(.invalidArgument, "use runtime", name.shown, "runtime \"\(name.shown)\": \(what)", exitCode: 125)
    }

    private static func directories(_ configuration: Configuration) -> [String] {
        var directories: [String] = []
        let programs = [configuration.shim, configuration.runtime, configuration.keeper].map { path in
            path.lastIndex(of: "/").map { String(path[..<$0]) } ?? "/"
        }
        let searched = getenv("PATH").map { String(cString: $0) } ?? ""
        let standard = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        for directory in programs + "\(searched.isEmpty ? standard : searched)".split(separator: ":").map(String.init)
        where directory.hasPrefix("/") && !directories.contains(directory) { directories.append(directory) }
        return directories
    }

    /// What these guards cannot promise, one line each.
    var limits: [String] {
        [
            "a killed shim is not replaced: the container runs on, but cannot be paused, updated or given an exec",
            "the exit status is lost when the shim is killed, unless this manager runs at the container's end and the kernel is 6.15 or newer",
            "an exit status of 128 + n may be the program's own or signal n: this shim does not tell them apart",
            "a killed logger (ctr-shim log) is not replaced: what the container writes afterwards is lost, and its log says so",
            "output of a process with an open standard input, or with a terminal, passes through the shim and is lost when that is killed",
            "input that was under way when the manager was killed may reach the process twice",
            "SIGKILL to an exec reaches its first process, not what that started; what that writes later is lost",
            "the root file system is mounted on the host while the container exists",
        ]
    }
}
