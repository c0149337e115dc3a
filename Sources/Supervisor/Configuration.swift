import Linux

/// Where the manager keeps things and which programs it runs.
public struct Configuration: Equatable, Sendable {
    /// What lasts: database, images, container directories. Absolute.
    public var root: String
    /// What a reboot clears: bundles, locks, sockets. Absolute.
    public var state: String
    /// The Unix socket of the API. Absolute, at most 107 bytes.
    public var address: String
    /// First component of every cgroup path that this manager makes.
    public var cgroupParent: String
    /// Absolute paths of the programs.
    public var runtime: String
    public var shim: String
    public var keeper: String

    public init(
        root: String, state: String, address: String, cgroupParent: String, runtime: String, shim: String, keeper: String
    ) {
        self.root = root
        self.state = state
        self.address = address
        self.cgroupParent = cgroupParent
        self.runtime = runtime
        self.shim = shim
        self.keeper = keeper
    }

    /// Where shims of others forward their events to: what they expect beside the API's socket. nil when that is too long for a socket.
    public var eventsAddress: String? {
        let path = address + ".ttrpc"
        return path.utf8.count <= 107 ? path : nil
    }

    func bundle(_ namespace: String, _ id: String) -> String { "\(state)/\(namespace)/\(id)" }
    func socket(_ namespace: String, _ id: String, _ incarnation: UInt32) -> String {
        "\(state)/s/\(Names.socketName(namespace: namespace, id: id, incarnation: incarnation))"
    }
    func runtimeRoot(_ namespace: String) -> String { "\(state)/runtime/\(namespace)" }
    func containerDirectory(_ namespace: String, _ id: String) -> String { "\(root)/containers/\(namespace)/\(id)" }
    func incarnationDirectory(_ namespace: String, _ id: String, _ incarnation: UInt32) -> String {
        "\(root)/containers/\(namespace)/\(id)/\(incarnation)"
    }
    func cgroupPath(_ namespace: String, _ id: String) -> String { "/\(cgroupParent)/\(namespace)/\(id)" }
    func guardsCgroupPath(_ id: String) -> String { "/\(cgroupParent)/shims/\(id)" }
}

/// The release of this manager.
public enum Version {
    public static let text = Release.version
    public static let api = "ctr.v1"
}
