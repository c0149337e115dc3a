import CLinux
import CtrProto
import Glibc
import Linux
import OCI
import Records
import Store
import SwiftProtobuf

/// Everything that is on the disk before the guards of an incarnation live, and their start. Blocking.
struct LaunchPlan: Sendable {
    /// Held by the helper `ctr-shim start` for as long as it lives, so that a later manager knows whether it still does.
    static let helperLock = "helper.lock"
    private static let helperDeadline: Int64 = 20_000_000_000

    let state: ContainerState
    let supervisor: Supervisor
    let incarnation: UInt32

    init(state: ContainerState, supervisor: Supervisor) {
        self.state = state
        self.supervisor = supervisor
        incarnation = state.task?.row.incarnation ?? 1
    }

    private var configuration: Configuration { supervisor.configuration }
    private var runtime: String { state.container.config.runtime.isEmpty ? configuration.runtime : state.container.config.runtime }
    private var usesOwnRuntime: Bool { runtime == configuration.runtime }

    struct Launched: Sendable {
        let mounts: [Containerd_Types_Mount]
        let keeper: ProcessIdentity?
    }

    /// Snapshot, bundle, intent, guards. When it returns the socket takes connections.
    func run() throws -> Launched {
        let mounts = try mounts()
        try makeMountSources()
        let spec = try supervisor.specification(of: state, detached: usesOwnRuntime)
        let bundle = try writeBundle(spec)
        try writeIntent()
        try startGuards(bundle.raw)
        let guards = try GuardsRecord.read(in: bundle.raw)
        return Launched(mounts: mounts, keeper: guards?.keeper)
    }

    /// Prepares the container's writable directory, and says what its root file system is made of.
    func mounts() throws -> [Containerd_Types_Mount] { try supervisor.rootMounts(of: state) }

    /// A source that does not exist becomes a directory, as Docker's `-v` has it.
    private func makeMountSources() throws(SysError) {
        for mount in state.container.config.mounts where access(mount.source, F_OK) != 0 && errno == ENOENT {
            var path = ""
            for part in mount.source.split(separator: "/") {
                path += "/" + part
                try makeDirectory(path, mode: 0o755)
            }
        }
    }

    private func writeBundle(_ spec: JSON) throws -> Descriptor {
        let path = configuration.bundle(state.namespace, state.id)
        try makeDirectory("\(configuration.state)/\(state.namespace)", mode: 0o700)
        try makeDirectory("\(configuration.state)/runtime/\(state.namespace)", mode: 0o700)
        try makeDirectory(path, mode: 0o700)
        let bundle = try Linux.open(path, O_RDONLY | O_DIRECTORY)
        try makeDirectory("rootfs", mode: 0o700, at: bundle.raw)
        let file = try Linux.open("config.json", O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, mode: 0o600, at: bundle.raw)
        try writeAll(file.raw, spec.encoded(), name: "config.json")
        var start = StartRecord(
            runtime: runtime, runtimeRoot: configuration.runtimeRoot(state.namespace), rootfsMode: usesOwnRuntime ? .detached : .mounted,
            socket: configuration.socket(state.namespace, state.id, incarnation),
            incarnationDirectory: configuration.incarnationDirectory(state.namespace, state.id, incarnation), keeper: configuration.keeper
        )
        if let options = state.container.config.logSettings {
            start.segmentBytes = options.segmentBytes
            start.segmentCount = options.segmentCount
        }
        try start.record.write(to: StartRecord.fileName, in: bundle.raw, durable: false)
        return bundle
    }

    private func writeIntent() throws {
        try makeDirectory("\(configuration.root)/containers/\(state.namespace)", mode: 0o700)
        let container = configuration.containerDirectory(state.namespace, state.id)
        try makeDirectory(container, mode: 0o700)
        if incarnation == 1 { try supervisor.writeDescription(of: state, in: container) }
        let path = configuration.incarnationDirectory(state.namespace, state.id, incarnation)
        try makeDirectory(path, mode: 0o700)
        let directory = try Linux.open(path, O_RDONLY | O_DIRECTORY)
        try IntentRecord(
            id: state.id, namespace: state.namespace, incarnation: incarnation, bootID: supervisor.host.bootID, created: now(CLOCK_REALTIME)
        ).write(in: directory.raw)
    }

    // MARK: guards

