import CtrProto
import Glibc
import Linux
import Logs
import SwiftProtobuf
import TTRPC

/// Logs by request: bytes from the segments, news from the shim.
extension Supervisor {
    /// Bytes of one message.
    private static let chunkLimit = 256 << 10

    /// Sends the container's output from the cursors on, with `follow` until it ends. `send` returns when the client can take more, and
    /// only then is more read: the pace of a slow client is its own.
    public func readLogs(
        _ request: Ctr_V1_ReadLogsRequest, send: @escaping @Sendable (Ctr_V1_ReadLogsResponse) async throws -> Void
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
        _ request: Ctr_V1_ReadLogsRequest, _ instance: Instance, _ send: @Sendable (Ctr_V1_ReadLogsResponse) async throws -> Void
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
        _ send: @Sendable (Ctr_V1_ReadLogsResponse) async throws -> Void
    ) async throws {
        let latest = await instance.incarnation
        let incarnation = request.incarnation == 0 ? latest : request.incarnation
        let name = await instance.name
        guard incarnation > 0, incarnation <= latest else {
            let message =
                latest == 0 ? "container \(name) was never started" : "container \(name) has no incarnation \(request.incarnation)"
            throw SupervisorError(.failedPrecondition, "read logs", name, message)
        }
        let directory =
            exec.isEmpty
            ? configuration.incarnationDirectory(instance.namespace, instance.id, incarnation) + "/log"
            : configuration.bundle(instance.namespace, instance.id) + "/exec/\(exec)/log"
        let session = LogSession(directory: directory, from: request.from, incarnation: incarnation)
        while true {
            let batch = try await executor.blocking { try session.read(limit: Self.chunkLimit) }
            for message in batch.messages { try await send(message) }
            if !batch.messages.isEmpty && !batch.ended { continue }
            var ended = batch.ended
            if !ended {
                guard request.follow || incarnation < latest else { return }
                let news = try await instance.waitLog(incarnation: incarnation, exec: exec, indexSize: batch.position)
                ended = news.ended && news.indexSize <= batch.position
            }
            if ended {
                var last = Ctr_V1_ReadLogsResponse()
                last.ended = true
                last.incarnation = incarnation
                return try await send(last)
            }
        }
    }
}

/// A reader of one incarnation's log, used by one call at a time.
private final class LogSession: @unchecked Sendable {
    private let directory: String
    private let cursors: (stdout: LogCursor, stderr: LogCursor)
    private let incarnation: UInt32
    private var reader: LogReader?

    struct Batch: Sendable {
        var messages: [Ctr_V1_ReadLogsResponse] = []
        var ended = false
        /// Bytes of the index that were read.
        var position: UInt64 = 0
    }

    init(directory: String, from: [Ctr_V1_LogCursor], incarnation: UInt32) {
        var cursors = (stdout: LogCursor.start, stderr: LogCursor.start)
        for cursor in from {
            switch cursor.stream {
            case .stdout: cursors.stdout = LogCursor(segment: cursor.segment, offset: cursor.offset)
            case .stderr: cursors.stderr = LogCursor(segment: cursor.segment, offset: cursor.offset)
            default: break
            }
        }
        self.directory = directory
        self.cursors = cursors
        self.incarnation = incarnation
    }

    /// What the index holds now, at most about `limit` bytes. Blocking.
    func read(limit: Int) throws(SysError) -> Batch {
        var batch = Batch()
        if reader == nil {
            let opened: Descriptor
            do throws(SysError) { opened = try Linux.open(directory, O_RDONLY | O_DIRECTORY) } catch {
                if error.code == ENOENT { return batch }
                throw error
            }
            reader = LogReader(directory: opened, stdout: cursors.stdout, stderr: cursors.stderr)
        }
        var bytes = 0
        while bytes < limit, let chunk = try reader?.next(limit: limit - bytes) {
            guard case .bytes(let data) = chunk.content else { continue }
            bytes += data.count
            // Pieces that follow each other in one stream travel together.
            if let last = batch.messages.last, last.stream == chunk.stream.message, last.segment == chunk.segment,
                last.offset + UInt64(last.data.count) == chunk.offset, last.time == chunk.time.timestamp
            {
                batch.messages[batch.messages.count - 1].data.append(contentsOf: data)
                continue
            }
            var message = Ctr_V1_ReadLogsResponse()
            message.stream = chunk.stream.message
            message.segment = chunk.segment
            message.offset = chunk.offset
            message.data.append(contentsOf: data)
            message.time = chunk.time.timestamp
            message.incarnation = incarnation
            batch.messages.append(message)
        }
        batch.ended = reader?.ended ?? false
        batch.position = reader?.indexPosition ?? 0
        return batch
    }
}

extension LogStream {
    fileprivate var message: Ctr_V1_LogStream { self == .stdout ? .stdout : .stderr }
}

extension Instance {
    /// Returns when the log of that incarnation is longer than `indexSize`, or nothing will be added to it any more.
    func waitLog(incarnation number: UInt32, exec: String = "", indexSize: UInt64) async throws -> (indexSize: UInt64, ended: Bool) {
        while true {
            try Task.checkCancellation()
            guard incarnation == number, let task = state.task else { return (indexSize, true) }
            if let foreign {
                if let news = try await foreign.waitLog(exec: exec, indexSize: indexSize) { return news }
                if task.row.phase.hasEnded { return (indexSize, true) }
                await linkChange()
                continue
            }
            if let connection {
                do {
                    let answer = try await Shim(connection: connection, id: id).waitLog(exec: exec, indexSize: indexSize)
                    return (answer.indexSize, answer.ended)
                } catch let status as Status where status.code == .notFound && !exec.isEmpty {
                    return (indexSize, true)
                } catch ShimError.connectionLost {
                    if self.connection === connection { await linkChange() }
                    continue
                } catch let status as Status where status.code == .unimplemented {
                    // A foreign shim tells of nothing; the end of the task is the next news.
                    if task.row.phase.hasEnded { return (indexSize, true) }
                }
            } else if task.row.phase.hasEnded && (task.guards == .none || link == nil) || task.guards == .lost {
                return (indexSize, true)
            }
            await linkChange()
        }
    }
}
