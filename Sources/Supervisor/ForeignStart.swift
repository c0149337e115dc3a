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
            let text = output.text.isEmpty ? "it ended with status \(output.status)" : output.text.shown
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
    ) throws(SysError) -> ForeignProgram.Output {
        var arguments = ["-namespace", namespace, "-address", configuration.address, "-publish-binary", configuration.shim, "-id", id]
        // What is left running is the guards'; what deletes leaves nothing running.
        let isStart = action == ["start"]
        arguments = (isStart ? ["ctr-shim", "into", configuration.guardsCgroupPath(id), program] : [program]) + arguments
        if !isStart { arguments += ["-bundle", bundle] }
        let path = getenv("PATH").map { String(cString: $0) } ?? "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return try ForeignProgram.run(
            isStart ? configuration.shim : program, arguments + action,
            environment: [
                "PATH=" + path, "TTRPC_ADDRESS=" + (configuration.eventsAddress ?? ""), "GRPC_ADDRESS=" + configuration.address,
                "NAMESPACE=" + namespace, "MAX_SHIM_VERSION=2", "GOMAXPROCS=2",
            ], directory: bundle, input: input, keeping: lock, deadline: deadline)
    }

    /// Starts `ctr-shim log` in the guards' control group; returns when it is ready.
    func startLogger(_ words: [String]) throws {
        let arguments = ["ctr-shim", "into", configuration.guardsCgroupPath(id), configuration.shim] + words
        let output = try ForeignProgram.run(
            configuration.shim, arguments, environment: [], directory: bundle, input: [], keeping: -1, deadline: Self.startDeadline)
        if output.status != 0 { throw failure("start logger: \(output.text.shown)") }
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

/// A program that was not written for this manager: with an environment and an input of its own, and bounded in time and output.
enum ForeignProgram {
    struct Output {
        let status: UInt32
        /// Both streams, as containerd takes them.
        let bytes: [UInt8]

        /// The last line that says something: in front of an error may be warnings.
        var text: String {
            let line = bytes.split(separator: 0x0a).last { !$0.allSatisfy { $0 <= 0x20 } } ?? []
            return String(decoding: line, as: UTF8.self)
        }
    }

    private static let outputLimit = 64 << 10

    static func run(
        _ path: String, _ arguments: [String], environment: [String], directory: String, input: [UInt8], keeping: Int32, deadline: Int64
    ) throws(SysError) -> Output {
        var ends: [Int32] = [-1, -1]
        try check("make pipe", "", ctr_pipe2(&ends, O_CLOEXEC))
        let reading = Descriptor(owning: ends[0])
        let given = Descriptor(owning: try check("make memfd", "", ctr_memfd_create("input", 1)))
        try writeAll(given.raw, input, name: "input")
        lseek(given.raw, 0, SEEK_SET)
        let pid: Int32
        do {
            let writing = Descriptor(owning: ends[1])
            var map: [Int32] = [given.raw, writing.raw, writing.raw]
            if keeping >= 0 { map.append(keeping) }
            var argv = arguments.map { strdup($0) } + [nil]
            var envp = environment.map { strdup($0) } + [nil]
            pid = ctr_spawn(path, &argv, &envp, directory, map, Int32(map.count), true)
            for text in argv + envp { free(text) }
        }
        try check("run", path, pid)
        let limit = now(CLOCK_MONOTONIC) + deadline
        // Its output may be held open by what it left; its end is what counts, and then what is in the pipe.
        let handle: Descriptor
        do throws(SysError) { handle = try ProcessIdentity(current: pid).open() } catch {
            kill(pid, SIGKILL)
            var status: Int32 = 0
            while waitpid(pid, &status, 0) < 0 && errno == EINTR {}
            throw error
        }
        var bytes: [UInt8] = []
        var hasEnded = false
        while !hasEnded {
            let left = (limit - now(CLOCK_MONOTONIC)) / 1_000_000
            if left <= 0 { break }
            var items = [
                pollfd(fd: handle.raw, events: Int16(POLLIN), revents: 0), pollfd(fd: reading.raw, events: Int16(POLLIN), revents: 0),
            ]
            if poll(&items, 2, Int32(clamping: left)) < 0 { continue }
            hasEnded = items[0].revents != 0
            if take(reading.raw, &bytes) { continue }
            // All of its output is closed: only its end is awaited.
            var item = pollfd(fd: handle.raw, events: Int16(POLLIN), revents: 0)
            hasEnded = poll(&item, 1, Int32(clamping: max(left, 0))) > 0
            break
        }
        if !hasEnded { kill(pid, SIGKILL) }
        var status: Int32 = 0
        while waitpid(pid, &status, 0) < 0 && errno == EINTR {}
        if !hasEnded { throw SysError("run", path, code: ETIMEDOUT) }
        return Output(status: exitCode(waitStatus: status), bytes: bytes)
    }

    /// Takes what is there; false at the end of the stream.
    private static func take(_ descriptor: Int32, _ bytes: inout [UInt8]) -> Bool {
        var chunk = [UInt8](repeating: 0, count: 4096)
        while true {
            var item = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            if poll(&item, 1, 0) <= 0 { return true }
            let got = read(descriptor, &chunk, chunk.count)
            if got < 0 && errno == EINTR { continue }
            if got <= 0 { return false }
            bytes += chunk[..<min(got, outputLimit - min(bytes.count, outputLimit))]
        }
    }
}
