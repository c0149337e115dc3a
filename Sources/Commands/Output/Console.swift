import CLinux
import Glibc
import Linux

/// Standard output and standard error of the program, unbuffered.
enum Console {
    /// Sees to it that descriptors 0 to 2 exist, so that no socket gets their numbers.
    static func claimStandardDescriptors() {
        for number in 0...2 as ClosedRange<Int32> where fcntl(number, F_GETFD) < 0 {
            _ = ctr_openat(AT_FDCWD, "/dev/null", O_RDWR, 0)
        }
    }

    /// Writes `text` to standard output as it is. A reader that went away ends the program quietly.
    static func write(_ text: String) throws(Failure) { try write(Array(text.utf8)) }

    static func write(_ bytes: [UInt8]) throws(Failure) {
        do throws(SysError) { try writeAll(1, bytes, name: "standard output") } catch {
            if error.code == EPIPE { exit(Failure.brokenPipe) }
            throw Failure(error.description)
        }
    }

    static func line(_ text: String) throws(Failure) { try write(text + "\n") }

    /// One line on standard error. What comes from elsewhere in it cannot steer the terminal. `isRaw`: the terminal does not go back
    /// to the left by itself.
    static func error(_ text: String, isRaw: Bool = false) {
        let name = usesColour(2) ? "\u{1b}[31mctrctl:\u{1b}[0m" : "ctrctl:"
        let line = Array("\(isRaw ? "\r" : "")\(name) \(printable(text))\(isRaw ? "\r" : "")\n".utf8)
        try? writeAll(2, line, name: "standard error")
    }

    static let outageText = "connection to ctrd lost; waiting for it to come back"
    static func outage() { error(outageText) }

    static func isTerminal(_ descriptor: Int32) -> Bool { isatty(descriptor) == 1 }

    /// Colours only on a terminal, and not for those who set NO_COLOR.
    static func usesColour(_ descriptor: Int32) -> Bool {
        if let value = getenv("NO_COLOR"), value.pointee != 0 { return false }
        return isTerminal(descriptor)
    }
}

extension Failure {
    /// What a shell shows for a program that SIGPIPE ended.
    static let brokenPipe: Int32 = 128 + SIGPIPE
}

/// `text` with control characters written out (`\n`, `\x1b`): names, commands and messages may come from an image.
func printable(_ text: String) -> String {
    if text.utf8.allSatisfy({ $0 >= 0x20 && $0 < 0x7f }) { return text }
    var result = ""
    for scalar in text.unicodeScalars {
        switch scalar.value {
        case 0x0a: result += "\\n"
        case 0x09: result += "\\t"
        case 0x0d: result += "\\r"
        case 0..<0x20, 0x7f..<0xa0:
            let digits = String(scalar.value, radix: 16)
            result += "\\x" + (digits.utf8.count < 2 ? "0" : "") + digits
        default: result.unicodeScalars.append(scalar)
        }
    }
    return result
}
