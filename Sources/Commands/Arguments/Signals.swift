import Glibc

/// The signals that `kill` and `stop` know by name.
enum Signals {
    private static let numbers: [(name: String, number: Int32)] = [
        ("HUP", SIGHUP), ("INT", SIGINT), ("QUIT", SIGQUIT), ("ILL", SIGILL), ("TRAP", SIGTRAP), ("ABRT", SIGABRT), ("IOT", SIGABRT),
        ("BUS", SIGBUS), ("FPE", SIGFPE), ("KILL", SIGKILL), ("USR1", SIGUSR1), ("SEGV", SIGSEGV), ("USR2", SIGUSR2), ("PIPE", SIGPIPE),
        ("ALRM", SIGALRM), ("TERM", SIGTERM), ("STKFLT", 16), ("CHLD", SIGCHLD), ("CLD", SIGCHLD), ("CONT", SIGCONT), ("STOP", SIGSTOP),
        ("TSTP", SIGTSTP), ("TTIN", SIGTTIN), ("TTOU", SIGTTOU), ("URG", SIGURG), ("XCPU", SIGXCPU), ("XFSZ", SIGXFSZ),
        ("VTALRM", SIGVTALRM), ("PROF", SIGPROF), ("WINCH", SIGWINCH), ("IO", SIGIO), ("POLL", SIGIO), ("PWR", SIGPWR), ("SYS", SIGSYS),
    ]
    private static let firstRealTime: Int32 = 34
    private static let last: Int32 = 64

    /// The number of `text`: a name with or without SIG in any case, RTMIN+n, RTMAX-n, or a number from 1 to 64.
    static func number(_ text: String) throws(Failure) -> UInt32 {
        var name = text.uppercased()
        if name.hasPrefix("SIG") { name.removeFirst(3) }
        if let number = Int32(text), number >= 1 && number <= last { return UInt32(number) }
        for signal in numbers where signal.name == name { return UInt32(signal.number) }
        if let number = realTime(name) { return UInt32(number) }
        throw Failure("invalid signal \"\(text)\": use a name such as TERM, or a number from 1 to 64")
    }

    private static func realTime(_ name: String) -> Int32? {
        if name == "RTMIN" { return firstRealTime }
        if name == "RTMAX" { return last }
        let number: Int32
        if name.hasPrefix("RTMIN+"), let offset = UInt8(name.dropFirst(6)) {
            number = firstRealTime + Int32(offset)
        } else if name.hasPrefix("RTMAX-"), let offset = UInt8(name.dropFirst(6)) {
            number = last - Int32(offset)
        } else {
            return nil
        }
        return number >= firstRealTime && number <= last ? number : nil
    }
}
