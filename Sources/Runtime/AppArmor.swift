import Glibc
import Linux

/// AppArmor's part in a process that is about to execute a program.
enum AppArmor {
    /// Has execve put the process under `profile`. `write` writes a text to a file of /proc/self, by a procfs that can be trusted.
    static func onExecute(_ profile: String, _ write: (String, String) throws(SysError) -> Void) throws(RuntimeError) {
        let file = "attr/apparmor/exec"
        do throws(SysError) { try write(file, "exec \(profile)") } catch {
            switch error.code {
            case ENOENT where access("/proc/self/\(file)", F_OK) == 0:
                throw RuntimeError("AppArmor profile \(profile) is not loaded: load it with apparmor_parser, or do not ask for it")
            // The file is there in a kernel built with AppArmor, and takes nothing when it is switched off.
            case ENOENT, EINVAL: throw RuntimeError("AppArmor profile \(profile): this host has no AppArmor, or it is switched off")
            default: throw RuntimeError(error).during("AppArmor profile \(profile)")
            }
        }
    }
}
