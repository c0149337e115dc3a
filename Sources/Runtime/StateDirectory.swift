import CLinux
import Glibc
import Linux
import OCI

/// ROOT/ID, held open: state.json, and the gate at which a created container waits.
///
/// mkdir claims the id, so of two creators one wins. The directory is the last thing of a container that is removed.
struct StateDirectory: ~Copyable {
    let id: String
    private let root: Descriptor
    private let directory: Descriptor

    private static let stateFile = "state.json"
    private static let gateFile = "start.fifo"

    /// Makes ROOT (0700) and what is missing above it.
    static func openRoot(_ path: String) throws(RuntimeError) -> Descriptor {
        do throws(SysError) { return try Linux.open(path, O_RDONLY | O_DIRECTORY) } catch {
            guard error.code == ENOENT else { throw RuntimeError(error) }
        }
        var prefix = path.hasPrefix("/") ? "" : "."
        for component in path.split(separator: "/") {
            prefix += "/\(component)"
            // An existing directory keeps its mode.
            if mkdir(prefix, 0o700) < 0 && errno != EEXIST { throw RuntimeError(SysError("create directory", prefix, code: errno)) }
        }
        return try attempt { () throws(SysError) in try Linux.open(path, O_RDONLY | O_DIRECTORY) }
    }

    /// Claims `id`.
    static func create(root path: String, id: String) throws(RuntimeError) -> StateDirectory {
        let root = try openRoot(path)
        if mkdirat(root.raw, id, 0o700) < 0 {
            if errno == EEXIST { throw RuntimeError.containerExists }
            throw RuntimeError(SysError("create directory", "\(path)/\(id)", code: errno))
        }
        do throws(SysError) {
            let directory = try Linux.open(id, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, at: root.raw)
            return StateDirectory(id: id, root: root, directory: directory)
        } catch { throw RuntimeError(error) }
    }

    /// An existing container's.
    static func open(root path: String, id: String) throws(RuntimeError) -> StateDirectory {
        do throws(SysError) {
            let root = try Linux.open(path, O_RDONLY | O_DIRECTORY)
            let directory = try Linux.open(id, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, at: root.raw)
            return StateDirectory(id: id, root: root, directory: directory)
        } catch {
            if error.code == ENOENT { throw RuntimeError.noContainer }
            throw RuntimeError(error)
        }
    }

    private init(id: String, root: consuming Descriptor, directory: consuming Descriptor) {
        self.id = id
        self.root = root
        self.directory = directory
    }

    // MARK: state

    /// nil when the creator died before it wrote one: then nothing else was made.
    func read() throws(RuntimeError) -> ContainerState? {
        let bytes: [UInt8]
        do throws(SysError) { bytes = try readFile(Self.stateFile, limit: ContainerState.sizeLimit, at: directory.raw) } catch {
            if error.code == ENOENT { return nil }
            throw RuntimeError(error)
        }
        let state = try ContainerState(parsing: bytes)
        guard state.id == id else { throw RuntimeError("state.json is that of container \"\(state.id)\"") }
        return state
    }

    /// Replaces the file as a whole.
    func write(_ state: ContainerState) throws(RuntimeError) {
        try attempt { () throws(SysError) in
            let file = try Linux.open("state.tmp", O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, mode: 0o600, at: directory.raw)
            try writeAll(file.raw, state.encoded(), name: Self.stateFile)
            try checkErrno("rename", Self.stateFile, renameat(directory.raw, "state.tmp", directory.raw, Self.stateFile))
        }
    }

    // MARK: what further processes need

    private static let configurationFile = "config.json"
    private static let seccompFile = "seccomp"

    /// Written once by the creator, replaced as a whole by `update`.
    func write(_ configuration: SavedConfiguration) throws(RuntimeError) {
        try attempt { () throws(SysError) in
            let file = try Linux.open("config.tmp", O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, mode: 0o600, at: directory.raw)
            try writeAll(file.raw, configuration.encoded(), name: Self.configurationFile)
            try checkErrno(
                "rename", Self.configurationFile, renameat(directory.raw, "config.tmp", directory.raw, Self.configurationFile))
        }
    }

    func readConfiguration() throws(RuntimeError) -> SavedConfiguration {
        let bytes: [UInt8]
        do throws(SysError) { bytes = try readFile(Self.configurationFile, limit: RuntimeSpec.sizeLimit, at: directory.raw) } catch {
            if error.code == ENOENT {
                throw RuntimeError("the container was made by an older release, which kept nothing for this: stop and start the container")
            }
            throw RuntimeError(error)
        }
        return try SavedConfiguration(parsing: bytes)
    }

    /// Keeps the compiled filter for further processes: the cache's own file under a second name, or a copy where there is none.
    func keep(_ entry: SeccompCache.Entry) throws(RuntimeError) {
        if linkat(root.raw, entry.file, directory.raw, Self.seccompFile, 0) == 0 { return }
        try attempt { () throws(SysError) in
            let file = try Linux.open(Self.seccompFile, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, mode: 0o600, at: directory.raw)
            try writeAll(file.raw, SeccompCache.encoded(entry.program, text: []), name: Self.seccompFile)
        }
    }

    /// The filter that the first process has. One that is lost is an error: nothing runs without it.
    func readSeccomp() throws(RuntimeError) -> SeccompProgram {
        guard let program = SeccompCache.read(Self.seccompFile, at: directory.raw, text: nil) else {
            throw RuntimeError("the container's saved seccomp program is missing or damaged: delete the container and create it again")
        }
        return program
    }

    /// Removes the directory; repeatable.
    func remove() throws(RuntimeError) {
        try attempt { () throws(SysError) in try RootFS.removeTree(root.raw, id, depth: 2) }
    }

    // MARK: gate

    /// Makes the FIFO at which the container's first process waits. Opened for reading and writing: the holder's read never sees an end
    /// of file, whoever opens and closes the other side, and no opener waits.
    func makeGate() throws(RuntimeError) -> Descriptor {
        try attempt { () throws(SysError) in
            try checkErrno("make", Self.gateFile, mkfifoat(directory.raw, Self.gateFile, 0o600))
            return try Linux.open(Self.gateFile, O_RDWR, at: directory.raw)
        }
    }

    /// The side that opens the gate; nil when nobody waits there.
    func openGate() throws(RuntimeError) -> Descriptor? {
        do throws(SysError) { return try Linux.open(Self.gateFile, O_WRONLY | O_NONBLOCK | O_NOFOLLOW, at: directory.raw) } catch {
            if error.code == ENXIO || error.code == ENOENT { return nil }
            throw RuntimeError(error)
        }
    }

    // MARK: status

    /// The truth about a container, asked from the kernel.
    func status(_ state: ContainerState) throws(RuntimeError) -> ContainerStatus {
        guard try attempt({ () throws(SysError) in try bootID() }) == state.bootID else { return .stopped }
        guard let initial = state.initial else { return state.creator.exists ? .creating : .stopped }
        guard initial.isAlive else { return .stopped }
        if try attempt({ () throws(SysError) in try state.cgroup.isFrozen() }) { return .paused }
        return try openGate() == nil ? .running : .created
    }
}

extension ProcessIdentity {
    /// Whether exactly this process exists and has not ended; a zombie has.
    var isAlive: Bool {
        guard let stat = try? readFile("/proc/\(pid)/stat", limit: 4096), ProcessIdentity.startTime(inStat: stat) == startTime,
            let close = stat.lastIndex(of: UInt8(ascii: ")")), close + 2 < stat.count
        else { return false }
        return stat[close + 2] != UInt8(ascii: "Z") && stat[close + 2] != UInt8(ascii: "X")
    }
}
