import CLinux
import Glibc
import Linux
import Logs
import Records

/// `ctr-shim log DIRECTORY [key value]…`: the logger of a container whose shim is another's. That shim starts it for `binary://…/ctr-shim?log=DIRECTORY`
/// with the container's output as descriptors 3 and 4, and 5 to be told on that it is ready. With the keys `stdout` and `stderr` it is the manager
/// that starts it, for FIFOs into which the shim copies the output: then it goes on by itself, and what was started ends when it is ready.
///
/// It writes our segments and our index, and outlives manager and shim: as long as the container writes. SIGTERM, which the shim sends when the
/// container is deleted, makes it take what is in the pipes and end. Its lock (DIRECTORY/lock) says that it lives, its record (DIRECTORY/pid) who it is.
final class Logger {
    /// Whether these words, without the program's name, are a logger's: pairs in any order, one of which names the directory.
    static func isMeant(_ words: [String]) -> Bool {
        guard words.count % 2 == 0 else { return false }
        return stride(from: 0, to: words.count, by: 2).contains { words[$0] == "log" }
    }

    private static let ready: Int32 = 5
    /// Steps of at most 256 KiB that the end of the container may take.
    private static let lastSteps = 64

    private var writer: LogWriter
    private let directory: Descriptor
    private let lock: Descriptor
    private let epoll: Epoll
    private let signals: Descriptor
    /// Bytes in segments past which it waits until a reader has removed what it has; 0 is without limit.
    private let unread: UInt64
    /// Tells of what is removed from the directory; the logger's until its process ends.
    private let news: Int32
    private var moved: UInt64 = 0
    private var isPaused = false
    /// The pipes, -1 once they have ended.
    private var pipes: [Int32] = [3, 4]

    static func run(_ words: [String]) throws(ShimError) {
        var values: [String: String] = [:]
        for index in stride(from: 0, to: words.count, by: 2) { values[words[index]] = words[index + 1] }
        guard let path = values["log"], path.hasPrefix("/") else { throw ShimError("log", values["log"] ?? "", "not an absolute path") }
        do throws(SysError) {
            if let out = values["stdout"], let err = values["stderr"], try detach(out, err) { return }
            let logger = try Logger(path, values)
            try logger.run()
        } catch { throw ShimError(error) }
    }

    /// Goes on as a process of its own with the FIFOs as descriptors 3 and 4. True in the process that was started, once the other is ready.
    private static func detach(_ out: String, _ err: String) throws(SysError) -> Bool {
        var told: [Int32] = [-1, -1]
        try check("make pipe", "", ctr_pipe2(&told, O_CLOEXEC))
        let null = try Linux.open("/dev/null", O_RDWR).release()
        // Before a writer comes they are neither readable nor at their end.
        let files = [
            null, null, null, try Linux.open(out, O_RDONLY | O_NONBLOCK | O_NOFOLLOW).release(),
            try Linux.open(err, O_RDONLY | O_NONBLOCK | O_NOFOLLOW).release(), told[1],
        ]
        if try check("go on", "", ctr_clone3(0, nil, -1)) > 0 {
            close(told[1])
            var byte: UInt8 = 0
            if read(told[0], &byte, 1) == 1 { return true }
            throw SysError("log to", out, code: EIO)
        }
        setsid()
        var high: [Int32] = []
        for file in files { high.append(try check("duplicate descriptor", "", ctr_fcntl_int(file, F_DUPFD_CLOEXEC, 64))) }
        for (target, file) in high.enumerated() { try check("duplicate descriptor", "", ctr_dup3(file, Int32(target), 0)) }
        return false
    }

