import CtrProto
import Glibc
import Linux
import Logs
import NIOCore
import SwiftProtobuf
import TTRPC

/// Logs by request: bytes from the segments, news from the shim.
extension Supervisor {
    /// Sends the container's output from where the request says, with `follow` until it ends. `send` gets each message with room for a frame's
    /// header before it, and completes when the client's socket has taken it; at most two messages are in memory. The pace of a slow client
    /// is its own.
    public func readLogs(
        _ request: Ctr_V1_ReadLogsRequest, send: @escaping @Sendable (ByteBuffer) -> EventLoopFuture<Void>
    ) async throws {
        let instance = try find(request.namespace, request.container, "read logs")
        if !request.execID.isEmpty { return try await readExecLog(request, instance, send) }
        await instance.readerCame()
        do {
            try await instance.settled()
            try await stream(request, instance, send)
        } catch {
            await instance.readerLeft()
            throw SupervisorError.wrapping(error, "read logs", request.container.shown)
        }
        await instance.readerLeft()
    }

    private func readExecLog(
        _ request: Ctr_V1_ReadLogsRequest, _ instance: Instance, _ send: @Sendable (ByteBuffer) -> EventLoopFuture<Void>
    ) async throws {
        do {
            try await instance.settled()
            let exec = try await instance.execReaderCame(request.execID)
            do { try await stream(request, instance, exec: exec, send) } catch {
                await instance.execReaderLeft(exec, atEnd: false)
                throw error
            }
            await instance.execReaderLeft(exec, atEnd: request.follow)
        } catch { throw SupervisorError.wrapping(error, "read logs", request.execID.shown) }
    }

    private func stream(
        _ request: Ctr_V1_ReadLogsRequest, _ instance: Instance, exec: String = "",
        _ send: @Sendable (ByteBuffer) -> EventLoopFuture<Void>
    ) async throws {
        let latest = await instance.incarnation
        let incarnation = request.incarnation == 0 ? latest : request.incarnation
        let name = await instance.name
        guard incarnation > 0, incarnation <= latest else {
            let message =
                latest == 0 ? "container \(name) was never started" : "container \(name) has no incarnation \(request.incarnation)"
            throw SupervisorError(.failedPrecondition, "read logs", name, message)
        }
        var reader: UInt64?
        if exec.isEmpty, await instance.keepsNoLog {
            guard request.attach, request.follow else {
                throw SupervisorError(
                    .failedPrecondition, "read logs", name,
                    "container \(name) was created with the log driver none, which does not support reading: attach to see its output")
            }
            reader = await instance.attachedReaderCame()
        }
        do { try await stream(request, instance, exec: exec, incarnation, latest, reader: reader, send) } catch {
            if let reader { await instance.attachedReaderLeft(reader) }
            throw error
        }
        if let reader { await instance.attachedReaderLeft(reader) }
    }

    private func stream(
        _ request: Ctr_V1_ReadLogsRequest, _ instance: Instance, exec: String, _ incarnation: UInt32, _ latest: UInt32, reader: UInt64?,
        _ send: @Sendable (ByteBuffer) -> EventLoopFuture<Void>
    ) async throws {
        let directory =
            exec.isEmpty
            ? configuration.incarnationDirectory(instance.namespace, instance.id, incarnation) + "/log"
            : configuration.bundle(instance.namespace, instance.id) + "/exec/\(exec)/log"
        let session = LogSession(directory: directory, request: request, incarnation: incarnation)
        var sent: EventLoopFuture<Void>?
        // What an exec says lies in memory, and mostly it is little: to read that here costs less than to wake another thread.
        var here = exec.isEmpty ? 0 : Self.stepsHere
        while true {
            try Task.checkCancellation()
            // The next message is read while the last one is on its way.
            let step: LogSession.Step
            do {
                step = here > 0 ? try session.step() : try await executor.blocking { try session.step() }
                here -= 1
            } catch {
                try await sent?.get()
                throw error
            }
            try await sent?.get()
            sent = nil
            switch step {
            case .message(let message): sent = send(message)
            case .searching: continue
            case .idle(let position):
                guard request.follow || incarnation < latest else { return }
                let news = try await instance.waitLog(
                    incarnation: incarnation, exec: exec, indexSize: position, until: request.untilNs == 0 ? nil : request.untilNs,
                    reader: reader)
                if news.ended && news.indexSize <= position { return try await send(session.end()).get() }
            case .ended: return try await send(session.end()).get()
            }
        }
    }

