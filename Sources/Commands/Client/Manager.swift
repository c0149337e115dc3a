import CtrProto
import Glibc
import Linux
import SwiftProtobuf

/// Where the manager is and which namespace is meant.
struct Manager: Sendable {
    let address: String
    let namespace: String

    static let defaultAddress = "/run/ctrd/ctrd.sock"
    /// Seconds that a call may take which only reads rows. A call that works is waited for without limit.
    static let readLimit: Int64 = 30

    func connect() throws(ClientError) -> Connection { try Connection(path: address) }

    /// One unary call on a connection of its own.
    func call<Request, Response>(
        _ method: Method<Request, Response>, _ request: Request, within seconds: Int64? = nil
    ) throws(ClientError) -> Response {
        try connect().call(method, request, within: seconds)
    }

    /// Calls `method` for each request, several at a time, and hands over the results in their order. `patient` repeats what was
    /// unanswered when the manager goes away, once it is back; otherwise the rest fails.
    func callEach<Request, Response>(
        _ method: Method<Request, Response>, _ requests: [Request], patient: Bool = false,
        result: @escaping (Int, Result<Response, ClientError>) -> Void
    ) throws(ClientError) {
        let batch = Batch(method, requests, patient: patient, report: result)
        try batch.run(address: address)
    }
}

/// Several calls of one method over one connection.
private final class Batch<Request: Message, Response: Message> {
    /// Requests under way at the same time: more of the patient ones, which end when containers do, than of those that make the
    /// manager work; below the 128 that it takes from one connection.
    private var window: Int { patient ? 100 : 16 }

    private let method: Method<Request, Response>
    private let requests: [Request]
    private let patient: Bool
    private let report: (Int, Result<Response, ClientError>) -> Void
    private var results: [Result<Response, ClientError>?]
    private var reported = 0

    init(
        _ method: Method<Request, Response>, _ requests: [Request], patient: Bool,
        report: @escaping (Int, Result<Response, ClientError>) -> Void
    ) {
        self.method = method
        self.requests = requests
        self.patient = patient
        self.report = report
        results = Array(repeating: nil, count: requests.count)
    }

    func run(address: String) throws(ClientError) {
        var connection = try Connection(path: address)
        var reconnector = Reconnector(path: address)
        while reported < requests.count {
            do throws(ClientError) {
                try exchange(on: connection, &reconnector)
            } catch {
                guard patient && error.isOutage else {
                    for index in reported..<requests.count { report(index, results[index] ?? .failure(error)) }
                    return
                }
                if reconnector.broke(wasAnswered: connection.wasAnswered) { Console.outage() }
                connection = try reconnector.connect()
            }
        }
    }

    /// Asks for everything that has no result yet, until nothing is missing.
    private func exchange(on connection: Connection, _ reconnector: inout Reconnector) throws(ClientError) {
        var waiting: [UInt32: Int] = [:]
        var index = 0
        while true {
            while index < requests.count && waiting.count < window {
                if results[index] == nil { waiting[try connection.start(method, requests[index])] = index }
                index += 1
            }
            while let answer = try connection.next() {
                guard case .response(let stream, let outcome) = answer, let place = waiting.removeValue(forKey: stream) else { continue }
                if patient, case .failure(let status) = outcome, status.endsOnlyTheWait { throw .lost(path: connection.path) }
                let result: Result<Response, ClientError>
                do throws(ClientError) { result = .success(try decode(outcome)) } catch { result = .failure(error) }
                reconnector.answered()
                results[place] = result
                while reported < requests.count, let done = results[reported] {
                    report(reported, done)
                    reported += 1
                }
            }
            if index < requests.count && waiting.count < window { continue }
            if waiting.isEmpty { return }
            try connection.flush()
            waitFor([(connection.descriptor, connection.pollEvents)])
            try connection.receive()
        }
    }
}
