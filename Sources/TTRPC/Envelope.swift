/// Status codes of google.rpc.Code, as ttrpc carries them.
public enum StatusCode: Int32, Equatable, Sendable {
    case ok = 0, cancelled, unknown, invalidArgument, deadlineExceeded, notFound, alreadyExists, permissionDenied, resourceExhausted,
        failedPrecondition, aborted, outOfRange, unimplemented, `internal`, unavailable, dataLoss, unauthenticated
}

/// google.protobuf.Any, unopened.
public struct AnyMessage: Equatable, Sendable {
    public var typeURL: String
    public var value: [UInt8]
    public init(typeURL: String, value: [UInt8]) {
        self.typeURL = typeURL
        self.value = value
    }
}

/// google.rpc.Status: how a call failed.
public struct Status: Error, Equatable, Sendable {
    public var code: StatusCode
    public var message: String
    public var details: [AnyMessage]
    public init(_ code: StatusCode, _ message: String, details: [AnyMessage] = []) {
        self.code = code
        self.message = message
        self.details = details
    }
}

extension Status: CustomStringConvertible {
    public var description: String { message.isEmpty ? "\(code)" : "\(message) (\(code))" }
}

/// ttrpc.Request: which method of which service, with its encoded message.
public struct RequestEnvelope: Equatable, Sendable {
    public var service: String
    public var method: String
    public var payload: [UInt8]
    /// How long the caller waits, in nanoseconds from now; 0 is without limit.
    public var timeout: Int64
    public var metadata: [(key: String, value: String)]

    public init(
        service: String, method: String, payload: [UInt8], timeout: Int64 = 0, metadata: [(key: String, value: String)] = []
    ) {
        self.service = service
        self.method = method
        self.payload = payload
        self.timeout = timeout
        self.metadata = metadata
    }

    public static func == (left: Self, right: Self) -> Bool {
        left.service == right.service && left.method == right.method && left.payload == right.payload
            && left.timeout == right.timeout && left.metadata.elementsEqual(right.metadata, by: ==)
    }

    public func encoded() -> [UInt8] {
        var out = ProtobufWriter()
        out.string(1, service)
        out.string(2, method)
        out.bytes(3, payload)
        out.integer(4, UInt64(bitPattern: timeout))
        for pair in metadata {
            var entry = ProtobufWriter()
            entry.string(1, pair.key)
            entry.string(2, pair.value)
            out.message(5, entry)
        }
        return out.result
    }

    /// nil when `data` is no ttrpc.Request: the stream is answered with INVALID_ARGUMENT.
    public init?(decoding data: [UInt8]) {
        self.init(service: "", method: "", payload: [])
        var reader = ProtobufReader(data)
        while let field = reader.next() {
            switch (field.number, field.value) {
            case (1, .bytes(let bytes)): service = String(decoding: bytes, as: UTF8.self)
            case (2, .bytes(let bytes)): method = String(decoding: bytes, as: UTF8.self)
            case (3, .bytes(let bytes)): payload = Array(bytes)
            case (4, .integer(let value)): timeout = Int64(bitPattern: value)
            case (5, .bytes(let bytes)):
                var pair = (key: "", value: "")
                var entry = ProtobufReader(bytes)
                while let part = entry.next() {
                    if case (1, .bytes(let key)) = (part.number, part.value) { pair.key = String(decoding: key, as: UTF8.self) }
                    if case (2, .bytes(let value)) = (part.number, part.value) { pair.value = String(decoding: value, as: UTF8.self) }
                }
                if entry.malformed { return nil }
                metadata.append(pair)
            default: break
            }
        }
        if reader.malformed { return nil }
    }
}

/// ttrpc.Response: the encoded answer, or the status of the failure.
public struct ResponseEnvelope: Equatable, Sendable {
    public var result: Result<[UInt8], Status>
    public init(_ result: Result<[UInt8], Status>) { self.result = result }

    public func encoded() -> [UInt8] {
        var out = ProtobufWriter()
        switch result {
        case .success(let payload): out.bytes(2, payload)
        case .failure(let status):
            var inner = ProtobufWriter()
            inner.integer(1, UInt64(bitPattern: Int64(status.code.rawValue)))
            inner.string(2, status.message)
            for detail in status.details {
                var any = ProtobufWriter()
                any.string(1, detail.typeURL)
                any.bytes(2, detail.value)
                inner.message(3, any)
            }
            out.message(1, inner)
        }
        return out.result
    }

    /// nil when `data` is no ttrpc.Response.
    public init?(decoding data: [UInt8]) {
        var payload: [UInt8] = []
        var status: Status?
        var reader = ProtobufReader(data)
        while let field = reader.next() {
            switch (field.number, field.value) {
            case (1, .bytes(let bytes)):
                guard let decoded = Self.status(bytes) else { return nil }
                status = decoded
            case (2, .bytes(let bytes)): payload = Array(bytes)
            default: break
            }
        }
        if reader.malformed { return nil }
        if let status, status.code != .ok { result = .failure(status) } else { result = .success(payload) }
    }

    private static func status(_ data: ArraySlice<UInt8>) -> Status? {
        var status = Status(.ok, "")
        var reader = ProtobufReader(data)
        while let field = reader.next() {
            switch (field.number, field.value) {
            case (1, .integer(let code)): status.code = StatusCode(rawValue: Int32(truncatingIfNeeded: code)) ?? .unknown
            case (2, .bytes(let text)): status.message = String(decoding: text, as: UTF8.self)
            case (3, .bytes(let any)):
                var detail = AnyMessage(typeURL: "", value: [])
                var inner = ProtobufReader(any)
                while let part = inner.next() {
                    if case (1, .bytes(let url)) = (part.number, part.value) { detail.typeURL = String(decoding: url, as: UTF8.self) }
                    if case (2, .bytes(let value)) = (part.number, part.value) { detail.value = Array(value) }
                }
                if inner.malformed { return nil }
                status.details.append(detail)
            default: break
            }
        }
        return reader.malformed ? nil : status
    }
}
