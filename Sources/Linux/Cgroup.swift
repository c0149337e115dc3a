import CLinux
import Glibc

/// The control groups of one container: the directory `path` in every version 1 hierarchy and in version 2.
///
/// Made with `create`, it is found again from its `path` alone, by any process and after any crash; every operation can be repeated. What
/// the hierarchies disagree about, version 2 decides when it is there, also on hybrid hosts: it knows emptiness by an event and kills at
/// once. The calls may block for the milliseconds that the kernel takes for its own locks, and for the stated bounds.
public struct ContainerCgroup: Sendable, Equatable {
    /// One directory in a version 1 hierarchy.
    public struct Directory: Sendable, Equatable {
        /// Comma separated, as in ``CgroupHierarchies/Hierarchy/controllers``.
        public let controllers: String
        /// Absolute path of the directory.
        public let path: String

        public init(controllers: String, path: String) {
            self.controllers = controllers
            self.path = path
        }

        func has(_ controller: Substring) -> Bool { controllers.split(separator: ",").contains(controller) }
    }

    /// In the order in which they are made.
    public let v1: [Directory]
    /// Absolute path of the version 2 directory.
    public let unified: String?

    /// `path` is absolute, seen from the root of each hierarchy: "/ctrd/default/c1". EINVAL for "/", "..", empty components, control
    /// characters or more than 1024 bytes.
    public init(_ path: String, in hierarchies: CgroupHierarchies) throws(SysError) {
        try Self.validate(path)
        self.init(
            v1: hierarchies.v1.map { Directory(controllers: $0.controllers, path: $0.mountPoint + path) },
            unified: hierarchies.unified.map { $0 + path })
    }

    /// From directories that were recorded.
    public init(v1: [Directory], unified: String?) {
        self.v1 = v1
        self.unified = unified
    }

