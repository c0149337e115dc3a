import CLinux
import Glibc
import Linux

/// Short-lived programs: started, read to their end, never longer than a deadline.
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
    }

    /// Runs `path`; it inherits `keeping` as descriptor 3 and nothing else of ours.
    static func run(
        _ path: String, _ arguments: [String], directory: String, keeping: Int32 = -1, deadline: Int64, outputLimit: Int = 64 << 10
    ) throws(SysError) -> Output {
        var ends: [Int32] = [-1, -1]
        try check("make pipe", "", ctr_pipe2(&ends, O_CLOEXEC))
        let reading = Descriptor(owning: ends[0])
        let null = try Linux.open("/dev/null", O_RDONLY)
        let pid: Int32
        do {
            let writing = Descriptor(owning: ends[1])
            let map: [Int32] = keeping < 0 ? [null.raw, writing.raw, writing.raw] : [null.raw, writing.raw, writing.raw, keeping]
            pid = spawn(path, arguments, directory, map)
        }
        try check("run", path, pid)
        let limit = now(CLOCK_MONOTONIC) + deadline
        let (bytes, late, isCut) = read(reading.raw, until: limit, atMost: outputLimit)
        if late { kill(pid, SIGKILL) }
        // Its output ended, so it is about to; one that only closed its output is bounded by the same deadline.
        var status: Int32 = 0
        if !late, let process = try? ProcessIdentity(current: pid).open() {
            var item = pollfd(fd: process.raw, events: Int16(POLLIN), revents: 0)
            if poll(&item, 1, Int32(clamping: max(0, (limit - now(CLOCK_MONOTONIC)) / 1_000_000))) == 0 { kill(pid, SIGKILL) }
        }
        while waitpid(pid, &status, 0) < 0 && errno == EINTR {}
        if late { throw SysError("run", path, code: ETIMEDOUT) }
        return Output(status: exitCode(waitStatus: status), bytes: bytes, isCut: isCut)
    }

    private static func spawn(_ path: String, _ arguments: [String], _ directory: String, _ map: [Int32]) -> Int32 {
        var argv = arguments.map { strdup($0) } + [nil]
        var environment: [UnsafeMutablePointer<CChar>?] = [
            strdup("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), nil,
        ]
        defer { for text in argv + environment { free(text) } }
        return ctr_spawn(path, &argv, &environment, directory, map, Int32(map.count), true)
    }

    private static func read(
        _ descriptor: Int32, until limit: Int64, atMost: Int
    ) -> (bytes: [UInt8], late: Bool, isCut: Bool) {
        var bytes: [UInt8] = []
        var isCut = false
        var chunk = [UInt8](repeating: 0, count: 16384)
        while true {
            let left = (limit - now(CLOCK_MONOTONIC)) / 1_000_000
            if left <= 0 { return (bytes, true, isCut) }
            var item = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            if poll(&item, 1, Int32(clamping: left)) < 0 && errno != EINTR { return (bytes, false, isCut) }
            guard item.revents != 0 else { continue }
            let got = Glibc.read(descriptor, &chunk, chunk.count)
            if got < 0 && errno == EINTR { continue }
            if got <= 0 { return (bytes, false, isCut) }
            let taken = min(got, atMost - bytes.count)
            bytes += chunk[..<taken]
            if taken < got { isCut = true }
        }
    }
}
