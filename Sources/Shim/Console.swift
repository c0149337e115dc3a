import CLinux
import Glibc
import Linux

/// The socket at which the runtime leaves a terminal's master (`--console-socket`). Only who is the runtime, or was started by it, is heard.
final class Console {
    /// How the runtime reaches it.
    let path: String
    private let file: String
    private let listener: SharedDescriptor
    private let directory: SharedDescriptor
    private let loop: Loop
    private let number: UInt32
    /// The runtime's pid, once it runs.
    var runtime: Int32 = 0
    /// Gets the master; set by who waits for it.
    var onMaster: (SharedDescriptor) -> Void = { _ in }
    /// Whether the master has come.
    private(set) var taken = false
    /// The one that is heard and has not sent yet.
    private var connection: SharedDescriptor?

    /// Listens in `directory`, which nobody else may enter; `number` is the process's in the epoll set.
    init(directory: String, loop: Loop, number: UInt32) throws(SysError) {
        file = directory + "/console"
        self.loop = loop
        self.number = number
        unlink(file)
        let opened = SharedDescriptor(try Linux.open(directory, CTR_O_PATH | O_DIRECTORY))
        self.directory = opened
        // Socket addresses have 107 bytes; through its descriptor a directory of any name has a short one.
        path = file.utf8.count <= 107 ? file : "/proc/\(getpid())/fd/\(opened.raw)/console"
        let made = ctr_unix_listen(path, 4, 0o600)
        listener = SharedDescriptor(Descriptor(owning: try check("listen on", file, made)))
        let flags = try check("prepare socket", "", ctr_fcntl_int(listener.raw, F_GETFL, 0))
        try check("prepare socket", "", ctr_fcntl_int(listener.raw, F_SETFL, flags | O_NONBLOCK))
        try loop.add(listener.raw, .readable, .console, number: number)
    }

    deinit {
        loop.remove(listener.raw)
        if let connection { loop.remove(connection.raw) }
        unlink(file)
    }

    /// Takes what the runtime has left until now, without waiting.
    func take() {
        while !taken {
            if let connection {
                switch receive(from: connection.raw) {
                case .success(nil): return
                case .success(let terminal?):
                    taken = true
                    onMaster(terminal)
                case .failure: break
                }
                loop.remove(connection.raw)
                self.connection = nil
                continue
            }
            let accepted = ctr_accept4(listener.raw, Int32(SOCK_CLOEXEC.rawValue))
            if accepted < 0 { return }
            let found = SharedDescriptor(Descriptor(owning: accepted))
            var (pid, uid, gid): (UInt32, UInt32, UInt32) = (0, 0, 0)
            guard ctr_peer_credentials(found.raw, &pid, &uid, &gid) == 0, uid == geteuid(), isRuntime(Int32(bitPattern: pid)),
                (try? loop.add(found.raw, .readable, .console, number: number)) != nil
            else { continue }
            connection = found
        }
    }

    /// The master, nil when nothing came yet.
    private func receive(from connection: Int32) -> Result<SharedDescriptor?, SysError> {
        withUnsafeTemporaryAllocation(byteCount: 4096, alignment: 8) { buffer in
            var master: Int32 = -1
            guard let base = buffer.baseAddress else { return .success(nil) }
            let got = ctr_recv_fd(connection, base, buffer.count, &master, Int32(MSG_DONTWAIT))
            if got == -Int(EAGAIN) || got == -Int(EINTR) { return .success(nil) }
            let terminal = master >= 0 ? SharedDescriptor(Descriptor(owning: master)) : nil
            if got <= 0 || isatty(master) != 1 { return .failure(SysError("receive terminal", "", code: EPROTO)) }
            return .success(terminal)
        }
    }

    /// The runtime itself, or one of the first generations of its children.
    private func isRuntime(_ pid: Int32) -> Bool {
        var current = pid
        for _ in 0..<4 {
            if current == runtime { return true }
            guard current > 1, let parent = Container.parent(of: current) else { return false }
            current = parent
        }
        return false
    }
}
