import CtrProto
import Glibc
import Linux
import NIOCore
import Store
import SwiftProtobuf
import TTRPC

/// The guards of containers, by request.
extension Supervisor {
    /// Shims that are upgraded at a time.
    private static let upgradesAtOnce = 16
    private static let versionDeadline: Int64 = 5_000_000_000

    /// Everything that guards a container now. Answered from memory.
    public func listShims(_ request: Ctr_V1_ListShimsRequest) async throws -> Ctr_V1_ListShimsResponse {
        let version = await programVersion()
        var response = Ctr_V1_ListShimsResponse()
        response.shims = registry.list(namespace: request.namespace.isEmpty ? "default" : request.namespace).compactMap {
            $0.shimMessage(current: version)
        }
        return response
    }

    /// Makes running shims become the manager's own program, in place, some at a time and each with its own deadline. One that cannot be
    /// says why in its `error`, and the others go on.
    public func upgradeShims(_ request: Ctr_V1_UpgradeShimsRequest) async throws -> Ctr_V1_UpgradeShimsResponse {
        let namespace = request.namespace.isEmpty ? "default" : request.namespace
        var instances: [Instance] = []
        if request.container.isEmpty {
            instances = registry.list(namespace: namespace).filter { ($0.task?.guards ?? .none) != .none }.compactMap {
                registry.instance($0.id)
            }
        } else {
            instances = [try find(namespace, request.container, "upgrade shim")]
            guard let state = registry.state(instances[0].id), (state.task?.guards ?? .none) != .none else {
                throw SupervisorError(
                    .failedPrecondition, "upgrade shim", request.container.shown, "container \(request.container.shown) has no shim")
            }
        }
        let queue = instances
        let errors = await withTaskGroup(of: (String, String).self, returning: [String: String].self) { group in
            var waiting = queue.makeIterator()
            var errors: [String: String] = [:]
            func begin(_ instance: Instance) { group.addTask { (instance.id, await instance.upgradeShim()) } }
            for _ in 0..<Self.upgradesAtOnce { if let instance = waiting.next() { begin(instance) } }
            while let (id, error) = await group.next() {
                if !error.isEmpty { errors[id] = error }
                if let instance = waiting.next() { begin(instance) }
            }
            return errors
        }
        let version = await programVersion()
        var response = Ctr_V1_UpgradeShimsResponse()
        response.shims = instances.compactMap { instance in
            guard var shim = registry.state(instance.id)?.shimMessage(current: version) else { return nil }
            shim.error = errors[instance.id] ?? ""
            return shim
        }
        return response
    }

    /// The version of the shim that this manager starts; empty when it does not say. Asked each time: the file may have been replaced.
    private func programVersion() async -> String {
        let program = configuration.shim
        let output = try? await executor.blocking {
            try Helper.run(program, ["ctr-shim", "-v"], directory: "/", deadline: Self.versionDeadline)
        }
        guard let output, output.status == 0 else { return "" }
        return output.text.split(separator: " ").last.map(String.init) ?? ""
    }
}

extension ContainerState {
    /// nil when nothing guards the container.
    func shimMessage(current: String) -> Ctr_V1_Shim? {
        guard let task, task.guards != .none else { return nil }
        var message = Ctr_V1_Shim()
        message.containerID = id
        message.containerName = name
        message.runtime = container.config.runtime.isEmpty ? "ctr" : container.config.runtime
        message.shimPid = task.shimPID
        message.keeperPid = task.keeperPID
        message.guards = task.guards
        message.version = task.shim.version
        message.restarts = task.shim.restarts
        message.upgrades = task.shim.upgrades
        message.outdated =
            ForeignRuntime(container.config.runtime) == nil && !task.shim.version.isEmpty && !current.isEmpty
            && task.shim.version != current
        return message
    }
}

extension Instance {
    private static let upgradeDeadline = TimeAmount.seconds(30)

    /// Makes the shim become the manager's program. Returns why it could not, in one line; empty when it did.
    func upgradeShim() async -> String {
        guard let connection, connection.isOpen else { return "the shim does not answer" }
        let shim = Shim(connection: connection, id: id)
        do {
            _ = try await shim.upgrade(program: configuration.shim, timeout: Self.upgradeDeadline)
            let info = try await shim.info(timeout: Self.upgradeDeadline)
            if self.connection === connection { apply(info) }
            return ""
        } catch let status as Status where status.code == .unimplemented {
            return "its shim is too old to be upgraded in place: it is replaced when the container is started again"
        } catch {
            return SupervisorError.cause(of: error).text
        }
    }
}
