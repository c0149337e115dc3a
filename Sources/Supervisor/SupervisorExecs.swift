import CtrProto
import SwiftProtobuf
import TTRPC

/// Execs by request.
extension Supervisor {
    public func exec(_ request: Ctr_V1_ExecRequest) async throws -> Ctr_V1_ExecResponse {
        let instance = try find(request.namespace, request.container, "exec")
        guard Names.isID(request.execID) else {
            throw SupervisorError(
                .invalidArgument, "exec", request.container.shown,
                "invalid exec id \"\(request.execID.shown)\": 64 lower-case hex digits are wanted", exitCode: 125)
        }
        do { try ProcessObject.check(request.config) } catch {
            throw SupervisorError(.invalidArgument, "exec", request.container.shown, "\(error)", exitCode: 125)
        }
        var response = Ctr_V1_ExecResponse()
        do { response.exec = try await instance.exec(request.execID, request.config) } catch {
            throw SupervisorError.wrapping(error, "exec in container", request.container.shown)
        }
        return response
    }

    public func listExecs(_ request: Ctr_V1_ListExecsRequest) async throws -> Ctr_V1_ListExecsResponse {
        var response = Ctr_V1_ListExecsResponse()
        response.execs = await (try find(request.namespace, request.container, "list execs")).listExecs()
        return response
    }

    public func deleteExec(_ request: Ctr_V1_DeleteExecRequest) async throws -> Google_Protobuf_Empty {
        let instance = try find(request.namespace, request.container, "delete exec")
        do {
            try await instance.settled()
            try await instance.deleteExec(request.execID, force: request.force)
        } catch { throw SupervisorError.wrapping(error, "delete exec", request.execID.shown) }
        return Google_Protobuf_Empty()
    }

    func killExec(_ request: Ctr_V1_KillTaskRequest) async throws -> Google_Protobuf_Empty {
        let instance = try find(request.namespace, request.container, "kill exec")
        do {
            try await instance.settled()
            try await instance.killExec(request.execID, signal: request.signal, all: request.all)
        } catch { throw SupervisorError.wrapping(error, "kill exec", request.execID.shown) }
        return Google_Protobuf_Empty()
    }

    /// Of a container that was removed, the event of the exec's end answers.
    func waitForExec(_ request: Ctr_V1_WaitTaskRequest) async throws -> Ctr_V1_WaitTaskResponse {
        var response = Ctr_V1_WaitTaskResponse()
        let instance: Instance
        do throws(SupervisorError) { instance = try find(request.namespace, request.container, "wait for exec") } catch {
            guard error.code == .notFound, Names.isID(request.container), Names.isID(request.execID),
                let payload = try await store.lastEvent(.execExit, of: "\(request.container)/\(request.execID)")
            else { throw error }
            response.exit = try Ctr_V1_Exec(serializedBytes: payload).exit
            return response
        }
        do {
            try await instance.settled()
            response.exit = try await instance.waitForExec(request.execID)
        } catch { throw SupervisorError.wrapping(error, "wait for exec", request.execID.shown) }
        return response
    }

    public func writeInput(_ request: Ctr_V1_WriteInputRequest) async throws -> Ctr_V1_WriteInputResponse {
        let instance = try find(request.namespace, request.container, "write input")
        do {
            try await instance.settled()
            return try await instance.writeInput(request)
        } catch { throw SupervisorError.wrapping(error, "write input", request.container.shown) }
    }

    public func resize(_ request: Ctr_V1_ResizeRequest) async throws -> Google_Protobuf_Empty {
        let instance = try find(request.namespace, request.container, "resize")
        do {
            try await instance.settled()
            try await instance.resize(request)
        } catch { throw SupervisorError.wrapping(error, "resize", request.container.shown) }
        return Google_Protobuf_Empty()
    }

    public func update(_ request: Ctr_V1_UpdateTaskRequest) async throws -> Google_Protobuf_Empty {
        let instance = try find(request.namespace, request.container, "update container")
        do {
            try await instance.settled()
            try await instance.update(request.limits)
        } catch { throw SupervisorError.wrapping(error, "update container", request.container.shown) }
        return Google_Protobuf_Empty()
    }
}
