import CLinux
import Glibc

/// Tells when a control group runs out of memory.
public struct CgroupOOMWatch: ~Copyable {
    /// For poll(2), together with ``events``.
    public let descriptor: Descriptor
    public let events: Int16
    /// Version 1: the directory, whose removal wakes the watch too. Version 2: nil.
    private let directory: String?
    private var kills: UInt64 = 0

    /// nil when the host does not tell.
    public static func open(_ group: ContainerCgroup) throws(SysError) -> CgroupOOMWatch? {
        if let memory = group.directory("memory") {
            let counter = Descriptor(owning: try check("make", "event counter", ctr_eventfd()))
            let control = try Linux.open(memory + "/memory.oom_control", O_RDONLY)
            try ContainerCgroup.writeText(memory + "/cgroup.event_control", "\(counter.raw) \(control.raw)")
            return CgroupOOMWatch(descriptor: counter, events: Int16(POLLIN), directory: memory)
        }
        guard let unified = group.unified else { return nil }
        do throws(SysError) {
            let file = try Linux.open(unified + "/memory.events", O_RDONLY)
            var watch = CgroupOOMWatch(descriptor: file, events: Int16(POLLPRI), directory: nil)
            watch.kills = try watch.count() ?? 0
            return watch
        } catch {
            if error.code == ENOENT { return nil }
            throw error
        }
    }

    private init(descriptor: consuming Descriptor, events: Int16, directory: String?) {
        self.descriptor = descriptor
        self.events = events
        self.directory = directory
    }

    /// After the descriptor was ready: whether memory ran out since the last call.
    public mutating func take() throws(SysError) -> Bool {
        if let directory {
            var value: UInt64 = 0
            let got = read(descriptor.raw, &value, 8)
            return got == 8 && access(directory, F_OK) == 0
        }
        guard let now = try count() else { return false }
        defer { kills = now }
        return now > kills
    }

    /// nil when the group is gone.
    private func count() throws(SysError) -> UInt64? {
        var text = [UInt8](repeating: 0, count: 512)
        let got = pread(descriptor.raw, &text, text.count, 0)
        if got < 0 {
            if errno == ENODEV { return nil }
            throw SysError("read", "memory.events", code: errno)
        }
        return CgroupFiles.counters(String(decoding: text[..<got], as: UTF8.self))["oom_kill"]
    }
}
