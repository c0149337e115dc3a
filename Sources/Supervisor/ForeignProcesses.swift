import CLinux
import CtrProto
import Glibc
import Linux
import NIOCore
import Records
import SwiftProtobuf
import TTRPC

/// Execs, streams, and what only our own shim offers, for a shim of others.
extension ForeignShim {
    /// Bytes that an attached exec's output may be ahead of its reader, and its segments.
    private static let unreadLimit: UInt64 = 8 << 20
    private static let unreadSegment: UInt64 = 1 << 20

    // MARK: streams

    /// The caller's streams in the words of any shim: output to `ctr-shim log`, which the shim starts; input from a FIFO. runc's shim has no input
    /// for a process with such a logger, unless it has a terminal: then the output goes into FIFOs too, and the manager starts the logger.
    func prepare(_ exec: String, _ wanted: ShimStreams) async throws -> ShimStreams {
        let (log, home) = (log(of: exec), exec.isEmpty ? bundle : directory(of: exec))
        var options = [("log", log)]
        if wanted.terminal { options.append(("terminal", "1")) }
        let isAttached = wanted.stdout == "log:attached"
        if isAttached {
            options += [("unread", "\(Self.unreadLimit)"), ("segment", "\(Self.unreadSegment)")]
        } else if exec.isEmpty, let settings = supervisor.registry.state(id)?.container.config.logSettings {
            options += [("segment", "\(settings.segmentBytes)"), ("count", "\(settings.segmentCount)")]
        }
        // Nobody waits for whoever may attach to the container; an exec was made for its reader.
        let isAbandoned = isAttached && exec.isEmpty
        var streams = ShimStreams(terminal: wanted.terminal)
        var fifos: [String] = []
        if !wanted.stdin.isEmpty {
            streams.stdin = home + "/stdin"
            fifos.append("stdin")
        }
        if wanted.stdin.isEmpty || wanted.terminal {
            streams.stdout =
                "binary://\(Self.escaped(configuration.shim))?" + options.map { "\($0.0)=\(Self.escaped($0.1))" }.joined(separator: "&")
            if !wanted.terminal { streams.stderr = streams.stdout }
        } else {
            (streams.stdout, streams.stderr) = (home + "/stdout", home + "/stderr")
            fifos += ["stdout", "stderr"]
            options += [("stdout", streams.stdout), ("stderr", streams.stderr)]
        }
        let start = ForeignStart(configuration: configuration, namespace: namespace, id: id)
        let (words, names) = (options.flatMap { [$0.0, $0.1] }, fifos)
        try await executor.blocking {
            try makeDirectory(log, mode: 0o700)
            if isAbandoned { try Self.abandon(log) }
            guard !names.isEmpty else { return }
            let opened = try Linux.open(home, O_RDONLY | O_DIRECTORY)
            for name in names { try start.makeFIFO(name, in: opened.raw) }
            if names.contains("stdout"), ForeignLog.logger(log) == nil { try start.startLogger(words) }
        }
        return streams
    }

