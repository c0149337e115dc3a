import Glibc
import Linux
import SwiftProtobuf

/// Shows on a terminal that a long call is under way, and for how long. Elsewhere it shows nothing.
struct Progress {
    private static let marks: [Character] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"]
    /// Time between two pictures, in ns.
    private static let interval: Int64 = 120_000_000

    private let title: String

    init(_ title: String) { self.title = printable(title) }

    /// The call without a limit of time, with the picture on standard error meanwhile.
    func during<Request, Response>(
        _ connection: Connection, _ method: Method<Request, Response>, _ request: Request
    ) throws(ClientError) -> Response {
        guard Console.isTerminal(2) else { return try connection.call(method, request) }
        let begin = now(CLOCK_MONOTONIC)
        var count = 0
        defer { if count > 0 { show("\r\u{1b}[K") } }
        let stream = try connection.start(method, request)
        try connection.flush()
        while true {
            while let answer = try connection.next() {
                if case .response(stream, let result) = answer { return try decode(result) }
            }
            let deadline = begin + Int64(count + 1) * Self.interval
            if waitFor([(connection.descriptor, connection.pollEvents)], until: deadline) {
                try connection.flush()
                try connection.receive()
            } else {
                let seconds = (now(CLOCK_MONOTONIC) - begin) / 1_000_000_000
                show("\r\u{1b}[K\(Self.marks[count % Self.marks.count]) \(title) \(seconds)s")
                count += 1
            }
        }
    }

    private func show(_ text: String) { try? writeAll(2, Array(text.utf8), name: "standard error") }
}
