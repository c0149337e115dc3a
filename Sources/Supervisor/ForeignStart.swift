import CLinux
import CtrProto
import Glibc
import Linux
import OCI
import Records
import SwiftProtobuf
import TTRPC

/// How a shim of others is started and, at its end, cleaned up after: its program run as containerd runs it. Every call may block.
struct ForeignStart: Sendable {
    private static let startDeadline: Int64 = 20_000_000_000
    private static let deleteDeadline: Int64 = 5_000_000_000

    let configuration: Configuration
    let namespace: String
    let id: String

    private var bundle: String { configuration.bundle(namespace, id) }

    // MARK: start

    /// What containerd has in a bundle beside config.json and rootfs.
    func prepare(_ bundle: Int32, incarnation: UInt32) throws(SysError) {
        unlinkat(bundle, "work", 0)
        try checkErrno(
            "link", "work", symlinkat(configuration.incarnationDirectory(namespace, id, incarnation), bundle, "work"))
        try makeFIFO("log", in: bundle)
    }

    func makeFIFO(_ name: String, in directory: Int32) throws(SysError) {
        if mkfifoat(directory, name, 0o600) < 0 && errno != EEXIST { throw SysError("make FIFO", name, code: errno) }
    }

    /// Runs `PROGRAM … start` and writes down what it answered. Nothing of the container exists before that record.
    /// `messages` takes what the shim says into the FIFO meanwhile.
    func run(
        _ runtime: ForeignRuntime, _ bundle: Int32, incarnation: UInt32, bootID: String, lock: Int32, messages: () -> ForeignMessages
    ) throws {
        guard configuration.eventsAddress != nil else {
            throw failure("the address \(configuration.address) is too long for its event socket (101 bytes at most)")
        }
        let program = try runtime.find(configuration)
        // The shim opens it for writing, which waits for a reader, and waits again when that does not read.
        let reader = messages()
        defer { reader.close() }
        var output = try call(program, ["start"], input: [], lock: lock, deadline: Self.startDeadline)
        if output.status != 0, String(decoding: output.bytes, as: UTF8.self).contains("deprecated API") {
            output = try call(program, ["start"], input: bootstrap(), lock: lock, deadline: Self.startDeadline)
        }
        guard output.status == 0 else {
            let text = output.lastText.isEmpty ? "it ended with status \(output.status)" : output.lastText.shown
            throw failure("\(runtime.file): \(text)")
        }
        let answer = try ForeignAnswer(output.bytes)
        let record = ForeignRecord(
            program: program, address: answer.address, version: answer.version, incarnation: incarnation, bootID: bootID)
        guard record.socket != nil else {
            throw failure("\(runtime.file) answered with an address that is no Unix socket: \(answer.address.shown)")
        }
        try record.write(in: bundle)
    }

    /// Reads what the shim says, from now on.
    func messages(of runtime: ForeignRuntime, _ supervisor: Supervisor) -> ForeignMessages {
        ForeignMessages(
            path: bundle + "/log", logger: supervisor.logger, context: ["container": "\(id.prefix(12))", "shim": "\(runtime.file)"],
            supervisor.executor.loop)
    }

    private func failure(_ text: String) -> SupervisorError {
        SupervisorError(.internal, "start guards", String(id.prefix(12)), text, exitCode: 125)
    }

    /// What newer shims want on standard input.
    private func bootstrap() throws -> [UInt8] {
        var message = Containerd_Runtime_Bootstrap_V1_BootstrapParams()
        message.instanceID = id
        message.namespace = namespace
        message.containerdGrpcAddress = configuration.address
        message.containerdTtrpcAddress = configuration.eventsAddress ?? ""
        message.containerdBinary = configuration.shim
        return try message.serializedBytes()
    }

