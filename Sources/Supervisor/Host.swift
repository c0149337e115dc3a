import CtrProto
import Glibc
import Linux

/// What this host is and has; read once.
struct Host: Sendable {
    let kernel: String
    let architecture: String
    let bootID: String
    let cgroups: CgroupHierarchies
    /// "v1", "hybrid" or "v2".
    let cgroupVersion: String
    /// Controllers that can limit, sorted.
    let controllers: [String]
    /// Whether memory and swap can be limited together.
    let limitsSwap: Bool
    /// Every capability that the kernel knows, by name.
    let capabilities: [String]
    /// What is missing and what does not work without it.
    let warnings: [String]

    init() throws(SysError) {
        var name = utsname()
        uname(&name)
        kernel = Self.text(name.release)
        architecture = Self.text(name.machine)
        bootID = try Linux.bootID()
        do throws(SysError) { cgroups = try CgroupHierarchies() } catch { cgroups = CgroupHierarchies(v1: [], unified: nil) }
        var found = Set(cgroups.v1.flatMap { $0.controllers.split(separator: ",").filter { !$0.hasPrefix("name=") }.map(String.init) })
        let legacy = !found.isEmpty
        if let unified = cgroups.unified, let bytes = try? readFile(unified + "/cgroup.controllers", limit: 4096) {
            found.formUnion(String(decoding: bytes, as: UTF8.self).split(whereSeparator: \.isWhitespace).map(String.init))
        }
        controllers = found.sorted()
        cgroupVersion = legacy ? (cgroups.unified == nil ? "v1" : "hybrid") : "v2"
        let last = try? readFile("/proc/sys/kernel/cap_last_cap", limit: 16)
        let number = last.flatMap { Int(String(decoding: $0.prefix { $0 != 0x0a }, as: UTF8.self)) }
        // What every supported kernel has (Linux 5.9), where it does not say.
        capabilities = ProcessObject.allCapabilities(last: number ?? 40)
        var warnings: [String] = []
        if cgroups.v1.isEmpty && cgroups.unified == nil {
            warnings.append("no control groups are mounted: containers cannot be limited or tracked")
        }
        for (controller, effect) in [("memory", "--memory"), ("cpu", "--cpus"), ("pids", "--pids-limit")] where !found.contains(controller)
        {
            warnings.append("no \(controller) controller: \(effect) is refused")
        }
        if legacy && !found.contains("devices") { warnings.append("no devices controller: access to devices is not limited") }
        if legacy && !found.contains("freezer") && cgroups.unified == nil { warnings.append("no freezer controller: pause is refused") }
        let memory = cgroups.v1.first { $0.controllers.split(separator: ",").contains("memory") }
        limitsSwap = memory.map { access($0.mountPoint + "/memory.memsw.limit_in_bytes", F_OK) == 0 } ?? true
        self.warnings = warnings
    }

    /// A kernel's list of numbers such as "0-3"; "0" when it does not say. Blocking.
    static func list(_ path: String) -> String {
        guard let bytes = try? readFile(path, limit: 4096) else { return "0" }
        return String(decoding: bytes.prefix { $0 != 0x0a }, as: UTF8.self)
    }

    private static func text<Tuple>(_ tuple: Tuple) -> String {
        withUnsafeBytes(of: tuple) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }

    /// Refuses limits that this host cannot keep, naming the controller.
    func check(_ config: Ctr_V1_ContainerConfig, container: String) throws(SupervisorError) {
        let wanted = [("memory", config.memoryBytes, "memory"), ("cpu", config.nanoCpus, "cpu"), ("pids", config.pidsLimit, "pids")]
        for (what, value, controller) in wanted where value != 0 && !controllers.contains(controller) {
            throw SupervisorError(
                .failedPrecondition, "create container", container,
                "cannot limit \(what) of container \(container): this host has no \(controller) cgroup controller", exitCode: 125)
        }
    }
}
