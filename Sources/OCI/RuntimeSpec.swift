/// A container as config.json describes it (OCI runtime specification 1.x), typed and checked for shape: kinds, ranges, sizes, no NUL
/// bytes. What the fields mean together is for the runtime to judge. Fields that are not listed here are ignored, as the specification
/// asks, unless ``unsupported`` names them.
public struct RuntimeSpec: Sendable, Equatable {
    public var version = ""
    public var process: Process?
    public var root: Root?
    public var hostname: String?
    public var domainname: String?
    public var mounts: [Mount] = []
    public var hooks = Hooks()
    public var annotations: [KeyValue] = []
    public var linux = Linux()
    /// Settings that are present and would silently mean something else if ignored, such as "linux.intelRdt".
    public var unsupported: [String] = []

    public init() {}

    public struct KeyValue: Sendable, Equatable {
        public let key: String
        public let value: String
        public init(_ key: String, _ value: String) {
            self.key = key
            self.value = value
        }
    }

    public struct Root: Sendable, Equatable {
        /// Absolute, or relative to the bundle.
        public var path = ""
        public var readOnly = false
        public init() {}
    }

    public struct Mount: Sendable, Equatable {
        public var destination = ""
        public var type = ""
        public var source = ""
        public var options: [String] = []
        public init() {}
    }

    public struct Process: Sendable, Equatable {
        public var terminal = false
        /// Columns and rows of the terminal; nil leaves the kernel's.
        public var consoleSize: (width: UInt16, height: UInt16)?
        public var user = User()
        public var args: [String] = []
        public var env: [String] = []
        public var cwd = "/"
        public var capabilities: Capabilities?
        public var rlimits: [ResourceLimit] = []
        public var noNewPrivileges = false
        public var oomScoreAdjustment: Int32?
        public var apparmorProfile: String?
        public init() {}

        public static func == (left: Process, right: Process) -> Bool {
            left.terminal == right.terminal && left.consoleSize?.width == right.consoleSize?.width
                && left.consoleSize?.height == right.consoleSize?.height && left.user == right.user && left.args == right.args
                && left.env == right.env && left.cwd == right.cwd && left.capabilities == right.capabilities
                && left.rlimits == right.rlimits && left.noNewPrivileges == right.noNewPrivileges
                && left.oomScoreAdjustment == right.oomScoreAdjustment && left.apparmorProfile == right.apparmorProfile
        }
    }

    public struct User: Sendable, Equatable {
        public var uid: UInt32 = 0
        public var gid: UInt32 = 0
        public var additionalGids: [UInt32] = []
        public var umask: UInt32?
        public init() {}
    }

    /// Names such as "CAP_CHOWN"; a set that is absent is empty.
    public struct Capabilities: Sendable, Equatable {
        public var bounding: [String] = []
        public var effective: [String] = []
        public var inheritable: [String] = []
        public var permitted: [String] = []
        public var ambient: [String] = []
        public init() {}
    }

    public struct ResourceLimit: Sendable, Equatable {
        /// "RLIMIT_NOFILE" and so on.
        public var type = ""
        public var soft: UInt64 = 0
        public var hard: UInt64 = 0
        public init() {}
    }

    public struct Hook: Sendable, Equatable {
        public var path = ""
        public var args: [String] = []
        public var env: [String] = []
        /// Seconds; nil is without end.
        public var timeout: Int64?
        public init() {}
    }

    public struct Hooks: Sendable, Equatable {
        public var prestart: [Hook] = []
        public var createRuntime: [Hook] = []
        public var createContainer: [Hook] = []
        public var startContainer: [Hook] = []
        public var poststart: [Hook] = []
        public var poststop: [Hook] = []
        public init() {}
    }

    /// The value of an annotation.
    public func annotation(_ key: String) -> String? { annotations.first { $0.key == key }?.value }
}

/// Why a configuration cannot be used: which field, and what about it.
public struct SpecError: Error, Equatable, Sendable, CustomStringConvertible {
    public let field: String
    public let reason: String
    public init(_ field: String, _ reason: String) {
        self.field = field
        self.reason = reason
    }
    public var description: String { "config.json: \(field): \(reason)" }
}
