import CProtobufC
import CShimProto
import CtrProto
import Foundation
import SwiftProtobuf
import XCTest

/// The shim's C codec and the manager's Swift codec agree on every message that they exchange.
final class CodecTests: XCTestCase {
    /// Decodes with the one, encodes again, and decodes with the other.
    private func roundTrip<M: Message & Equatable>(
        _ message: M, _ value: ProtobufCMessageDescriptor, file: StaticString = #filePath, line: UInt = #line
    ) throws {
        // protobuf-c messages point at their descriptor, so it stays where it is until the message is freed.
        try withUnsafePointer(to: value) { try roundTrip(message, $0, file: file, line: line) }
    }

    private func roundTrip<M: Message & Equatable>(
        _ message: M, _ descriptor: UnsafePointer<ProtobufCMessageDescriptor>, file: StaticString, line: UInt
    ) throws {
        let wire: [UInt8] = try message.serializedBytes()
        let decoded = protobuf_c_message_unpack(descriptor, nil, wire.count, wire)
        let inner = try XCTUnwrap(decoded, "\(M.self) is not understood by protobuf-c", file: file, line: line)
        defer { protobuf_c_message_free_unpacked(inner, nil) }
        XCTAssertEqual(inner.pointee.n_unknown_fields, 0, "\(M.self): fields that protobuf-c does not know", file: file, line: line)
        var again = [UInt8](repeating: 0, count: protobuf_c_message_get_packed_size(inner))
        XCTAssertEqual(protobuf_c_message_pack(inner, &again), again.count)
        XCTAssertEqual(try M(serializedBytes: again), message, file: file, line: line)
    }

    private func text() -> String {
        String((0..<Int.random(in: 0...20)).map { _ in Character(["a", "/", "ß", "日", " ", "0"].randomElement() ?? "a") })
    }
    private func number() -> UInt32 { [0, 1, 127, 128, .max, .random(in: 0 ... .max)].randomElement() ?? 0 }
    private func any() -> Google_Protobuf_Any {
        .with {
            $0.typeURL = text()
            $0.value = Data((0..<Int.random(in: 0...40)).map { _ in .random(in: 0...255) })
        }
    }
    private func time() -> Google_Protobuf_Timestamp {
        Google_Protobuf_Timestamp(seconds: [-62_135_596_800, 0, 1_795_000_000].randomElement() ?? 0, nanos: .random(in: 0..<1_000_000_000))
    }

    func testCreateRequests() throws {
        for _ in 0..<300 {
            try roundTrip(
                Containerd_Task_V2_CreateTaskRequest.with {
                    $0.id = text()
                    $0.bundle = text()
                    $0.rootfs = (0..<Int.random(in: 0...3)).map { _ in
                        .with {
                            $0.type = text()
                            $0.source = text()
                            $0.target = text()
                            $0.options = (0..<Int.random(in: 0...4)).map { _ in text() }
                        }
                    }
                    $0.terminal = .random()
                    $0.stdin = text()
                    $0.stdout = text()
                    $0.stderr = text()
                    if .random() { $0.options = any() }
                }, containerd__task__v2__create_task_request__descriptor)
            try roundTrip(
                Containerd_Runc_V1_Options.with {
                    $0.noPivotRoot = .random()
                    $0.ioUid = number()
                    $0.binaryName = text()
                    $0.root = text()
                    $0.systemdCgroup = .random()
                }, containerd__runc__v1__options__descriptor)
        }
    }

