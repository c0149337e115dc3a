import OCI

/// A process to launch inside a container, checked before anything is touched.
struct ProcessPlan {
    let process: RuntimeSpec.Process
    let capabilities: CapabilitySets
    let limits: [(name: String, resource: Int32, soft: UInt64, hard: UInt64)]
    /// How many descriptors from 3 on the program inherits.
    let preservedDescriptors: Int32

    /// `document` is where the process is described, for messages.
    init(_ process: RuntimeSpec.Process, preservedDescriptors: Int32, document: String) throws(RuntimeError) {
        if process.args.isEmpty || process.args[0].isEmpty { throw RuntimeError("\(document): process.args: is empty") }
        for variable in process.env where !variable.utf8.dropFirst().contains(UInt8(ascii: "=")) {
            throw RuntimeError("\(document): process.env: \"\(variable.prefix(64))\" is not NAME=VALUE")
        }
        self.process = process
        self.preservedDescriptors = preservedDescriptors
        capabilities = try process.capabilities.map { (lists) throws(RuntimeError) in try CapabilitySets(lists) } ?? CapabilitySets()
        limits = try Self.limits(process.rlimits, document)
    }

    /// The numbers of x86 and arm (getrlimit(2)).
    private static let resources = [
        "CPU", "FSIZE", "DATA", "STACK", "CORE", "RSS", "NPROC", "NOFILE", "MEMLOCK", "AS", "LOCKS", "SIGPENDING", "MSGQUEUE", "NICE",
        "RTPRIO", "RTTIME",
    ]

    private static func limits(_ entries: [RuntimeSpec.ResourceLimit], _ document: String) throws(RuntimeError) -> [(
        String, Int32, UInt64, UInt64
    )] {
        var limits: [(String, Int32, UInt64, UInt64)] = []
        for entry in entries {
            guard entry.type.hasPrefix("RLIMIT_"), let number = resources.firstIndex(of: String(entry.type.dropFirst(7))) else {
                throw RuntimeError("\(document): process.rlimits: unknown limit \"\(entry.type.prefix(64))\"")
            }
            if entry.soft > entry.hard { throw RuntimeError("\(document): process.rlimits: \(entry.type): soft is above hard") }
            limits.append((entry.type, Int32(number), entry.soft, entry.hard))
        }
        return limits
    }
}
