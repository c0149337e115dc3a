import OCI

extension Invocation {
    /// What `exec` is asked for on the command line.
    struct ExecOptions: Equatable {
        /// The OCI process object to run; then no flag that describes a process has a meaning.
        var processFile: String?
        var detach = false
        var pidFile: String?
        var consoleSocket: String?
        var terminal = false
        var cwd: String?
        var env: [String] = []
        var user: (uid: UInt32, gid: UInt32?)?
        var additionalGids: [UInt32] = []
        var capabilities: [String] = []
        var noNewPrivileges: Bool?
        var apparmorProfile: String?
        var preservedDescriptors: Int32 = 0
        var cgroups: [ExecCgroup] = []
        var ignorePaused = false
        var args: [String] = []

        static func == (left: ExecOptions, right: ExecOptions) -> Bool {
            left.processFile == right.processFile && left.detach == right.detach && left.pidFile == right.pidFile
                && left.consoleSocket == right.consoleSocket && left.terminal == right.terminal && left.cwd == right.cwd
                && left.env == right.env && left.user?.uid == right.user?.uid && left.user?.gid == right.user?.gid
                && left.additionalGids == right.additionalGids && left.capabilities == right.capabilities
                && left.noNewPrivileges == right.noNewPrivileges && left.apparmorProfile == right.apparmorProfile
                && left.preservedDescriptors == right.preservedDescriptors && left.cgroups == right.cgroups
                && left.ignorePaused == right.ignorePaused && left.args == right.args
        }

        mutating func take(_ flag: String, _ words: inout Words) throws(RuntimeError) {
            switch flag {
            case "process", "p": processFile = try words.value(flag)
            case "detach", "d": detach = try words.bool()
            case "pid-file": pidFile = try words.value(flag)
            case "console-socket": consoleSocket = try words.value(flag)
            case "tty", "t": terminal = try words.bool()
            case "cwd": cwd = try words.value(flag)
            case "env", "e": env.append(try words.value(flag))
            case "user", "u": user = try Self.user(try words.value(flag))
            case "additional-gids", "g": additionalGids.append(try Self.id(try words.value(flag), "gid"))
            case "cap", "c": capabilities.append(try words.value(flag))
            case "no-new-privs": noNewPrivileges = try words.bool()
            case "apparmor": apparmorProfile = try words.value(flag)
            case "preserve-fds": preservedDescriptors = try words.descriptorCount(flag)
            case "cgroup": cgroups.append(try ExecCgroup(try words.value(flag)))
            case "ignore-paused": ignorePaused = try words.bool()
            case "process-label":
                if try !words.value(flag).isEmpty { throw RuntimeError("exec: --process-label is not supported: leave it out") }
            default: throw RuntimeError("unknown flag --\(flag) of exec; see ctrun --help")
            }
        }

        /// "UID" or "UID:GID", in digits: a name would have to be looked up in a file that the container owns.
        private static func user(_ text: String) throws(RuntimeError) -> (uid: UInt32, gid: UInt32?) {
            let parts = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
            let uid = try id(String(parts[0]), "uid")
            return (uid, parts.count == 2 ? try id(String(parts[1]), "gid") : nil)
        }

        /// (uid_t)-1 means "unchanged" to the kernel, and signs and spaces are no digits.
        private static func id(_ text: String, _ what: String) throws(RuntimeError) -> UInt32 {
            guard !text.isEmpty, text.utf8.allSatisfy({ $0 >= 0x30 && $0 <= 0x39 }), let number = UInt32(text), number != UInt32.max else {
                throw RuntimeError("exec: \"\(text.prefix(64))\" is no \(what): give a number from 0 to 4294967294")
            }
            return number
        }
    }

    /// A control group below the container's own: "NAME", or "CONTROLLERS:NAME" for one hierarchy of version 1.
    struct ExecCgroup: Equatable {
        /// nil is version 2 where the host has it, else every hierarchy.
        var controllers: String?
        /// Relative, one or more names.
        var path: String

        init(_ text: String) throws(RuntimeError) {
            let parts = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
            let name = parts.count == 2 ? parts[1] : parts[0]
            controllers = parts.count == 2 ? String(parts[0]) : nil
            let components = name.utf8.drop { $0 == UInt8(ascii: "/") }.split(
                separator: UInt8(ascii: "/"), omittingEmptySubsequences: false)
            let fine = components.allSatisfy { component in
                !component.isEmpty && component.count <= 255 && !component.elementsEqual(".".utf8) && !component.elementsEqual("..".utf8)
                    && component.allSatisfy { $0 >= 0x20 && $0 != 0x7f }
            }
            guard fine, controllers?.isEmpty != true, text.utf8.count <= 1024 else {
                throw RuntimeError("exec: --cgroup \"\(text.prefix(64))\" is no name of a control group below the container's")
            }
            path = components.map { String(decoding: Array($0), as: UTF8.self) }.joined(separator: "/")
        }
    }
}
