import CLinux
import Glibc
import Linux

/// Keeps containers from overwriting this program (the class of CVE-2019-5736).
///
/// A container whose entry point leads to /proc/self/exe makes the kernel run this very file inside, where it can be opened for writing
/// once it no longer runs. So the program that enters a container is always one that was executed from a read-only mount: a detached copy
/// of the mount of its own file, which nobody can reach to change.
enum SelfProtection {
    /// Returns when this process runs from a read-only mount; else executes itself again from one. A caller that executes the program from
    /// such a mount saves the repetition.
    static func ensure(_ arguments: [String]) throws(RuntimeError) {
        try attempt("protect the runtime's own program") { () throws(SysError) in
            let file = try Linux.open("/proc/self/exe", CTR_O_PATH)
            let flags = try check("look at", "/proc/self/exe", ctr_mount_flags(file.raw))
            if flags & 1 /* ST_RDONLY */ != 0 { return }
            let copy = try Mounts.bind(file, name: "/proc/self/exe", recursive: false)
            try Mounts.change(copy, name: "/proc/self/exe", set: .readOnly)
            let result = withCStrings(arguments) { ctr_execveat(copy.raw, "", $0, environ, 0x1000 /* AT_EMPTY_PATH */) }
            try check("execute", "/proc/self/exe", result)
        }
    }
}
