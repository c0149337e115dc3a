import CtrProto
import NIOCore
import SwiftProtobuf
import TTRPC

/// Execs, input, terminals, limits and upgrades: what the shim is asked for beside the life of its container. An empty `exec` is the
/// container's first process.
extension Shim {
    /// Every exec that was not deleted, in the order of their creation. Never waits.
    func processes(timeout: TimeAmount?) async throws -> [Ctr_Shim_V1_Process] {
        let answer: Ctr_Shim_V1_ProcessesResponse = try await connection.call(
            Self.guardService, "Processes", Ctr_Shim_V1_ProcessesRequest(), timeout: timeout)
        return answer.processes
    }

    /// Prepares a process as `process`, an OCI process object as JSON, says. ALREADY_EXISTS when the id is taken.
    func exec(_ exec: String, process: [UInt8], streams: ShimStreams, timeout: TimeAmount) async throws {
        var request = Containerd_Task_V2_ExecProcessRequest()
        request.id = id
        request.execID = exec
        request.terminal = streams.terminal
        request.stdin = streams.stdin
        request.stdout = streams.stdout
        request.stderr = streams.stderr
        request.spec = Self.document("Process", process)
        let _: Google_Protobuf_Empty = try await connection.call(Self.task, "Exec", request, timeout: timeout)
    }

    /// Runs what was prepared.
    func start(exec: String, timeout: TimeAmount) async throws -> UInt32 {
        var request = Containerd_Task_V2_StartRequest()
        request.id = id
        request.execID = exec
        let answer: Containerd_Task_V2_StartResponse = try await connection.call(Self.task, "Start", request, timeout: timeout)
        return answer.pid
    }

    /// Answers at the end of the exec, whenever that is.
    func wait(exec: String) async throws -> Containerd_Task_V2_WaitResponse {
        var request = Containerd_Task_V2_WaitRequest()
        request.id = id
        request.execID = exec
        return try await connection.call(Self.task, "Wait", request)
    }

    func kill(exec: String, signal: UInt32, all: Bool, timeout: TimeAmount) async throws {
        var request = Containerd_Task_V2_KillRequest()
        request.id = id
        request.execID = exec
        request.signal = signal
        request.all = all
        let _: Google_Protobuf_Empty = try await connection.call(Self.task, "Kill", request, timeout: timeout)
    }

    /// Forgets an ended exec, or one that was never started.
    func delete(exec: String, timeout: TimeAmount?) async throws {
        var request = Containerd_Task_V2_DeleteRequest()
        request.id = id
        request.execID = exec
        let _: Containerd_Task_V2_DeleteResponse = try await connection.call(Self.task, "Delete", request, timeout: timeout)
    }

    func resize(exec: String, width: UInt32, height: UInt32, timeout: TimeAmount) async throws {
        var request = Containerd_Task_V2_ResizePtyRequest()
        request.id = id
        request.execID = exec
        request.width = width
        request.height = height
        let _: Google_Protobuf_Empty = try await connection.call(Self.task, "ResizePty", request, timeout: timeout)
    }

    /// Answers when the shim holds the bytes, which may be as late as the process reads.
    func writeInput(_ request: Ctr_Shim_V1_WriteInputRequest) async throws -> Ctr_Shim_V1_WriteInputResponse {
        try await connection.call(Self.guardService, "WriteInput", request)
    }

    /// Changes limits of the running container; `resources` is OCI LinuxResources as JSON.
    func update(resources: [UInt8], timeout: TimeAmount) async throws {
        var request = Containerd_Task_V2_UpdateTaskRequest()
        request.id = id
        request.resources = Self.document("LinuxResources", resources)
        let _: Google_Protobuf_Empty = try await connection.call(Self.task, "Update", request, timeout: timeout)
    }

    /// The version that answers afterwards.
    func upgrade(program: String, timeout: TimeAmount) async throws -> String {
        var request = Ctr_Shim_V1_UpgradeRequest()
        request.program = program
        let answer: Ctr_Shim_V1_UpgradeResponse = try await connection.call(Self.guardService, "Upgrade", request, timeout: timeout)
        return answer.version
    }

    /// Waits until the log index is longer than `indexSize` or the output has ended.
    func waitLog(exec: String, indexSize: UInt64, timeout: TimeAmount? = nil) async throws -> Ctr_Shim_V1_WaitLogResponse {
        var request = Ctr_Shim_V1_WaitLogRequest()
        request.execID = exec
        request.indexSize = indexSize
        return try await connection.call(Self.guardService, "WaitLog", request, timeout: timeout)
    }

    private static func document(_ kind: String, _ json: [UInt8]) -> Google_Protobuf_Any {
        var any = Google_Protobuf_Any()
        any.typeURL = "types.containerd.io/opencontainers/runtime-spec/1/" + kind
        any.value.append(contentsOf: json)
        return any
    }
}
