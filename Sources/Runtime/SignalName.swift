/// Signals by the names that kill(1) knows and by number.
enum SignalName {
    private static let names = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM", "STKFLT", "CHLD",
        "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ]
    /// Real-time signals as the C library counts them: the first two belong to its threads.
    private static let firstRealTime: Int32 = 34, last: Int32 = 64

    /// "9", "KILL", "SIGKILL", "sigkill", "RTMIN+3", "RTMAX-1"; nil for anything else, also for 0.
    static func number(_ text: String) -> Int32? {
        if let number = Int32(text) { return (1...last).contains(number) ? number : nil }
        var name = text.uppercased()[...]
        if name.hasPrefix("SIG") { name = name.dropFirst(3) }
        if let index = names.firstIndex(of: String(name)) { return Int32(index) + 1 }
        if name == "IOT" { return 6 }
        if name == "POLL" { return 29 }
        if name == "CLD" { return 17 }
        if name == "RTMIN" { return firstRealTime }
        if name == "RTMAX" { return last }
        if name.hasPrefix("RTMIN+"), let offset = Int32(name.dropFirst(6)), (0...30).contains(offset) { return firstRealTime + offset }
        if name.hasPrefix("RTMAX-"), let offset = Int32(name.dropFirst(6)), (0...30).contains(offset) { return last - offset }
        return nil
    }
}
