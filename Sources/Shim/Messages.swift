import CShimProto
import TTRPC

/// The generated C messages, opened and closed at this one place: everything else in the shim sees Swift values.
enum Messages {
    private typealias Allocator = UnsafeMutablePointer<ProtobufCAllocator>

    private static func unpack<Message, Value>(
        _ payload: [UInt8], _ unpack: (Allocator?, Int, UnsafePointer<UInt8>?) -> UnsafeMutablePointer<Message>?,
        _ free: (UnsafeMutablePointer<Message>?, Allocator?) -> Void, _ body: (borrowing Message) -> Value
    ) throws(Status) -> Value {
        // An empty payload is a message whose fields are all at their defaults; the C code wants an address for it all the same.
        let value: Value? = (payload.isEmpty ? [0] : payload).withUnsafeBufferPointer { bytes in
            guard let message = unpack(nil, payload.count, bytes.baseAddress) else { return nil }
            defer { free(message, nil) }
            return body(message.pointee)
        }
        guard let value else { throw Status(.invalidArgument, "the request's message cannot be decoded") }
        return value
    }

    private static func pack<Message>(
        _ message: Message, _ size: (UnsafePointer<Message>?) -> Int,
        _ pack: (UnsafePointer<Message>?, UnsafeMutablePointer<UInt8>?) -> Int
    ) -> [UInt8] {
        withUnsafePointer(to: message) { pointer in
            let length = size(pointer)
            return [UInt8](unsafeUninitializedCapacity: length) { buffer, count in
                count = length == 0 ? 0 : pack(pointer, buffer.baseAddress)
            }
        }
    }

    private static func text(_ pointer: UnsafeMutablePointer<CChar>?) -> String { pointer.map { String(cString: $0) } ?? "" }

    // MARK: requests

    /// What most requests consist of.
    struct Target {
        var id: String
        var execID = ""
    }

    struct Create {
        var target: Target
        var bundle: String
        var mounts: [MountRequest]
        var terminal: Bool
        /// Standard streams or a checkpoint that the caller names.
        var others: [String]
    }

    static func create(_ payload: [UInt8]) throws(Status) -> Create {
        try unpack(payload, containerd__task__v2__create_task_request__unpack, containerd__task__v2__create_task_request__free_unpacked) {
            m in
            var mounts: [MountRequest] = []
            for index in 0..<m.n_rootfs {
                guard let mount = m.rootfs?[index]?.pointee else { continue }
                var options: [String] = []
                for option in 0..<mount.n_options { options.append(text(mount.options?[option])) }
                mounts.append(MountRequest(type: text(mount.type), source: text(mount.source), options: options))
            }
            return Create(
                target: Target(id: text(m.id)), bundle: text(m.bundle), mounts: mounts, terminal: m.terminal != 0,
                others: [text(m.stdin), text(m.stdout), text(m.stderr), text(m.checkpoint)])
        }
    }

    static func state(_ payload: [UInt8]) throws(Status) -> Target {
        try unpack(payload, containerd__task__v2__state_request__unpack, containerd__task__v2__state_request__free_unpacked) { m in
            Target(id: text(m.id), execID: text(m.exec_id))
        }
    }

    static func start(_ payload: [UInt8]) throws(Status) -> Target {
        try unpack(payload, containerd__task__v2__start_request__unpack, containerd__task__v2__start_request__free_unpacked) { m in
            Target(id: text(m.id), execID: text(m.exec_id))
        }
    }

    static func delete(_ payload: [UInt8]) throws(Status) -> Target {
        try unpack(payload, containerd__task__v2__delete_request__unpack, containerd__task__v2__delete_request__free_unpacked) { m in
            Target(id: text(m.id), execID: text(m.exec_id))
        }
    }

    static func wait(_ payload: [UInt8]) throws(Status) -> Target {
        try unpack(payload, containerd__task__v2__wait_request__unpack, containerd__task__v2__wait_request__free_unpacked) { m in
            Target(id: text(m.id), execID: text(m.exec_id))
        }
    }

    /// Pids, Pause, Resume and Connect: one field, the id.
    static func idOnly(_ payload: [UInt8]) throws(Status) -> Target {
        try unpack(payload, containerd__task__v2__pids_request__unpack, containerd__task__v2__pids_request__free_unpacked) { m in
            Target(id: text(m.id))
        }
    }

