import CProtobufC
import CShimProto
import Glibc
import TTRPC

/// Answers, and what they are made with.
extension Messages {

    static func created(pid: Int32) -> [UInt8] {
        var message = Containerd__Task__V2__CreateTaskResponse()
        containerd__task__v2__create_task_response__init(&message)
        message.pid = UInt32(bitPattern: pid)
        return pack(
            message, containerd__task__v2__create_task_response__get_packed_size, containerd__task__v2__create_task_response__pack)
    }

    static func started(pid: Int32) -> [UInt8] {
        var message = Containerd__Task__V2__StartResponse()
        containerd__task__v2__start_response__init(&message)
        message.pid = UInt32(bitPattern: pid)
        return pack(message, containerd__task__v2__start_response__get_packed_size, containerd__task__v2__start_response__pack)
    }

    /// "Not ended" is year 1 for Go, which has no absent time.
    static func timestamp(_ nanoseconds: Int64?) -> Google__Protobuf__Timestamp {
        var time = Google__Protobuf__Timestamp()
        google__protobuf__timestamp__init(&time)
        guard let nanoseconds else {
            time.seconds = -62_135_596_800
            return time
        }
        let remainder = nanoseconds % 1_000_000_000
        time.seconds = nanoseconds / 1_000_000_000 - (remainder < 0 ? 1 : 0)
        time.nanos = Int32(remainder < 0 ? remainder + 1_000_000_000 : remainder)
        return time
    }

    struct State {
        var id: String
        var execID: String
        var bundle: String
        var pid: Int32
        var status: Containerd__V1__Types__Status
        var names: StreamNames
        var exitStatus: UInt32
        var exitedAt: Int64?
    }

    static func state(_ state: State) -> [UInt8] {
        var message = Containerd__Task__V2__StateResponse()
        containerd__task__v2__state_response__init(&message)
        let copies = Arena()
        message.id = copies.text(state.id)
        message.exec_id = copies.text(state.execID)
        message.bundle = copies.text(state.bundle)
        message.pid = UInt32(bitPattern: state.pid)
        message.status = state.status
        message.stdin = copies.text(state.names.stdin)
        message.stdout = copies.text(state.names.stdout)
        message.stderr = copies.text(state.names.stderr)
        message.terminal = state.names.terminal ? 1 : 0
        message.exit_status = state.exitStatus
        var time = timestamp(state.exitedAt)
        return withExtendedLifetime(copies) {
            withUnsafeMutablePointer(to: &time) { time in
                message.exited_at = time
                return pack(message, containerd__task__v2__state_response__get_packed_size, containerd__task__v2__state_response__pack)
            }
        }
    }

    static func waited(exitStatus: UInt32, exitedAt: Int64) -> [UInt8] {
        var message = Containerd__Task__V2__WaitResponse()
        containerd__task__v2__wait_response__init(&message)
        message.exit_status = exitStatus
        var time = timestamp(exitedAt)
        return withUnsafeMutablePointer(to: &time) { time in
            message.exited_at = time
            return pack(message, containerd__task__v2__wait_response__get_packed_size, containerd__task__v2__wait_response__pack)
        }
    }

    static func deleted(pid: Int32, exitStatus: UInt32, exitedAt: Int64?) -> [UInt8] {
        var message = Containerd__Task__V2__DeleteResponse()
        containerd__task__v2__delete_response__init(&message)
        message.pid = UInt32(bitPattern: pid)
        message.exit_status = exitStatus
        var time = timestamp(exitedAt)
        return withUnsafeMutablePointer(to: &time) { time in
            message.exited_at = time
            return pack(message, containerd__task__v2__delete_response__get_packed_size, containerd__task__v2__delete_response__pack)
        }
    }

    /// What every process says of itself: an exec its id.
    static func pids(_ pids: [(pid: Int32, info: AnyMessage?)]) -> [UInt8] {
        var response = Containerd__Task__V2__PidsResponse()
        containerd__task__v2__pids_response__init(&response)
        let copies = Arena()
        var processes: [UnsafeMutablePointer<Containerd__V1__Types__ProcessInfo>?] = pids.map { entry in
            var process = Containerd__V1__Types__ProcessInfo()
            containerd__v1__types__process_info__init(&process)
            process.pid = UInt32(bitPattern: entry.pid)
            process.info = copies.any(entry.info)
            return copies.keep(process)
        }
        return withExtendedLifetime(copies) {
            processes.withUnsafeMutableBufferPointer { list in
                response.n_processes = list.count
                response.processes = list.baseAddress
                return pack(response, containerd__task__v2__pids_response__get_packed_size, containerd__task__v2__pids_response__pack)
            }
        }
    }

