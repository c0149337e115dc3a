import CLinux
import Glibc
import Linux
import OCI
import Records

/// How init ended, for a shim that is not its parent: keeper and shim were both gone for a while, and pid 1 adopted it.
///
/// In this order: what a pidfd tells after somebody reaped the process (Linux 6.15); below that the kernel's process events, of which a
/// socket filter lets only this process's end through, so that others' cost nothing; the zombie's stat file.
final class Witness {
    private let process: ProcessIdentity
    private let allowed: Set<ExitRecord.Source>
    /// What an unknown end is told with besides.
    let remark: String
    private let loop: Loop?
    /// Set as soon as it is open.
    var pidfd: SharedDescriptor?

    private var events: SharedDescriptor?
    /// The status in the last event that may count.
    private var told: Int32?
    /// The first thread has ended and others went on: from then on every thread's end is listened to, since the last one counts.
    private var watchesThreads = false
    /// Events were lost, so the last that came may not have been the last.
    private var isTrusted = true

    /// With `loop` (where `number` means the process) the process events are listened to from now on, if these guards took the container over
    /// and the kernel has nothing stronger.
    init(of process: ProcessIdentity, place: Place, loop: Loop? = nil, number: UInt32 = 0) {
        self.process = process
        self.loop = loop
        let guards = (try? GuardsRecord.read(in: place.bundleDirectory)) ?? nil
        var allowed: Set<ExitRecord.Source> = [.pidfd, .connector, .zombie]
        if let text = place.start.exitSources {
            allowed = Set(
                Array(text.utf8).split(separator: UInt8(ascii: ",")).compactMap {
                    ExitRecord.Source(rawValue: String(decoding: $0, as: UTF8.self))
                })
        }
        self.allowed = allowed
        let lostTerminal = guards?.regained?.lost.isEmpty == false && Self.hasTerminal(place)
        remark = lostTerminal ? "; its terminal was hung up when shim and keeper died" : ""
        guard loop != nil, guards?.regained != nil, allowed.contains(.connector) else { return }
        if allowed.contains(.pidfd) && Self.kernelTells { return }
        let opened = ctr_exit_events_open(process.pid)
        guard opened >= 0 else { return }
        let socket = SharedDescriptor(Descriptor(owning: opened))
        guard (try? loop?.add(opened, .readable, .exitEvents, number: number)) != nil else { return }
        events = socket
    }

    deinit { stopListening() }

    private func stopListening() {
        if let events { loop?.remove(events.raw) }
        events = nil
    }

    private static func hasTerminal(_ place: Place) -> Bool {
        guard let bytes = try? readFile("config.json", limit: 16 << 20, at: place.bundleDirectory), let config = try? JSON(parsing: bytes)
        else { return false }
        return config["process"]?["terminal"]?.boolValue == true
    }

    /// Whether this kernel tells the holder of a pidfd how a process ended that was reaped: tried with a child of our own.
    private static let kernelTells: Bool = {
        var opened: Int32 = -1
        let child = ctr_clone3(0, &opened, -1)
        if child == 0 { _exit(0) }
        guard child > 0 else { return false }
        let pidfd = Descriptor(owning: opened)
        var status: Int32 = 0
        _ = ctr_waitid(CTR_P_PID, child, &status, 0)
        return ctr_pidfd_exit_status(pidfd.raw, &status) == 0
    }()

    // MARK: process events

    /// An event came: the first thread's end, which is the process's end unless other threads go on without it.
    func eventsReadable() {
        readEvents()
        guard let events, told != nil, !watchesThreads, let pidfd, !isReadable(pidfd.raw) else { return }
        watchesThreads = true
        _ = ctr_exit_events_select(events.raw, process.pid, true)
        let over = isReadable(pidfd.raw)
        // An event comes before the end that it tells of. So the last thread's came after the change of the filter, or was missed.
        if !readEvents() && over { isTrusted = false }
    }

    /// Whether there were any.
    @discardableResult
    private func readEvents() -> Bool {
        guard let events else { return false }
        var some = false
        while true {
            var (thread, status): (Int32, Int32) = (0, 0)
            switch ctr_exit_events_read(events.raw, &thread, &status) {
            case 1: (told, some) = (status, true)
            case -ENOBUFS: isTrusted = false
            default: return some
            }
        }
    }

    // MARK: the end

    /// The status in wait(2)'s encoding and where it comes from, once the pidfd says that the process has ended; nil when nobody knows.
    func testimony(pidfd: Int32) -> (Int32, ExitRecord.Source)? {
        var status: Int32 = 0
        let asks = allowed.contains(.pidfd)
        if asks, ctr_pidfd_exit_status(pidfd, &status) == 0 { return (status, .pidfd) }
        readEvents()
        defer { stopListening() }
        if let told, isTrusted { return (told, .connector) }
        if allowed.contains(.zombie), let status = zombieStatus() { return (status, .zombie) }
        if asks, ctr_pidfd_exit_status(pidfd, &status) == 0 { return (status, .pidfd) }
        return nil
    }

    /// Field 52 of the stat file. The pidfd is readable, so it speaks of the whole process.
    private func zombieStatus() -> Int32? {
        guard let fields = Container.statFields(process.pid), fields.count > 49, fields[0].elementsEqual("Z".utf8),
            UInt64(String(decoding: fields[19], as: UTF8.self)) == process.startTime
        else { return nil }
        return Int32(String(decoding: fields[49], as: UTF8.self))
    }
}
