import CtrProto
import Glibc
import Linux
import NIOCore
import NIOPosix
import Records
import TTRPC

/// Standard input of one process under a shim of others: a FIFO of which this manager holds a write end.
///
/// The FIFO takes bytes in the order of the calls, and how many it has taken is written down behind each piece. So a byte is repeated at most when
/// the manager is killed between the two; none is lost.
actor ForeignInput {
    private static let piece = 64 << 10
    /// Bytes of calls that wait for the process to read.
    private static let waitingLimit = 4 << 20

    private let directory: String
    private let executor: Executor
    private var record: InputRecord?
    private var channel: (any Channel)?
    private var last: Task<Ctr_Shim_V1_WriteInputResponse, any Error>?
    private var waiting = 0
    /// The process has ended.
    private var isShut = false

    init(directory: String, executor: Executor) {
        self.directory = directory
        self.executor = executor
    }

    /// Answers when the FIFO has all of it, which may be as late as the process reads. Calls are carried out one after the other, and go on when
    /// their caller is gone.
    func write(_ request: Ctr_Shim_V1_WriteInputRequest) async throws -> Ctr_Shim_V1_WriteInputResponse {
        guard waiting + request.data.count <= Self.waitingLimit else {
            throw Status(.resourceExhausted, "too much input waits to be read: \(Self.waitingLimit >> 20) MiB in all")
        }
        waiting += request.data.count
        defer { waiting -= request.data.count }
        let previous = last
        let task = executor.spawnThrowing {
            _ = await previous?.result
            return try await self.carryOut(request)
        }
        last = task
        return try await task.value
    }

    private func carryOut(_ request: Ctr_Shim_V1_WriteInputRequest) async throws -> Ctr_Shim_V1_WriteInputResponse {
        var record = try await current()
        let offset = request.append ? record.taken : request.offset
        guard offset <= record.taken else {
            throw Status(.outOfRange, "input begins at \(offset), and only \(record.taken) bytes were taken before")
        }
        var bytes = [UInt8](request.data.dropFirst(Int(clamping: record.taken - offset)))[...]
        if record.closed && !bytes.isEmpty { throw Status(.failedPrecondition, "standard input is closed") }
        while !bytes.isEmpty {
            let channel = try await open()
            let piece = bytes.prefix(Self.piece)
            do { try await channel.writeAndFlush(channel.allocator.buffer(bytes: piece)).get() } catch {
                throw Status(.failedPrecondition, "the process reads its standard input no more")
            }
            bytes = bytes.dropFirst(piece.count)
            record.taken += UInt64(piece.count)
            try await save(record)
        }
        if request.close && !record.closed {
            record.closed = true
            try await save(record)
            close()
        }
        var response = Ctr_Shim_V1_WriteInputResponse()
        response.offset = record.taken
        response.closed = record.closed
        return response
    }

    private func current() async throws -> InputRecord {
        if let record { return record }
        let directory = directory
        let found = try await executor.blocking { () -> InputRecord in
            let opened = try Linux.open(directory, O_RDONLY | O_DIRECTORY)
            guard faccessat(opened.raw, "stdin", F_OK, 0) == 0 else {
                throw Status(.failedPrecondition, "the process has no standard input")
            }
            return try InputRecord.read(in: opened.raw) ?? InputRecord(taken: 0, closed: false)
        }
        record = found
        return found
    }

    private func save(_ changed: InputRecord) async throws {
        record = changed
        let directory = directory
        try await executor.blocking {
            let opened = try Linux.open(directory, O_RDONLY | O_DIRECTORY)
            try changed.write(in: opened.raw)
        }
    }

    private func open() async throws -> any Channel {
        if isShut { throw Status(.failedPrecondition, "the process has ended") }
        if let channel, channel.isActive { return channel }
        // For reading too, since the shim may not have opened its end yet. That nobody reads any more is seen by the end of the process.
        let file = try Linux.open(directory + "/stdin", O_RDWR | O_NONBLOCK | O_NOFOLLOW)
        let raw = file.release()
        let made: any Channel
        do { made = try await NIOPipeBootstrap(group: executor.loop).takingOwnershipOfDescriptor(output: raw).get() } catch {
            Glibc.close(raw)
            throw error
        }
        if isShut {
            made.close(promise: nil)
            throw Status(.failedPrecondition, "the process has ended")
        }
        channel = made
        return made
    }

    /// The process has ended, or this manager lets go of its guards: what waits to be written fails, and nothing is opened again.
    func shut() {
        isShut = true
        close()
    }

    private func close() {
        channel?.close(promise: nil)
        channel = nil
    }
}
