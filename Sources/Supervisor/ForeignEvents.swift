import CtrProto
import Glibc
import Linux
import NIOCore
import Store
import SwiftProtobuf
import TTRPC

/// What shims of others forward. Events come late, twice, out of order or not at all, so none is taken for the truth: it makes the manager look.
extension Supervisor {
    /// Answered at once; what it means is found out afterwards.
    public func forward(_ request: Containerd_Services_Events_Ttrpc_V1_ForwardRequest) -> Google_Protobuf_Empty {
        let envelope = request.envelope
        let hint: ForeignHint?
        let bytes = envelope.event.value
        switch envelope.topic {
        case "/tasks/oom":
            hint = (try? Containerd_Events_TaskOOM(serializedBytes: bytes)).map { ForeignHint(id: $0.containerID, isOOM: true) }
        case "/tasks/exit": hint = (try? Containerd_Events_TaskExit(serializedBytes: bytes)).map { ForeignHint(id: $0.containerID) }
        case "/tasks/paused": hint = (try? Containerd_Events_TaskPaused(serializedBytes: bytes)).map { ForeignHint(id: $0.containerID) }
        case "/tasks/resumed": hint = (try? Containerd_Events_TaskResumed(serializedBytes: bytes)).map { ForeignHint(id: $0.containerID) }
        default: hint = nil
        }
        if let hint, let instance = registry.instance(hint.id), instance.namespace == envelope.namespace {
            executor.spawn { await instance.look(after: hint) }
        }
        return Google_Protobuf_Empty()
    }
}

struct ForeignHint: Sendable {
    let id: String
    var isOOM = false
}

extension Instance {
    private static let lookDeadline = TimeAmount.seconds(5)

    /// Asks the shim how its task is. An end is told by Wait, which this wakes when its answer was lost with a connection that nobody closed.
    func look(after hint: ForeignHint) async {
        guard foreign != nil, let task = state.task, !task.row.phase.hasEnded, task.row.phase != .starting else { return }
        if hint.isOOM { logger.info("the kernel killed a process for memory", metadata: logContext) }
        // However many come: one call is under way, and one more after it.
        if isLooking { return looksAgain = true }
        isLooking = true
        repeat {
            looksAgain = false
            await lookNow()
        } while looksAgain
        isLooking = false
    }

    private func lookNow() async {
        guard let connection, isIdle else { return }
        do {
            let shim = Shim(connection: connection, id: id)
            switch try await shim.state(timeout: Self.lookDeadline) {
            case .paused where state.task?.row.phase == .running && isIdle: await move(to: .paused, topic: .taskPaused) { _ in }
            case .running where state.task?.row.phase == .paused && isIdle: await move(to: .running, topic: .taskResumed) { _ in }
            case .stopped: await ended(try await shim.wait())
            default: break
            }
        } catch { logger.debug("shim not asked", metadata: logContext.merging(["error": "\(error)"]) { $1 }) }
    }
}
