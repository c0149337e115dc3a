import CProtobufC
import CShimProto
import TTRPC

/// The generated C messages, opened and closed at this one place: everything else in the shim sees Swift values.
enum Messages {
    typealias Allocator = UnsafeMutablePointer<ProtobufCAllocator>

    static func unpack<Message, Value>(
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

    static func pack<Message>(
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

    static func text(_ pointer: UnsafeMutablePointer<CChar>?) -> String { pointer.map { String(cString: $0) } ?? "" }

    static func bytes(_ data: ProtobufCBinaryData) -> [UInt8] {
        data.data.map { Array(UnsafeBufferPointer(start: $0, count: data.len)) } ?? []
    }

    static func any(_ pointer: UnsafeMutablePointer<Google__Protobuf__Any>?) -> AnyMessage? {
        pointer.map { AnyMessage(typeURL: text($0.pointee.type_url), value: bytes($0.pointee.value)) }
    }

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
        var names: StreamNames
        var checkpoint: String
        /// Options of the runtime.
        var options: AnyMessage?
    }

    static func create(_ payload: [UInt8]) throws(Status) -> Create {
        try unpack(payload, containerd__task__v2__create_task_request__unpack, containerd__task__v2__create_task_request__free_unpacked) {
            m in
            var mounts: [MountRequest] = []
            for index in 0..<m.n_rootfs {
                guard let mount = m.rootfs?[index]?.pointee else { continue }
                var options: [String] = []
                for option in 0..<mount.n_options { options.append(text(mount.options?[option])) }
                mounts.append(
                    MountRequest(type: text(mount.type), source: text(mount.source), options: options, target: text(mount.target)))
            }
            return Create(
                target: Target(id: text(m.id)), bundle: text(m.bundle), mounts: mounts,
                names: StreamNames(terminal: m.terminal != 0, stdin: text(m.stdin), stdout: text(m.stdout), stderr: text(m.stderr)),
                checkpoint: text(m.checkpoint), options: any(m.options))
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

    struct Exec {
        var target: Target
        var names: StreamNames
        /// JSON of the OCI runtime's Process.
        var spec: AnyMessage?
    }

    static func exec(_ payload: [UInt8]) throws(Status) -> Exec {
        try unpack(payload, containerd__task__v2__exec_process_request__unpack, containerd__task__v2__exec_process_request__free_unpacked) {
            m in
            Exec(
                target: Target(id: text(m.id), execID: text(m.exec_id)),
                names: StreamNames(terminal: m.terminal != 0, stdin: text(m.stdin), stdout: text(m.stdout), stderr: text(m.stderr)),
                spec: any(m.spec))
        }
    }

    static func resizePty(_ payload: [UInt8]) throws(Status) -> (target: Target, width: UInt32, height: UInt32) {
        try unpack(payload, containerd__task__v2__resize_pty_request__unpack, containerd__task__v2__resize_pty_request__free_unpacked) {
            m in
            (Target(id: text(m.id), execID: text(m.exec_id)), m.width, m.height)
        }
    }

    static func closeIO(_ payload: [UInt8]) throws(Status) -> (target: Target, stdin: Bool) {
        try unpack(payload, containerd__task__v2__close_iorequest__unpack, containerd__task__v2__close_iorequest__free_unpacked) { m in
            (Target(id: text(m.id), execID: text(m.exec_id)), m.stdin != 0)
        }
    }

    static func update(_ payload: [UInt8]) throws(Status) -> (target: Target, resources: AnyMessage?) {
        try unpack(payload, containerd__task__v2__update_task_request__unpack, containerd__task__v2__update_task_request__free_unpacked) {
            m in
            (Target(id: text(m.id)), any(m.resources))
        }
    }

    // MARK: requests to Guard

    static func waitLog(_ payload: [UInt8]) throws(Status) -> (execID: String, indexSize: UInt64) {
        try unpack(payload, ctr__shim__v1__wait_log_request__unpack, ctr__shim__v1__wait_log_request__free_unpacked) { m in
            (text(m.exec_id), m.index_size)
        }
    }

    static func writeInput(_ payload: [UInt8]) throws(Status) -> (execID: String, write: Input.Write) {
        try unpack(payload, ctr__shim__v1__write_input_request__unpack, ctr__shim__v1__write_input_request__free_unpacked) { m in
            (text(m.exec_id), Input.Write(data: bytes(m.data), offset: m.append != 0 ? nil : m.offset, close: m.close != 0))
        }
    }

    /// The program's path, empty for the one that runs.
    static func upgrade(_ payload: [UInt8]) throws(Status) -> String {
        try unpack(payload, ctr__shim__v1__upgrade_request__unpack, ctr__shim__v1__upgrade_request__free_unpacked) { m in text(m.program) }
    }
}
