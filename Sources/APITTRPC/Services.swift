import CtrProto
import Supervisor

extension MethodTable {
    /// What a shim of containerd expects at TTRPC_ADDRESS.
    static func events(_ supervisor: Supervisor) -> MethodTable {
        MethodTable([
            "containerd.services.events.ttrpc.v1.Events": [
                "Forward": .immediate { (request: Containerd_Services_Events_Ttrpc_V1_ForwardRequest) in supervisor.forward(request) }
            ]
        ])
    }

    /// ctr.v1, method by method.
    static func all(_ supervisor: Supervisor) -> MethodTable {
        MethodTable([
            "ctr.v1.System": [
                "Version": .immediate { (_: Ctr_V1_VersionRequest) in supervisor.version() },
                "Info": .immediate { (request: Ctr_V1_InfoRequest) in supervisor.info(request) },
            ],
            "ctr.v1.Containers": [
                "Create": .unary { (request: Ctr_V1_CreateContainerRequest) in try await supervisor.create(request) },
                "Get": .unary { (request: Ctr_V1_GetContainerRequest) in try await supervisor.get(request) },
                "List": .immediate { (request: Ctr_V1_ListContainersRequest) in supervisor.list(request) },
                "Delete": .unary { (request: Ctr_V1_DeleteContainerRequest) in try await supervisor.delete(request) },
            ],
            "ctr.v1.Tasks": [
                "Start": .unary { (request: Ctr_V1_StartTaskRequest) in try await supervisor.start(request) },
                "Kill": .unary { (request: Ctr_V1_KillTaskRequest) in try await supervisor.kill(request) },
                "Stop": .unary { (request: Ctr_V1_StopTaskRequest) in try await supervisor.stop(request) },
                "Wait": .unary { (request: Ctr_V1_WaitTaskRequest) in try await supervisor.wait(request) },
                "List": .immediate { (request: Ctr_V1_ListTasksRequest) in supervisor.listTasks(request) },
                "Delete": .unary { (request: Ctr_V1_DeleteTaskRequest) in try await supervisor.deleteTask(request) },
                "Pause": .unary { (request: Ctr_V1_PauseTaskRequest) in try await supervisor.pause(request) },
                "Resume": .unary { (request: Ctr_V1_ResumeTaskRequest) in try await supervisor.resume(request) },
                "Exec": .unary { (request: Ctr_V1_ExecRequest) in try await supervisor.exec(request) },
                "ListExecs": .unary { (request: Ctr_V1_ListExecsRequest) in try await supervisor.listExecs(request) },
                "DeleteExec": .unary { (request: Ctr_V1_DeleteExecRequest) in try await supervisor.deleteExec(request) },
                "WriteInput": .unary { (request: Ctr_V1_WriteInputRequest) in try await supervisor.writeInput(request) },
                "Resize": .unary { (request: Ctr_V1_ResizeRequest) in try await supervisor.resize(request) },
                "Update": .unary { (request: Ctr_V1_UpdateTaskRequest) in try await supervisor.update(request) },
                "Top": .unary { (request: Ctr_V1_TopRequest) in try await supervisor.top(request) },
                "Stats": .stream { (request: Ctr_V1_StatsRequest, writer: StreamWriter) in
                    try await supervisor.stats(request) { try await writer.send($0.serializedBytes()) }
                },
            ],
            "ctr.v1.Shims": [
                "List": .unary { (request: Ctr_V1_ListShimsRequest) in try await supervisor.listShims(request) },
                "Upgrade": .unary { (request: Ctr_V1_UpgradeShimsRequest) in try await supervisor.upgradeShims(request) },
            ],
            "ctr.v1.Images": [
                "Import": .unary { (request: Ctr_V1_ImportImagesRequest) in try await supervisor.importImages(request) },
                "Get": .unary { (request: Ctr_V1_GetImageRequest) in try await supervisor.image(request) },
                "List": .unary { (request: Ctr_V1_ListImagesRequest) in try await supervisor.listImages(request) },
                "Delete": .unary { (request: Ctr_V1_DeleteImageRequest) in try await supervisor.deleteImage(request) },
            ],
            "ctr.v1.Logs": [
                "Read": .stream { (request: Ctr_V1_ReadLogsRequest, writer: StreamWriter) in
                    try await supervisor.readLogs(request) { writer.send(framed: $0) }
                },
                "Verify": .unary { (request: Ctr_V1_VerifyLogsRequest) in try await supervisor.verifyLogs(request) },
            ],
        ])
    }
}