    func testAnswersOfTheTaskService() throws {
        for _ in 0..<300 {
            try roundTrip(
                Containerd_Task_V2_StateResponse.with {
                    $0.id = text()
                    $0.bundle = text()
                    $0.pid = number()
                    $0.status = [.unknown, .created, .running, .stopped, .paused, .pausing].randomElement() ?? .unknown
                    $0.terminal = .random()
                    $0.exitStatus = number()
                    if .random() { $0.exitedAt = time() }
                    $0.execID = text()
                }, containerd__task__v2__state_response__descriptor)
            try roundTrip(
                Containerd_Task_V2_WaitResponse.with {
                    $0.exitStatus = number()
                    if .random() { $0.exitedAt = time() }
                }, containerd__task__v2__wait_response__descriptor)
            try roundTrip(
                Containerd_Task_V2_DeleteResponse.with {
                    $0.pid = number()
                    $0.exitStatus = number()
                    if .random() { $0.exitedAt = time() }
                }, containerd__task__v2__delete_response__descriptor)
            try roundTrip(
                Containerd_Task_V2_PidsResponse.with {
                    $0.processes = (0..<Int.random(in: 0...5)).map { _ in
                        .with {
                            $0.pid = number()
                            if .random() { $0.info = any() }
                        }
                    }
                }, containerd__task__v2__pids_response__descriptor)
            try roundTrip(
                Containerd_Task_V2_ConnectResponse.with {
                    $0.shimPid = number()
                    $0.taskPid = number()
                    $0.version = text()
                }, containerd__task__v2__connect_response__descriptor)
        }
    }

    func testRequestsOfTheTaskService() throws {
        for _ in 0..<300 {
            try roundTrip(
                Containerd_Task_V2_KillRequest.with {
                    $0.id = text()
                    $0.execID = text()
                    $0.signal = number()
                    $0.all = .random()
                }, containerd__task__v2__kill_request__descriptor)
            try roundTrip(
                Containerd_Task_V2_StateRequest.with {
                    $0.id = text()
                    $0.execID = text()
                }, containerd__task__v2__state_request__descriptor)
            try roundTrip(
                Containerd_Task_V2_ShutdownRequest.with {
                    $0.id = text()
                    $0.now = .random()
                }, containerd__task__v2__shutdown_request__descriptor)
        }
    }

    func testGuardMessages() throws {
        for _ in 0..<300 {
            try roundTrip(
                Ctr_Shim_V1_InfoResponse.with {
                    $0.shimPid = number()
                    $0.keeperPid = number()
                    $0.version = text()
                    $0.taskPid = number()
                    $0.taskStartTime = .random(in: 0 ... .max)
                    $0.exited = .random()
                    $0.exitStatus = number()
                    $0.exitSource = text()
                    $0.exitedAtNs = .random(in: .min ... .max)
                    $0.oomKilled = .random()
                    $0.started = .random()
                    $0.shimRestarts = number()
                }, ctr__shim__v1__info_response__descriptor)
            try roundTrip(
                Ctr_Shim_V1_WaitLogRequest.with { $0.indexSize = .random(in: 0 ... .max) }, ctr__shim__v1__wait_log_request__descriptor)
            try roundTrip(
                Ctr_Shim_V1_WaitLogResponse.with {
                    $0.indexSize = .random(in: 0 ... .max)
                    $0.ended = .random()
                }, ctr__shim__v1__wait_log_response__descriptor)
            try roundTrip(
                Ctr_Shim_V1_ProcessesResponse.with {
                    $0.processes = (0..<Int.random(in: 0...3)).map { _ in
                        .with {
                            $0.execID = text()
                            $0.pid = number()
                            $0.startTime = .random(in: 0 ... .max)
                            $0.inputOpen = .random()
                            $0.exitStatus = number()
                            $0.exitedAtNs = .random(in: .min ... .max)
                            $0.stdout = text()
                        }
                    }
                }, ctr__shim__v1__processes_response__descriptor)
            try roundTrip(
                Ctr_Shim_V1_WriteInputRequest.with {
                    $0.execID = text()
                    $0.data = any().value
                    $0.offset = .random(in: 0 ... .max)
                    $0.append = .random()
                    $0.close = .random()
                }, ctr__shim__v1__write_input_request__descriptor)
            try roundTrip(
                Containerd_Task_V2_ExecProcessRequest.with {
                    $0.id = text()
                    $0.execID = text()
                    $0.terminal = .random()
                    $0.stdin = text()
                    if .random() { $0.spec = any() }
                }, containerd__task__v2__exec_process_request__descriptor)
        }
    }
}
