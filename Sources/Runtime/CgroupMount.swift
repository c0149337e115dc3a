import CLinux
import Glibc
import Linux
import OCI

/// What a container sees at /sys/fs/cgroup: its own control groups and nothing above them.
enum CgroupMount {
    static func mount(
        _ entry: RuntimeSpec.Mount, _ options: MountOptions, _ group: ContainerCgroup, _ rootfs: borrowing RootFS
    ) throws(RuntimeError) {
        let place = try MountPlace.open(entry, isDirectory: true, in: rootfs)
        if group.v1.isEmpty || entry.type == "cgroup2" {
            guard let unified = group.unified else { throw RuntimeError("this host has no version 2 control groups") }
            let mount = try attempt { () throws(SysError) in try own(unified, options) }
            try attempt { () throws(SysError) in try Mounts.attach(mount, to: place, name: entry.destination) }
            return
        }
        try attempt { () throws(SysError) in
            let flags = options.set.subtracting(.readOnly)
            let tree = try Mounts.filesystem("tmpfs", source: "tmpfs", options: ["mode=755"], attributes: flags)
            try Mounts.attach(tree, to: place, name: entry.destination)
            for directory in group.v1 { try mountV1(directory, options, tree) }
            if let unified = group.unified {
                try checkErrno("create directory", "unified", mkdirat(tree.raw, "unified", 0o755))
                try Mounts.attach(try own(unified, options), to: "unified", in: tree)
            }
            if options.set.contains(.readOnly) { try Mounts.change(tree, name: entry.destination, set: .readOnly) }
        }
    }

    /// The hierarchy under the name of its controllers, and each of several controllers as a link, as hosts have them.
    private static func mountV1(_ directory: ContainerCgroup.Directory, _ options: MountOptions, _ tree: borrowing Descriptor)
        throws(SysError)
    {
        let name = directory.controllers.hasPrefix("name=") ? String(directory.controllers.dropFirst(5)) : directory.controllers
        guard !name.isEmpty, !name.utf8.contains(UInt8(ascii: "/")), name != ".", name != ".." else { return }
        try checkErrno("create directory", name, mkdirat(tree.raw, name, 0o755))
        try Mounts.attach(try own(directory.path, options), to: name, in: tree)
        let controllers = directory.controllers.split(separator: ",")
        if controllers.count > 1 {
            for controller in controllers {
                try checkErrno("create link", String(controller), symlinkat(name, tree.raw, String(controller)))
            }
        }
    }

    /// A copy of the host's mount that shows the container's directory alone; its flags, of which none is ever taken away.
    private static func own(_ path: String, _ options: MountOptions) throws(SysError) -> Descriptor {
        let mount = try Mounts.bind(path, recursive: false)
        try Mounts.change(mount, name: path, set: options.set.subtracting(.accessTimeMask), propagation: .private)
        return mount
    }
}
