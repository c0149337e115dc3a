import CLinux
import Glibc
import Linux
import Records

/// What lies on the disk of one incarnation: read after a crash, removed after an end. Every call may block; every removal may be repeated.
struct Leftovers: Sendable {
    let configuration: Configuration
    let namespace: String
    let id: String
    let incarnation: UInt32

    struct Found: Sendable {
        var exit: ExitRecord?
        var process: ProcessIdentity?
        /// Start was begun: the process is, or was, the container's own.
        var started = false
        var keeper: ProcessIdentity?
        /// In wait(2)'s encoding.
        var reapedByKeeper: Int32?
    }

    /// Reads the records. One that is damaged counts as absent: what it would have said is proved otherwise, or unknown.
    func look() throws(SysError) -> Found {
        var found = Found()
        if let directory = try existing(configuration.incarnationDirectory(namespace, id, incarnation)) {
            found.exit = (try? ExitRecord.read(in: directory.raw)) ?? nil
        }
        guard let bundle = try existing(configuration.bundle(namespace, id)) else { return found }
        try waitForHelper(bundle.raw)
        let boot = try bootID()
        if let guards = (try? GuardsRecord.read(in: bundle.raw)) ?? nil, guards.bootID == boot { found.keeper = guards.keeper }
        guard let pid = (try? PidRecord.read(in: bundle.raw)) ?? nil, pid.bootID == boot else { return found }
        found.started = pid.started != nil
        if pid.process.exists {
            found.process = pid.process
        } else if let exits = try? Linux.open(KeeperExit.fileName, O_RDONLY, at: bundle.raw) {
            found.reapedByKeeper = ((try? ExitsFile.find(pid.process, in: exits.raw)) ?? nil)?.waitStatus
        }
        return found
    }

    /// A helper that a dead manager started may still be making guards; it holds this lock until it has ended.
    private func waitForHelper(_ bundle: Int32) throws(SysError) {
        guard let file = try existing(LaunchPlan.helperLock, flags: O_RDWR, at: bundle) else { return }
        try check("wait for", "ctr-shim start", ctr_ofd_lock(file.raw, true))
    }

    private func existing(
        _ path: String, flags: Int32 = O_RDONLY | O_DIRECTORY, at directory: Int32 = AT_FDCWD
    ) throws(SysError) -> Descriptor? {
        do throws(SysError) { return try Linux.open(path, flags, at: directory) } catch {
            if error.code == ENOENT { return nil }
            throw error
        }
    }

    // MARK: removal

    /// Removes the guards' cgroup with whoever is in it.
    func removeGuards(_ hierarchies: CgroupHierarchies) throws(SysError) {
        try Self.guardsCgroup(configuration.guardsCgroupPath(id), hierarchies).remove()
        unlink(configuration.socket(namespace, id, incarnation))
    }

    /// The guards are only tracked, never limited: version 2, and the named hierarchy of a version 1 host.
    private static func guardsCgroup(_ path: String, _ hierarchies: CgroupHierarchies) throws(SysError) -> ContainerCgroup {
        let named = CgroupHierarchies(v1: hierarchies.v1.filter { $0.controllers.hasPrefix("name=") }, unified: hierarchies.unified)
        return try ContainerCgroup(path, in: named)
    }

    /// Kills whoever is left in the guards' cgroup.
    func killGuards(_ hierarchies: CgroupHierarchies) throws(SysError) {
        try Self.guardsCgroup(configuration.guardsCgroupPath(id), hierarchies).kill()
    }

    /// Removes what a runtime leaves: the container's cgroup with whoever is in it, the runtime's state, the bundle.
    func removeRuntimeState(_ hierarchies: CgroupHierarchies) throws(SysError) {
        // First, while its files are there: a mount must not be taken for a directory of ours.
        try ForeignStart(configuration: configuration, namespace: namespace, id: id).cleanUp()
        try ContainerCgroup(configuration.cgroupPath(namespace, id), in: hierarchies).remove()
        try Self.removeTree(configuration.runtimeRoot(namespace), id)
        try Self.removeTree(configuration.state + "/" + namespace, id)
    }

    /// Removes the container's directory in ROOT: records and logs of all incarnations.
    func removeRecords() throws(SysError) {
        try Self.removeTree(configuration.root + "/containers/" + namespace, id)
    }

    static func removeTree(_ parent: String, _ name: String) throws(SysError) {
        let directory: Descriptor
        do throws(SysError) { directory = try Linux.open(parent, O_RDONLY | O_DIRECTORY) } catch {
            if error.code == ENOENT { return }
            throw error
        }
        do throws(SysError) { try RootFS.removeTree(directory.raw, name) } catch {
            if error.code != ENOENT { throw error }
        }
    }
}
