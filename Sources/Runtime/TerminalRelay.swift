import CLinux
import Glibc
import Linux

/// Between the terminal that `run` was started on and the one inside of the container: bytes both ways and the window size. Without a
/// terminal it does nothing.
struct TerminalRelay: ~Copyable {
    /// -1 without a terminal.
    private let master: Int32
    private let before: termios?
    private var inputOpen = true
    private static let chunk = 4096

    init() {
        master = -1
        before = nil
    }

    /// Takes the master from the receiving end of the socket that the container's first process sent it to, and makes our own terminal raw.
    init(receiving socket: borrowing Descriptor) throws(RuntimeError) {
        var name = [UInt8](repeating: 0, count: 256)
        var received: Int32 = -1
        let got = name.withUnsafeMutableBytes { ctr_recv_fd(socket.raw, $0.baseAddress, $0.count, &received, 0) }
        guard got >= 0, received >= 0 else { throw RuntimeError("the container's terminal did not come") }
        master = received
        var settings = termios()
        if tcgetattr(STDIN_FILENO, &settings) == 0 {
            before = settings
            cfmakeraw(&settings)
            tcsetattr(STDIN_FILENO, TCSADRAIN, &settings)
        } else {
            before = nil
        }
    }

    deinit {
        if master >= 0 { close(master) }
        if var settings = before { tcsetattr(STDIN_FILENO, TCSADRAIN, &settings) }
    }

    /// For poll(2): the master, then our input.
    var items: [pollfd] {
        let number = master
        guard number >= 0 else { return [] }
        // A negative descriptor is passed over.
        let input = inputOpen ? STDIN_FILENO : -1
        return [pollfd(fd: number, events: Int16(POLLIN), revents: 0), pollfd(fd: input, events: Int16(POLLIN), revents: 0)]
    }

    mutating func move(_ ready: ArraySlice<pollfd>) {
        let number = master
        guard number >= 0, let output = ready.first, let input = ready.last else { return }
        // With every slave closed the master only hangs up: the first process will end, or open it again.
        if Int32(output.revents) & POLLIN != 0 { _ = Self.copy(number, STDOUT_FILENO) }
        if input.revents != 0 { inputOpen = Self.copy(STDIN_FILENO, number) }
    }

    /// What the ended container still had written.
    func drain() {
        let number = master
        guard number >= 0 else { return }
        while true {
            var item = pollfd(fd: number, events: Int16(POLLIN), revents: 0)
            guard poll(&item, 1, 0) > 0, Int32(item.revents) & POLLIN != 0, Self.copy(number, STDOUT_FILENO) else { return }
        }
    }

    func resize() {
        let number = master
        guard number >= 0 else { return }
        var columns: UInt16 = 0
        var rows: UInt16 = 0
        if ctr_pty_size(STDIN_FILENO, &columns, &rows) == 0 { ctr_pty_resize(number, columns, rows) }
    }

    private static func copy(_ from: Int32, _ to: Int32) -> Bool {
        var bytes = [UInt8](repeating: 0, count: chunk)
        let got = read(from, &bytes, chunk)
        if got <= 0 { return false }
        try? writeAll(to, Array(bytes[..<got]), name: "terminal")
        return true
    }
}
