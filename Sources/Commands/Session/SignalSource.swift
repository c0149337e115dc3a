import CLinux
import Glibc
import Linux

/// Signals to this program, as a descriptor to poll instead of handlers (signalfd(2)).
struct SignalSource: ~Copyable {
    struct Event: Equatable {
        let signal: Int32
        /// Whether the kernel sent it: for WINCH, that the terminal has another size.
        let isFromKernel: Bool
    }

    /// What is passed on to the container. Not among them: those that end or stop this program for good reasons of its own
    /// (PIPE, TSTP, TTIN, TTOU, CONT), and those that tell it about itself (CHLD, faults).
    static let forwarded = [SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGTERM, SIGWINCH]

    /// What else must not end or stop a program that has changed the terminal before it was put right.
    static let ofTerminal = [SIGTSTP, SIGCONT, SIGVTALRM, SIGPROF, SIGIO, SIGPWR, SIGXCPU]

    private let source: Descriptor
    private var interrupts: [Int64] = []
    /// Whether the user asked three times within two seconds to be let go.
    private(set) var isThirdInterrupt = false

    /// Interrupts within the time that count as "let me go", and that time in ns.
    private static let interruptLimit = 3
    private static let interruptTime: Int64 = 2_000_000_000

    /// Blocks the signals for the rest of this program's life, with `terminal` those that concern a changed terminal too.
    init(terminal: Bool = false) throws(SysError) {
        // What was ignored when this program was started (nohup, a job in the background of a script) stays so.
        let wanted = (Self.forwarded + (terminal ? Self.ofTerminal : [])).filter { signal in
            var action = sigaction()
            return sigaction(signal, nil, &action) < 0 || unsafeBitCast(action.__sigaction_handler.sa_handler, to: Int.self) != 1
        }
        source = Descriptor(owning: try check("watch signals", "", ctr_signalfd(wanted, Int32(wanted.count))))
    }

    /// For poll(2).
    var descriptor: Int32 { source.raw }

    /// The signals that came since the last time.
    mutating func read() -> [Event] {
        var result: [Event] = []
        withUnsafeTemporaryAllocation(byteCount: 128 * 8, alignment: 8) { buffer in
            while case let got = Glibc.read(source.raw, buffer.baseAddress, buffer.count), got >= 128 {
                for offset in stride(from: 0, to: got - 127, by: 128) {
                    let signal = Int32(bitPattern: buffer.loadUnaligned(fromByteOffset: offset, as: UInt32.self))
                    let origin = buffer.loadUnaligned(fromByteOffset: offset + 8, as: Int32.self)
                    note(signal)
                    result.append(Event(signal: signal, isFromKernel: origin == Self.fromKernel))
                }
            }
        }
        return result
    }

    /// SI_KERNEL of sigaction(2).
    private static let fromKernel: Int32 = 0x80

    private mutating func note(_ signal: Int32) {
        guard signal == SIGINT else { return }
        let time = now(CLOCK_MONOTONIC)
        interrupts = interrupts.filter { time - $0 <= Self.interruptTime } + [time]
        if interrupts.count >= Self.interruptLimit { isThirdInterrupt = true }
    }
}
