import CtrProto
import Glibc
import Linux
import Logging
import NIOCore
import Store
import SwiftProtobuf
import TTRPC

/// Containers and tasks: what clients ask for, carried out; what happens to containers, recorded; and after a restart, what was.
public final class Supervisor: Sendable {
    let configuration: Configuration
    let executor: Executor
    let store: Store
    let host: Host
    let logger: Logger
    let watcher: PidfdWatcher
    let logWatch: LogWatch
    let catalog: ImageCatalog
    public let registry = Registry()
    private let rebuilt: Bool

    /// Loads what the database knows, or with `rebuild` what is on the disk. Nothing is adopted and nothing answered yet. Blocking.
    public init(configuration: Configuration, executor: Executor, store: Store, rebuild: Bool, logger: Logger) throws {
        self.configuration = configuration
        self.executor = executor
        self.store = store
        self.logger = logger
        rebuilt = rebuild
        host = try Host()
        watcher = try PidfdWatcher()
        logWatch = try LogWatch()
        let contents =
            rebuild ? try Rebuild(configuration: configuration, bootID: host.bootID, logger: logger).contents() : try store.load()
        catalog = try ImageCatalog(root: configuration.root, rows: contents.imageNames, store: store, executor: executor, logger: logger)
        for row in contents.containers {
            let container: Ctr_V1_Container
            do { container = try Ctr_V1_Container(serializedBytes: row.record) } catch {
                logger.error("container's record is unreadable", metadata: ["container": "\(row.id)"])
                continue
            }
            var state = ContainerState(
                row: row, container: container, task: contents.tasks[row.id].map { TaskState(row: $0, proved: false) })
            state.visible = true
            do { try registry.insert(state, Instance(state: state, supervisor: self)) } catch {
                logger.error("container twice", metadata: ["container": "\(row.id)"])
            }
        }
    }

    // MARK: after the start

    /// Begins to find out what became of every container, each by itself; afterwards what belongs to none is removed. Returns when all is
    /// found out, or after `patience`: a shim that does not answer holds up nobody.
    public func reconcile(patience: TimeAmount) async {
        let promise = executor.loop.makePromise(of: Void.self)
        let timer = executor.loop.scheduleTask(in: patience) { promise.succeed() }
        executor.spawn { [self] in
            await adoptAll()
            promise.succeed()
            timer.cancel()
            await sweep()
        }
        try? await promise.futureResult.get()
    }

    private func adoptAll() async {
        let instances = registry.instances()
        let started = now(CLOCK_MONOTONIC)
        if rebuilt { await writeRebuilt(instances) }
        let tasks = instances.map { instance in
            executor.spawn {
                do { try await instance.adopt() } catch {
                    self.logger.error(
                        "container not brought back", metadata: ["container": "\(instance.id.prefix(12))", "error": "\(error)"])
                }
            }
        }
        for task in tasks { await task.value }
        logger.info(
            "containers found",
            metadata: ["count": "\(instances.count)", "milliseconds": "\((now(CLOCK_MONOTONIC) - started) / 1_000_000)"])
    }

    private func writeRebuilt(_ instances: [Instance]) async {
        let states = registry.list(namespace: "")
        var changes: [Change] = []
        for state in states {
            changes.append(.insertContainer(state.row))
            if let task = state.task { changes.append(.putTask(task.row)) }
        }
        let containers = states.map { (namespace: $0.namespace, image: $0.container.image, manifest: $0.row.imageID) }
        do {
            let names = try await executor.longRunning { [catalog] in try catalog.recoverNames(containers: containers) }
            changes += names.map { .putImageName($0) }
            try await store.commit(changes, events: [])
        } catch { logger.error("rebuilt rows not written", metadata: ["error": "\(error)"]) }
    }

    /// Removes directories without a row, snapshots without a container, sockets and cgroups without a task, blobs without an image.
    private func sweep() async {
        let sweep = Sweep(configuration: configuration, registry: registry, catalog: catalog, host: host, logger: logger)
        do {
            try await catalog.exclusively { [self] in
                try await executor.longRunning { try sweep.run() }
                if !rebuilt { try await catalog.collect(inUse: imagesInUse) }
            }
        } catch { logger.warning("leftovers not removed", metadata: ["error": "\(error)"]) }
    }

    /// Manifests that containers were made from.
    var imagesInUse: Set<String> { Set(registry.instances().compactMap { registry.state($0.id)?.row.imageID }) }

    /// Removes the parents of containers' cgroups where no container is left: after the last one nothing of us stays on the host.
    public func removeEmptyCgroups() {
        for mountPoint in host.cgroups.v1.map(\.mountPoint) + (host.cgroups.unified.map { [$0] } ?? []) {
            let parent = "\(mountPoint)/\(configuration.cgroupParent)"
            for namespace in (try? Rebuild.entries(parent)) ?? [] { rmdir("\(parent)/\(namespace)") }
            rmdir(parent)
        }
    }

    // MARK: system

    public func version() -> Ctr_V1_VersionResponse {
        var response = Ctr_V1_VersionResponse()
        response.version = Version.text
        response.apiVersion = Version.api
        response.kernel = host.kernel
        response.architecture = host.architecture
        return response
    }

    public func info(_ request: Ctr_V1_InfoRequest) -> Ctr_V1_InfoResponse {
        var response = Ctr_V1_InfoResponse()
        response.version = Version.text
        response.root = configuration.root
        response.state = configuration.state
        response.address = configuration.address
        response.pid = UInt32(getpid())
        for state in registry.list(namespace: request.namespace) {
            response.containers += 1
            switch state.task?.status {
            case .running: response.running += 1
            case .paused: response.paused += 1
            default: response.stopped += 1
            }
        }
        response.images = UInt32(clamping: catalog.count(namespace: request.namespace))
        response.cgroupVersion = host.cgroupVersion
        response.cgroupControllers = host.controllers
        response.snapshotter = "overlay"
        response.runtime = configuration.runtime
        response.shim = configuration.shim
        response.kernel = host.kernel
        response.warnings = host.warnings
        return response
    }

    // MARK: lists

    public func list(_ request: Ctr_V1_ListContainersRequest) -> Ctr_V1_ListContainersResponse {
        var response = Ctr_V1_ListContainersResponse()
        response.containers = registry.list(namespace: request.namespace).map(\.message)
        return response
    }

    public func listTasks(_ request: Ctr_V1_ListTasksRequest) -> Ctr_V1_ListTasksResponse {
        var response = Ctr_V1_ListTasksResponse()
        response.tasks = registry.list(namespace: request.namespace).compactMap(\.taskMessage)
        return response
    }
}
