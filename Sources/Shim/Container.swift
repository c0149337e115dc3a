import CLinux
import CShimProto
import Glibc
import Linux
import OCI
import Records
import TTRPC

/// The one container of this shim: what it is, and the operations on it, one at a time. Records are written before anything is done or
/// said; an operation goes on when its caller is gone.
final class Container {
    enum Phase: Equatable {
        case none, created, running, paused
        /// Init has ended and the exit record says how.
        case stopped
        case deleted
    }

    /// What the shim was started with and where the container's files are.
    let place: Place
    let runtime: RuntimeCall
    let loop: Loop
    let pump: LogPump
    let parking: Parking
    let answer: (Call, Result<[UInt8], Status>) -> Void

    var phase = Phase.none
    var process: PidRecord?
    var pidfd: SharedDescriptor?
    var exit: ExitRecord?
    var waits: [Call] = []

    var operation: Operation?
    var queue: [Operation] = []

    /// What tells how init ended when this shim is not its parent.
    var witness: Witness?

    /// The detached root mount; the same one is parked.
    var rootfs: SharedDescriptor?
    /// Write ends of the output pipes until the container has them, -1 afterwards.
    var stdoutWriter: Int32
    var stderrWriter: Int32
    /// Whether this shim has a mount namespace of its own in which the root file system is mounted.
    var mounted = false

    /// An exit record that the disk did not take yet, and when it is tried again (CLOCK_MONOTONIC, nanoseconds).
    var unrecorded: (exit: ExitRecord, child: Bool)?
    var retryDeadline = Int64.max
    /// Until when the keeper's entry about init is waited for (CLOCK_MONOTONIC, nanoseconds).
    var keeperDeadline = Int64.max

    init(
        place: Place, loop: Loop, pump: LogPump, parking: Parking, stdoutWriter: Int32, stderrWriter: Int32,
        answer: @escaping (Call, Result<[UInt8], Status>) -> Void
    ) {
        self.place = place
        self.runtime = RuntimeCall(start: place.start, bundle: place.bundle, id: place.id)
        self.loop = loop
        self.pump = pump
        self.parking = parking
        self.stdoutWriter = stdoutWriter
        self.stderrWriter = stderrWriter
        self.answer = answer
    }

    // MARK: answers that wait for nothing

    /// 0 before Create.
    var pid: Int32 { process?.process.pid ?? 0 }

    func status(_ call: Call) {
        guard phase != .none && phase != .deleted else { return answer(call, .failure(notFound)) }
        let status =
            switch phase {
            case .created: CONTAINERD__V1__TYPES__STATUS__CREATED
            case .running: CONTAINERD__V1__TYPES__STATUS__RUNNING
            case .paused: CONTAINERD__V1__TYPES__STATUS__PAUSED
            default: CONTAINERD__V1__TYPES__STATUS__STOPPED
            }
        answer(
            call,
            .success(
                Messages.state(
                    id: place.id, bundle: place.bundle, pid: pid, status: status, exitStatus: exitCode, exitedAt: exit?.exited)))
    }

    func wait(_ call: Call) {
        switch phase {
        case .none, .deleted: answer(call, .failure(notFound))
        case .stopped: answer(call, .success(Messages.waited(exitStatus: exitCode, exitedAt: exit?.exited ?? 0)))
        case .created, .running, .paused: waits.append(call)
        }
    }

    func listPids(_ call: Call) {
        guard phase != .none && phase != .deleted else { return answer(call, .failure(notFound)) }
        if phase == .stopped { return answer(call, .success(Messages.pids([]))) }
        var pids = (try? cgroup?.processes()) ?? []
        // Whatever the control group says, init is there: its pidfd tells.
        if !pids.contains(pid) { pids.insert(pid, at: 0) }
        answer(call, .success(Messages.pids(pids)))
    }

