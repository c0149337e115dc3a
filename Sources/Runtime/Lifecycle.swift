import CLinux
import Glibc
import Linux
import OCI

/// What is done with a container that exists. Each function finds out the truth first, and can be repeated.
enum Lifecycle {
    /// How long a killed container may take to vanish.
    private static let killLimit = 10_000

    /// The recorded state; ``RuntimeError/noContainer`` also when a creator died before it recorded anything.
    private static func load(_ directory: borrowing StateDirectory) throws(RuntimeError) -> ContainerState {
        guard let state = try directory.read() else { throw RuntimeError.noContainer }
        return state
    }

    static func start(_ line: Invocation) throws(RuntimeError) {
        try start(try StateDirectory.open(root: line.root, id: line.id))
    }

    static func start(_ directory: borrowing StateDirectory) throws(RuntimeError) {
        let state = try load(directory)
        let status = try directory.status(state)
        guard status == .created, let gate = try directory.openGate() else {
            switch status {
            case .creating: throw RuntimeError("cannot start a container that is being created")
            case .stopped: throw RuntimeError("cannot start a container that has stopped")
            case .paused: throw RuntimeError("cannot start a paused container")
            case .created, .running: throw RuntimeError("cannot start an already running container")
            }
        }
        try attempt { () throws(SysError) in try writeAll(gate.raw, [0x30], name: "gate") }
        // The first process lets go of the gate at once: from then on it is "running", or dead.
        var item = pollfd(fd: gate.raw, events: 0, revents: 0)
        while poll(&item, 1, -1) < 0 && errno == EINTR {}
        if !state.poststart.isEmpty {
            let pid = state.initial?.pid ?? 0
            try HookRunner.run(
                state.poststart, "poststart",
                HookRunner.state(id: state.id, bundle: state.bundle, annotations: state.annotations, pid: pid, .running))
        }
    }

    // MARK: signals

    static func kill(_ line: Invocation, signal: Int32, all: Bool) throws(RuntimeError) {
        let directory = try StateDirectory.open(root: line.root, id: line.id)
        let state = try load(directory)
        if all { return try killAll(state, signal) }
        guard let initial = state.initial, try directory.status(state) != .stopped else { throw RuntimeError.notRunning }
        do throws(SysError) {
            let process = try initial.open()
            try check("signal", "\(initial.pid)", ctr_pidfd_send_signal(process.raw, signal))
        } catch {
            if error.code == ESRCH { throw RuntimeError.notRunning }
            throw RuntimeError(error)
        }
        // A frozen process dies only when it thaws, unless the kernel kills by control group.
        if signal == SIGKILL && (try? state.cgroup.isFrozen()) == true { try attempt { () throws(SysError) in try state.cgroup.kill() } }
    }

    /// Also what a first process left behind when it ended.
    private static func killAll(_ state: ContainerState, _ signal: Int32) throws(RuntimeError) {
        guard try attempt({ () throws(SysError) in try bootID() }) == state.bootID else { throw RuntimeError.notRunning }
        try attempt { () throws(SysError) in
            if signal == SIGKILL { return try state.cgroup.kill() }
            let pids = try state.cgroup.processes()
            for first in stride(from: 0, to: pids.count, by: signalBatch) {
                try signalEach(pids[first..<min(first + signalBatch, pids.count)], of: state.cgroup, signal)
            }
        }
    }

    private static let signalBatch = 256

    /// A number that was listed may be another's by the time it is opened; one that is listed again after that is a member's.
    private static func signalEach(_ pids: ArraySlice<Int32>, of group: ContainerCgroup, _ signal: Int32) throws(SysError) {
        let opened = pids.map { ($0, ctr_pidfd_open($0, 0)) }.filter { $0.1 >= 0 }
        defer { for (_, descriptor) in opened { close(descriptor) } }
        let members = Set(try group.processes())
        for (pid, descriptor) in opened where members.contains(pid) {
            let result = ctr_pidfd_send_signal(descriptor, signal)
            if result != -ESRCH { try check("signal", "\(pid)", result) }
        }
    }

    // MARK: delete

    static func delete(_ line: Invocation, force: Bool, _ log: Log) throws(RuntimeError) {
        let directory: StateDirectory
        do throws(RuntimeError) { directory = try StateDirectory.open(root: line.root, id: line.id) } catch {
            if force && error == RuntimeError.noContainer { return }
            throw error
        }
        try delete(directory, force: force, log)
    }

    static func delete(_ directory: borrowing StateDirectory, force: Bool, _ log: Log) throws(RuntimeError) {
        guard let state = try directory.read() else {
            // Nothing is made before the record is written. Its writer may be about to: only force may take the id from it.
            if !force { throw RuntimeError.noContainer }
            return try directory.remove()
        }
        let status = try directory.status(state)
        switch status {
        case .stopped, .created: break
        case .creating, .running, .paused:
            if !force { throw RuntimeError("cannot delete container \(state.id) that is not stopped: \(status.rawValue)") }
        }
        let sameBoot = try attempt { () throws(SysError) in try bootID() } == state.bootID
        if sameBoot {
            if status == .creating { try end(state.creator) }
            if let initial = state.initial { try end(initial, state.cgroup) }
        }
        try attempt { () throws(SysError) in try state.cgroup.remove(milliseconds: killLimit) }
        if !state.poststop.isEmpty {
            // The container is gone whatever a hook says.
            do throws(RuntimeError) {
                let text = HookRunner.state(id: state.id, bundle: state.bundle, annotations: state.annotations, pid: 0, .stopped)
                try HookRunner.run(state.poststop, "poststop", text)
            } catch { log.warning(error.message) }
        }
        try directory.remove()
    }

