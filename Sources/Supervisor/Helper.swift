import CLinux
import Glibc
import Linux

/// Short-lived programs: started, read to their end, never longer than a deadline. What they leave running may hold their output open: their own
/// end is what counts.
enum Helper {
    struct Output: Equatable, Sendable {
        /// As `exitCode(waitStatus:)`.
        let status: UInt32
        /// What it printed, on either stream.
        let bytes: [UInt8]
        /// There was more, which was read and dropped.
        let isCut: Bool

        /// The first line.
        var text: String { bytes.split(separator: 0x0a).first.map { String(decoding: $0, as: UTF8.self) } ?? "" }
        /// The last line that says something: in front of an error may be warnings.
        var lastText: String {
            let line = bytes.split(separator: 0x0a).last { !$0.allSatisfy { $0 <= 0x20 } } ?? []
            return String(decoding: line, as: UTF8.self)
        }
    }

    private static let standardEnvironment = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]

    /// Runs `path` with `input` on its standard input; it inherits `keeping` as descriptor 3 and nothing else of ours.
    static func run(
        _ path: String, _ arguments: [String], directory: String, keeping: Int32 = -1, deadline: Int64, outputLimit: Int = 64 << 10,
        environment: [String] = standardEnvironment, input: [UInt8] = []
    ) throws(SysError) -> Output {
        var ends: [Int32] = [-1, -1]
        try check("make pipe", "", ctr_pipe2(&ends, O_CLOEXEC))
        let reading = Descriptor(owning: ends[0])
        let pid: Int32
        do {
            let writing = Descriptor(owning: ends[1])
            let given = try given(input)
            let map: [Int32] = keeping < 0 ? [given.raw, writing.raw, writing.raw] : [given.raw, writing.raw, writing.raw, keeping]
            pid = spawn(path, arguments, environment, directory, map)
        }
        try check("run", path, pid)
        let handle: Descriptor
        do throws(SysError) { handle = try ProcessIdentity(current: pid).open() } catch {
            kill(pid, SIGKILL)
            reap(pid)
            throw error
        }
        let limit = now(CLOCK_MONOTONIC) + deadline
        var output = Taken(limit: outputLimit)
        var hasEnded = false
        while !hasEnded {
            let left = (limit - now(CLOCK_MONOTONIC)) / 1_000_000
            if left <= 0 { break }
            // Once all of its output is closed only its end is awaited.
            var items = [
                pollfd(fd: handle.raw, events: Int16(POLLIN), revents: 0),
                pollfd(fd: output.isOver ? -1 : reading.raw, events: Int16(POLLIN), revents: 0),
            ]
            if poll(&items, 2, Int32(clamping: left)) < 0 { continue }
            hasEnded = items[0].revents != 0
            output.take(reading.raw)
        }
        if !hasEnded { kill(pid, SIGKILL) }
        let status = reap(pid)
        if !hasEnded { throw SysError("run", path, code: ETIMEDOUT) }
        return Output(status: exitCode(waitStatus: status), bytes: output.bytes, isCut: output.isCut)
    }

    private static func given(_ input: [UInt8]) throws(SysError) -> Descriptor {
        if input.isEmpty { return try Linux.open("/dev/null", O_RDONLY) }
        let file = Descriptor(owning: try check("make memfd", "", ctr_memfd_create("input", 1 /* MFD_CLOEXEC */)))
        try writeAll(file.raw, input, name: "input")
        lseek(file.raw, 0, SEEK_SET)
        return file
    }

    private static func spawn(
        _ path: String, _ arguments: [String], _ environment: [String], _ directory: String, _ map: [Int32]
    ) -> Int32 {
        var argv = arguments.map { strdup($0) } + [nil]
        var envp = environment.map { strdup($0) } + [nil]
        defer { for text in argv + envp { free(text) } }
        return ctr_spawn(path, &argv, &envp, directory, map, Int32(map.count), true)
    }

    @discardableResult
    private static func reap(_ pid: Int32) -> Int32 {
        var status: Int32 = 0
        while waitpid(pid, &status, 0) < 0 && errno == EINTR {}
        return status
    }

    private struct Taken {
        let limit: Int
        var bytes: [UInt8] = []
        var isCut = false
        var isOver = false
        private var chunk = [UInt8](repeating: 0, count: 16384)

        init(limit: Int) { self.limit = limit }

        /// Takes what is there, and of an endless stream a part: its writer has a deadline.
        mutating func take(_ descriptor: Int32) {
            for _ in 0..<64 where !isOver {
                var item = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
                if poll(&item, 1, 0) <= 0 { return }
                let got = read(descriptor, &chunk, chunk.count)
                if got < 0 && errno == EINTR { continue }
                if got <= 0 { return isOver = true }
                let taken = min(got, limit - bytes.count)
                bytes += chunk[..<taken]
                if taken < got { isCut = true }
            }
        }
    }
}