    private func call(
        _ program: String, _ action: [String], input: [UInt8], lock: Int32, deadline: Int64
    ) throws(SysError) -> Helper.Output {
        var arguments = ["-namespace", namespace, "-address", configuration.address, "-publish-binary", configuration.shim, "-id", id]
        // What is left running is the guards'; what deletes leaves nothing running.
        let isStart = action == ["start"]
        arguments = (isStart ? ["ctr-shim", "into", configuration.guardsCgroupPath(id), program] : [program]) + arguments
        if !isStart { arguments += ["-bundle", bundle] }
        let path = getenv("PATH").map { String(cString: $0) } ?? "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return try Helper.run(
            isStart ? configuration.shim : program, arguments + action, directory: bundle, keeping: lock, deadline: deadline,
            environment: [
                "PATH=" + path, "TTRPC_ADDRESS=" + (configuration.eventsAddress ?? ""), "GRPC_ADDRESS=" + configuration.address,
                "NAMESPACE=" + namespace, "MAX_SHIM_VERSION=2", "GOMAXPROCS=2",
            ], input: input)
    }

    /// Starts `ctr-shim log` in the guards' control group; returns when it is ready.
    func startLogger(_ words: [String]) throws {
        let arguments = ["ctr-shim", "into", configuration.guardsCgroupPath(id), configuration.shim] + words
        let output = try Helper.run(
            configuration.shim, arguments, directory: bundle, deadline: Self.startDeadline, environment: [])
        if output.status != 0 { throw failure("start logger: \(output.lastText.shown)") }
    }

    // MARK: the end

    /// Undoes what a shim of others may have left: containers of its runtime, its mount, its socket. Nothing for a bundle that had none. Can be
    /// repeated.
    func cleanUp() throws(SysError) {
        guard let record = ForeignRecord.read(bundle: bundle) else { return try unmountRootfs() }
        // What it prints is an exit status that it invents; nobody wants that.
        if access(record.program, X_OK) == 0 {
            _ = try? call(record.program, ["delete"], input: [], lock: -1, deadline: Self.deleteDeadline)
        }
        try unmountRootfs()
        // Its cgroup is empty by now, so nobody listens there.
        if let socket = record.socket, ctr_unix_connect(socket, true) == -ECONNREFUSED { unlink(socket) }
    }

    /// The mount is on the host, where the shim made it.
    private func unmountRootfs() throws(SysError) {
        let path = bundle + "/rootfs"
        for _ in 0..<64 {
            let result = ctr_umount2(path, 2 | 8 /* MNT_DETACH | UMOUNT_NOFOLLOW */)
            if result == -EINVAL || result == -ENOENT { return }
            try check("unmount", path, result)
        }
        throw SysError("unmount", path, code: EBUSY)
    }
}

/// What `start` printed, in one of the three forms that shims have used.
struct ForeignAnswer: Equatable {
    var address = ""
    var version: UInt32 = 2

    init(_ bytes: [UInt8]) throws(SupervisorError) {
        func failure(_ text: String) -> SupervisorError {
            SupervisorError(.internal, "start guards", "", "the shim's answer \(text)", exitCode: 125)
        }
        let text = String(decoding: bytes.prefix(1024), as: UTF8.self)
        var kind = "ttrpc"
        if bytes.first == UInt8(ascii: "{") {
            guard let json = try? JSON(parsing: bytes), let address = json["address"]?.stringValue else {
                throw failure("is damaged: \(text.shown)")
            }
            self.address = address
            version = UInt32(clamping: json["version"]?.integerValue ?? 2)
            kind = json["protocol"]?.stringValue ?? kind
        } else if text.contains("://") && bytes.allSatisfy({ $0 >= 0x20 && $0 < 0x7f || $0 == 0x0a || $0 == 0x0d }) {
            address = String(text.split(whereSeparator: \.isWhitespace).last ?? "")
        } else if let result = try? Containerd_Runtime_Bootstrap_V1_BootstrapResult(serializedBytes: bytes), !result.address.isEmpty {
            address = result.address
            version = UInt32(clamping: result.version)
            kind = result.protocol
        } else {
            throw failure("is no address: \(text.shown)")
        }
        guard kind.isEmpty || kind == "ttrpc" else { throw failure("says that it speaks \(kind.shown), and ctrd speaks ttrpc alone") }
        guard version == 2 || version == 3 else { throw failure("is of version \(version), and ctrd knows 2 and 3") }
    }
}
