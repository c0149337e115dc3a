import Glibc

extension ContainerCgroup {
    /// Reads what the container uses now. Some twenty small files, none of which the kernel computes slowly; numbers of one call are not of
    /// exactly one moment. ENOENT when the control group is gone. A file that the kernel does not have leaves its part at nil or 0.
    public func stats() throws(SysError) -> CgroupStats {
        guard exists else { throw SysError("read statistics of control group", unified ?? v1.first?.path ?? "", code: ENOENT) }
        var stats = CgroupStats()
        stats.isVersion2 = unified != nil && v1.allSatisfy { $0.controllers.hasPrefix("name=") }
        let two = unified.map { CgroupFiles($0) }
        if directory("cpuacct") != nil || directory("cpu") != nil {
            stats.cpu = try CgroupStats.CPU(
                accounting: directory("cpuacct").map { CgroupFiles($0) }, bandwidth: directory("cpu").map { CgroupFiles($0) })
        } else {
            // Version 2 counts time also where it does not have the controller; on a hybrid host that is all there is.
            stats.cpu = try two.flatMap { (files) throws(SysError) in try CgroupStats.CPU(version2: files) }
        }
        if let path = directory("memory") {
            stats.memory = try CgroupStats.Memory(version1: CgroupFiles(path))
        } else {
            stats.memory = try two.flatMap { (files) throws(SysError) in try CgroupStats.Memory(version2: files) }
        }
        stats.pids = try (directory("pids").map { CgroupFiles($0) } ?? two).flatMap { (files) throws(SysError) in
            try CgroupStats.PIDs(files)
        }
        if let path = directory("blkio") {
            stats.blockIO = try CgroupStats.BlockIO(version1: CgroupFiles(path))
        } else if let two {
            stats.blockIO.devices = CgroupStats.BlockIO.devices(try two.text("io.stat") ?? "")
        }
        stats.hugepages = try CgroupStats.Hugepage.all(directory("hugetlb").map { CgroupFiles($0) }, two)
        if let files = directory("rdma").map({ CgroupFiles($0) }) ?? two {
            stats.rdma.current = CgroupStats.RDMA.entries(try files.text("rdma.current") ?? "")
            stats.rdma.limit = CgroupStats.RDMA.entries(try files.text("rdma.max") ?? "")
        }
        if let two {
            // Only version 2 has these, whoever carries the controllers.
            stats.cpu?.pressure = CgroupStats.Pressure(try two.text("cpu.pressure"))
            stats.memory?.pressure = CgroupStats.Pressure(try two.text("memory.pressure"))
            stats.blockIO.pressure = CgroupStats.Pressure(try two.text("io.pressure"))
        }
        return stats
    }
}

/// The files of one directory.
struct CgroupFiles {
    let path: String

    init(_ path: String) { self.path = path }

    /// nil when there is no such file, or the kernel was built without what it shows.
    func text(_ name: String) throws(SysError) -> String? {
        do throws(SysError) { return try ContainerCgroup.readText("\(path)/\(name)") } catch {
            switch error.code {
            case ENOENT, ENODEV, EOPNOTSUPP, ENOTSUP: return nil
            default: throw error
            }
        }
    }

    /// "max" is ``CgroupStats/unlimited``.
    func number(_ name: String) throws(SysError) -> UInt64? { try text(name).flatMap(Self.number) }

    static func number(_ text: String) -> UInt64? { text == "max" ? CgroupStats.unlimited : UInt64(text) }

    /// Lines of "key number".
    func counters(_ name: String) throws(SysError) -> [CgroupStats.Counter]? { try text(name).map(Self.counters) }

    static func counters(_ text: String) -> [CgroupStats.Counter] {
        text.split(separator: "\n").compactMap { line in
            let words = line.split(separator: " ")
            guard words.count == 2, let value = UInt64(words[1]) else { return nil }
            return CgroupStats.Counter(String(words[0]), value)
        }
    }

    /// The numbers of a line, such as one a processor.
    static func numbers(_ text: String) -> [UInt64] { text.split(separator: " ").compactMap { UInt64($0) } }
}

extension [CgroupStats.Counter] {
    subscript(_ key: String) -> UInt64 { first { $0.key == key }?.value ?? 0 }
}

extension CgroupStats.CPU {
    init(accounting: CgroupFiles?, bandwidth: CgroupFiles?) throws(SysError) {
        self.init()
        if let accounting {
            usage = try accounting.number("cpuacct.usage") ?? 0
            // In ticks, but scaled to what was measured exactly; the files in nanoseconds only count what the timer saw.
            let split = try accounting.counters("cpuacct.stat") ?? []
            let tick = 1_000_000_000 / UInt64(max(1, sysconf(Int32(_SC_CLK_TCK))))
            user = split["user"] &* tick
            kernel = split["system"] &* tick
            // "cpu user system", then a line a processor.
            for line in (try accounting.text("cpuacct.usage_all") ?? "").split(separator: "\n") {
                let numbers = CgroupFiles.numbers(String(line))
                guard numbers.count == 3 else { continue }
                perCPUUser.append(numbers[1])
                perCPUKernel.append(numbers[2])
            }
            perCPU = CgroupFiles.numbers(try accounting.text("cpuacct.usage_percpu") ?? "")
        }
        if let lines = try bandwidth?.counters("cpu.stat") {
            periods = lines["nr_periods"]
            throttledPeriods = lines["nr_throttled"]
            throttledTime = lines["throttled_time"]
            bursts = lines["nr_bursts"]
            burstTime = lines["burst_time"]
        }
    }

