import Supervisor
import SwiftProtobuf
import TTRPC

/// How one method of a service is carried out.
enum Method: Sendable {
    /// Answered from memory, on the event loop.
    case immediate(@Sendable ([UInt8]) throws -> [UInt8])
    case unary(@Sendable ([UInt8]) async throws -> [UInt8])
    /// Messages until it returns; cancelled when the connection closes.
    case stream(@Sendable ([UInt8], StreamWriter) async throws -> Void)

    static func immediate<Request: Message, Response: Message>(
        _ body: @escaping @Sendable (Request) throws -> Response
    ) -> Method {
        .immediate { (bytes: [UInt8]) in try body(try decode(bytes)).serializedBytes() }
    }

    static func unary<Request: Message, Response: Message>(
        _ body: @escaping @Sendable (Request) async throws -> Response
    ) -> Method {
        .unary { (bytes: [UInt8]) in try await body(try decode(bytes)).serializedBytes() }
    }

    static func stream<Request: Message>(_ body: @escaping @Sendable (Request, StreamWriter) async throws -> Void) -> Method {
        .stream { (bytes: [UInt8], writer: StreamWriter) in try await body(try decode(bytes), writer) }
    }

    private static func decode<Request: Message>(_ bytes: [UInt8]) throws -> Request {
        do { return try Request(serializedBytes: bytes) } catch {
            throw Status(.invalidArgument, "malformed \(Request.protoMessageName)")
        }
    }

    /// What goes over the wire for a failure of any kind.
    static func status(of error: any Error) -> Status {
        switch error {
        case let status as Status: status
        case let error as SupervisorError: error.status
        case is CancellationError: Status(.cancelled, "cancelled")
        default: SupervisorError(.internal, "serve", "", "internal error: \(error)").status
        }
    }
}

/// Services and their methods by name.
struct MethodTable: Sendable {
    private let services: [String: [String: Method]]

    init(_ services: [String: [String: Method]]) { self.services = services }

    /// - Throws: UNIMPLEMENTED, which is what tells a client that it is newer than this manager.
    func find(_ service: String, _ method: String) throws(Status) -> Method {
        guard let methods = services[service] else { throw Status(.unimplemented, "service \(service.prefix(128))") }
        guard let found = methods[method] else { throw Status(.unimplemented, "method \(method.prefix(128))") }
        return found
    }
}
