import CShimProto
import CtrProto
import SwiftProtobuf
import TTRPC
import Testing

@testable import Shim

/// The shim's C codec and the manager's Swift codec are made of the same .proto files: what one writes the other reads.
@Suite struct MessageTests {
    @Test func requestsOfTheManagerAreUnderstood() throws {
        var mount = Containerd_Types_Mount()
        mount.type = "overlay"
        mount.source = "overlay"
        mount.options = ["lowerdir=/a:/b", "upperdir=/ü", ""]
        var create = Containerd_Task_V2_CreateTaskRequest()
        create.id = "c1"
        create.bundle = "/run/bundle"
        create.rootfs = [mount, Containerd_Types_Mount()]
        create.terminal = true
        create.stdout = "/fifo"
        let created = try Messages.create(Array(create.serializedBytes() as [UInt8]))
        #expect(created.target.id == "c1" && created.bundle == "/run/bundle")
        #expect(
            created.mounts == [
                MountRequest(type: "overlay", source: "overlay", options: ["lowerdir=/a:/b", "upperdir=/ü", ""]),
                MountRequest(type: "", source: "", options: []),
            ])
        #expect(created.names == StreamNames(terminal: true, stdout: "/fifo"))

        var kill = Containerd_Task_V2_KillRequest()
        kill.id = "c1"
        kill.execID = "e"
        kill.signal = 9
        kill.all = true
        let killed = try Messages.kill(kill.serializedBytes())
        #expect(killed.target.id == "c1" && killed.target.execID == "e" && killed.signal == 9 && killed.all)

        var wait = Ctr_Shim_V1_WaitLogRequest()
        wait.indexSize = 1 << 40
        wait.execID = "e1"
        #expect(try Messages.waitLog(wait.serializedBytes()) == ("e1", 1 << 40))
        #expect(try Messages.waitLog([]) == ("", 0))

        var shutdown = Containerd_Task_V2_ShutdownRequest()
        shutdown.id = "c1"
        shutdown.now = true
        #expect(try Messages.shutdown(shutdown.serializedBytes()).now)
        for payload in [[0x0a], [0x0a, 0xff], [0xff, 0xff]] as [[UInt8]] {
            #expect(throws: Status.self) { try Messages.create(payload) }
            #expect(throws: Status.self) { try Messages.idOnly(payload) }
        }
    }

    @Test func answersOfTheShimAreUnderstood() throws {
        #expect(try Containerd_Task_V2_CreateTaskResponse(serializedBytes: Messages.created(pid: 77)).pid == 77)
        #expect(try Containerd_Task_V2_StartResponse(serializedBytes: Messages.started(pid: 78)).pid == 78)
        #expect(
            try Containerd_Task_V2_PidsResponse(
                serializedBytes: Messages.pids([(3, nil), (1, nil), (2, Messages.processDetails(execID: "e"))])
            ).processes.map(\.pid) == [3, 1, 2])
        #expect(try Containerd_Task_V2_PidsResponse(serializedBytes: Messages.pids([])).processes.isEmpty)
        let connected = try Containerd_Task_V2_ConnectResponse(serializedBytes: Messages.connected(shim: 5, task: 6))
        #expect(connected.shimPid == 5 && connected.taskPid == 6)

        let state = try Containerd_Task_V2_StateResponse(
            serializedBytes: Messages.state(
                Messages.State(
                    id: "c1", execID: "e", bundle: "/b", pid: 9, status: CONTAINERD__V1__TYPES__STATUS__PAUSED,
                    names: StreamNames(terminal: true, stdin: "spool:", stdout: "log:", stderr: "/f"), exitStatus: 0, exitedAt: nil)))
        #expect(state.id == "c1" && state.bundle == "/b" && state.pid == 9 && state.status == .paused && state.execID == "e")
        #expect(state.terminal && state.stdin == "spool:" && state.stdout == "log:" && state.stderr == "/f")
        #expect(state.exitedAt.seconds == -62_135_596_800)

        let waited = try Containerd_Task_V2_WaitResponse(
            serializedBytes: Messages.waited(exitStatus: 137, exitedAt: 1_700_000_000_123_456_789))
        #expect(waited.exitStatus == 137 && waited.exitedAt.seconds == 1_700_000_000 && waited.exitedAt.nanos == 123_456_789)
        let early = try Containerd_Task_V2_DeleteResponse(serializedBytes: Messages.deleted(pid: 1, exitStatus: 2, exitedAt: -1))
        #expect(early.pid == 1 && early.exitStatus == 2 && early.exitedAt.seconds == -1 && early.exitedAt.nanos == 999_999_999)

        let log = try Ctr_Shim_V1_WaitLogResponse(serializedBytes: Messages.logWaited(indexSize: 80, ended: true))
        #expect(log.indexSize == 80 && log.ended)
        let info = try Ctr_Shim_V1_InfoResponse(
            serializedBytes: Messages.info(version: "1", source: "reaped") { message in
                message.shim_pid = 1
                message.keeper_pid = 2
                message.task_pid = 3
                message.task_start_time = .max
                message.exited = 1
                message.exit_status = 255
                message.exited_at_ns = -5
                message.shim_restarts = 7
            })
        #expect(info.shimPid == 1 && info.keeperPid == 2 && info.taskPid == 3 && info.taskStartTime == .max && info.exited)
        #expect(
            info.exitStatus == 255 && info.exitedAtNs == -5 && info.shimRestarts == 7 && info.exitSource == "reaped" && info.version == "1")
        #expect(!info.started && !info.oomKilled)
    }

    @Test func requestsOfTheDeleteHelperAreThoseOfTheProtocol() throws {
        let kill = try Containerd_Task_V2_KillRequest(serializedBytes: Messages.killRequest(id: "c", signal: 9))
        #expect(kill.id == "c" && kill.signal == 9 && kill.all)
        #expect(try Containerd_Task_V2_WaitRequest(serializedBytes: Messages.waitRequest(id: "c")).id == "c")
        #expect(try Containerd_Task_V2_DeleteRequest(serializedBytes: Messages.deleteRequest(id: "c")).id == "c")
        let shutdown = try Containerd_Task_V2_ShutdownRequest(serializedBytes: Messages.shutdownRequest(id: "c"))
        #expect(shutdown.id == "c" && shutdown.now)
    }
}