    init?(version2 files: CgroupFiles) throws(SysError) {
        guard let lines = try files.counters("cpu.stat") else { return nil }
        self.init()
        usage = lines["usage_usec"] &* 1000
        user = lines["user_usec"] &* 1000
        kernel = lines["system_usec"] &* 1000
        periods = lines["nr_periods"]
        throttledPeriods = lines["nr_throttled"]
        throttledTime = lines["throttled_usec"] &* 1000
        bursts = lines["nr_bursts"]
        burstTime = lines["burst_usec"] &* 1000
    }
}

extension CgroupStats.MemoryCounter {
    /// `kind` is "memory", "memory.memsw", "memory.kmem" or "memory.kmem.tcp".
    init?(version1 files: CgroupFiles, _ kind: String) throws(SysError) {
        guard let usage = try files.number("\(kind).usage_in_bytes") else { return nil }
        self.init()
        self.usage = usage
        limit = try files.number("\(kind).limit_in_bytes") ?? 0
        peak = try files.number("\(kind).max_usage_in_bytes") ?? 0
        failures = try files.number("\(kind).failcnt") ?? 0
    }

    init?(version2 files: CgroupFiles, _ kind: String) throws(SysError) {
        guard let usage = try files.number("\(kind).current") else { return nil }
        self.init()
        self.usage = usage
        limit = try files.number("\(kind).max") ?? CgroupStats.unlimited
        peak = try files.number("\(kind).peak") ?? 0
    }
}

extension CgroupStats.Memory {
    init?(version1 files: CgroupFiles) throws(SysError) {
        guard let usage = try CgroupStats.MemoryCounter(version1: files, "memory") else { return nil }
        self.init()
        self.usage = usage
        swap = try CgroupStats.MemoryCounter(version1: files, "memory.memsw")
        kernel = try CgroupStats.MemoryCounter(version1: files, "memory.kmem")
        kernelTCP = try CgroupStats.MemoryCounter(version1: files, "memory.kmem.tcp")
        usesHierarchy = try files.number("memory.use_hierarchy") == 1
        details = try files.counters("memory.stat") ?? []
        if let lines = try files.counters("memory.oom_control") {
            events.oomKill = lines["oom_kill"]
            events.oomKillDisabled = lines["oom_kill_disable"] == 1
            events.underOOM = lines["under_oom"] == 1
        }
    }

    init?(version2 files: CgroupFiles) throws(SysError) {
        guard let usage = try CgroupStats.MemoryCounter(version2: files, "memory") else { return nil }
        self.init()
        self.usage = usage
        swap = try CgroupStats.MemoryCounter(version2: files, "memory.swap")
        details = try files.counters("memory.stat") ?? []
        usesHierarchy = true
        if let lines = try files.counters("memory.events") {
            events.low = lines["low"]
            events.high = lines["high"]
            events.max = lines["max"]
            events.oom = lines["oom"]
            events.oomKill = lines["oom_kill"]
            events.oomGroupKill = lines["oom_group_kill"]
            self.usage.failures = lines["max"]
        }
        if let lines = try files.counters("memory.swap.events") { swap?.failures = lines["fail"] }
    }
}

extension CgroupStats.PIDs {
    init?(_ files: CgroupFiles) throws(SysError) {
        guard let current = try files.number("pids.current") else { return nil }
        self.init()
        self.current = current
        limit = try files.number("pids.max").flatMap { $0 == CgroupStats.unlimited ? nil : $0 }
    }
}

extension CgroupStats.BlockIO {
    init(version1 files: CgroupFiles) throws(SysError) {
        self.init()
        // Whoever schedules the device counts: CFQ (gone in Linux 5), BFQ, or else the throttling layer, which counts only two things.
        func entries(_ name: String) throws(SysError) -> [Entry] {
            for file in ["blkio.\(name)_recursive", "blkio.bfq.\(name)_recursive", "blkio.throttle.\(name)_recursive"] {
                let found = Self.entries(try files.text(file) ?? "")
                if !found.isEmpty { return found }
            }
            return []
        }
        serviceBytes = try entries("io_service_bytes")
        serviced = try entries("io_serviced")
        queued = try entries("io_queued")
        serviceTime = try entries("io_service_time")
        waitTime = try entries("io_wait_time")
        merged = try entries("io_merged")
        time = try entries("time")
        sectors = try entries("sectors")
    }

