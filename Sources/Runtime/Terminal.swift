import CLinux
import Glibc
import Linux
import OCI

/// The pseudo terminal of a container that asked for one, made in the container's own devpts.
struct Terminal: ~Copyable {
    /// -1 without a terminal.
    private let slave: Int32

    /// Makes the pair, sends the master with its name over `socket` (as runc does: one message, SCM_RIGHTS), keeps the slave. Without a
    /// terminal in the document this does nothing.
    init(_ process: RuntimeSpec.Process, socket: Int32, rootfs devpts: borrowing RootFS) throws(RuntimeError) {
        guard process.terminal else {
            slave = -1
            return
        }
        slave = try attempt("make terminal") { () throws(SysError) in
            let master = try devpts.open("/dev/pts/ptmx", O_RDWR | O_NOCTTY)
            // A container that runs may have put something else there.
            var status = stat()
            try checkErrno("look at", "/dev/pts/ptmx", fstat(master.raw, &status))
            guard ctr_filesystem_magic(master.raw) == 0x1cd1, status.st_rdev == ctr_makedev(5, 2) else {
                throw SysError("open terminal: it is none of devpts:", "/dev/pts/ptmx", code: ENOTTY)
            }
            let slave = Descriptor(owning: try check("open terminal of", "/dev/pts/ptmx", ctr_pty_slave(master.raw)))
            if let size = process.consoleSize { try check("resize", "terminal", ctr_pty_resize(slave.raw, size.width, size.height)) }
            let name = Array("/dev/pts/ptmx".utf8)
            try check(
                "send terminal to", "console socket", name.withUnsafeBytes { ctr_send_fd(socket, $0.baseAddress, $0.count, master.raw, 0) })
            return slave.release()
        }
    }

    deinit { if slave >= 0 { close(slave) } }

    /// Binds the slave itself, not a name of it, to /dev/console.
    func mountConsole(in rootfs: borrowing RootFS) throws(RuntimeError) {
        let number = slave
        guard number >= 0 else { return }
        try attempt("make console") { () throws(SysError) in
            let place = try rootfs.makeFile("/dev/console")
            let copy = Descriptor(owning: try check("bind", "terminal", ctr_open_tree(number, "", 1 | UInt32(O_CLOEXEC) | 0x1000)))
            try Mounts.attach(copy, to: place, name: "/dev/console")
        }
    }

    /// Makes it the controlling terminal of its session and the standard streams.
    func takeOver(owner: UInt32) throws(RuntimeError) {
        let number = slave
        guard number >= 0 else { return }
        try attempt("use terminal") { () throws(SysError) in
            try check("control", "terminal", ctr_controlling_terminal(number))
            try checkErrno("set owner of", "terminal", fchown(number, owner, gid_t.max))
            for stream in Int32(0)...2 { try checkErrno("use terminal as", "\(stream)", dup2(number, stream)) }
        }
    }
}
