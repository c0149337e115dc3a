import CLinux
import Glibc
import Linux
import OCI

/// Makes a container's view of the file system, inside its new mount namespace: the root, what is mounted on it, devices, masks.
/// Runs in the container's first process, before it gives up anything.
struct RootAssembly: ~Copyable {
    private let plan: ContainerPlan
    private let rootfs: RootFS
    /// A procfs that this process mounted itself: the only one that is written to.
    private let proc: Descriptor

    /// Takes this mount namespace away from the host, puts the root file system into it, and mounts all that the document lists.
    static func make(_ plan: ContainerPlan) throws(RuntimeError) -> RootAssembly {
        var (propagation, recursive) = plan.rootPropagation ?? (.slave, true)
        // What nobody may bind cannot be bound by us either: that comes at the end, and until then nothing travels.
        if propagation == .unbindable { propagation = .private }
        try attempt { () throws(SysError) in try Mounts.setPropagationOfAll(propagation, recursive: recursive) }
        // pivot_root wants the mount above the new root to be no peer of any other.
        if propagation == .shared { try attempt { () throws(SysError) in try Mounts.setPropagationOfAll(.private, recursive: false) } }
        let rootfs = RootFS(try openRoot(plan.root))
        try attempt("root file system") { () throws(SysError) in try Mounts.attachOverRoot(rootfs.root) }
        var proc: Descriptor?
        for (entry, options) in plan.mounts {
            do throws(RuntimeError) { try mount(entry, options, plan, rootfs, &proc) } catch {
                throw error.during("mount \(entry.type) at \(entry.destination)")
            }
        }
        if let mounted = proc.take() { return RootAssembly(plan: plan, rootfs: rootfs, proc: mounted) }
        let own = try attempt { () throws(SysError) in
            try Mounts.filesystem("proc", source: "proc", attributes: [.noSUID, .noDevices, .noExecution])
        }
        return RootAssembly(plan: plan, rootfs: rootfs, proc: own)
    }

    private static func openRoot(_ root: ContainerPlan.Root) throws(RuntimeError) -> Descriptor {
        switch root {
        case .descriptor(let number):
            let mount = Descriptor(owning: number)
            // A copy of one of the host's mounts may be its peer: what we mount on it would appear on the host.
            try attempt { () throws(SysError) in
                try Mounts.change(mount, name: "descriptor \(number)", propagation: .private, recursive: true)
            }
            return mount
        case .path(let path):
            return try attempt { () throws(SysError) in
                let copy = try Mounts.bind(path, recursive: true)
                // A copy of a shared mount is its peer: what we mount on it would appear on the host.
                try Mounts.change(copy, name: path, propagation: .private)
                return copy
            }
        }
    }

    private static func mount(
        _ entry: RuntimeSpec.Mount, _ options: MountOptions, _ plan: ContainerPlan, _ rootfs: borrowing RootFS, _ proc: inout Descriptor?
    ) throws(RuntimeError) {
        if options.bind { return try bind(entry, options, rootfs) }
        if entry.type == "cgroup" || entry.type == "cgroup2" {
            return try CgroupMount.mount(entry, options, plan.cgroup.group, rootfs)
        }
        let mount = try attempt { () throws(SysError) in
            try Mounts.filesystem(
                entry.type, source: entry.source, options: filesystemOptions(entry.type, options.data), attributes: options.set)
        }
        let place = try MountPlace.open(entry, isDirectory: true, in: rootfs)
        try attempt { () throws(SysError) in
            try Mounts.attach(mount, to: place, name: entry.destination)
            for (propagation, recursive) in options.propagations {
                try Mounts.change(mount, name: entry.destination, propagation: propagation, recursive: recursive)
            }
        }
        if entry.type == "proc" && MountPlace.cleaned(entry.destination) == "/proc" { proc = consume mount }
    }

    /// The kernel's devpts always is a new instance and no longer knows the word.
    private static func filesystemOptions(_ type: String, _ data: [String]) -> [String] {
        type == "devpts" ? data.filter { $0 != "newinstance" } : data
    }

