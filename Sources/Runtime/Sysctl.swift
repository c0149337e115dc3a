import CLinux
import Glibc
import Linux
import OCI

/// Kernel parameters of a container: only those that belong to one of its namespaces.
enum Sysctl {
    private static let ipcKeys: Set<String> = [
        "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax", "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ]

    /// A key is either in dots, or, when it holds a slash first, a path as sysctl(8) reads it. The value goes to the kernel as it is, in
    /// one write.
    static func check(_ setting: RuntimeSpec.KeyValue, ipc: Bool, network: Bool, uts: Bool) throws(RuntimeError) {
        let key = dotted(setting.key)
        let refused = RuntimeError("config.json: linux.sysctl: \"\(setting.key.prefix(128))\"")
        let components = key.split(separator: ".", omittingEmptySubsequences: false)
        let safe = setting.key.utf8.allSatisfy { byte in
            byte >= 0x30 && byte <= 0x39 || byte | 0x20 >= 0x61 && byte | 0x20 <= 0x7a || "._-/:@".utf8.contains(byte)
        }
        guard safe, components.count > 1, components.allSatisfy({ !$0.isEmpty }), !setting.key.contains("..") else {
            throw RuntimeError("\(refused.message) is no name of a parameter")
        }
        guard setting.value.utf8.count <= 4096, setting.value.utf8.allSatisfy({ $0 >= 0x20 || $0 == 0x09 }) else {
            throw RuntimeError("\(refused.message) has a value with control characters")
        }
        if ipcKeys.contains(key) || key.hasPrefix("fs.mqueue.") {
            if !ipc { throw RuntimeError("\(refused.message) needs an ipc namespace: it would change the host") }
        } else if key.hasPrefix("net.") {
            if !network { throw RuntimeError("\(refused.message) needs a network namespace: it would change the host") }
        } else if key == "kernel.domainname" {
            if !uts { throw RuntimeError("\(refused.message) needs a uts namespace: it would change the host") }
        } else {
            throw RuntimeError("\(refused.message) is not separate for a container: it would change the host")
        }
    }

    /// "net/ipv4/conf/eth0.1/x" and "net.ipv4.conf.eth0/1.x" both name a component with a dot.
    private static func dotted(_ key: String) -> String {
        guard let first = key.utf8.first(where: { $0 == UInt8(ascii: "/") || $0 == UInt8(ascii: ".") }), first == UInt8(ascii: "/") else {
            return key
        }
        return swapped(key)
    }

    private static func swapped(_ key: String) -> String {
        String(
            decoding: key.utf8.map { $0 == UInt8(ascii: "/") ? UInt8(ascii: ".") : $0 == UInt8(ascii: ".") ? UInt8(ascii: "/") : $0 },
            as: UTF8.self)
    }

    /// Writes below `proc`, a procfs that the runtime itself mounted; nothing on the way may be a link or another mount.
    static func write(_ setting: RuntimeSpec.KeyValue, proc: borrowing Descriptor) throws(SysError) {
        let path = "sys/" + swapped(dotted(setting.key))
        let resolve = UInt64(RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV)
        let file = Descriptor(
            owning: try Linux.check("open sysctl", setting.key, ctr_openat2(proc.raw, path, UInt64(O_WRONLY | O_CLOEXEC), 0, resolve)))
        try writeAll(file.raw, Array(setting.value.utf8), name: "\"\(setting.value)\" to sysctl \(setting.key)")
    }
}
