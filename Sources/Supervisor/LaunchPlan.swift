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
    /// The guards are a shim of others.
    private var foreign: ForeignRuntime? { ForeignRuntime(runtime) }
    private var foreignStart: ForeignStart { ForeignStart(configuration: configuration, namespace: state.namespace, id: state.id) }

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

    /// New guards for a container that lives on without any, in the bundle that is there.
    /// - Returns: the keeper.
    func renewGuards() throws -> ProcessIdentity? {
        let bundle = try Linux.open(configuration.bundle(state.namespace, state.id), O_RDONLY | O_DIRECTORY)
        try startGuards(bundle.raw)
        return try GuardsRecord.read(in: bundle.raw)?.keeper
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
        if foreign != nil {
            try foreignStart.prepare(bundle.raw, incarnation: incarnation)
            return bundle
        }
        var start = StartRecord(
            runtime: runtime, runtimeRoot: configuration.runtimeRoot(state.namespace), rootfsMode: usesOwnRuntime ? .detached : .mounted,
            socket: configuration.socket(state.namespace, state.id, incarnation),
            incarnationDirectory: configuration.incarnationDirectory(state.namespace, state.id, incarnation), keeper: configuration.keeper
        )
        if let options = state.container.config.logSettings {
            start.segmentBytes = options.segmentBytes
            start.segmentCount = options.segmentCount
        }
        tellGuards(&start, spec)
        try start.record.write(to: StartRecord.fileName, in: bundle.raw, durable: false)
        return bundle
    }

    /// What the helper would find in config.json and mountinfo, so that it need not read them. A user namespace is left to it.
    private func tellGuards(_ start: inout StartRecord, _ spec: JSON) {
        guard spec["linux"]?["uidMappings"] == nil, spec["linux"]?["gidMappings"] == nil,
            let parts = spec["linux"]?["cgroupsPath"]?.stringValue?.split(separator: "/"), parts.count >= 3
        else { return }
        let path = "/" + parts.dropLast(2).joined(separator: "/") + "/shims/" + state.id
        let account = spec["process"]?["user"]
        let hierarchies = supervisor.host.cgroups
        start.pipeUser = UInt32(truncatingIfNeeded: account?["uid"]?.integerValue ?? 0)
        start.pipeGroup = UInt32(truncatingIfNeeded: account?["gid"]?.integerValue ?? 0)
        start.guardsUnified = hierarchies.unified.map { $0 + path } ?? ""
        start.guardsSystemd = hierarchies.v1.first { $0.controllers == "name=systemd" }.map { $0.mountPoint + path } ?? ""
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
        if let foreign {
            return try foreignStart.run(foreign, bundle, incarnation: incarnation, bootID: supervisor.host.bootID, lock: lock.raw) {
                foreignStart.messages(of: foreign, supervisor)
            }
        }
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
