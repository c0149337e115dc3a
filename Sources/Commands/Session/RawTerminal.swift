import CLinux
import Glibc
import Linux

/// Width and height of a terminal in characters.
struct TerminalSize: Equatable, Sendable {
    var width: UInt32
    var height: UInt32

    /// That of this program's terminal: of standard output, else of standard input; nil when neither is one.
    static func current() -> TerminalSize? {
        for descriptor in [STDOUT_FILENO, STDIN_FILENO] {
            var columns: UInt16 = 0
            var rows: UInt16 = 0
            if ctr_pty_size(descriptor, &columns, &rows) >= 0, columns > 0, rows > 0 {
                return TerminalSize(width: UInt32(columns), height: UInt32(rows))
            }
        }
        return nil
    }
}

/// The terminal at standard input while a container's terminal is behind it: raw, so that every key goes there, and as it was before
/// whenever this program is not the one that reads it.
final class RawTerminal {
    private let descriptor: Int32
    private var before: termios?

    init(descriptor: Int32 = STDIN_FILENO) { self.descriptor = descriptor }

    deinit { restore() }

    var isRaw: Bool { before != nil }

    /// Makes it raw. Not from the background, where its settings are those of somebody else.
    func enter() throws(SysError) {
        guard before == nil, tcgetpgrp(descriptor) == getpgrp() else { return }
        var settings = termios()
        try checkErrno("read settings of", "the terminal", tcgetattr(descriptor, &settings))
        let old = settings
        cfmakeraw(&settings)
        // Not flushed: what was typed ahead is for the container.
        try checkErrno("make raw", "the terminal", tcsetattr(descriptor, TCSANOW, &settings))
        before = old
    }

    /// Puts it back.
    func restore() {
        guard var settings = before else { return }
        before = nil
        // From the background this would stop the program (TTOU), unless that signal is blocked.
        var blocked = sigset_t()
        var old = sigset_t()
        sigemptyset(&blocked)
        sigaddset(&blocked, SIGTTOU)
        sigprocmask(SIG_BLOCK, &blocked, &old)
        while tcsetattr(descriptor, TCSANOW, &settings) < 0 && errno == EINTR {}
        sigprocmask(SIG_SETMASK, &old, nil)
    }

    /// Stops this program as the terminal's own ctrl-z would, with the terminal as it was; returns when it goes on.
    func suspend() {
        restore()
        kill(getpid(), SIGSTOP)
    }
}
