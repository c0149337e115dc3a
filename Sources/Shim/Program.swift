import CLinux
import Glibc
import Linux

/// What `ctr-shim` does, by its command line.
public enum Program {
    /// Runs to the end and returns the exit status. Failures are one line: on standard output for `start`, whose caller reads it there,
    /// else on
    /// standard error and, for the daemon, in `shim.log` in the bundle.
    public static func main(_ words: [String]) -> Int32 {
        var action: Arguments.Action?
        var bundle = ""
        do throws(ShimError) {
            // Two that are no shim's actions: their words are not those of a shim's command line.
            let rest = Array(words.dropFirst())
            if rest.first == "into" { return try Into.run(Array(rest.dropFirst())) }
            if Logger.isMeant(rest) {
                try Logger.run(rest)
                return 0
            }
            let arguments = try Arguments(Array(words.dropFirst()), workingDirectory: workingDirectory())
            action = arguments.action
            bundle = arguments.bundle
            switch arguments.action {
            case .version: print("ctr-shim \(Daemon.version)")
            case .info:
                let info = try ProgramInfo.runtimeInfo(arguments)
                try shimErrors { () throws(SysError) in try writeAll(1, info, name: "standard output") }
            case .start: print(try StartHelper.run(arguments, program: words.first ?? "ctr-shim"), terminator: "")
            case .delete: try DeleteHelper.run(arguments)
            case .checkState: print(try CheckState.run(), terminator: "")
            case .run: try Daemon(arguments).run()
            }
            return 0
        } catch {
            let line = "ctr-shim: \(error)\n"
            switch action {
            case .start: print(line, terminator: "")
            case .run: leave(line, in: bundle)
            default: try? writeAll(2, Array(line.utf8), name: "standard error")
            }
            return 1
        }
    }

    private static func workingDirectory() -> String {
        guard let path = getcwd(nil, 0) else { return "" }
        defer { free(path) }
        return String(cString: path)
    }

    /// The daemon has nobody to print to; its last error is kept beside its records.
    private static func leave(_ line: String, in bundle: String) {
        guard let file = try? Linux.open(bundle + "/shim.log", O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, mode: 0o600) else { return }
        try? writeAll(file.raw, Array(line.utf8), name: "shim.log")
    }
}
