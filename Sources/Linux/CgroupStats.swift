/// What a container uses and was refused, at one moment: what the kernel's control group files hold (admin-guide/cgroup-v1, cgroup-v2),
/// and what the Metrics messages of containerd for both versions ask for. Made by ``ContainerCgroup/stats()``.
///
/// Times are nanoseconds, sizes bytes, whatever the version counts in. nil is "this host does not count it"; a limit that is not set is
/// ``unlimited`` in version 2 and what the kernel says instead in version 1, which ``isUnlimited(_:)`` knows too.
public struct CgroupStats: Sendable, Equatable {
    /// Whether version 2 carries the controllers; else version 1 does, also on a hybrid host. Decides which of the two Metrics messages fits.
    public var isVersion2 = false
    public var cpu: CPU?
    public var memory: Memory?
    public var pids: PIDs?
    public var blockIO = BlockIO()
    public var hugepages: [Hugepage] = []
    public var rdma = RDMA()

    public init() {}

    public static let unlimited = UInt64.max

    /// Version 1 rounds "no limit" down to pages, so any number beyond what a machine can have is one.
    public static func isUnlimited(_ limit: UInt64) -> Bool { limit >= 1 << 62 }

    public struct CPU: Sendable, Equatable {
        public var usage: UInt64 = 0
        public var user: UInt64 = 0
        public var kernel: UInt64 = 0
        /// One number a processor, in order; version 1 only.
        public var perCPU: [UInt64] = []
        public var perCPUUser: [UInt64] = []
        public var perCPUKernel: [UInt64] = []
        /// Periods of the bandwidth controller that have passed, and those in which it held the container back.
        public var periods: UInt64 = 0
        public var throttledPeriods: UInt64 = 0
        public var throttledTime: UInt64 = 0
        public var bursts: UInt64 = 0
        public var burstTime: UInt64 = 0
        public var pressure: Pressure?

        public init() {}
    }

    /// One counted kind of memory. `peak` and `failures` are 0 where the kernel does not count them.
    public struct MemoryCounter: Sendable, Equatable {
        public var usage: UInt64 = 0
        public var limit: UInt64 = 0
        public var peak: UInt64 = 0
        /// How often the limit was hit.
        public var failures: UInt64 = 0

        public init() {}
    }

    public struct Memory: Sendable, Equatable {
        public var usage = MemoryCounter()
        /// Version 1: memory and swap together. Version 2: swap alone. nil where swap is not accounted for.
        public var swap: MemoryCounter?
        /// Version 1 only.
        public var kernel: MemoryCounter?
        public var kernelTCP: MemoryCounter?
        public var usesHierarchy = false
        /// memory.stat in the kernel's order and words: version 1 and 2 have different keys.
        public var details: [Counter] = []
        /// memory.events of version 2; of version 1 what memory.oom_control knows.
        public var events = MemoryEvents()
        public var pressure: Pressure?

        public init() {}

        /// A line of memory.stat; 0 when the kernel has none of that name.
        public subscript(_ key: String) -> UInt64 { details.first { $0.key == key }?.value ?? 0 }

        /// Bytes in use that the kernel could not simply drop, as the command lines of other engines show them: without clean file pages.
        public var workingSet: UInt64 {
            let inactive = details.first { $0.key == "total_inactive_file" }?.value ?? self["inactive_file"]
            return usage.usage > inactive ? usage.usage - inactive : 0
        }
    }

    public struct Counter: Sendable, Equatable {
        public var key: String
        public var value: UInt64
        public init(_ key: String, _ value: UInt64) {
            self.key = key
            self.value = value
        }
    }

    public struct MemoryEvents: Sendable, Equatable {
        public var low: UInt64 = 0
        public var high: UInt64 = 0
        public var max: UInt64 = 0
        public var oom: UInt64 = 0
        public var oomKill: UInt64 = 0
        public var oomGroupKill: UInt64 = 0
        /// Version 1: whether the container waits instead of being killed, and whether it does so now.
        public var oomKillDisabled = false
        public var underOOM = false

        public init() {}
    }

    public struct PIDs: Sendable, Equatable {
        public var current: UInt64 = 0
        /// nil is no limit.
        public var limit: UInt64?

        public init() {}
    }

    /// Version 1 fills the lists of entries, version 2 `devices`.
    public struct BlockIO: Sendable, Equatable {
        public struct Entry: Sendable, Equatable {
            public var major: UInt64
            public var minor: UInt64
            /// "Read", "Write", "Sync", "Async", "Discard", "Total"; empty where there is one number a device.
            public var operation: String
            public var value: UInt64
            public init(major: UInt64, minor: UInt64, operation: String, value: UInt64) {
                self.major = major
                self.minor = minor
                self.operation = operation
                self.value = value
            }
        }

        public struct Device: Sendable, Equatable {
            public var major: UInt64
            public var minor: UInt64
            public var readBytes: UInt64 = 0
            public var writeBytes: UInt64 = 0
            public var readOperations: UInt64 = 0
            public var writeOperations: UInt64 = 0
            public var discardBytes: UInt64 = 0
            public var discardOperations: UInt64 = 0
            public init(major: UInt64, minor: UInt64) {
                self.major = major
                self.minor = minor
            }
        }

        public var serviceBytes: [Entry] = []
        public var serviced: [Entry] = []
        public var queued: [Entry] = []
        public var serviceTime: [Entry] = []
        public var waitTime: [Entry] = []
        public var merged: [Entry] = []
        public var time: [Entry] = []
        public var sectors: [Entry] = []
        public var devices: [Device] = []
        public var pressure: Pressure?

        public init() {}

        /// Bytes read and written by all devices, whichever version counted them.
        public var bytes: (read: UInt64, written: UInt64) {
            if !devices.isEmpty { return (devices.reduce(0) { $0 &+ $1.readBytes }, devices.reduce(0) { $0 &+ $1.writeBytes }) }
            func sum(_ operation: String) -> UInt64 {
                serviceBytes.reduce(0) { $1.operation == operation ? $0 &+ $1.value : $0 }
            }
            return (sum("Read"), sum("Write"))
        }
    }

    public struct Hugepage: Sendable, Equatable {
        /// As the files are named: "2MB".
        public var pageSize: String
        public var usage: UInt64 = 0
        public var limit: UInt64 = 0
        /// Version 1 only.
        public var peak: UInt64 = 0
        public var failures: UInt64 = 0
        public init(pageSize: String) { self.pageSize = pageSize }
    }

    public struct RDMA: Sendable, Equatable {
        public struct Entry: Sendable, Equatable {
            public var device: String
            public var handles: UInt64 = 0
            public var objects: UInt64 = 0
            public init(device: String) { self.device = device }
        }
        public var current: [Entry] = []
        public var limit: [Entry] = []

        public init() {}
    }

    /// Pressure stall information (accounting/psi): shares of time in percent, and microseconds in all.
    public struct Pressure: Sendable, Equatable {
        public struct Line: Sendable, Equatable {
            public var average10 = 0.0
            public var average60 = 0.0
            public var average300 = 0.0
            public var total: UInt64 = 0
            public init() {}
        }
        /// Some process waited, and every process did.
        public var some = Line()
        public var full = Line()

        public init() {}
    }
}
