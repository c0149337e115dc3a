import ArgumentParser
import CtrProto

struct Update: Command {
    static let configuration = CommandConfiguration(
        commandName: "update", _superCommandName: "ctrctl", abstract: "Change the limits of running containers.",
        discussion: """
            What is not named stays as it is; the next start has the new limits too. Sizes are 512m, 1g or a number of bytes.
            """)
    static let examples = [
        "ctrctl update -m 256m --memory-swap -1 web",
        "ctrctl update --cpus 1.5 --pids-limit 100 web db",
    ]

    @Option(
        name: [.customShort("m", allowingJoined: true), .long], parsing: .unconditional,
        help: ArgumentHelp("Limit of memory; 0 is none.", valueName: "size"))
    var memory: String?
    @Option(
        name: .customLong("memory-swap"), parsing: .unconditional,
        help: ArgumentHelp("Limit of memory and swap together; -1 is none.", valueName: "size"))
    var memorySwap: String?
    @Option(
        name: .customLong("memory-reservation"), parsing: .unconditional,
        help: ArgumentHelp("What is left to it when memory is short; 0 is nothing.", valueName: "size"))
    var memoryReservation: String?
    @Option(help: ArgumentHelp("Limit of CPUs, a decimal number; 0 is none.", valueName: "number"))
    var cpus: String?
    @Option(
        name: .customLong("cpu-shares"), help: ArgumentHelp("Weight against others when CPUs are short: 2 to 262144.", valueName: "number"))
    var cpuShares: String?
    @Option(name: .customLong("cpuset-cpus"), help: ArgumentHelp("CPUs that it may use: 0-3 or 0,2.", valueName: "list"))
    var cpusetCPUs: String?
    @Option(name: .customLong("cpuset-mems"), help: ArgumentHelp("Memory nodes that it may use: 0-3 or 0,2.", valueName: "list"))
    var cpusetMems: String?
    @Option(
        name: .customLong("pids-limit"), parsing: .unconditional,
        help: ArgumentHelp("Limit of processes; -1 is none.", valueName: "number"))
    var pidsLimit: String?

    @OptionGroup var targets: Targets
    @OptionGroup var global: GlobalOptions

    func perform(_ manager: Manager) throws -> Int32 {
        let limits = try limits()
        return try forEach(targets.ids, manager, API.updateTask) { id in
            var request = Ctr_V1_UpdateTaskRequest()
            request.namespace = manager.namespace
            request.container = id
            request.limits = limits
            return request
        } show: { id, _ throws(Failure) in
            try Console.line(id)
        }
    }

    func limits() throws(Failure) -> Ctr_V1_Limits {
        var limits = Ctr_V1_Limits()
        if let memory { limits.memoryBytes = try parseMemory(memory) }
        if let memorySwap { limits.memorySwapBytes = memorySwap == "-1" ? -1 : try parseMemory(memorySwap) }
        if let memoryReservation { limits.memoryReservationBytes = try parseMemory(memoryReservation) }
        if let cpus { limits.nanoCpus = try parseCPUs(cpus) }
        if let cpuShares { limits.cpuShares = try parseShares(cpuShares) }
        if let cpusetCPUs { limits.cpusetCpus = try parseSet(cpusetCPUs) }
        if let cpusetMems { limits.cpusetMems = try parseSet(cpusetMems) }
        if let pidsLimit { limits.pidsLimit = try parsePidsLimit(pidsLimit) }
        if limits == Ctr_V1_Limits() { throw Failure("name at least one limit to change", code: Failure.usage) }
        return limits
    }
}
