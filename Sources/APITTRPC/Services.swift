import CtrProto
import Supervisor

extension MethodTable {
    /// ctr.v1, method by method.
    static func all(_ supervisor: Supervisor) -> MethodTable {
        MethodTable([
            "ctr.v1.System": [
                "Version": .immediate { (_: Ctr_V1_VersionRequest) in supervisor.version() },
                "Info": .immediate { (request: Ctr_V1_InfoRequest) in supervisor.info(request) },
            ],
            "ctr.v1.Containers": [
                "List": .immediate { (request: Ctr_V1_ListContainersRequest) in supervisor.list(request) }
            ],
            "ctr.v1.Tasks": [
                "List": .immediate { (request: Ctr_V1_ListTasksRequest) in supervisor.listTasks(request) }
            ],
        ])
    }
}
