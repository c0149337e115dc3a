import CLinux
import Glibc
import Linux

/// The control group of shim and keeper, `/<cgroup_parent>/shims/<id>`: never the container's, never that of the manager's unit, so that
/// stopping either leaves the guards alone.
struct GuardCgroup {
    private let group: ContainerCgroup
    /// It is somebody else's, and the guards are only guests there.
    private let exists: Bool

    /// The one that runtime options name, in whichever hierarchies it exists; ENOENT where it is in none.
    init(existing path: String) throws(SysError) {
        try ContainerCgroup.validate(path)
        let all = try CgroupHierarchies()
        let hierarchies = CgroupHierarchies(
            v1: all.v1.filter { access($0.mountPoint + path, F_OK) == 0 },
            unified: all.unified.flatMap { access($0 + path, F_OK) == 0 ? $0 : nil })
        if hierarchies.v1.isEmpty && hierarchies.unified == nil { throw SysError("use control group for the shim", path, code: ENOENT) }
        group = try ContainerCgroup(path, in: hierarchies)
        exists = true
    }

    /// Beside the container's own group: `/parent/namespace/id` gives `/parent/shims/id`. nil when `containerPath` is no such path.
    init?(beside containerPath: String, id: String, hierarchies: CgroupHierarchies) {
        let parts = containerPath.split(separator: "/")
        guard containerPath.hasPrefix("/"), parts.count >= 3 else { return nil }
        let systemd = hierarchies.v1.filter { $0.controllers == "name=systemd" }
        let named = CgroupHierarchies(v1: systemd, unified: hierarchies.unified)
        guard let group = try? ContainerCgroup("/" + parts.dropLast(2).joined(separator: "/") + "/shims/" + id, in: named) else {
            return nil
        }
        self.group = group
        exists = false
    }

    /// In directories that somebody knows; empty where the host has no such hierarchy.
    init(unified: String, systemd: String) {
        group = ContainerCgroup(
            v1: systemd.isEmpty ? [] : [ContainerCgroup.Directory(controllers: "name=systemd", path: systemd)],
            unified: unified.isEmpty ? nil : unified)
        exists = false
    }

    /// Makes the directories where they are ours; returns one in version 2 for clone3(2) (-1 without version 2) and the entrance files of
    /// version 1: of `name=systemd` alone for a group of our own.
    func make() throws(SysError) -> (unified: Int32, entrances: [Int32]) {
        if !exists { try group.create(CgroupLimits(), counted: false) }
        return (try group.openUnified()?.release() ?? -1, try group.openEntrances())
    }
}
