import CtrProto
import Glibc
import Linux
import Logging
import Store
import SwiftProtobuf

/// Containers and tasks: what clients ask for, carried out; what happens to containers, recorded; and after a restart, what was.
public final class Supervisor: Sendable {
    let configuration: Configuration
    let executor: Executor
    let store: Store
    let host: Host
    let logger: Logger
    public let registry = Registry()

    /// Loads what the database knows. Nothing is adopted and nothing answered yet. Blocking.
    public init(configuration: Configuration, executor: Executor, store: Store, rebuild: Bool, logger: Logger) throws {
        self.configuration = configuration
        self.executor = executor
        self.store = store
        self.logger = logger
        host = try Host()
        try load()
    }

    /// Looks at every container; returns when all are looked at.
    public func reconcile() async {}

    private func load() throws {
        let contents = try store.load()
        for row in contents.containers {
            let container = try Ctr_V1_Container(serializedBytes: row.record)
            let task = contents.tasks[row.id].map { TaskState(row: $0, proved: false) }
            let instance = Instance(id: row.id, namespace: row.namespace)
            try registry.insert(ContainerState(row: row, container: container, task: task), instance)
        }
    }

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
        response.cgroupVersion = host.cgroupVersion
        response.cgroupControllers = host.controllers
        response.snapshotter = "overlay"
        response.runtime = configuration.runtime
        response.shim = configuration.shim
        response.kernel = host.kernel
        response.warnings = host.warnings
        return response
    }

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
