import CtrProto
import Store
import SwiftProtobuf
import TTRPC

/// Tasks by request.
extension Supervisor {
    public func start(_ request: Ctr_V1_StartTaskRequest) async throws -> Ctr_V1_StartTaskResponse {
        let instance = try find(request.namespace, request.container, "start task")
        do { try await instance.start(attached: request.attached) } catch {
            throw SupervisorError.wrapping(error, "start task", request.container.shown, exitCode: 125)
        }
        var response = Ctr_V1_StartTaskResponse()
        response.task = await instance.state.taskMessage ?? Ctr_V1_Task()
        return response
    }

    public func kill(_ request: Ctr_V1_KillTaskRequest) async throws -> Google_Protobuf_Empty {
        if !request.execID.isEmpty { return try await killExec(request) }
        let instance = try find(request.namespace, request.container, "kill task")
        do {
            try await instance.settled()
            try await instance.kill(signal: request.signal, all: request.all)
        } catch { throw SupervisorError.wrapping(error, "kill task", request.container.shown) }
        return Google_Protobuf_Empty()
    }

    public func stop(_ request: Ctr_V1_StopTaskRequest) async throws -> Ctr_V1_StopTaskResponse {
        let instance = try find(request.namespace, request.container, "stop task")
        do {
            try await instance.settled()
            try await instance.stop(signal: request.signal, milliseconds: request.timeoutMs)
        } catch { throw SupervisorError.wrapping(error, "stop task", request.container.shown) }
        var response = Ctr_V1_StopTaskResponse()
        response.exit = await instance.exit
        return response
    }

    /// Of a container that was removed, the event of its end answers.
    public func wait(_ request: Ctr_V1_WaitTaskRequest) async throws -> Ctr_V1_WaitTaskResponse {
        if !request.execID.isEmpty { return try await waitForExec(request) }
        var response = Ctr_V1_WaitTaskResponse()
        let instance: Instance
        do throws(SupervisorError) { instance = try find(request.namespace, request.container, "wait for task") } catch {
            guard error.code == .notFound, Names.isID(request.container),
                let payload = try await store.lastEvent(.taskExit, of: request.container)
            else { throw error }
            response.exit = try Ctr_V1_Task(serializedBytes: payload).exit
            return response
        }
        do {
            try await instance.settled()
            try await instance.waitForEnd()
        } catch { throw SupervisorError.wrapping(error, "wait for task", request.container.shown) }
        response.exit = await instance.exit
        return response
    }

    public func deleteTask(_ request: Ctr_V1_DeleteTaskRequest) async throws -> Ctr_V1_DeleteTaskResponse {
        let instance = try find(request.namespace, request.container, "delete task")
        do { try await instance.deleteTask(force: request.force) } catch {
            throw SupervisorError.wrapping(error, "delete task", request.container.shown)
        }
        var response = Ctr_V1_DeleteTaskResponse()
        response.exit = await instance.exit
        return response
    }

    public func pause(_ request: Ctr_V1_PauseTaskRequest) async throws -> Google_Protobuf_Empty {
        try await find(request.namespace, request.container, "pause task").pause()
        return Google_Protobuf_Empty()
    }

    public func resume(_ request: Ctr_V1_ResumeTaskRequest) async throws -> Google_Protobuf_Empty {
        try await find(request.namespace, request.container, "resume task").resume()
        return Google_Protobuf_Empty()
    }
}

extension Instance {
    var exit: Ctr_V1_Exit { state.task?.row.exit?.message ?? Ctr_V1_Exit() }
}