    /// Kills exactly this process and waits for its end; none of it when it is gone.
    private static func end(_ process: ProcessIdentity, _ group: ContainerCgroup? = nil) throws(RuntimeError) {
        guard process.isAlive else { return }
        do throws(SysError) {
            let pidfd = try process.open()
            ctr_pidfd_send_signal(pidfd.raw, SIGKILL)
            if let group { try group.kill() }
            var item = pollfd(fd: pidfd.raw, events: Int16(POLLIN), revents: 0)
            let deadline = now(CLOCK_MONOTONIC) + Int64(killLimit) * 1_000_000
            while true {
                let left = (deadline - now(CLOCK_MONOTONIC)) / 1_000_000
                if left <= 0 { throw SysError("kill process", "\(process.pid)", code: ETIMEDOUT) }
                let ready = poll(&item, 1, Int32(clamping: left))
                if ready > 0 { return }
                if ready < 0 && errno != EINTR { throw SysError("wait for process", "\(process.pid)", code: errno) }
            }
        } catch {
            if error.code != ESRCH { throw RuntimeError(error) }
        }
    }

    // MARK: pause, resume

    static func setPaused(_ line: Invocation, _ paused: Bool) throws(RuntimeError) {
        let directory = try StateDirectory.open(root: line.root, id: line.id)
        let state = try load(directory)
        let status = try directory.status(state)
        if paused {
            guard status == .running || status == .created else {
                throw RuntimeError("cannot pause a container that is \(status.rawValue)")
            }
        } else if status != .paused {
            throw RuntimeError("cannot resume a container that is \(status.rawValue)")
        }
        try attempt { () throws(SysError) in try state.cgroup.setFrozen(paused) }
    }

    // MARK: state, list

    private static func describe(_ state: ContainerState, _ status: ContainerStatus) -> JSON {
        let pid = status == .stopped ? 0 : Int64(state.initial?.pid ?? 0)
        var members: [JSON.Member] = [
            .init("ociVersion", .string(Runtime.specVersion)), .init("id", .string(state.id)), .init("pid", .integer(pid)),
            .init("status", .string(status.rawValue)), .init("bundle", .string(state.bundle)), .init("rootfs", .string(state.rootfs)),
            .init("created", .string(state.created)),
        ]
        if !state.annotations.isEmpty {
            members.append(.init("annotations", .object(state.annotations.map { .init($0.key, .string($0.value)) })))
        }
        members.append(.init("owner", "root"))
        return .object(members)
    }

    static func state(_ line: Invocation) throws(RuntimeError) -> [UInt8] {
        let directory = try StateDirectory.open(root: line.root, id: line.id)
        let state = try load(directory)
        return describe(state, try directory.status(state)).encoded(pretty: true) + [0x0a]
    }

    /// All containers of the root by id. One that cannot be read is named on standard error and left out.
    static func list(_ line: Invocation, quiet: Bool, json: Bool, _ log: Log) throws(RuntimeError) -> [UInt8] {
        var found: [(ContainerState, ContainerStatus)] = []
        for id in try ids(line.root) {
            do throws(RuntimeError) {
                let directory = try StateDirectory.open(root: line.root, id: id)
                guard let state = try directory.read() else { continue }
                found.append((state, try directory.status(state)))
            } catch  where error != RuntimeError.noContainer { log.error("\(id): \(error.message)") }
        }
        if quiet { return Array(found.map { $0.0.id + "\n" }.joined().utf8) }
        if json { return JSON.array(found.map { describe($0.0, $0.1) }).encoded() + [0x0a] }
        var rows = [["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]]
        for (state, status) in found {
            rows.append([
                state.id, "\(status == .stopped ? 0 : state.initial?.pid ?? 0)", status.rawValue, state.bundle, state.created, "root",
            ])
        }
        return table(rows)
    }

    private static func ids(_ root: String) throws(RuntimeError) -> [String] {
        do throws(SysError) {
            let directory = try Linux.open(root, O_RDONLY | O_DIRECTORY)
            return try RootFS.entries(of: directory.raw).filter { Invocation.isValid(id: $0) }.sorted()
        } catch {
            if error.code == ENOENT { return [] }
            throw RuntimeError(error)
        }
    }

    private static func table(_ rows: [[String]]) -> [UInt8] {
        var widths: [Int] = []
        for row in rows {
            for (column, text) in row.enumerated() {
                if column == widths.count { widths.append(0) }
                widths[column] = max(widths[column], text.count)
            }
        }
        var text = ""
        for row in rows {
            for (column, cell) in row.enumerated() {
                text += cell
                if column + 1 < row.count { text += String(repeating: " ", count: widths[column] - cell.count + 3) }
            }
            text += "\n"
        }
        return Array(text.utf8)
    }
}
