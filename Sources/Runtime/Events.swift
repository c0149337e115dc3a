import CLinux
import Glibc
import Linux
import OCI

/// `events`: what a container uses, once or again and again, and when its memory runs out; one JSON object a line.
enum Events {
    /// Ends with the container.
    static func run(_ line: Invocation, once: Bool, interval: Int64, output: ([UInt8]) throws(RuntimeError) -> Void) throws(RuntimeError) {
        let directory = try StateDirectory.open(root: line.root, id: line.id)
        guard let state = try directory.read() else { throw RuntimeError.noContainer }
        guard let initial = state.initial, try directory.status(state) != .stopped else {
            throw RuntimeError("container with id \(line.id) is not running")
        }
        if once {
            let stats = try attempt { () throws(SysError) in try state.cgroup.stats() }
            return try output(StatsDocument.line(id: line.id, stats))
        }
        do throws(SysError) { try watch(state, try initial.open(), interval, output) } catch {
            // Gone between two looks: that is the end that was waited for.
            if error.code != ESRCH && error.code != ENOENT && error.code != ENODEV { throw RuntimeError(error) }
        }
    }

    private static func watch(
        _ state: ContainerState, _ process: consuming Descriptor, _ interval: Int64, _ output: ([UInt8]) throws(RuntimeError) -> Void
    ) throws(SysError) {
        var memory = try CgroupOOMWatch.open(state.cgroup)
        let memoryDescriptor = memory?.descriptor.raw ?? -1
        let memoryEvents = memory?.events ?? 0
        var next = now(CLOCK_MONOTONIC) + interval
        while true {
            var items = [
                pollfd(fd: process.raw, events: Int16(POLLIN), revents: 0),
                pollfd(fd: memoryDescriptor, events: memoryEvents, revents: 0),
            ]
            let left = max(0, next - now(CLOCK_MONOTONIC))
            let ready = poll(&items, 2, Int32(clamping: (left + 999_999) / 1_000_000))
            if ready < 0 && errno != EINTR { throw SysError("poll", "", code: errno) }
            var lines: [UInt8] = []
            if ready > 0 && items[1].revents != 0, try memory?.take() == true { lines += StatsDocument.outOfMemory(id: state.id) }
            let ended = ready > 0 && items[0].revents != 0
            if !ended && now(CLOCK_MONOTONIC) >= next {
                lines += StatsDocument.line(id: state.id, try state.cgroup.stats())
                next = now(CLOCK_MONOTONIC) + interval
            }
            if !lines.isEmpty {
                do throws(RuntimeError) { try output(lines) } catch { throw SysError(error.message, code: EPIPE) }
            }
            if ended { return }
        }
    }
}