    /// Throws EINVAL unless `path` can name a container's control group.
    public static func validate(_ path: String) throws(SysError) {
        let components = path.utf8.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false)
        let fine =
            path.utf8.first == UInt8(ascii: "/") && path.utf8.count <= 1024 && components.count > 1
            && components.dropFirst().allSatisfy { component in
                !component.isEmpty && component.count <= 255 && !component.elementsEqual(".".utf8) && !component.elementsEqual("..".utf8)
                    && component.allSatisfy { $0 >= 0x20 && $0 != 0x7f }
            }
        if !fine { throw SysError("use control group path", path, code: EINVAL) }
    }

    /// The version 1 directory that has `controller`; nil where the host has it in version 2 or not at all.
    public func directory(_ controller: String) -> String? {
        for directory in v1 where directory.has(controller[...]) { return directory.path }
        return nil
    }

    // MARK: making

    /// Makes every directory (and its parents), then writes the limits. What exists already is used as it is: a container cannot have been
    /// in it when the caller owns the name. ENOTSUP for a limit whose controller the host does not have. After an error call `remove`.
    /// With `counted` version 2 counts memory, processes, time and I/O where the host lets it, with or without limits, as version 1 does.
    public func create(_ limits: CgroupLimits, counted: Bool = true) throws(SysError) {
        for directory in v1 {
            try Self.makeDirectories(directory.path)
            if directory.has("cpuset") { try Self.fillCpuset(directory.path) }
        }
        if let unified { try Self.makeDirectories(unified) }
        if counted { turnOnCounting() }
        try write(limits)
    }

    /// Writes limits to directories that exist, without a look at what was there; ``update(_:)`` is for a container that runs.
    public func write(_ limits: CgroupLimits) throws(SysError) {
        var writer = CgroupWriter(remembering: false)
        try limits.writeV1(self, &writer)
        try limits.writeV2(self, &writer)
    }

    /// Makes `path` and what is missing above it.
    private static func makeDirectories(_ path: String) throws(SysError) {
        // Somebody else's removal of an empty parent may come between its making and its use.
        for _ in 0..<16 {
            if mkdir(path, 0o755) == 0 || errno == EEXIST { return }
            let slash = path.utf8.lastIndex(of: UInt8(ascii: "/")) ?? path.utf8.startIndex
            guard errno == ENOENT, slash > path.utf8.startIndex else { throw SysError("create control group", path, code: errno) }
            try makeDirectories(String(path[..<slash]))
        }
        throw SysError("create control group", path, code: ENOENT)
    }

    /// A new version 1 cpuset is empty, and nothing may enter it, unless its parent says that children are clones. A parent may be empty
    /// too, when its maker died. The processors are written last: where they are, all is.
    private static func fillCpuset(_ path: String) throws(SysError) {
        if try !readText(path + "/cpuset.cpus").isEmpty { return }
        guard let slash = path.utf8.lastIndex(of: UInt8(ascii: "/")), slash > path.utf8.startIndex else { return }
        let parent = String(path[..<slash])
        // The root of the hierarchy never is empty; above it there is no such file.
        try fillCpuset(parent)
        for file in ["cpuset.mems", "cpuset.cpus"] { try writeText("\(path)/\(file)", try readText("\(parent)/\(file)")) }
        try writeText(path + "/cgroup.clone_children", "1")
    }

    /// Descriptors to which a process with one thread writes "0" to enter the version 1 directories; each is close-on-exec and the
    /// caller's. For version 2 clone3 takes `openUnified`.
    public func openEntrances() throws(SysError) -> [Int32] {
        var entrances: [Int32] = []
        for directory in v1 {
            do throws(SysError) {
                // "tasks", not "cgroup.procs": for the calling thread alone the kernel skips the lock over all fork and exit.
                entrances.append(try Linux.open(directory.path + "/tasks", O_WRONLY).release())
            } catch {
                for entrance in entrances { close(entrance) }
                throw error
            }
        }
        return entrances
    }

    /// A descriptor of the version 2 directory for CLONE_INTO_CGROUP (clone3(2)); nil without version 2.
    public func openUnified() throws(SysError) -> Descriptor? {
        guard let unified else { return nil }
        return try Linux.open(unified, O_RDONLY | O_DIRECTORY)
    }

    /// Moves a whole process in, all hierarchies.
    public func attach(_ pid: Int32) throws(SysError) {
        for directory in v1 { try Self.writeText(directory.path + "/cgroup.procs", "\(pid)") }
        if let unified { try Self.writeText(unified + "/cgroup.procs", "\(pid)") }
    }

    // MARK: looking

    /// Whether any of the directories exists.
    public var exists: Bool {
        if let unified, access(unified, F_OK) == 0 { return true }
        return v1.contains { access($0.path, F_OK) == 0 }
    }

    /// The directory whose processes are the container's.
    var tracker: String? { unified ?? directory("freezer") ?? v1.first?.path }

    /// The pids of all processes in it and below, in this process's pid namespace, at most 65536; none when it is gone.
    public func processes() throws(SysError) -> [Int32] {
        guard let tracker else { return [] }
        var pids: [Int32] = []
        try Self.collect(tracker, into: &pids, depth: 0)
        return pids
    }

    private static func collect(_ path: String, into pids: inout [Int32], depth: Int) throws(SysError) {
        let text: [UInt8]
        do throws(SysError) { text = try readFile(path + "/cgroup.procs", limit: 1 << 20) } catch {
            if error.code == ENOENT || error.code == ENODEV { return }
            throw error
        }
        for line in text.split(separator: 0x0a) {
            if let pid = Int32(String(decoding: line, as: UTF8.self)), pid > 0 { pids.append(pid) }
        }
        if pids.count > 65536 || depth > 32 { throw SysError("list processes of", path, code: E2BIG) }
        for child in childDirectories(path) { try collect("\(path)/\(child)", into: &pids, depth: depth + 1) }
    }

    static func childDirectories(_ path: String) -> [String] {
        guard let stream = opendir(path) else { return [] }
        defer { closedir(stream) }
        var names: [String] = []
        while let entry = readdir(stream) {
            guard entry.pointee.d_type == UInt8(DT_DIR) else { continue }
            let name = withUnsafePointer(to: &entry.pointee.d_name) { tuple in
                tuple.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if name != "." && name != ".." { names.append(name) }
        }
        return names
    }

    /// Whether a process lives in it or below; false when it is gone.
    public func isPopulated() throws(SysError) -> Bool {
        guard let unified else { return try !processes().isEmpty }
        do throws(SysError) {
            return try Self.value("populated", in: try Self.readText(unified + "/cgroup.events")) == 1
        } catch {
            if error.code == ENOENT || error.code == ENODEV { return false }
            throw error
        }
    }

    /// Descriptor of cgroup.events: poll(2) reports POLLPRI on it when `isPopulated` or `isFrozen` changed (read it again from offset 0
    /// after each). nil without version 2.
    public func openEvents() throws(SysError) -> Descriptor? {
        guard let unified else { return nil }
        return try Linux.open(unified + "/cgroup.events", O_RDONLY)
    }

    /// How many processes the kernel killed here because memory ran out; nil when the host does not count.
    public func oomKills() throws(SysError) -> UInt64? {
        if let memory = directory("memory") { return try Self.value("oom_kill", in: try Self.readText(memory + "/memory.oom_control")) }
        guard let unified else { return nil }
        guard let text = try Self.readOptional(unified + "/memory.events") else { return nil }
        return try Self.value("oom_kill", in: text)
    }

    /// Nanoseconds of CPU time used so far; nil when the host does not count.
    public func cpuUsage() throws(SysError) -> UInt64? {
        if let cpuacct = directory("cpuacct") { return UInt64(try Self.readText(cpuacct + "/cpuacct.usage")) }
        guard let unified, let text = try Self.readOptional(unified + "/cpu.stat") else { return nil }
        return try Self.value("usage_usec", in: text).map { $0 &* 1000 }
    }

    /// Most bytes of memory ever used; nil when the host does not count (version 2 before Linux 5.19).
    public func memoryPeak() throws(SysError) -> UInt64? {
        if let memory = directory("memory") { return UInt64(try Self.readText(memory + "/memory.max_usage_in_bytes")) }
        guard let unified else { return nil }
        return try Self.readOptional(unified + "/memory.peak").flatMap { UInt64($0) }
    }

    // MARK: small files

    /// The text of a kernel file without its last newline, at most 64 KiB.
    static func readText(_ path: String) throws(SysError) -> String {
        var bytes = try readFile(path, limit: 64 << 10)
        while bytes.last == 0x0a { bytes.removeLast() }
        return String(decoding: bytes, as: UTF8.self)
    }

    static func readOptional(_ path: String) throws(SysError) -> String? {
        do throws(SysError) { return try readText(path) } catch {
            if error.code == ENOENT { return nil }
            throw error
        }
    }

    static func writeText(_ path: String, _ text: String) throws(SysError) {
        let file = try Linux.open(path, O_WRONLY)
        try writeAll(file.raw, Array(text.utf8), name: "\"\(text)\" to \(path)")
    }

    /// The number after `key` in lines of "key number"; nil when there is none.
    static func value(_ key: String, in text: String) throws(SysError) -> UInt64? {
        for line in text.split(separator: "\n") {
            let words = line.split(separator: " ")
            if words.count == 2, words[0] == key[...] { return UInt64(words[1]) }
        }
        return nil
    }
}
