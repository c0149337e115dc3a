import CtrProto
import Linux
import NIOCore
import SwiftProtobuf
import TTRPC

/// What a shim says of itself and of its task.
struct ShimInfo: Equatable, Sendable {
    var shimPID: UInt32 = 0
    /// nil when the shim does not say.
    var keeperPID: UInt32?
    var taskPID: UInt32 = 0
    var taskStartTime: UInt64 = 0
    var started = false
    var exited = false
    var paused = false
    /// Of the program that answers; empty when it does not say.
    var version = ""
    /// Of our protocol with it: 0 and 1 know no execs, no input and no upgrade.
    var level: UInt32 = 0
    var restarts: UInt32 = 0
    var upgrades: UInt32 = 0
}

/// Where a process's standard streams go, in the words of Create and Exec.
struct ShimStreams: Equatable, Sendable {
    var terminal = false
    var stdin = ""
    var stdout = ""
    var stderr = ""
}

/// The task service of one container's shim, and our own beside it.
struct Shim: Sendable {
    let connection: ShimConnection
    let id: String
    static let task = "containerd.task.v2.Task"
    static let guardService = "ctr.shim.v1.Guard"

    /// Who guards and how far the task is. Asks a foreign shim by State and Connect.
    func info(timeout: TimeAmount?) async throws -> ShimInfo {
        do {
            let answer: Ctr_Shim_V1_InfoResponse = try await connection.call(
                Self.guardService, "Info", Ctr_Shim_V1_InfoRequest(), timeout: timeout)
            return ShimInfo(
                shimPID: answer.shimPid, keeperPID: answer.keeperPid, taskPID: answer.taskPid, taskStartTime: answer.taskStartTime,
                started: answer.started, exited: answer.exited, version: answer.version, level: answer.level, restarts: answer.shimRestarts,
                upgrades: answer.upgrades)
        } catch let status as Status where status.code == .unimplemented {
            return try await foreignInfo(timeout: timeout)
        }
    }

    private func foreignInfo(timeout: TimeAmount?) async throws -> ShimInfo {
        var request = Containerd_Task_V2_ConnectRequest()
        request.id = id
        let connected: Containerd_Task_V2_ConnectResponse = try await connection.call(Self.task, "Connect", request, timeout: timeout)
        var info = ShimInfo(shimPID: connected.shimPid, taskPID: connected.taskPid, version: connected.version)
        guard connected.taskPid != 0 else { return info }
        let state = try await self.state(timeout: timeout)
        info.taskStartTime = (try? ProcessIdentity(current: Int32(clamping: connected.taskPid)).startTime) ?? 0
        info.started = state != .created
        info.exited = state == .stopped
        info.paused = state == .paused
        return info
    }

    func state(timeout: TimeAmount?) async throws -> Containerd_V1_Types_Status {
        var request = Containerd_Task_V2_StateRequest()
        request.id = id
        let answer: Containerd_Task_V2_StateResponse = try await connection.call(Self.task, "State", request, timeout: timeout)
        return answer.status
    }

    func create(
        bundle: String, mounts: [Containerd_Types_Mount], streams: ShimStreams, timeout: TimeAmount
    ) async throws -> UInt32 {
        var request = Containerd_Task_V2_CreateTaskRequest()
        request.id = id
        request.bundle = bundle
        request.rootfs = mounts
        request.terminal = streams.terminal
        request.stdin = streams.stdin
        request.stdout = streams.stdout
        request.stderr = streams.stderr
        let answer: Containerd_Task_V2_CreateTaskResponse = try await connection.call(Self.task, "Create", request, timeout: timeout)
        return answer.pid
    }

    func start(timeout: TimeAmount) async throws {
        var request = Containerd_Task_V2_StartRequest()
        request.id = id
        let _: Containerd_Task_V2_StartResponse = try await connection.call(Self.task, "Start", request, timeout: timeout)
    }

    /// Answers at the end of the task, whenever that is.
    func wait() async throws -> Containerd_Task_V2_WaitResponse {
        var request = Containerd_Task_V2_WaitRequest()
        request.id = id
        return try await connection.call(Self.task, "Wait", request)
    }

    func kill(signal: UInt32, all: Bool, timeout: TimeAmount) async throws {
        var request = Containerd_Task_V2_KillRequest()
        request.id = id
        request.signal = signal
        request.all = all
        let _: Google_Protobuf_Empty = try await connection.call(Self.task, "Kill", request, timeout: timeout)
    }

    func pause(timeout: TimeAmount) async throws {
        var request = Containerd_Task_V2_PauseRequest()
        request.id = id
        let _: Google_Protobuf_Empty = try await connection.call(Self.task, "Pause", request, timeout: timeout)
    }

    func resume(timeout: TimeAmount) async throws {
        var request = Containerd_Task_V2_ResumeRequest()
        request.id = id
        let _: Google_Protobuf_Empty = try await connection.call(Self.task, "Resume", request, timeout: timeout)
    }

    func delete(timeout: TimeAmount) async throws {
        var request = Containerd_Task_V2_DeleteRequest()
        request.id = id
        let _: Containerd_Task_V2_DeleteResponse = try await connection.call(Self.task, "Delete", request, timeout: timeout)
    }

    /// The end of the connection in place of an answer is an answer too.
    func shutdown(timeout: TimeAmount) async throws {
        var request = Containerd_Task_V2_ShutdownRequest()
        request.id = id
        // Also while it still has the ended container: what that leaves is removed by the caller.
        request.now = true
        do {
            let _: Google_Protobuf_Empty = try await connection.call(Self.task, "Shutdown", request, timeout: timeout)
        } catch ShimError.connectionLost {}
    }
}
