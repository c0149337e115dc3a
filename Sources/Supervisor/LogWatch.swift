import CLinux
import Glibc
import Linux
import Synchronization

/// Tells that something changed in log directories, for logs whose writer nobody can ask: one inotify(7) instance for all of them, and one thread
/// that sleeps on it.
final class LogWatch: Sendable {
    private static let interest: UInt32 = 0x2 | 0x80 | 0x100  // IN_MODIFY, IN_MOVED_TO, IN_CREATE

    private struct Place {
        var watch: Int32
        var users = 0
        /// How many changes were seen.
        var generation: UInt64 = 0
        var waiters: [UInt64: CheckedContinuation<Void, any Error>] = [:]
    }
    private struct Contents {
        var places: [String: Place] = [:]
        var names: [Int32: String] = [:]
        var nextWaiter: UInt64 = 0
    }
    private let inotify: Int32
    private let contents = Mutex(Contents())

    init() throws(SysError) {
        inotify = try check("watch logs", "", ctr_inotify_open())
        Thread.start { [self] in run() }
    }

    /// Interest in one directory, until it is let go of.
    final class Subscription: Sendable {
        fileprivate let owner: LogWatch
        let directory: String

        fileprivate init(_ owner: LogWatch, _ directory: String) {
            self.owner = owner
            self.directory = directory
        }

        /// To be read before one looks: a change in between is then no news that is missed.
        var generation: UInt64 { owner.contents.withLock { $0.places[directory]?.generation ?? .max } }

        /// Returns when the directory has changed since `generation` was read; throws when the task is cancelled.
        func change(after generation: UInt64) async throws { try await owner.change(directory, after: generation) }

        deinit { owner.release(directory) }
    }

    /// ENOENT when there is no such directory.
    func subscribe(_ directory: String) throws(SysError) -> Subscription {
        let failure = contents.withLock { contents -> Int32 in
            if contents.places[directory] == nil {
                let watch = ctr_inotify_add(inotify, directory, Self.interest)
                if watch < 0 { return -watch }
                contents.places[directory] = Place(watch: watch)
                contents.names[watch] = directory
            }
            contents.places[directory]?.users += 1
            return 0
        }
        if failure != 0 { throw SysError("watch", directory, code: failure) }
        return Subscription(self, directory)
    }

    private func release(_ directory: String) {
        contents.withLock { contents in
            contents.places[directory]?.users -= 1
            guard let place = contents.places[directory], place.users <= 0 else { return }
            contents.places[directory] = nil
            if contents.names[place.watch] == directory { contents.names[place.watch] = nil }
            _ = ctr_inotify_remove(inotify, place.watch)
        }
    }

    private func change(_ directory: String, after generation: UInt64) async throws {
        let key = contents.withLock { contents in
            contents.nextWaiter += 1
            return contents.nextWaiter
        }
        try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Void, any Error>) in
                let isDone = contents.withLock { contents -> Bool in
                    guard !Task.isCancelled, let place = contents.places[directory], place.generation == generation else { return true }
                    contents.places[directory]?.waiters[key] = continuation
                    return false
                }
                if isDone { continuation.resume(with: Result { try Task.checkCancellation() }) }
            }
        } onCancel: {
            contents.withLock { $0.places[directory]?.waiters.removeValue(forKey: key) }?.resume(throwing: CancellationError())
        }
    }

    /// Wakes whoever waits for `directory`, though the file system told nothing.
    func poke(_ directory: String) {
        let waiters = contents.withLock { contents -> [CheckedContinuation<Void, any Error>] in
            contents.places[directory]?.generation += 1
            let waiters = contents.places[directory]?.waiters ?? [:]
            contents.places[directory]?.waiters = [:]
            return Array(waiters.values)
        }
        for waiter in waiters { waiter.resume() }
    }

    private func run() {
        withUnsafeTemporaryAllocation(byteCount: 64 << 10, alignment: 8) { buffer in
            while true {
                var item = pollfd(fd: inotify, events: Int16(POLLIN), revents: 0)
                if poll(&item, 1, -1) < 0 && errno != EINTR { return }
                let got = read(inotify, buffer.baseAddress, buffer.count)
                if got > 0 { dispatch(UnsafeRawBufferPointer(rebasing: buffer[..<got])) }
            }
        }
    }

    /// Only the index is news: bytes of a segment count once it speaks of them. Lost events may have been anybody's.
    private func dispatch(_ events: UnsafeRawBufferPointer) {
        var changed: Set<String> = []
        var at = 0
        while at + 16 <= events.count {
            let watch = events.loadUnaligned(fromByteOffset: at, as: Int32.self)
            let mask = events.loadUnaligned(fromByteOffset: at + 4, as: UInt32.self)
            let length = Int(events.loadUnaligned(fromByteOffset: at + 12, as: UInt32.self))
            guard at + 16 + length <= events.count else { break }
            let name = events[(at + 16)..<(at + 16 + length)].prefix { $0 != 0 }
            at += 16 + length
            if mask & 0x4000 != 0 {  // IN_Q_OVERFLOW
                changed.formUnion(contents.withLock { Array($0.places.keys) })
            } else if name.elementsEqual("index".utf8), let directory = contents.withLock({ $0.names[watch] }) {
                changed.insert(directory)
            }
        }
        for directory in changed { poke(directory) }
    }
}
