import CLinux
import Glibc
import Linux

/// `ctr-shim into CGROUP PROGRAM ARGUMENT…`: runs a program in a control group of guards (version 2, and the named hierarchy of a version 1
/// host), so that what it leaves running, a shim of others, is in that group and not in the manager's. Ends with the program's status.
enum Into {
    static func run(_ words: [String]) throws(ShimError) -> Int32 {
        guard words.count >= 2, words[1].hasPrefix("/") else {
            throw ShimError("read arguments", "into", "a control group and a program are wanted")
        }
        return try shimErrors { () throws(SysError) in
            let all = try CgroupHierarchies()
            let named = CgroupHierarchies(v1: all.v1.filter { $0.controllers == "name=systemd" }, unified: all.unified)
            let group = try ContainerCgroup(words[0], in: named)
            try group.create(CgroupLimits())
            try group.attach(getpid())
            var arguments: [UnsafeMutablePointer<CChar>?] = words.dropFirst().map { strdup($0) }
            arguments.append(nil)
            defer { for text in arguments { free(text) } }
            // Nothing but the standard streams: a lock that the caller gave is held by this process alone.
            let streams: [Int32] = [0, 1, 2]
            let child = ctr_spawn_with(words[1], &arguments, ctr_environ(), nil, streams, 3, UInt32(CTR_SPAWN_DIE_WITH_PARENT))
            try check("run", words[1], child)
            var status: Int32 = 0
            try check("wait for", words[1], ctr_waitid(CTR_P_PID, child, &status, 0))
            return Int32(exitCode(waitStatus: status))
        }
    }
}
