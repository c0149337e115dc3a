import CLinux
import Glibc
import Linux

/// The control group of shim and keeper, `/<cgroup_parent>/shims/<id>`: never the container's, never that of the manager's unit, so that
/// stopping either leaves the guards alone.
struct GuardCgroup {
    /// Seen from the root of each hierarchy.
    let path: String
    private let hierarchies: CgroupHierarchies

    /// Beside the container's own group: `/parent/namespace/id` gives `/parent/shims/id`. nil when `containerPath` is no such path.
    init?(beside containerPath: String, id: String, hierarchies: CgroupHierarchies) {
        let parts = containerPath.split(separator: "/")
        guard containerPath.hasPrefix("/"), parts.count >= 3 else { return nil }
        path = "/" + parts.dropLast(2).joined(separator: "/") + "/shims/" + id
        self.hierarchies = hierarchies
        if (try? ContainerCgroup.validate(path)) == nil { return nil }
    }

    /// Makes the directories; returns one in version 2 for clone3(2) (nil without version 2) and the entrance file of `name=systemd`
    /// (-1 where that hierarchy is not mounted).
    func make() throws(SysError) -> (unified: Int32, systemd: Int32) {
        let systemd = hierarchies.v1.filter { $0.controllers == "name=systemd" }
        let group = try ContainerCgroup(path, in: CgroupHierarchies(v1: systemd, unified: hierarchies.unified))
        try group.create(CgroupLimits(), counted: false)
        let unified = try group.openUnified()?.release() ?? -1
        return (unified, try group.openEntrances().first ?? -1)
    }
}
