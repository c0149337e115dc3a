import CtrProto
import Glibc
import Linux
import NIOCore
import OCI
import Store
import TTRPC

/// Limits of a running container, changed.
extension Instance {
    private static let updateDeadline = TimeAmount.seconds(15)

    /// Carries the change out, then keeps it for the next start. What cannot be changes nothing, and what the runtime refuses is not kept.
    func update(_ limits: Ctr_V1_Limits) async throws {
        await guarded()
        try await enqueue(.update) { try await $0.updateNow(limits) }.value
    }

    private func updateNow(_ limits: Ctr_V1_Limits) async throws {
        if state.row.phase == .removing { throw fail(.failedPrecondition, "update", "container \(name) is being removed") }
        let task = try requireRunning("update")
        if limits == Ctr_V1_Limits() { throw fail(.invalidArgument, "update", "no limit to change was given") }
        let before = ResourceLimits(state.container.config, changed: state.container.limits)
        var after = before
        after.change(limits)
        try await checkUpdate(limits, after)
        let swap = supervisor.host.limitsSwap
        let change = after.change(by: limits, hostLimitsSwap: swap)
        guard let connection, connection.isOpen, task.guards != .unresponsive else {
            throw fail(.unavailable, "update", "cannot update container \(name): its shim does not answer")
        }
        let shim = Shim(connection: connection, id: id)
        do { try await shim.update(resources: change.encoded(), timeout: Self.updateDeadline) } catch {
            if error as? ShimError == .deadline { note { $0.guards = .unresponsive } }
            if let status = error as? Status, status.code == .unimplemented { throw shimIsTooOld("update") }
            // Of several limits some may have been written before the one that failed.
            try? await shim.update(resources: before.change(by: limits, hostLimitsSwap: swap).encoded(), timeout: Self.updateDeadline)
            throw SupervisorError.wrapping(error, "update container", name)
        }
        var changed = state.container.limits
        changed.overlay(limits)
        state.container.limits = changed
        state.row.record = try state.container.serializedBytes()
        try await commit([.setRecord(id: id, state.row.record)], .taskUpdate)
        let (supervisor, state, directory) = (supervisor, state, configuration.containerDirectory(namespace, id))
        try await executor.blocking { try supervisor.writeDescription(of: state, in: directory) }
    }

    private func checkUpdate(_ limits: Ctr_V1_Limits, _ after: ResourceLimits) async throws {
        let host = supervisor.host
        let wanted = [
            ("memory", limits.hasMemoryBytes || limits.hasMemorySwapBytes || limits.hasMemoryReservationBytes),
            ("cpu", limits.hasNanoCpus || limits.hasCpuShares), ("cpuset", limits.hasCpusetCpus || limits.hasCpusetMems),
            ("pids", limits.hasPidsLimit),
        ]
        for (controller, isWanted) in wanted where isWanted && !host.controllers.contains(controller) {
            throw fail(.failedPrecondition, "update", "cannot update container \(name): this host has no \(controller) cgroup controller")
        }
        do {
            try after.check()
            if limits.hasCpusetCpus || limits.hasCpusetMems {
                let (processors, nodes) = try await executor.blocking {
                    (Host.list("/sys/devices/system/cpu/online"), Host.list("/sys/devices/system/node/online"))
                }
                try after.check(processors: processors, nodes: nodes)
            }
        } catch let error as SpecError {
            throw fail(.invalidArgument, "update", "cannot update container \(name): \(error)")
        }
    }
}