    /// Becomes what it has to be, and says that it is ready.
    private init(_ path: String, _ values: [String: String]) throws(SysError) {
        func number(_ key: String) -> UInt64? { values[key].flatMap { UInt64($0) } }
        _ = ctr_close_range(6, .max, 0)
        try check("close descriptors on exec", "", ctr_close_range(3, .max, 4))
        try ProcessControl.setSignals(blocked: [SIGTERM], ignored: [SIGPIPE, SIGXFSZ, SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2])
        try ProcessControl.becomeNonDumpable()
        try ProcessControl.setName("ctr-shim")
        directory = try Linux.open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
        lock = try Linux.open("lock", O_RDWR | O_CREAT | O_NOFOLLOW, mode: 0o600, at: directory.raw)
        try check("take lock of", path, ctr_ofd_lock(lock.raw, false))
        let record = PidRecord(process: try ProcessIdentity(current: getpid()), bootID: try bootID(), created: now(CLOCK_REALTIME))
        do throws(RecordError) { try record.write(in: directory.raw) } catch { throw SysError("write record", path, code: EIO) }
        writer = try LogWriter(
            directory: directory.duplicate(), segmentBytes: number("segment") ?? StartRecord.defaultSegmentBytes,
            segmentCount: UInt32(clamping: number("count") ?? 0))
        unread = number("unread") ?? 0
        epoll = try Epoll()
        signals = try ProcessControl.signalDescriptor([SIGTERM])
        try epoll.add(signals.raw, .readable, token: 2)
        // What a reader removes, and whether it is gone.
        news = unread > 0 ? ctr_inotify(path, 0x100 | 0x200 /* IN_CREATE | IN_DELETE */) : -1
        if news >= 0 { try epoll.add(news, .readable, token: 3) }
        for stream in LogStream.allCases {
            if writer.hasEnded(stream) || (values["terminal"] == "1" && stream == .stderr) {
                end(stream)
            } else {
                try epoll.add(pipes[self.number(stream)], .readable, token: UInt64(self.number(stream)))
            }
        }
        _ = write(Self.ready, "1", 1)
        close(Self.ready)
    }

    /// Until both streams have ended.
    private func run() throws(SysError) {
        while pipes.contains(where: { $0 >= 0 }) {
            var events: [UInt64] = []
            try epoll.wait(milliseconds: -1) { token, _ in events.append(token) }
            for token in events {
                switch token {
                case 0: pump(.stdout)
                case 1: pump(.stderr)
                case 2:
                    finish()
                    return
                default: hear()
                }
            }
        }
        writer.retry()
    }

    // MARK: streams

    private func number(_ stream: LogStream) -> Int { stream == .stdout ? 0 : 1 }

    private func end(_ stream: LogStream) {
        writer.end(stream)
        let pipe = pipes[number(stream)]
        if pipe < 0 { return }
        epoll.remove(pipe)
        close(pipe)
        pipes[number(stream)] = -1
    }

    private func pump(_ stream: LogStream) {
        let pipe = pipes[number(stream)]
        if pipe < 0 || isPaused { return }
        switch writer.drain(stream, from: pipe) {
        case .ended: end(stream)
        case .moved(let count):
            moved += UInt64(count)
            if unread > 0 && moved >= unread / 16 { measure() }
        case .empty: break
        }
    }

    /// What is in the pipes now is the last that is taken, whoever still holds them.
    private func finish() {
        for stream in LogStream.allCases where pipes[number(stream)] >= 0 {
            steps: for _ in 0..<Self.lastSteps {
                guard case .moved = writer.drain(stream, from: pipes[number(stream)]) else { break steps }
            }
            end(stream)
        }
        writer.retry()
    }

    // MARK: what nobody has read

    /// Lets the process wait for its reader, or without a reader drops what is oldest.
    private func measure() {
        moved = 0
        var segments: [(name: String, size: UInt64)] = []
        for name in directoryNames(in: directory.raw) where name.hasPrefix("stdout.") || name.hasPrefix("stderr.") {
            var status = stat()
            if fstatat(directory.raw, name, &status, 0x100) == 0 { segments.append((name, UInt64(clamping: status.st_size))) }
        }
        var total = segments.reduce(0) { $0 + $1.size }
        if faccessat(directory.raw, "abandoned", F_OK, 0) == 0 {
            for stream in ["stdout.", "stderr."] {
                // Never the one that is written.
                let ours = segments.filter { $0.name.hasPrefix(stream) }.sorted { $0.name < $1.name }
                for segment in ours.dropLast(2) where unlinkat(directory.raw, segment.name, 0) == 0 { total -= segment.size }
            }
        }
        let full = total >= unread
        if full == isPaused { return }
        isPaused = full
        for (index, pipe) in pipes.enumerated() where pipe >= 0 {
            try? epoll.modify(pipe, full ? [] : .readable, token: UInt64(index))
        }
    }

    private func hear() {
        withUnsafeTemporaryAllocation(byteCount: 4096, alignment: 8) { buffer in
            while read(news, buffer.baseAddress, buffer.count) > 0 {}
        }
        measure()
    }
}