    /// Steps of the reading of an exec's output that are made on the loop: about 256 KiB each at most.
    private static let stepsHere = 4

    // MARK: verification

    /// Compares index and segments of every incarnation.
    public func verifyLogs(_ request: Ctr_V1_VerifyLogsRequest) async throws -> Ctr_V1_VerifyLogsResponse {
        let instance = try find(request.namespace, request.container, "verify logs")
        try await instance.settled()
        let (latest, writes) = (await instance.incarnation, await instance.mayWriteLog)
        let container = configuration.containerDirectory(instance.namespace, instance.id)
        do {
            return try await executor.longRunning {
                var response = Ctr_V1_VerifyLogsResponse()
                let numbers = try Rebuild.entries(container).compactMap { UInt32($0) }.filter { $0 <= latest }.sorted()
                for number in numbers {
                    guard let report = try Self.verify("\(container)/\(number)/log", isLive: number == latest && writes) else { continue }
                    response.logs.append(report.message(incarnation: number))
                }
                return response
            }
        } catch { throw SupervisorError.wrapping(error, "verify logs", request.container.shown) }
    }

    /// nil when there is no log. A log that is written meanwhile may rotate between two looks at it: what is wrong must be wrong again.
    private static func verify(_ path: String, isLive: Bool) throws -> LogVerifier.Report? {
        let directory: Descriptor
        do throws(SysError) { directory = try Linux.open(path, O_RDONLY | O_DIRECTORY) } catch {
            if error.code == ENOENT { return nil }
            throw error
        }
        for _ in 0..<4 where isLive {
            let report = try LogVerifier.verify(directory: directory, isLive: true)
            if report.problems.isEmpty { return report }
        }
        return try LogVerifier.verify(directory: directory, isLive: isLive)
    }
}

extension LogVerifier.Report {
    fileprivate func message(incarnation: UInt32) -> Ctr_V1_LogVerification {
        var message = Ctr_V1_LogVerification()
        message.incarnation = incarnation
        message.entries = entries
        message.bytes = bytes
        message.gapBytes = gapBytes
        message.gaps = gaps
        message.recoveredBytes = recoveredBytes
        message.rotatedBytes = rotatedBytes
        message.ended = ended
        message.problems = problems
        return message
    }
}

extension Instance {
    /// How long a shim takes what is in the pipes after the end of their process.
    private static let drainTime = TimeAmount.seconds(2)

    /// The output is kept for nobody but who is attached.
    var keepsNoLog: Bool { state.container.config.logDriver == "none" }

    /// A writer of the current incarnation may be at work.
    var mayWriteLog: Bool { state.task.map { !$0.row.phase.hasEnded || $0.guards != .none } ?? false }

