import ArgumentParser
import CtrProto
import Glibc
import Linux
import OCI

/// The version of this program.
let clientVersion = Release.version

struct Version: Command {
    static let configuration = CommandConfiguration(
        commandName: "version", _superCommandName: "ctrctl", abstract: "Print the versions of this program and of ctrd.")
    static let examples = [
        "ctrctl version",
        "ctrctl version --output json",
    ]
    @Option(name: .shortAndLong, help: ArgumentHelp("table or json.", valueName: "format"))
    var output = OutputFormat.table
    @OptionGroup var global: GlobalOptions

    func perform(_ manager: Manager) throws -> Int32 {
        var server: Ctr_V1_VersionResponse?
        var failure: ClientError?
        do throws(ClientError) {
            server = try manager.call(API.version, Ctr_V1_VersionRequest(), within: Manager.readLimit)
        } catch { failure = error }
        if output == .json {
            try Console.write(
                JSON.object([.init("client", ["version": .string(clientVersion)]), .init("server", server?.document ?? .null)]).document)
        } else {
            var text = "Client:\n Version:      \(clientVersion)\n"
            if let server {
                text += "Server:\n Version:      \(server.version)\n API version:  \(server.apiVersion)\n"
                text += " Kernel:       \(server.kernel)\n Architecture: \(server.architecture)\n"
            }
            try Console.write(text)
        }
        if let failure { throw failure }
        return 0
    }
}

struct Info: Command {
    static let configuration = CommandConfiguration(
        commandName: "info", _superCommandName: "ctrctl", abstract: "Print what ctrd is, where it keeps things, and what this host lacks.")
    static let examples = [
        "ctrctl info",
        "ctrctl info --output json",
    ]
    @Option(name: .shortAndLong, help: ArgumentHelp("table or json.", valueName: "format"))
    var output = OutputFormat.table
    @OptionGroup var global: GlobalOptions

    func perform(_ manager: Manager) throws -> Int32 {
        var request = Ctr_V1_InfoRequest()
        request.namespace = manager.namespace
        let info = try manager.call(API.info, request, within: Manager.readLimit)
        if output == .json {
            try Console.write(info.document.document)
            return 0
        }
        let lines: [(String, String)] = [
            ("Version", info.version), ("Process", "\(info.pid)"), ("Address", info.address), ("Root", info.root), ("State", info.state),
            ("Namespace", manager.namespace), ("Containers", "\(info.containers)"), (" Running", "\(info.running)"),
            (" Paused", "\(info.paused)"), (" Stopped", "\(info.stopped)"), ("Images", "\(info.images)"),
            ("Snapshotter", info.snapshotter), ("Runtime", info.runtime), ("Shim", info.shim),
            ("Cgroup version", info.cgroupVersion), ("Cgroup controllers", info.cgroupControllers.joined(separator: " ")),
            ("Kernel", info.kernel),
        ]
        try Console.write(lines.map { "\($0.0): \(printable($0.1))\n" }.joined())
        for warning in info.warnings { Console.error("warning: \(warning)") }
        return 0
    }
}

struct Completion: ParsableCommand, HasExamples {
    enum Shell: String, ExpressibleByArgument, CaseIterable { case bash, zsh, fish }

    static let configuration = CommandConfiguration(
        commandName: "completion", _superCommandName: "ctrctl", abstract: "Print a completion script for a shell.")
    static let examples = [
        "ctrctl completion bash > /etc/bash_completion.d/ctrctl",
        "ctrctl completion zsh > /usr/local/share/zsh/site-functions/_ctrctl",
        "ctrctl completion fish > ~/.config/fish/completions/ctrctl.fish",
    ]
    @Argument(help: "bash, zsh or fish.")
    var shell: Shell

    func run() throws {
        let kind: CompletionShell =
            switch shell {
            case .bash: .bash
            case .zsh: .zsh
            case .fish: .fish
            }
        try Console.line(Root.completionScript(for: kind))
    }
}