    static func kill(_ payload: [UInt8]) throws(Status) -> (target: Target, signal: UInt32, all: Bool) {
        try unpack(payload, containerd__task__v2__kill_request__unpack, containerd__task__v2__kill_request__free_unpacked) { m in
            (Target(id: text(m.id), execID: text(m.exec_id)), m.signal, m.all != 0)
        }
    }

    static func shutdown(_ payload: [UInt8]) throws(Status) -> (target: Target, now: Bool) {
        try unpack(payload, containerd__task__v2__shutdown_request__unpack, containerd__task__v2__shutdown_request__free_unpacked) { m in
            (Target(id: text(m.id)), m.now != 0)
        }
    }

    static func waitLog(_ payload: [UInt8]) throws(Status) -> UInt64 {
        try unpack(payload, ctr__shim__v1__wait_log_request__unpack, ctr__shim__v1__wait_log_request__free_unpacked) { m in m.index_size }
    }

    // MARK: responses

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
    private static func timestamp(_ nanoseconds: Int64?) -> Google__Protobuf__Timestamp {
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

    static func state(
        id: String, bundle: String, pid: Int32, status: Containerd__V1__Types__Status, exitStatus: UInt32, exitedAt: Int64?
    ) -> [UInt8] {
        var message = Containerd__Task__V2__StateResponse()
        containerd__task__v2__state_response__init(&message)
        message.pid = UInt32(bitPattern: pid)
        message.status = status
        message.exit_status = exitStatus
        var time = timestamp(exitedAt)
        return withUnsafeMutablePointer(to: &time) { time in
            withCopy(id) { id in
                withCopy(bundle) { bundle in
                    message.exited_at = time
                    message.id = id
                    message.bundle = bundle
                    return pack(message, containerd__task__v2__state_response__get_packed_size, containerd__task__v2__state_response__pack)
                }
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

    static func pids(_ pids: [Int32]) -> [UInt8] {
        var response = Containerd__Task__V2__PidsResponse()
        containerd__task__v2__pids_response__init(&response)
        var processes = pids.map { pid in
            var process = Containerd__V1__Types__ProcessInfo()
            containerd__v1__types__process_info__init(&process)
            process.pid = UInt32(bitPattern: pid)
            return process
        }
        return processes.withUnsafeMutableBufferPointer { buffer in
            var pointers = (0..<buffer.count).map { index in buffer.baseAddress.map { $0 + index } }
            return pointers.withUnsafeMutableBufferPointer { list in
                response.n_processes = list.count
                response.processes = list.baseAddress
                return pack(response, containerd__task__v2__pids_response__get_packed_size, containerd__task__v2__pids_response__pack)
            }
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

    /// The generated structs take `char *` although packing only reads.
    private static func withCopy<Value>(_ text: String, _ body: (UnsafeMutablePointer<CChar>?) -> Value) -> Value {
        var bytes = Array(text.utf8CString)
        return bytes.withUnsafeMutableBufferPointer { body($0.baseAddress) }
    }

    // MARK: requests of the helper `delete`

    static func killRequest(id: String, signal: UInt32) -> [UInt8] {
        var message = Containerd__Task__V2__KillRequest()
        containerd__task__v2__kill_request__init(&message)
        message.signal = signal
        message.all = 1
        return withCopy(id) { id in
            message.id = id
            return pack(message, containerd__task__v2__kill_request__get_packed_size, containerd__task__v2__kill_request__pack)
        }
    }

    static func waitRequest(id: String) -> [UInt8] {
        var message = Containerd__Task__V2__WaitRequest()
        containerd__task__v2__wait_request__init(&message)
        return withCopy(id) { id in
            message.id = id
            return pack(message, containerd__task__v2__wait_request__get_packed_size, containerd__task__v2__wait_request__pack)
        }
    }

    static func deleteRequest(id: String) -> [UInt8] {
        var message = Containerd__Task__V2__DeleteRequest()
        containerd__task__v2__delete_request__init(&message)
        return withCopy(id) { id in
            message.id = id
            return pack(message, containerd__task__v2__delete_request__get_packed_size, containerd__task__v2__delete_request__pack)
        }
    }

    static func shutdownRequest(id: String) -> [UInt8] {
        var message = Containerd__Task__V2__ShutdownRequest()
        containerd__task__v2__shutdown_request__init(&message)
        message.now = 1
        return withCopy(id) { id in
            message.id = id
            return pack(message, containerd__task__v2__shutdown_request__get_packed_size, containerd__task__v2__shutdown_request__pack)
        }
    }
}
