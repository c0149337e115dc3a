import Glibc
import Linux

/// Tells when something may have appeared at the path of a socket. Every directory on the way is watched by inotify(7), from
/// the root down: one that is missing announces itself through its parent, so nothing is polled and no moment is missed.
/// Make the watch first, then try to connect.
final class SocketWatch {
    private let inotify: Descriptor
    /// Watch number to the name that matters in that directory.
    private var names: [Int32: [UInt8]] = [:]
    /// The watch of the socket's own directory; negative while that does not exist.
    private var last: Int32 = -1
    /// Whether a directory on the way changed, so that another watch is needed to see the rest.
    private(set) var isSpent = false

    /// nil when the kernel has no inotify instance left (fs.inotify.max_user_instances).
    init?(path: String) {
        let raw = inotify_init1(Int32(IN_NONBLOCK | IN_CLOEXEC))
        if raw < 0 { return nil }
        inotify = Descriptor(owning: raw)
        let interest = UInt32(IN_CREATE | IN_MOVED_TO | IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR)
        for step in Self.steps(to: path) {
            let watch = inotify_add_watch(raw, step.directory, interest)
            last = watch
            if watch < 0 { break }
            names[watch] = Array(step.name.utf8)
        }
        if names.isEmpty { return nil }
    }

    var descriptor: Int32 { inotify.raw }

    /// Each directory on the way to `path` from the top, with the name to look for in it.
    static func steps(to path: String) -> [(directory: String, name: String)] {
        var steps: [(String, String)] = []
        var directory = path.hasPrefix("/") ? "/" : "."
        for part in path.split(separator: "/") where part != "." {
            steps.append((directory, String(part)))
            if directory == "/" { directory += part } else { directory += "/" + part }
        }
        return steps
    }

    /// Reads the events that are there; true when one concerns the path.
    func concernsPath() -> Bool {
        var concerns = false
        withUnsafeTemporaryAllocation(byteCount: 4096, alignment: 8) { buffer in
            while true {
                let got = read(inotify.raw, buffer.baseAddress, buffer.count)
                if got < 0 && errno == EINTR { continue }
                if got <= 0 { return }
                if relevant(UnsafeRawBufferPointer(rebasing: buffer[..<got])) { concerns = true }
            }
        }
        return concerns
    }

    /// struct inotify_event: i32 wd, u32 mask, u32 cookie, u32 length, then the name padded with zeros.
    private func relevant(_ events: UnsafeRawBufferPointer) -> Bool {
        var rest = events
        var found = false
        while rest.count >= 16 {
            let watch = rest.loadUnaligned(as: Int32.self)
            let mask = rest.loadUnaligned(fromByteOffset: 4, as: UInt32.self)
            let length = Int(rest.loadUnaligned(fromByteOffset: 12, as: UInt32.self))
            let isLost = mask & UInt32(IN_DELETE_SELF | IN_MOVE_SELF | IN_IGNORED | IN_Q_OVERFLOW) != 0
            guard !isLost, rest.count >= 16 + length else {
                isSpent = true
                return true
            }
            let name = rest[(rest.startIndex + 16)..<(rest.startIndex + 16 + length)].prefix { $0 != 0 }
            if let wanted = names[watch], name.elementsEqual(wanted) {
                found = true
                if watch != last { isSpent = true }
            }
            rest = UnsafeRawBufferPointer(rebasing: rest[(rest.startIndex + 16 + length)...])
        }
        return found
    }
}