    func kill(_ call: Call, signal: UInt32, all: Bool) {
        guard signal > 0 && signal <= 64 else {
            return answer(call, .failure(Status(.invalidArgument, "no signal has the number \(signal)")))
        }
        guard let pidfd, phase == .created || phase == .running || phase == .paused else {
            return answer(call, .failure(Status(.notFound, "process of container \(place.id) has ended, or was not created")))
        }
        do throws(SysError) {
            if signal == SIGKILL && (all || phase == .paused), let cgroup {
                // Reaches what a freezer holds, and forks in flight.
                try cgroup.kill()
            } else if all, let cgroup {
                for pid in try cgroup.processes() {
                    let opened = ctr_pidfd_open(pid, 0)
                    if opened < 0 { continue }
                    let process = Descriptor(owning: opened)
                    _ = ctr_pidfd_send_signal(process.raw, Int32(signal))
                }
            } else {
                try check("signal process", "\(pid)", ctr_pidfd_send_signal(pidfd.raw, Int32(signal)))
            }
            answer(call, .success([]))
        } catch {
            answer(call, .failure(Status(error.code == ESRCH ? .notFound : .unknown, error.description)))
        }
    }

    var notFound: Status { Status(.notFound, "container \(place.id) was not created, or is deleted") }

    /// What the task service can say of it; 255 where nobody knows (Guard.Info says so).
    var exitCode: UInt32 { exit.map { $0.outcome.code ?? 255 } ?? 0 }

    /// Where the container's processes are counted and killed; nil when it has no control group of its own.
    var cgroup: ContainerCgroup? { Self.controlGroup(process?.cgroup) }

    static func controlGroup(_ path: String?) -> ContainerCgroup? {
        guard let path, let hierarchies = try? CgroupHierarchies(),
            let group = try? ContainerCgroup(path, in: hierarchies)
        else { return nil }
        // Runtimes of others make no directory in a version 2 hierarchy that has no controllers.
        let tracked = group.unified.map { access($0, F_OK) == 0 } ?? false
        return tracked ? group : ContainerCgroup(v1: group.v1, unified: nil)
    }

    // MARK: time and connections

    var deadline: Int64 {
        var nearest = min(retryDeadline, keeperDeadline, pump.deadline)
        for call in waits { nearest = min(nearest, call.deadline) }
        for call in operation?.callers ?? [] { nearest = min(nearest, call.deadline) }
        for queued in queue { for call in queued.callers { nearest = min(nearest, call.deadline) } }
        return nearest
    }

    /// Answers the calls whose time is over; what they asked for goes on.
    func expire(at time: Int64) {
        pump.expire(at: time)
        if keeperDeadline <= time { keeperIsLate() }
        if retryDeadline <= time { retryRecord() }
        var late = waits.filter { $0.deadline <= time }
        waits.removeAll { $0.deadline <= time }
        if operation != nil { operation?.takeLate(time, into: &late) }
        for index in queue.indices { queue[index].takeLate(time, into: &late) }
        for call in late { answer(call, .failure(Status(.deadlineExceeded, "not done in time; it goes on"))) }
    }

    func forget(connection: UInt32) {
        pump.forget(connection: connection)
        waits.removeAll { $0.connection == connection }
        operation?.callers.removeAll { $0.connection == connection }
        for index in queue.indices { queue[index].callers.removeAll { $0.connection == connection } }
    }
}

/// An operation that runs the OCI runtime.
struct Operation {
    enum Kind: Equatable {
        case create([MountRequest])
        case start, delete, pause, resume
        /// After a predecessor died: what of it may be left is removed.
        case clean
        /// After a predecessor died: the runtime is asked whether the container is created, running or paused.
        case inquire

        /// Whether a second call joins the first instead of following it.
        func joins(_ other: Kind) -> Bool {
            if case .create = self, case .create = other { return true }
            return self == other
        }

        var word: String {
            switch self {
            case .create: "create"
            case .start: "start"
            case .delete, .clean: "delete"
            case .pause: "pause"
            case .resume: "resume"
            case .inquire: "state"
            }
        }
    }

    /// Which run of the runtime this is: a failed Create is followed by a delete, a failed Start by a look at the state.
    enum Step { case main, cleanup, look }

    let kind: Kind
    var callers: [Call]
    var step = Step.main
    /// The runtime's pid, 0 while none runs.
    var child: Int32 = 0
    /// What the runtime prints, where that is read.
    var output: SharedDescriptor?
    var failure: Status?
    /// Delete of a created container: the runtime is done and init's end is awaited.
    var awaitsExit = false

    mutating func takeLate(_ time: Int64, into late: inout [Call]) {
        late += callers.filter { $0.deadline <= time }
        callers.removeAll { $0.deadline <= time }
    }
}