    /// Runs `ctr-shim … start` to its end. What it prints is the address, or why it failed.
    private func startGuards(_ bundle: Int32) throws {
        let lock = try Linux.open(Self.helperLock, O_RDWR | O_CREAT, mode: 0o600, at: bundle)
        try check("lock", Self.helperLock, ctr_ofd_lock(lock.raw, true))
        let output = try Helper.run(
            configuration.shim,
            [
                "ctr-shim", "-namespace", state.namespace, "-id", state.id, "-address", configuration.address, "-bundle",
                configuration.bundle(state.namespace, state.id), "start",
            ], directory: configuration.bundle(state.namespace, state.id), keeping: lock.raw, deadline: Self.helperDeadline)
        guard output.status == 0 else {
            throw SupervisorError(
                .internal, "start guards", state.name, output.text.isEmpty ? "ctr-shim ended with status \(output.status)" : output.text,
                exitCode: 125)
        }
        let expected = "unix://" + configuration.socket(state.namespace, state.id, incarnation)
        guard output.text == expected else {
            throw SupervisorError(
                .internal, "start guards", state.name, "ctr-shim answered \"\(output.text.shown)\" instead of its address", exitCode: 125)
        }
    }
}

/// Short-lived programs of ours: started, read to their end, never longer than a deadline.
enum Helper {
    struct Output: Equatable, Sendable {
        /// As `exitCode(waitStatus:)`.
        let status: UInt32
        /// The first line of what it printed, on either stream.
        let text: String
    }

    private static let outputLimit = 64 << 10

    /// Runs `path`; it inherits `keeping` as descriptor 3 and nothing else of ours.
    static func run(
        _ path: String, _ arguments: [String], directory: String, keeping: Int32 = -1, deadline: Int64
    ) throws(SysError) -> Output {
        var ends: [Int32] = [-1, -1]
        try check("make pipe", "", ctr_pipe2(&ends, O_CLOEXEC))
        let reading = Descriptor(owning: ends[0])
        let null = try Linux.open("/dev/null", O_RDONLY)
        let pid: Int32
        do {
            let writing = Descriptor(owning: ends[1])
            let map: [Int32] = keeping < 0 ? [null.raw, writing.raw, writing.raw] : [null.raw, writing.raw, writing.raw, keeping]
            pid = spawn(path, arguments, directory, map)
        }
        try check("run", path, pid)
        let limit = now(CLOCK_MONOTONIC) + deadline
        let (bytes, late) = read(reading.raw, until: limit)
        if late { kill(pid, SIGKILL) }
        // Its output ended, so it is about to; one that only closed its output is bounded by the same deadline.
        var status: Int32 = 0
        if !late, let process = try? ProcessIdentity(current: pid).open() {
            var item = pollfd(fd: process.raw, events: Int16(POLLIN), revents: 0)
            if poll(&item, 1, Int32(clamping: max(0, (limit - now(CLOCK_MONOTONIC)) / 1_000_000))) == 0 { kill(pid, SIGKILL) }
        }
        while waitpid(pid, &status, 0) < 0 && errno == EINTR {}
        if late { throw SysError("run", path, code: ETIMEDOUT) }
        let line = bytes.split(separator: 0x0a).first.map { String(decoding: $0, as: UTF8.self) } ?? ""
        return Output(status: exitCode(waitStatus: status), text: line)
    }

    private static func spawn(_ path: String, _ arguments: [String], _ directory: String, _ map: [Int32]) -> Int32 {
        var argv = arguments.map { strdup($0) } + [nil]
        var environment: [UnsafeMutablePointer<CChar>?] = [
            strdup("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), nil,
        ]
        defer { for text in argv + environment { free(text) } }
        return ctr_spawn(path, &argv, &environment, directory, map, Int32(map.count), true)
    }

    private static func read(_ descriptor: Int32, until limit: Int64) -> (bytes: [UInt8], late: Bool) {
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 4096)
        while true {
            let left = (limit - now(CLOCK_MONOTONIC)) / 1_000_000
            if left <= 0 { return (bytes, true) }
            var item = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            if poll(&item, 1, Int32(clamping: left)) < 0 && errno != EINTR { return (bytes, false) }
            guard item.revents != 0 else { continue }
            let got = Glibc.read(descriptor, &chunk, chunk.count)
            if got < 0 && errno == EINTR { continue }
            if got <= 0 { return (bytes, false) }
            if bytes.count < outputLimit { bytes += chunk[..<got] }
        }
    }
}
