import Linux

/// How the container ended. Durable before anybody is told.
public struct ExitRecord: TypedRecord {
    public static let kind = "exit"
    public static let fileName = "exit"
    public static let durable = true

    /// Where the exit status comes from, strongest first.
    public enum Source: String, Sendable {
        /// Shim or keeper reaped it.
        case reaped
        /// The kernel told the holder of a pidfd after somebody else had reaped it.
        case pidfd
        /// The kernel's process events.
        case connector
        /// The stat file of the zombie.
        case zombie
        /// Nobody knows; `reason` says why, and there is no status.
        case unknown
    }

    public enum Outcome: Equatable, Sendable {
        /// 0–255.
        case exited(UInt8)
        /// Ended by this signal; shown as 128 + signal.
        case signalled(UInt8)
        case unknown(reason: String)

        /// From wait(2)'s encoding.
        public init(waitStatus: Int32) {
            let signal = UInt8(truncatingIfNeeded: waitStatus & 0x7f)
            self = signal == 0 ? .exited(UInt8(truncatingIfNeeded: waitStatus >> 8)) : .signalled(signal)
        }

        /// 0–255, or nil when nobody knows.
        public var code: UInt32? {
            switch self {
            case .exited(let code): UInt32(code)
            case .signalled(let signal): 128 + UInt32(signal)
            case .unknown: nil
            }
        }
    }

    /// What the container's cgroup said at its end; nil where it was not there to be asked.
    public struct Usage: Equatable, Sendable {
        /// Processes that the kernel killed for lack of memory.
        public var oomKills: UInt64?
        /// CPU time, nanoseconds.
        public var cpu: UInt64?
        /// Highest memory use, bytes.
        public var memoryPeak: UInt64?

        public init(oomKills: UInt64? = nil, cpu: UInt64? = nil, memoryPeak: UInt64? = nil) {
            self.oomKills = oomKills
            self.cpu = cpu
            self.memoryPeak = memoryPeak
        }
    }

    public var process: ProcessIdentity
    public var outcome: Outcome
    /// `.unknown` exactly when the outcome is.
    public var source: Source
    /// CLOCK_REALTIME, nanoseconds: when the end was seen.
    public var exited: Int64
    /// CLOCK_BOOTTIME, nanoseconds.
    public var exitedBoot: Int64
    /// Whether the kernel killed one of the container's processes for lack of memory.
    public var oom: Bool
    public var usage: Usage
    /// Whether both output streams had ended when this was written; the log index knows later.
    public var logEnded: Bool

    public init(
        process: ProcessIdentity, outcome: Outcome, source: Source, exited: Int64, exitedBoot: Int64, oom: Bool = false,
        usage: Usage = Usage(), logEnded: Bool = false
    ) {
        self.process = process
        self.outcome = outcome
        self.source = source
        self.exited = exited
        self.exitedBoot = exitedBoot
        self.oom = oom
        self.usage = usage
        self.logEnded = logEnded
    }

    public init(fields: borrowing RecordFields) throws(RecordError) {
        func wrong(_ what: String) -> RecordError { RecordError("read record", Self.fileName, .wrong(what)) }
        process = ProcessIdentity(pid: try fields.number("pid"), startTime: try fields.number("start_time"))
        guard let source = Source(rawValue: try fields.text("source")) else { throw wrong("bad source") }
        self.source = source
        let code: UInt8? = try fields.optionalNumber("code")
        switch (source, code) {
        case (.unknown, nil): outcome = .unknown(reason: try fields.text("reason"))
        case (.unknown, _): throw wrong("a code without a source")
        case (_, nil): throw wrong("no code")
        case (_, let code?):
            let signal: UInt8 = try fields.number("signal")
            if signal == 0 {
                outcome = .exited(code)
            } else if signal < 128, code == 128 + signal {
                outcome = .signalled(signal)
            } else {
                throw wrong("code and signal disagree")
            }
        }
        exited = try fields.number("exited_ns")
        exitedBoot = try fields.number("exited_boot_ns")
        oom = try fields.flag("oom")
        usage = Usage(
            oomKills: try fields.optionalNumber("oom_kills"), cpu: try fields.optionalNumber("cpu_ns"),
            memoryPeak: try fields.optionalNumber("memory_peak"))
        logEnded = try fields.flag("log_ended")
    }

    public func fill(_ record: inout Record) {
        record.set("pid", process.pid)
        record.set("start_time", process.startTime)
        switch outcome {
        case .exited(let code):
            record.set("code", code)
            record.set("signal", 0)
        case .signalled(let signal):
            record.set("code", 128 + Int(signal))
            record.set("signal", signal)
        case .unknown: break
        }
        record.set("source", source.rawValue)
        if case .unknown(let reason) = outcome { record.set("reason", reason) }
        record.set("exited_ns", exited)
        record.set("exited_boot_ns", exitedBoot)
        record.set("oom", oom)
        record.set("oom_kills", ifPresent: usage.oomKills)
        record.set("cpu_ns", ifPresent: usage.cpu)
        record.set("memory_peak", ifPresent: usage.memoryPeak)
        record.set("log_ended", logEnded)
    }
}
