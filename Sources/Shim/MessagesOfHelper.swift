import CShimProto

/// What the helper `delete` asks of a living shim.
extension Messages {
    /// The generated structs take `char *` although packing only reads.
    static func withCopy<Value>(_ text: String, _ body: (UnsafeMutablePointer<CChar>?) -> Value) -> Value {
        var bytes = Array(text.utf8CString)
        return bytes.withUnsafeMutableBufferPointer { body($0.baseAddress) }
    }

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
