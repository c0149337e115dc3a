/// What a container may use. nil is "not asked for": the kernel's default stays. -1 means without limit where a number is signed.
/// The names are those of the OCI runtime specification, section "Control groups".
public struct CgroupLimits: Sendable, Equatable {
    /// Bytes; `swap` is memory plus swap together, as version 1 and the specification count it.
    public var memory: Int64?
    public var memoryReservation: Int64?
    public var memorySwap: Int64?
    public var memorySwappiness: UInt64?
    public var disableOOMKiller = false
    /// Relative weight, 2 to 262144.
    public var cpuShares: UInt64?
    /// Microseconds of CPU time in each `cpuPeriod`.
    public var cpuQuota: Int64?
    public var cpuPeriod: UInt64?
    public var cpuBurst: UInt64?
    public var cpuIdle: Int64?
    /// Lists as cpuset(7) writes them: "0-2,7".
    public var cpus: String?
    public var memoryNodes: String?
    public var pids: Int64?
    /// Relative weight, 10 to 1000.
    public var blockIOWeight: UInt64?
    public var throttles: [Throttle] = []
    public var hugepages: [(size: String, limit: UInt64)] = []
    /// Version 2 files by name, written as they are after everything else.
    public var unified: [(file: String, value: String)] = []
    /// Rules in order over "nothing is allowed"; nil leaves devices as they are.
    public var devices: [DeviceRule]?

    public init() {}

    public struct Throttle: Sendable, Equatable {
        public enum Kind: Sendable { case readBytes, writeBytes, readOperations, writeOperations }
        public let kind: Kind
        public let major: UInt32
        public let minor: UInt32
        /// Bytes or operations a second.
        public let rate: UInt64

        public init(kind: Kind, major: UInt32, minor: UInt32, rate: UInt64) {
            self.kind = kind
            self.major = major
            self.minor = minor
            self.rate = rate
        }
    }

    public static func == (left: CgroupLimits, right: CgroupLimits) -> Bool {
        left.memory == right.memory && left.memoryReservation == right.memoryReservation && left.memorySwap == right.memorySwap
            && left.memorySwappiness == right.memorySwappiness && left.disableOOMKiller == right.disableOOMKiller
            && left.cpuShares == right.cpuShares && left.cpuQuota == right.cpuQuota && left.cpuPeriod == right.cpuPeriod
            && left.cpuBurst == right.cpuBurst && left.cpuIdle == right.cpuIdle && left.cpus == right.cpus
            && left.memoryNodes == right.memoryNodes && left.pids == right.pids && left.blockIOWeight == right.blockIOWeight
            && left.throttles == right.throttles && left.hugepages.elementsEqual(right.hugepages, by: ==)
            && left.unified.elementsEqual(right.unified, by: ==) && left.devices == right.devices
    }
}

/// One rule of the device controller.
public struct DeviceRule: Sendable, Equatable {
    /// `all` stands for every device, whatever the other fields say.
    public enum Kind: UInt8, Sendable { case all = 0x61, block = 0x62, character = 0x63 }

    public struct Access: OptionSet, Sendable {
        public let rawValue: UInt8
        public init(rawValue: UInt8) { self.rawValue = rawValue }
        public static let make = Access(rawValue: 1)
        public static let read = Access(rawValue: 2)
        public static let write = Access(rawValue: 4)
        public static let all: Access = [.make, .read, .write]

        /// "rwm" in any order; nil for another letter or none.
        public init?(text: String) {
            var value: Access = []
            for byte in text.utf8 {
                switch byte {
                case UInt8(ascii: "r"): value.insert(.read)
                case UInt8(ascii: "w"): value.insert(.write)
                case UInt8(ascii: "m"): value.insert(.make)
                default: return nil
                }
            }
            if value.isEmpty { return nil }
            self = value
        }

        var text: String { (contains(.read) ? "r" : "") + (contains(.write) ? "w" : "") + (contains(.make) ? "m" : "") }
    }

    public let allow: Bool
    public let kind: Kind
    /// nil is every number.
    public let major: UInt32?
    public let minor: UInt32?
    public let access: Access

    public init(allow: Bool, kind: Kind, major: UInt32?, minor: UInt32?, access: Access) {
        self.allow = allow
        self.kind = kind
        self.major = major
        self.minor = minor
        self.access = access
    }

    /// The line that version 1 takes: "c 1:3 rwm".
    var line: String {
        "\(Character(Unicode.Scalar(kind.rawValue))) \(major.map { "\($0)" } ?? "*"):\(minor.map { "\($0)" } ?? "*") \(access.text)"
    }

    func overlaps(_ other: DeviceRule) -> Bool {
        (kind == .all || other.kind == .all || kind == other.kind)
            && (major == nil || other.major == nil || major == other.major)
            && (minor == nil || other.minor == nil || minor == other.minor) && !access.isDisjoint(with: other.access)
    }

    func sameDevices(_ other: DeviceRule) -> Bool { kind == other.kind && major == other.major && minor == other.minor }

    /// The shortest list with the same effect over "deny everything": what a later rule for the whole set wipes out is dropped, and so
    /// are repetitions and denials of what is denied anyway. Every rule costs a system call.
    public static func reduced(_ rules: [DeviceRule]) -> [DeviceRule] {
        var result: [DeviceRule] = []
        for rule in rules {
            if rule.kind == .all {
                result = rule.allow ? [rule] : []
                continue
            }
            if let last = result.lastIndex(where: { $0.overlaps(rule) }) {
                let earlier = result[last]
                let covers = earlier.kind == .all || earlier.sameDevices(rule) && earlier.access.isSuperset(of: rule.access)
                if earlier.allow == rule.allow && covers { continue }
            } else if !rule.allow {
                continue
            }
            result.append(rule)
        }
        return result
    }
}
