import CtrProto
import SwiftProtobuf

/// A method of the manager, with the types of its messages.
struct Method<Request: Message, Response: Message>: Sendable {
    let service: StaticString
    let name: StaticString
}

/// The services of ctr.v1, as proto/PROTOCOL.md lists them.
enum API {
    static var createContainer: Method<Ctr_V1_CreateContainerRequest, Ctr_V1_CreateContainerResponse> {
        .init(service: "ctr.v1.Containers", name: "Create")
    }
    static var getContainer: Method<Ctr_V1_GetContainerRequest, Ctr_V1_GetContainerResponse> {
        .init(service: "ctr.v1.Containers", name: "Get")
    }
    static var listContainers: Method<Ctr_V1_ListContainersRequest, Ctr_V1_ListContainersResponse> {
        .init(service: "ctr.v1.Containers", name: "List")
    }
    static var deleteContainer: Method<Ctr_V1_DeleteContainerRequest, Ctr_V1_DeleteContainerResponse> {
        .init(service: "ctr.v1.Containers", name: "Delete")
    }

    static var startTask: Method<Ctr_V1_StartTaskRequest, Ctr_V1_StartTaskResponse> { .init(service: "ctr.v1.Tasks", name: "Start") }
    static var killTask: Method<Ctr_V1_KillTaskRequest, Google_Protobuf_Empty> { .init(service: "ctr.v1.Tasks", name: "Kill") }
    static var stopTask: Method<Ctr_V1_StopTaskRequest, Ctr_V1_StopTaskResponse> { .init(service: "ctr.v1.Tasks", name: "Stop") }
    static var waitTask: Method<Ctr_V1_WaitTaskRequest, Ctr_V1_WaitTaskResponse> { .init(service: "ctr.v1.Tasks", name: "Wait") }
    static var listTasks: Method<Ctr_V1_ListTasksRequest, Ctr_V1_ListTasksResponse> { .init(service: "ctr.v1.Tasks", name: "List") }
    static var deleteTask: Method<Ctr_V1_DeleteTaskRequest, Ctr_V1_DeleteTaskResponse> { .init(service: "ctr.v1.Tasks", name: "Delete") }
    static var pauseTask: Method<Ctr_V1_PauseTaskRequest, Google_Protobuf_Empty> { .init(service: "ctr.v1.Tasks", name: "Pause") }
    static var resumeTask: Method<Ctr_V1_ResumeTaskRequest, Google_Protobuf_Empty> { .init(service: "ctr.v1.Tasks", name: "Resume") }

    static var exec: Method<Ctr_V1_ExecRequest, Ctr_V1_ExecResponse> { .init(service: "ctr.v1.Tasks", name: "Exec") }
    static var listExecs: Method<Ctr_V1_ListExecsRequest, Ctr_V1_ListExecsResponse> { .init(service: "ctr.v1.Tasks", name: "ListExecs") }
    static var deleteExec: Method<Ctr_V1_DeleteExecRequest, Google_Protobuf_Empty> { .init(service: "ctr.v1.Tasks", name: "DeleteExec") }
    static var writeInput: Method<Ctr_V1_WriteInputRequest, Ctr_V1_WriteInputResponse> {
        .init(service: "ctr.v1.Tasks", name: "WriteInput")
    }
    static var resize: Method<Ctr_V1_ResizeRequest, Google_Protobuf_Empty> { .init(service: "ctr.v1.Tasks", name: "Resize") }
    static var updateTask: Method<Ctr_V1_UpdateTaskRequest, Google_Protobuf_Empty> { .init(service: "ctr.v1.Tasks", name: "Update") }
    static var top: Method<Ctr_V1_TopRequest, Ctr_V1_TopResponse> { .init(service: "ctr.v1.Tasks", name: "Top") }
    /// Streams back.
    static var stats: Method<Ctr_V1_StatsRequest, Ctr_V1_StatsResponse> { .init(service: "ctr.v1.Tasks", name: "Stats") }

    static var listShims: Method<Ctr_V1_ListShimsRequest, Ctr_V1_ListShimsResponse> { .init(service: "ctr.v1.Shims", name: "List") }
    static var upgradeShims: Method<Ctr_V1_UpgradeShimsRequest, Ctr_V1_UpgradeShimsResponse> {
        .init(service: "ctr.v1.Shims", name: "Upgrade")
    }

    static var importImages: Method<Ctr_V1_ImportImagesRequest, Ctr_V1_ImportImagesResponse> {
        .init(service: "ctr.v1.Images", name: "Import")
    }
    static var getImage: Method<Ctr_V1_GetImageRequest, Ctr_V1_GetImageResponse> { .init(service: "ctr.v1.Images", name: "Get") }
    static var listImages: Method<Ctr_V1_ListImagesRequest, Ctr_V1_ListImagesResponse> { .init(service: "ctr.v1.Images", name: "List") }
    static var deleteImage: Method<Ctr_V1_DeleteImageRequest, Ctr_V1_DeleteImageResponse> {
        .init(service: "ctr.v1.Images", name: "Delete")
    }

    /// Streams back.
    static var readLogs: Method<Ctr_V1_ReadLogsRequest, Ctr_V1_ReadLogsResponse> { .init(service: "ctr.v1.Logs", name: "Read") }
    static var verifyLogs: Method<Ctr_V1_VerifyLogsRequest, Ctr_V1_VerifyLogsResponse> { .init(service: "ctr.v1.Logs", name: "Verify") }

    static var version: Method<Ctr_V1_VersionRequest, Ctr_V1_VersionResponse> { .init(service: "ctr.v1.System", name: "Version") }
    static var info: Method<Ctr_V1_InfoRequest, Ctr_V1_InfoResponse> { .init(service: "ctr.v1.System", name: "Info") }
}