    static func processDetails(execID: String) -> AnyMessage {
        var message = Containerd__Runc__V1__ProcessDetails()
        containerd__runc__v1__process_details__init(&message)
        let copies = Arena()
        message.exec_id = copies.text(execID)
        return withExtendedLifetime(copies) {
            AnyMessage(
                typeURL: "containerd.runc.v1.ProcessDetails",
                value: pack(message, containerd__runc__v1__process_details__get_packed_size, containerd__runc__v1__process_details__pack))
        }
    }

    static func stats(_ metrics: AnyMessage) -> [UInt8] {
        var message = Containerd__Task__V2__StatsResponse()
        containerd__task__v2__stats_response__init(&message)
        let copies = Arena()
        message.stats = copies.any(metrics)
        return withExtendedLifetime(copies) {
            pack(message, containerd__task__v2__stats_response__get_packed_size, containerd__task__v2__stats_response__pack)
        }
    }

    static func connected(shim: Int32, task: Int32) -> [UInt8] {
        var message = Containerd__Task__V2__ConnectResponse()
        containerd__task__v2__connect_response__init(&message)
        message.shim_pid = UInt32(bitPattern: shim)
        message.task_pid = UInt32(bitPattern: task)
        return withCopy("2") { version in
            message.version = version
            return pack(message, containerd__task__v2__connect_response__get_packed_size, containerd__task__v2__connect_response__pack)
        }
    }

    /// `fill` sets the numbers; the strings are given here because they must outlive the packing.
    static func info(version: String, source: String, _ fill: (inout Ctr__Shim__V1__InfoResponse) -> Void) -> [UInt8] {
        var message = Ctr__Shim__V1__InfoResponse()
        ctr__shim__v1__info_response__init(&message)
        fill(&message)
        return withCopy(version) { version in
            withCopy(source) { source in
                message.version = version
                message.exit_source = source
                return pack(message, ctr__shim__v1__info_response__get_packed_size, ctr__shim__v1__info_response__pack)
            }
        }
    }

    static func logWaited(indexSize: UInt64, ended: Bool) -> [UInt8] {
        var message = Ctr__Shim__V1__WaitLogResponse()
        ctr__shim__v1__wait_log_response__init(&message)
        message.index_size = indexSize
        message.ended = ended ? 1 : 0
        return pack(message, ctr__shim__v1__wait_log_response__get_packed_size, ctr__shim__v1__wait_log_response__pack)
    }

    static func inputWritten(offset: UInt64, closed: Bool) -> [UInt8] {
        var message = Ctr__Shim__V1__WriteInputResponse()
        ctr__shim__v1__write_input_response__init(&message)
        message.offset = offset
        message.closed = closed ? 1 : 0
        return pack(message, ctr__shim__v1__write_input_response__get_packed_size, ctr__shim__v1__write_input_response__pack)
    }

    static func upgraded(version: String) -> [UInt8] {
        var message = Ctr__Shim__V1__UpgradeResponse()
        ctr__shim__v1__upgrade_response__init(&message)
        let copies = Arena()
        message.version = copies.text(version)
        return withExtendedLifetime(copies) {
            pack(message, ctr__shim__v1__upgrade_response__get_packed_size, ctr__shim__v1__upgrade_response__pack)
        }
    }

    /// `fill` sets what it knows of each of `count` processes; texts go through the copies.
    static func processes(_ count: Int, _ fill: (Int, inout Ctr__Shim__V1__Process, Arena) -> Void) -> [UInt8] {
        var response = Ctr__Shim__V1__ProcessesResponse()
        ctr__shim__v1__processes_response__init(&response)
        let copies = Arena()
        var processes: [UnsafeMutablePointer<Ctr__Shim__V1__Process>?] = (0..<count).map { index in
            var process = Ctr__Shim__V1__Process()
            ctr__shim__v1__process__init(&process)
            fill(index, &process, copies)
            return copies.keep(process)
        }
        return withExtendedLifetime(copies) {
            processes.withUnsafeMutableBufferPointer { list in
                response.n_processes = list.count
                response.processes = list.baseAddress
                return pack(response, ctr__shim__v1__processes_response__get_packed_size, ctr__shim__v1__processes_response__pack)
            }
        }
    }
}
