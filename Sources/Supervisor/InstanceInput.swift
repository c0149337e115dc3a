import CtrProto
import NIOCore
import TTRPC

/// Standard input and terminals, of the first process (an empty exec id) and of execs.
extension Instance {
    private static let resizeDeadline = TimeAmount.seconds(5)
    static let inputLimit = 1 << 20

    /// Adds to standard input. Answers when the shim holds the bytes; when it cannot hold more that waits until the process has read. What is
    /// given with its offset is sent again when the shim dies in between: each byte reaches the process once.
    func writeInput(_ request: Ctr_V1_WriteInputRequest) async throws -> Ctr_V1_WriteInputResponse {
        guard request.data.count <= Self.inputLimit else {
            throw fail(.invalidArgument, "write input", "more than \(Self.inputLimit) bytes at once")
        }
        var message = Ctr_Shim_V1_WriteInputRequest()
        message.execID = try await runningProcess(request.execID, "write input")
        message.data = request.data
        message.offset = request.offset
        message.append = request.append
        message.close = request.close
        while true {
            try Task.checkCancellation()
            let connection = try await execConnection("write input")
            do {
                let answer = try await Shim(connection: connection, id: id).writeInput(message)
                var response = Ctr_V1_WriteInputResponse()
                response.offset = answer.offset
                response.closed = answer.closed
                return response
            } catch ShimError.connectionLost {
                if message.append {
                    throw fail(
                        .unavailable, "write input",
                        "the shim of container \(name) ended while it took the input: how much it has is not known")
                }
                if self.connection === connection { await linkChange() }
            } catch { throw refused(error, "write input", request.execID) }
        }
    }

    func resize(_ request: Ctr_V1_ResizeRequest) async throws {
        guard request.width <= UInt16.max, request.height <= UInt16.max else {
            throw fail(.invalidArgument, "resize", "terminal size \(request.width)x\(request.height) is too large")
        }
        let exec = try await runningProcess(request.execID, "resize")
        while true {
            let connection = try await execConnection("resize")
            do {
                return try await Shim(connection: connection, id: id)
                    .resize(exec: exec, width: request.width, height: request.height, timeout: Self.resizeDeadline)
            } catch ShimError.connectionLost {
                // A size is the same however often it is set.
                if self.connection === connection { await linkChange() }
            } catch { throw refused(error, "resize", request.execID) }
        }
    }

    /// The full id of the exec that `text` names; empty for the first process.
    private func runningProcess(_ text: String, _ operation: String) async throws -> String {
        if text.isEmpty { return "" }
        let exec = try findExec(text, operation)
        try await exec.launch?.value
        if exec.hasEnded {
            throw fail(.failedPrecondition, operation, "exec \(exec.id.prefix(12)) of container \(name) is not running")
        }
        return exec.id
    }

    private func refused(_ error: any Error, _ operation: String, _ exec: String) -> SupervisorError {
        if let status = error as? Status, status.code == .unimplemented { return shimIsTooOld(operation) }
        if error as? ShimError == .deadline { note { $0.guards = .unresponsive } }
        return SupervisorError.wrapping(error, operation, exec.isEmpty ? name : "\(exec.prefix(12)) of \(name)")
    }
}