    private static func bind(_ entry: RuntimeSpec.Mount, _ options: MountOptions, _ rootfs: borrowing RootFS) throws(RuntimeError) {
        let mount = try attempt { () throws(SysError) in try Mounts.bind(entry.source, recursive: options.recursiveBind) }
        var status = stat()
        try attempt { () throws(SysError) in try checkErrno("look at", entry.source, fstat(mount.raw, &status)) }
        if MountPlace.cleaned(entry.destination) == "/proc" && ctr_filesystem_magic(mount.raw) != MountPlace.procMagic {
            throw RuntimeError("only procfs can be mounted at /proc")
        }
        try attempt { () throws(SysError) in
            try Mounts.change(mount, name: entry.destination, set: options.recursiveSet, clear: options.recursiveClear, recursive: true)
            try Mounts.change(mount, name: entry.destination, set: options.set, clear: options.clear)
            for (propagation, recursive) in options.propagations {
                try Mounts.change(mount, name: entry.destination, propagation: propagation, recursive: recursive)
            }
        }
        let place = try MountPlace.open(entry, isDirectory: ctr_s_isdir(status.st_mode), in: rootfs)
        try attempt { () throws(SysError) in try Mounts.attach(mount, to: place, name: entry.destination) }
    }

    // MARK: after the mounts

    /// In the container's devpts; the master goes over `socket`.
    func makeTerminal(_ process: RuntimeSpec.Process, socket: Int32) throws(RuntimeError) -> Terminal {
        try Terminal(process, socket: socket, rootfs: rootfs)
    }

    /// Device nodes and links below /dev, the terminal, kernel parameters; then what must be hidden or must not be written.
    func finish(terminal: borrowing Terminal) throws(RuntimeError) {
        if !isDevBound { try DeviceNodes.make(plan.spec.linux.devices, in: rootfs) }
        for setting in plan.spec.linux.sysctl { try attempt { () throws(SysError) in try Sysctl.write(setting, proc: proc) } }
        try PathMasks.apply(readOnly: plan.spec.linux.readonlyPaths, masked: plan.spec.linux.maskedPaths, in: rootfs)
        // Last: a console must not lie below a mask.
        try terminal.mountConsole(in: rootfs)
        if plan.rootReadOnly {
            try attempt { () throws(SysError) in try Mounts.change(rootfs.root, name: "root file system", set: .readOnly) }
        }
    }

    /// The host's /dev has all nodes, and ours must not land there.
    private var isDevBound: Bool {
        plan.mounts.last { MountPlace.cleaned($0.entry.destination) == "/dev" }?.options.bind ?? false
    }

    /// Makes the assembled tree the root of this process and lets go of the host's.
    func enter() throws(RuntimeError) {
        try attempt("enter the root file system") { () throws(SysError) in
            try checkErrno("change directory to", "root file system", fchdir(rootfs.root.raw))
            if plan.options.noPivot {
                try checkErrno("chroot to", ".", chroot("."))
            } else {
                let host = try Linux.open("/", CTR_O_PATH | O_DIRECTORY)
                try check("pivot_root to", ".", ctr_pivot_root(".", "."))
                // The old root now lies over the new one. The host must not see its end: whatever below it still has peers there would take
                // theirs along.
                if plan.rootPropagation != nil { try Mounts.change(host, name: "old root", propagation: .slave, recursive: true) }
                try Mounts.detachCurrentDirectory()
            }
            try checkErrno("change directory to", "/", chdir("/"))
            if let (propagation, recursive) = plan.rootPropagation {
                try Mounts.setPropagationOfAll(propagation, recursive: recursive)
            }
        }
    }

    /// Writes to a file of /proc/self through the runtime's own procfs.
    func writeSelf(_ name: String, _ text: String) throws(SysError) {
        let resolve = UInt64(RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS)
        let file = Descriptor(
            owning: try check("open", "/proc/self/\(name)", ctr_openat2(proc.raw, "self/\(name)", UInt64(O_WRONLY | O_CLOEXEC), 0, resolve))
        )
        try writeAll(file.raw, Array(text.utf8), name: "/proc/self/\(name)")
    }
}