    /// For a URI: everything but letters, digits, slashes and a few others as %XX.
    static func escaped(_ path: String) -> String {
        var text = ""
        for byte in path.utf8 {
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"),
                UInt8(ascii: "/"), UInt8(ascii: "-"), UInt8(ascii: "_"), UInt8(ascii: "."), UInt8(ascii: "~"):
                text.unicodeScalars.append(Unicode.Scalar(byte))
            default: text += "%" + (byte < 16 ? "0" : "") + String(byte, radix: 16, uppercase: true)
            }
        }
        return text
    }

    // MARK: execs

    func exec(
        _ connection: ShimConnection, _ original: Containerd_Task_V2_ExecProcessRequest, _ timeout: TimeAmount?
    ) async throws -> Google_Protobuf_Empty {
        var request = original
        let exec = request.execID
        guard Names.isID(exec) else { throw Status(.invalidArgument, "invalid exec id \(exec.shown)") }
        let wanted = ShimStreams(terminal: request.terminal, stdin: request.stdin, stdout: request.stdout, stderr: request.stderr)
        let (home, process) = (directory(of: exec), [UInt8](request.spec.value))
        try await executor.blocking { [bundle] in
            try makeDirectory(bundle + "/exec", mode: 0o700)
            // An exec of this id that was not deleted has a directory.
            do throws(SysError) { try makeDirectory(home, mode: 0o700, existing: false) } catch {
                if error.code == EEXIST { throw Status(.alreadyExists, "exec \(exec.prefix(12)) exists already") }
                throw error
            }
            let opened = try Linux.open(home, O_RDONLY | O_DIRECTORY)
            let file = try Linux.open("process.json", O_WRONLY | O_CREAT | O_EXCL, mode: 0o600, at: opened.raw)
            try writeAll(file.raw, process, name: "process.json")
            try ExecRecord(
                execID: exec, terminal: wanted.terminal, stdin: wanted.stdin, stdout: wanted.stdout, stderr: wanted.stderr,
                created: now(CLOCK_REALTIME), createdBoot: now(CLOCK_BOOTTIME)
            ).write(in: opened.raw)
        }
        let streams = try await prepare(exec, wanted)
        (request.stdin, request.stdout, request.stderr) = (streams.stdin, streams.stdout, streams.stderr)
        do { return try await task(connection, "Exec", request, timeout) } catch {
            if error is Status { try? await removeExec(exec) }
            throw error
        }
    }

    func delete(
        _ connection: ShimConnection, _ request: Containerd_Task_V2_DeleteRequest, _ timeout: TimeAmount?
    ) async throws -> Containerd_Task_V2_DeleteResponse {
        guard !request.execID.isEmpty else { return try await task(connection, "Delete", request, timeout) }
        do {
            let answer: Containerd_Task_V2_DeleteResponse = try await task(connection, "Delete", request, timeout)
            try await removeExec(request.execID)
            return answer
        } catch let status as Status where status.code == .notFound {
            try await removeExec(request.execID)
            throw status
        }
    }

    private func removeExec(_ exec: String) async throws {
        forgetInput(of: exec)
        try await executor.blocking { [bundle] in try Leftovers.removeTree(bundle + "/exec", exec) }
    }

    /// Blocking.
    func execNames() -> [String] { ((try? Rebuild.entries(bundle + "/exec")) ?? []).filter { Names.isID($0) } }

    /// As the records say. Blocking.
    private func processes() throws -> [Ctr_Shim_V1_Process] {
        var found: [Ctr_Shim_V1_Process] = []
        for exec in execNames() {
            // One that is deleted at this moment is none.
            guard let opened = try? Linux.open(directory(of: exec), O_RDONLY | O_DIRECTORY) else { continue }
            guard let record = (try? ExecRecord.read(in: opened.raw)) ?? nil else { continue }
            var process = Ctr_Shim_V1_Process()
            process.execID = exec
            process.terminal = record.terminal
            process.createdAtNs = record.created
            process.stdout = record.stdout
            process.inputOpen = !record.stdin.isEmpty && ((try? InputRecord.read(in: opened.raw)) ?? nil)?.closed != true
            if let pid = (try? PidRecord.read(in: opened.raw)) ?? nil {
                process.pid = UInt32(clamping: pid.process.pid)
                process.startTime = pid.process.startTime
            }
            if let exit = (try? ExitRecord.read(in: opened.raw)) ?? nil {
                process.exited = true
                process.exitStatus = exit.outcome.code ?? 0
                process.exitSource = exit.source.rawValue
                process.exitedAtNs = exit.exited
            }
            found.append(process)
        }
        return found.sorted { ($0.createdAtNs, $0.execID) < ($1.createdAtNs, $1.execID) }
    }

    // MARK: our own service

    func guardCall(_ connection: ShimConnection, _ method: String, _ request: any Message, _ timeout: TimeAmount?) async throws
        -> any Message
    {
        switch request {
        case is Ctr_Shim_V1_InfoRequest: return try await info(connection, timeout)
        case is Ctr_Shim_V1_ProcessesRequest:
            var response = Ctr_Shim_V1_ProcessesResponse()
            response.processes = try await executor.blocking { [self] in try processes() }
            return response
        case let request as Ctr_Shim_V1_WriteInputRequest:
            let answer = try await input(of: request.execID).write(request)
            if request.close { try await closeInput(connection, request.execID) }
            return answer
        case let request as Ctr_Shim_V1_WaitLogRequest:
            var response = Ctr_Shim_V1_WaitLogResponse()
            if request.indexSize == .max {
                await farewell(request.execID)
                response.ended = true
                return response
            }
            guard let news = try await waitLog(exec: request.execID, indexSize: request.indexSize) else {
                throw Status(.notFound, "there is no such log")
            }
            (response.indexSize, response.ended) = news
            return response
        default: throw Status(.failedPrecondition, "its shim is \(runtime.file), with which ctrd cannot do this")
        }
    }

    private func info(_ connection: ShimConnection, _ timeout: TimeAmount?) async throws -> Ctr_Shim_V1_InfoResponse {
        var request = Containerd_Task_V2_ConnectRequest()
        request.id = id
        let connected: Containerd_Task_V2_ConnectResponse = try await task(connection, "Connect", request, timeout)
        var response = Ctr_Shim_V1_InfoResponse()
        response.shimPid = connected.shimPid
        response.version = connected.version
        response.level = Instance.execLevel
        guard connected.taskPid != 0 else { return response }
        var asked = Containerd_Task_V2_StateRequest()
        asked.id = id
        let state: Containerd_Task_V2_StateResponse
        do { state = try await task(connection, "State", asked, timeout) } catch let status as Status where status.code == .notFound {
            return response
        }
        response.taskPid = connected.taskPid
        response.terminal = state.terminal
        let bundle = bundle
        let record = try await executor.blocking { () -> PidRecord? in
            let opened = try Linux.open(bundle, O_RDONLY | O_DIRECTORY)
            return try PidRecord.read(in: opened.raw)
        }
        response.taskStartTime =
            record.map { $0.process.pid == Int32(clamping: connected.taskPid) ? $0.process.startTime : 0 }
            ?? (try? ProcessIdentity(current: Int32(clamping: connected.taskPid)).startTime) ?? 0
        response.started = state.status != .created
        response.exited = state.status == .stopped
        if response.exited {
            response.exitStatus = state.exitStatus
            response.exitSource = "reaped"
            response.exitedAtNs = state.exitedAt.nanoseconds
        }
        return response
    }

    private func closeInput(_ connection: ShimConnection, _ exec: String) async throws {
        var request = Containerd_Task_V2_CloseIORequest()
        request.id = id
        request.execID = exec
        request.stdin = true
        do { let _: Google_Protobuf_Empty = try await task(connection, "CloseIO", request, .seconds(10)) } catch let status as Status
            where status.code == .notFound
        {}
    }

    // MARK: output that a client reads

    /// What a reader has is removed, which makes room for what its process waits to write.
    func acknowledge(_ exec: String, _ indexSize: UInt64) async throws {
        if exec.isEmpty && supervisor.registry.state(id)?.container.config.logDriver != "none" { return }
        let directory = log(of: exec)
        try await executor.blocking { [home = exec.isEmpty ? bundle : self.directory(of: exec)] in
            let opened = try Linux.open(home, O_RDONLY | O_DIRECTORY)
            if !exec.isEmpty { guard try ExecRecord.read(in: opened.raw)?.stdout == "log:attached" else { return } }
            unlink(directory + "/abandoned")
            try ForeignLog.removeRead(directory, upTo: indexSize)
        }
    }

    /// Nobody reads any more: the newest is kept, and the process does not wait.
    private func farewell(_ exec: String) async {
        let directory = log(of: exec)
        try? await executor.blocking { try Self.abandon(directory) }
    }

    private static func abandon(_ directory: String) throws(SysError) {
        _ = try Linux.open(directory + "/abandoned", O_WRONLY | O_CREAT | O_NOFOLLOW, mode: 0o600)
    }
}