    /// Lines of "8:0 Read 4096" or "8:0 4096"; the sum over all devices ("Total 8192") is left out.
    static func entries(_ text: String) -> [Entry] {
        text.split(separator: "\n").compactMap { line in
            let words = line.split(separator: " ")
            guard words.count >= 2, words.count <= 3, let (major, minor) = number(device: words[0]),
                let value = UInt64(words[words.count - 1])
            else { return nil }
            return Entry(major: major, minor: minor, operation: words.count == 3 ? String(words[1]) : "", value: value)
        }
    }

    /// Lines of "8:0 rbytes=4096 wbytes=0 …".
    static func devices(_ text: String) -> [Device] {
        text.split(separator: "\n").compactMap { line in
            let words = line.split(separator: " ")
            guard let first = words.first, let (major, minor) = number(device: first) else { return nil }
            var device = Device(major: major, minor: minor)
            for word in words.dropFirst() {
                let parts = word.split(separator: "=", maxSplits: 1)
                guard parts.count == 2, let value = UInt64(parts[1]) else { continue }
                switch parts[0] {
                case "rbytes": device.readBytes = value
                case "wbytes": device.writeBytes = value
                case "rios": device.readOperations = value
                case "wios": device.writeOperations = value
                case "dbytes": device.discardBytes = value
                case "dios": device.discardOperations = value
                default: break
                }
            }
            return device
        }
    }

    private static func number(device: Substring) -> (UInt64, UInt64)? {
        let parts = device.split(separator: ":", omittingEmptySubsequences: false)
        guard parts.count == 2, let major = UInt64(parts[0]), let minor = UInt64(parts[1]) else { return nil }
        return (major, minor)
    }
}

extension CgroupStats.Hugepage {
    /// The sizes are those that the kernel has files for.
    static func all(_ version1: CgroupFiles?, _ version2: CgroupFiles?) throws(SysError) -> [CgroupStats.Hugepage] {
        guard let files = version1 ?? version2 else { return [] }
        let suffix = version1 == nil ? ".current" : ".usage_in_bytes"
        var pages: [CgroupStats.Hugepage] = []
        for name in names(files.path) {
            guard name.hasPrefix("hugetlb."), name.hasSuffix(suffix), !name.hasSuffix(".rsvd\(suffix)") else { continue }
            let size = String(name.dropFirst(8).dropLast(suffix.utf8.count))
            guard let usage = try files.number(name) else { continue }
            var page = CgroupStats.Hugepage(pageSize: size)
            page.usage = usage
            if version1 == nil {
                page.limit = try files.number("hugetlb.\(size).max") ?? CgroupStats.unlimited
                page.failures = try files.counters("hugetlb.\(size).events")?["max"] ?? 0
            } else {
                page.limit = try files.number("hugetlb.\(size).limit_in_bytes") ?? 0
                page.peak = try files.number("hugetlb.\(size).max_usage_in_bytes") ?? 0
                page.failures = try files.number("hugetlb.\(size).failcnt") ?? 0
            }
            pages.append(page)
        }
        return pages.sorted { $0.pageSize < $1.pageSize }
    }

    private static func names(_ path: String) -> [String] {
        // One look decides for the many hosts without this controller.
        guard access("/sys/kernel/mm/hugepages", F_OK) == 0, let stream = opendir(path) else { return [] }
        defer { closedir(stream) }
        var names: [String] = []
        while let entry = readdir(stream) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) { tuple in
                tuple.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if name.hasPrefix("hugetlb.") { names.append(name) }
        }
        return names
    }
}

extension CgroupStats.RDMA {
    /// Lines of "mlx4_0 hca_handle=2 hca_object=2000", where a number may be "max".
    static func entries(_ text: String) -> [Entry] {
        text.split(separator: "\n").compactMap { line in
            let words = line.split(separator: " ")
            guard let name = words.first else { return nil }
            var entry = Entry(device: String(name))
            for word in words.dropFirst() {
                let parts = word.split(separator: "=", maxSplits: 1)
                guard parts.count == 2, let value = CgroupFiles.number(String(parts[1])) else { continue }
                if parts[0] == "hca_handle" { entry.handles = value }
                if parts[0] == "hca_object" { entry.objects = value }
            }
            return entry
        }
    }
}

extension CgroupStats.Pressure {
    /// "some avg10=0.00 avg60=0.00 avg300=0.00 total=0" and the same with "full"; nil for anything else.
    init?(_ text: String?) {
        guard let text else { return nil }
        self.init()
        var found = false
        for line in text.split(separator: "\n") {
            let words = line.split(separator: " ")
            guard let kind = words.first, kind == "some" || kind == "full" else { continue }
            var values = Line()
            for word in words.dropFirst() {
                let parts = word.split(separator: "=", maxSplits: 1)
                guard parts.count == 2 else { continue }
                switch parts[0] {
                case "avg10": values.average10 = Double(parts[1]) ?? 0
                case "avg60": values.average60 = Double(parts[1]) ?? 0
                case "avg300": values.average300 = Double(parts[1]) ?? 0
                case "total": values.total = UInt64(parts[1]) ?? 0
                default: break
                }
            }
            if kind == "some" { some = values } else { full = values }
            found = true
        }
        if !found { return nil }
    }
}
