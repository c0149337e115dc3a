import CLinux
import Glibc
import Linux

/// A program of the caller's that reads a process's output (`binary://`): the read ends of the two pipes are its descriptors 3 and 4, and it
/// closes 5, or writes to it, when it is ready. It lives beside the shim, not below it: a killed shim takes no logger with it.
final class LoggerProcess {
    /// How long one is waited for (nanoseconds).
    static let readyTime: Int64 = 10_000_000_000

    let program: String
    /// CLOCK_MONOTONIC, nanoseconds: when it should be ready; `.max` once it is.
    private(set) var deadline: Int64
    private let process: SharedDescriptor
    private let loop: Loop
    private var ready: SharedDescriptor?

    /// Starts it. The pipes stay the caller's; -1 is a stream that the process does not have.
    init(
        _ program: String, arguments: [String], id: String, namespace: String, stdout: Int32, stderr: Int32, number: UInt32, loop: Loop
    ) throws(SysError) {
        self.program = program
        self.loop = loop
        var ends: [Int32] = [-1, -1]
        let made = ends.withUnsafeMutableBufferPointer { buffer in buffer.baseAddress.map { ctr_pipe2($0, O_CLOEXEC) } ?? -EINVAL }
        try check("make pipe", "", made)
        let reader = Descriptor(owning: ends[0])
        let writer = Descriptor(owning: ends[1])
        let null = try Linux.open("/dev/null", O_RDWR)
        let pid = Self.spawn(
            [program] + arguments,
            environment: [
                "CONTAINER_ID=" + id, "CONTAINER_NAMESPACE=" + namespace, "PATH=" + (getenv("PATH").map { String(cString: $0) } ?? "/bin"),
            ],
            descriptors: [null.raw, null.raw, null.raw, stdout < 0 ? null.raw : stdout, stderr < 0 ? null.raw : stderr, writer.raw])
        try check("start logger", program, pid)
        // Our child, which nobody has reaped yet.
        process = SharedDescriptor(Descriptor(owning: try check("open pidfd of", "\(pid)", ctr_pidfd_open(pid, 0))))
        let flags = try check("prepare pipe", "", ctr_fcntl_int(reader.raw, F_GETFL, 0))
        try check("prepare pipe", "", ctr_fcntl_int(reader.raw, F_SETFL, flags | O_NONBLOCK))
        let shared = SharedDescriptor(reader)
        try loop.add(shared.raw, .readable, .sink, number: number)
        ready = shared
        deadline = now(CLOCK_MONOTONIC) + Self.readyTime
    }

    deinit { if let ready { loop.remove(ready.raw) } }

    private static func spawn(_ words: [String], environment: [String], descriptors: [Int32]) -> Int32 {
        var arguments: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) } + [nil]
        var variables: [UnsafeMutablePointer<CChar>?] = environment.map { strdup($0) } + [nil]
        defer { for pointer in arguments + variables { free(pointer) } }
        return arguments.withUnsafeMutableBufferPointer { arguments in
            variables.withUnsafeMutableBufferPointer { variables in
                descriptors.withUnsafeBufferPointer { descriptors in
                    guard let words = arguments.baseAddress, let environment = variables.baseAddress else { return -EINVAL }
                    return ctr_spawn_with(
                        words[0], words, environment, "/", descriptors.baseAddress, Int32(descriptors.count),
                        UInt32(CTR_SPAWN_SESSION | CTR_SPAWN_OOM_NEUTRAL))
                }
            }
        }
    }

    var isReady: Bool { ready == nil }

    /// Something came through its descriptor 5: a byte, or its end. Whether it is ready since now.
    func look() -> Bool {
        guard let waiting = ready else { return false }
        var byte: UInt8 = 0
        if read(waiting.raw, &byte, 1) < 0 && (errno == EAGAIN || errno == EINTR) { return false }
        settle()
        return true
    }

    /// It is waited for no more.
    func settle() {
        if let ready { loop.remove(ready.raw) }
        ready = nil
        deadline = .max
    }

    var isAlive: Bool { !isReadable(process.raw) }

    /// Its process is deleted: the pipes have ended, and what has not seen that is told.
    func signal(_ number: Int32) { _ = ctr_pidfd_send_signal(process.raw, number) }
}