    /// Returns when the log of that incarnation is longer than `indexSize`, when nothing will be added to it any more, or at `until`
    /// (CLOCK_REALTIME, nanoseconds). `reader`: who asks, where what all readers have is dropped.
    func waitLog(
        incarnation number: UInt32, exec: String = "", indexSize: UInt64, until: Int64? = nil, reader: UInt64? = nil
    ) async throws -> (indexSize: UInt64, ended: Bool) {
        while true {
            try Task.checkCancellation()
            guard incarnation == number, let task = state.task else { return (indexSize, true) }
            if state.row.phase == .removing && connection == nil { return (indexSize, true) }
            let left = until.map { $0 - now(CLOCK_REALTIME) }
            if let left, left <= 0 { return (indexSize, true) }
            let timeout = left.map { TimeAmount.nanoseconds($0) }
            if let reader, isAhead(reader, at: indexSize) {
                if let news = try await watchLog(incarnation: number, exec: exec, indexSize: indexSize, until: until, reader: reader) {
                    return news
                }
                continue
            }
            if let foreign {
                if let news = try await foreign.waitLog(exec: exec, indexSize: indexSize, until: until) { return news }
                if task.row.phase.hasEnded { return (indexSize, true) }
                await linkChange(within: timeout)
                continue
            }
            if let connection {
                do {
                    let answer = try await Shim(connection: connection, id: id).waitLog(exec: exec, indexSize: indexSize, timeout: timeout)
                    return (answer.indexSize, answer.ended)
                } catch ShimError.deadline {
                    continue
                } catch let status as Status where status.code == .deadlineExceeded {
                    continue
                } catch let status as Status where status.code == .notFound && !exec.isEmpty {
                    return (indexSize, true)
                } catch ShimError.connectionLost {
                    if self.connection === connection { await linkChange(within: timeout) }
                    continue
                } catch let status as Status where status.code == .unimplemented {
                    if let news = try await watchLog(incarnation: number, exec: exec, indexSize: indexSize, until: until, reader: nil) {
                        return news
                    }
                    continue
                }
            } else if task.row.phase.hasEnded && (task.guards == .none || link == nil) {
                // While it runs without guards its log may go on: new ones find its pipes again.
                return (indexSize, true)
            }
            await linkChange(within: timeout)
        }
    }

    /// The same where the shim tells of nothing, or is not to be told how far this reader is: the files tell, and the end of the process.
    /// nil when the reader is ahead of no other any more.
    private func watchLog(
        incarnation number: UInt32, exec: String, indexSize: UInt64, until: Int64?, reader: UInt64?
    ) async throws -> (indexSize: UInt64, ended: Bool)? {
        let directory = exec.isEmpty ? configuration.incarnationDirectory(namespace, id, number) + "/log" : "\(bundle)/exec/\(exec)/log"
        let logWatch = supervisor.logWatch
        guard let news = try? logWatch.subscribe(directory) else { return (indexSize, true) }
        let end = executor.spawn { [self] in
            try? await waitForEnd()
            try? await executor.loop.scheduleTask(in: Self.drainTime) {}.futureResult.get()
            logWatch.poke(directory)
        }
        defer { end.cancel() }
        let alarm = until.map { until in
            executor.loop.scheduleTask(in: .nanoseconds(max(until - now(CLOCK_REALTIME), 0))) { logWatch.poke(directory) }
        }
        defer { alarm?.cancel() }
        while true {
            let generation = news.generation
            let size = try await executor.blocking { ForeignLog.indexSize(directory) } ?? 0
            if size > indexSize { return (size, false) }
            let time = now(CLOCK_REALTIME)
            let isDrained = state.task.map { $0.row.phase.hasEnded && time - ($0.row.exit?.exited ?? 0) >= Self.drainTime.nanoseconds }
            if isDrained ?? true || until.map({ $0 <= time }) ?? false { return (indexSize, true) }
            if let reader, !isAhead(reader, at: indexSize) { return nil }
            try await news.change(after: generation)
        }
    }

    /// Returns at the next change of the link, after a while, or when the caller is cancelled.
    func linkChange(within timeout: TimeAmount?) async {
        let alarm = timeout.map { timeout in
            executor.loop.scheduleTask(in: timeout) { [self] in _ = executor.spawn { await self.newsOfLink() } }
        }
        let waiter = Waiter(on: executor.loop)
        linkWaiters.append(waiter)
        try? await waiter.wait { [self] in executor.spawn { await self.newsOfLink() } }
        alarm?.cancel()
    }
}
