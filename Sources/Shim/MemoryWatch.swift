import Linux

/// The kernel's word that the container runs out of memory, at the moment in which it does: also when what it kills is not the first process.
/// Only who wants events has one.
final class MemoryWatch {
    private var watch: CgroupOOMWatch
    private let loop: Loop

    /// nil where the host does not tell.
    init?(_ group: ContainerCgroup, loop: Loop) {
        self.loop = loop
        do throws(SysError) {
            guard let opened = try CgroupOOMWatch.open(group) else { return nil }
            watch = opened
            try loop.add(watch.descriptor.raw, Epoll.Interest(rawValue: UInt32(watch.events)), .memory)
        } catch { return nil }
    }

    deinit { loop.remove(watch.descriptor.raw) }

    /// Whether memory ran out since the last call.
    func take() -> Bool { (try? watch.take()) == true }
}
