import CtrProto
import Glibc
import Linux
import NIOCore
import TTRPC

/// Statistics and process lists by request: both from the kernel alone.
extension Supervisor {
    private static let shortestInterval: UInt32 = 100

    /// One sample, or one each interval until the named containers have ended or the client is gone. `send` returns when the client can take
    /// more: a slow one gets fewer samples, never old ones.
    public func stats(
        _ request: Ctr_V1_StatsRequest, send: @escaping @Sendable (Ctr_V1_StatsResponse) async throws -> Void
    ) async throws {
        if request.intervalMs != 0 && request.intervalMs < Self.shortestInterval {
            throw SupervisorError(
                .invalidArgument, "read statistics", "",
                "an interval of \(request.intervalMs) ms is too short: at least \(Self.shortestInterval)")
        }
        var named: [String] = []
        for text in request.containers {
            let instance = try find(request.namespace, text, "read statistics")
            guard let state = registry.state(instance.id), state.task.map(\.row.phase.hasEnded) == false else {
                throw SupervisorError(.failedPrecondition, "read statistics", text.shown, "container \(text.shown) is not running")
            }
            named.append(instance.id)
        }
        var next = NIODeadline.now()
        while true {
            let response = try await samples(of: named, namespace: request.namespace)
            if response.stats.isEmpty { try await requireCgroup(of: named) }
            try await send(response)
            if request.intervalMs == 0 || !named.isEmpty && response.stats.isEmpty { return }
            next = max(next + .milliseconds(Int64(request.intervalMs)), .now())
            try await executor.pause(until: next)
        }
    }

    /// A container that runs and has no control group here is one whose runtime keeps it elsewhere.
    private func requireCgroup(of named: [String]) async throws {
        for state in named.compactMap({ registry.state($0) }) where state.task?.row.phase == .running {
            let path = configuration.cgroupPath(state.namespace, state.id)
            let exists = try await executor.blocking { [host] in try ContainerCgroup(path, in: host.cgroups).exists }
            guard !exists, registry.state(state.id)?.task?.row.phase == .running else { continue }
            throw SupervisorError(
                .failedPrecondition, "read statistics", state.name,
                "container \(state.name) has no control group \(path) on this host: its runtime keeps it elsewhere")
        }
    }

    private func samples(of named: [String], namespace: String) async throws -> Ctr_V1_StatsResponse {
        let states =
            named.isEmpty
            ? registry.list(namespace: namespace.isEmpty ? "default" : namespace) : named.compactMap { registry.state($0) }
        var subjects: [TaskSample] = []
        for state in states {
            guard let task = state.task?.row, task.phase == .running || task.phase == .paused else { continue }
            subjects.append(
                TaskSample(
                    container: state.id, name: state.name, process: ProcessIdentity(pid: task.pid, startTime: task.startTime),
                    cgroup: try ContainerCgroup(configuration.cgroupPath(state.namespace, state.id), in: host.cgroups),
                    hasNetwork: state.container.config.network != "host"))
        }
        let taken = subjects
        var response = Ctr_V1_StatsResponse()
        response.stats = try await executor.blocking {
            let processors = UInt32(clamping: sysconf(Int32(_SC_NPROCESSORS_ONLN)))
            return taken.compactMap { $0.take(processors: processors) }
        }
        return response
    }

    // MARK: top

    private static let psDeadline: Int64 = 10_000_000_000
    private static let psOutputLimit = 8 << 20
    private static let psPrograms = ["/usr/bin/ps", "/bin/ps"]

    /// The container's processes as ps(1) of the host shows them.
    public func top(_ request: Ctr_V1_TopRequest) async throws -> Ctr_V1_TopResponse {
        let instance = try find(request.namespace, request.container, "list processes")
        let arguments = request.psArgs.isEmpty ? ["-ef"] : request.psArgs
        if arguments.count > 64 || arguments.contains(where: { $0.utf8.contains(0) || $0.utf8.count > 4096 }) {
            throw SupervisorError(.invalidArgument, "list processes", request.container.shown, "these are no arguments of ps")
        }
        do {
            try await instance.settled()
            _ = try await instance.requireRunning("list processes")
            let cgroup = try ContainerCgroup(configuration.cgroupPath(instance.namespace, instance.id), in: host.cgroups)
            return try await executor.blocking {
                guard let program = Self.psPrograms.first(where: { access($0, X_OK) == 0 }) else {
                    throw SupervisorError(
                        .failedPrecondition, "list processes", request.container.shown,
                        "ps is not installed on this host (Debian: apt-get install procps)")
                }
                let output = try Helper.run(
                    program, ["ps"] + arguments, directory: "/", deadline: Self.psDeadline, outputLimit: Self.psOutputLimit)
                // Asked after ps: a process that both know is the container's, whoever had its number before.
                let processes = Set(try cgroup.processes())
                do {
                    if output.status != 0 { throw SpecError("ps", output.text) }
                    if output.isCut { throw SpecError("ps", "more than \(Self.psOutputLimit) bytes of output") }
                    return try ProcessTable(parsing: String(decoding: output.bytes, as: UTF8.self)).message(of: processes)
                } catch let error as SpecError {
                    throw SupervisorError(
                        .invalidArgument, "list processes", request.container.shown,
                        "cannot list the processes of \(request.container.shown): \(error)")
                }
            }
        } catch { throw SupervisorError.wrapping(error, "list processes", request.container.shown) }
    }
}

/// What ps(1) printed.
struct ProcessTable: Equatable {
    let titles: [String]
    let rows: [[String]]
    private let pid: Int

    /// The last column takes the rest of its line. A table without a column PID is none.
    init(parsing text: String) throws(SpecError) {
        let lines = text.split(separator: "\n")
        titles = (lines.first ?? "").split(whereSeparator: \.isWhitespace).map(String.init)
        guard let pid = titles.firstIndex(of: "PID") else { throw SpecError("ps", "with these arguments it prints no column PID") }
        self.pid = pid
        let last = titles.count - 1
        rows = lines.dropFirst().compactMap { line in
            let cells = line.split(maxSplits: last, omittingEmptySubsequences: true, whereSeparator: \.isWhitespace).map(String.init)
            return cells.count > pid ? cells : nil
        }
    }

    /// The rows of `processes`; a row whose PID is "-" is a thread of the process above it.
    func message(of processes: Set<Int32>) -> Ctr_V1_TopResponse {
        var message = Ctr_V1_TopResponse()
        message.titles = titles
        var chosen = false
        for cells in rows {
            if cells[pid] != "-" { chosen = Int32(cells[pid]).map(processes.contains) ?? false }
            guard chosen else { continue }
            var row = Ctr_V1_TopRow()
            row.cells = cells.enumerated().map { index, cell in
                guard index == titles.count - 1, let start = cell.firstIndex(where: { !$0.isWhitespace }),
                    let end = cell.lastIndex(where: { !$0.isWhitespace })
                else { return cell }
                return String(cell[start...end])
            }
            message.rows.append(row)
        }
        return message
    }
}
