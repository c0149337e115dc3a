import CLinux
import Glibc
import Linux

/// `run` without --detach: this program stays in front of its container, hands signals on, and ends with its status.
enum Foreground {
    /// Not handed on: what the kernel raises in this program itself, job control, and what cannot be caught.
    private static let kept: Set<Int32> = [
        SIGKILL, SIGSTOP, SIGCHLD, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGURG, SIGPIPE, SIGTTIN, SIGTTOU,
    ]

    /// Blocks the signals that will be handed on; before the container exists, so that none is lost.
    static func openSignals() throws(RuntimeError) -> Descriptor {
        let signals = (Int32(1)...64).filter { !kept.contains($0) && $0 != 32 && $0 != 33 }
        return try attempt { () throws(SysError) in
            Descriptor(owning: try check("make", "signalfd", ctr_signalfd(signals, Int32(signals.count))))
        }
    }

    /// Until the process ends; its status as a shell shows it.
    static func wait(
        _ pid: Int32, _ pidfd: borrowing Descriptor, signals: borrowing Descriptor, terminal: inout TerminalRelay
    ) throws(RuntimeError) -> Int32 {
        terminal.resize()
        while true {
            var items = [
                pollfd(fd: pidfd.raw, events: Int16(POLLIN), revents: 0),
                pollfd(fd: signals.raw, events: Int16(POLLIN), revents: 0),
            ]
            items += terminal.items
            let ready = poll(&items, nfds_t(items.count), -1)
            if ready < 0 && errno != EINTR { throw RuntimeError(SysError("poll", "", code: errno)) }
            if ready <= 0 { continue }
            if items[1].revents != 0 { forward(signals.raw, pidfd.raw, terminal) }
            terminal.move(items[2...])
            if items[0].revents != 0 {
                terminal.drain()
                var status: Int32 = 0
                try attempt { () throws(SysError) in try check("wait for", "container", ctr_waitid(CTR_P_PID, pid, &status, 0)) }
                return Int32(exitCode(waitStatus: status))
            }
        }
    }

    private static func forward(_ signals: Int32, _ process: Int32, _ terminal: borrowing TerminalRelay) {
        // struct signalfd_siginfo is 128 bytes and begins with the number.
        var info = [UInt8](repeating: 0, count: 128)
        while read(signals, &info, info.count) == info.count {
            let number = info.withUnsafeBytes { Int32(bitPattern: $0.loadUnaligned(as: UInt32.self)) }
            if number == SIGWINCH { terminal.resize() }
            ctr_pidfd_send_signal(process, number)
        }
    }
}
