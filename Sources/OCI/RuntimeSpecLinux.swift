extension RuntimeSpec {
    /// The "linux" section.
    public struct Linux: Sendable, Equatable {
        public var namespaces: [Namespace] = []
        public var devices: [Device] = []
        public var cgroupsPath: String?
        public var resources = Resources()
        public var sysctl: [KeyValue] = []
        /// The "seccomp" object as it stands in the document: its canonical text is the key of the cache of compiled programs.
        public var seccomp: JSON?
        /// "private", "slave", "shared", "unbindable", also with a leading "r".
        public var rootfsPropagation: String?
        public var maskedPaths: [String] = []
        public var readonlyPaths: [String] = []
        public init() {}
    }

    public struct Namespace: Sendable, Equatable {
        public enum Kind: String, Sendable, CaseIterable { case mount, pid, uts, ipc, network, cgroup, user, time }
        public var kind: Kind
        /// An existing namespace to join; nil makes a new one.
        public var path: String?
        public init(_ kind: Kind, path: String? = nil) {
            self.kind = kind
            self.path = path
        }
    }

    /// A device node to make.
    public struct Device: Sendable, Equatable {
        public enum Kind: Sendable { case character, block, fifo }
        public var path: String
        public var kind: Kind
        public var major: UInt32
        public var minor: UInt32
        public var mode: UInt32
        public var uid: UInt32
        public var gid: UInt32
    }

    public struct Resources: Sendable, Equatable {
        /// Present also when empty: then every device beyond the defaults is denied.
        public var devices: [DeviceAccess] = []
        public var memoryLimit: Int64?
        public var memoryReservation: Int64?
        public var memorySwap: Int64?
        public var memorySwappiness: UInt64?
        public var disableOOMKiller = false
        public var cpuShares: UInt64?
        public var cpuQuota: Int64?
        public var cpuBurst: UInt64?
        public var cpuPeriod: UInt64?
        public var cpuIdle: Int64?
        public var cpus: String?
        public var memoryNodes: String?
        public var pidsLimit: Int64?
        public var blockIOWeight: UInt64?
        public var throttles: [Throttle] = []
        public var hugepages: [Hugepage] = []
        public var unified: [KeyValue] = []
        public init() {}
    }

    public struct DeviceAccess: Sendable, Equatable {
        public var allow: Bool
        /// "a", "b", "c"; "a" also when the document says nothing.
        public var type: String
        public var major: UInt32?
        public var minor: UInt32?
        /// Letters of "rwm".
        public var access: String
    }

    public struct Throttle: Sendable, Equatable {
        public enum Kind: Sendable { case readBytes, writeBytes, readOperations, writeOperations }
        public var kind: Kind
        public var major: UInt32
        public var minor: UInt32
        public var rate: UInt64
    }

    public struct Hugepage: Sendable, Equatable {
        /// "2MB" and so on.
        public var size: String
        public var limit: UInt64
    }
}
