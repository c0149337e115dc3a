import CShimProto
import Linux
import TTRPC

/// What a container uses, as containerd takes it: one message where version 1 carries the controllers, another for version 2.
enum MetricsMessages {
    /// The Any of a StatsResponse.
    static func metrics(_ stats: CgroupStats) -> AnyMessage {
        stats.isVersion2
            ? AnyMessage(typeURL: "io.containerd.cgroups.v2.Metrics", value: version2(stats))
            : AnyMessage(typeURL: "io.containerd.cgroups.v1.Metrics", value: version1(stats))
    }

    // MARK: version 1

    private static func version1(_ stats: CgroupStats) -> [UInt8] {
        let arena = Arena()
        typealias Metrics = Io__Containerd__Cgroups__V1__Metrics
        let message = arena.make(Metrics(), io__containerd__cgroups__v1__metrics__init) { message in
            if let pids = stats.pids {
                message.pids = arena.make(Io__Containerd__Cgroups__V1__PidsStat(), io__containerd__cgroups__v1__pids_stat__init) {
                    $0.current = pids.current
                    $0.limit = pids.limit ?? 0
                }
            }
            if let cpu = stats.cpu { message.cpu = processor(cpu, arena) }
            if let memory = stats.memory {
                message.memory = self.memory(memory, arena)
                message.memory_oom_control = arena.make(
                    Io__Containerd__Cgroups__V1__MemoryOomControl(), io__containerd__cgroups__v1__memory_oom_control__init
                ) {
                    $0.oom_kill_disable = memory.events.oomKillDisabled ? 1 : 0
                    $0.under_oom = memory.events.underOOM ? 1 : 0
                    $0.oom_kill = memory.events.oomKill
                }
            }
            message.blkio = blockIO(stats.blockIO, arena)
            let pages = stats.hugepages.map { page -> UnsafeMutablePointer<Io__Containerd__Cgroups__V1__HugetlbStat>? in
                arena.make(Io__Containerd__Cgroups__V1__HugetlbStat(), io__containerd__cgroups__v1__hugetlb_stat__init) {
                    $0.usage = page.usage
                    $0.max = page.peak
                    $0.failcnt = page.failures
                    $0.pagesize = arena.text(page.pageSize)
                }
            }
            message.n_hugetlb = pages.count
            message.hugetlb = arena.list(pages)
            if !stats.rdma.current.isEmpty || !stats.rdma.limit.isEmpty {
                message.rdma = arena.make(Io__Containerd__Cgroups__V1__RdmaStat(), io__containerd__cgroups__v1__rdma_stat__init) { rdma in
                    let (current, limit) = (entries1(stats.rdma.current, arena), entries1(stats.rdma.limit, arena))
                    rdma.n_current = current.count
                    rdma.current = arena.list(current)
                    rdma.n_limit = limit.count
                    rdma.limit = arena.list(limit)
                }
            }
        }
        return Arena.packed(message, io__containerd__cgroups__v1__metrics__get_packed_size, io__containerd__cgroups__v1__metrics__pack)
    }

    private static func processor(_ cpu: CgroupStats.CPU, _ arena: Arena) -> UnsafeMutablePointer<Io__Containerd__Cgroups__V1__CPUStat> {
        arena.make(Io__Containerd__Cgroups__V1__CPUStat(), io__containerd__cgroups__v1__cpustat__init) { message in
            message.usage = arena.make(Io__Containerd__Cgroups__V1__CPUUsage(), io__containerd__cgroups__v1__cpuusage__init) { usage in
                usage.total = cpu.usage
                usage.kernel = cpu.kernel
                usage.user = cpu.user
                usage.n_per_cpu = cpu.perCPU.count
                usage.per_cpu = arena.numbers(cpu.perCPU)
            }
            message.throttling = arena.make(Io__Containerd__Cgroups__V1__Throttle(), io__containerd__cgroups__v1__throttle__init) {
                $0.periods = cpu.periods
                $0.throttled_periods = cpu.throttledPeriods
                $0.throttled_time = cpu.throttledTime
            }
        }
    }

    private static func memory(_ memory: CgroupStats.Memory, _ arena: Arena)
        -> UnsafeMutablePointer<Io__Containerd__Cgroups__V1__MemoryStat>
    {
        func entry(_ counter: CgroupStats.MemoryCounter) -> UnsafeMutablePointer<Io__Containerd__Cgroups__V1__MemoryEntry> {
            arena.make(Io__Containerd__Cgroups__V1__MemoryEntry(), io__containerd__cgroups__v1__memory_entry__init) {
                $0.usage = counter.usage
                $0.limit = counter.limit
                $0.max = counter.peak
                $0.failcnt = counter.failures
            }
        }
        return arena.make(Io__Containerd__Cgroups__V1__MemoryStat(), io__containerd__cgroups__v1__memory_stat__init) { message in
            message.cache = memory["cache"]
            message.rss = memory["rss"]
            message.rss_huge = memory["rss_huge"]
            message.mapped_file = memory["mapped_file"]
            message.dirty = memory["dirty"]
            message.writeback = memory["writeback"]
            message.pg_pg_in = memory["pgpgin"]
            message.pg_pg_out = memory["pgpgout"]
            message.pg_fault = memory["pgfault"]
            message.pg_maj_fault = memory["pgmajfault"]
            message.inactive_anon = memory["inactive_anon"]
            message.active_anon = memory["active_anon"]
            message.inactive_file = memory["inactive_file"]
            message.active_file = memory["active_file"]
            message.unevictable = memory["unevictable"]
            message.hierarchical_memory_limit = memory["hierarchical_memory_limit"]
            message.hierarchical_swap_limit = memory["hierarchical_memsw_limit"]
            message.total_cache = memory["total_cache"]
            message.total_rss = memory["total_rss"]
            message.total_rss_huge = memory["total_rss_huge"]
            message.total_mapped_file = memory["total_mapped_file"]
            message.total_dirty = memory["total_dirty"]
            message.total_writeback = memory["total_writeback"]
            message.total_pg_pg_in = memory["total_pgpgin"]
            message.total_pg_pg_out = memory["total_pgpgout"]
            message.total_pg_fault = memory["total_pgfault"]
            message.total_pg_maj_fault = memory["total_pgmajfault"]
            message.total_inactive_anon = memory["total_inactive_anon"]
            message.total_active_anon = memory["total_active_anon"]
            message.total_inactive_file = memory["total_inactive_file"]
            message.total_active_file = memory["total_active_file"]
            message.total_unevictable = memory["total_unevictable"]
            // Readers look into these without asking whether they are there.
            message.usage = entry(memory.usage)
            message.swap = entry(memory.swap ?? CgroupStats.MemoryCounter())
            message.kernel = entry(memory.kernel ?? CgroupStats.MemoryCounter())
            message.kernel_tcp = entry(memory.kernelTCP ?? CgroupStats.MemoryCounter())
        }
    }

    private static func blockIO(_ stats: CgroupStats.BlockIO, _ arena: Arena) -> UnsafeMutablePointer<
        Io__Containerd__Cgroups__V1__BlkIOStat
    > {
        typealias Entry = Io__Containerd__Cgroups__V1__BlkIOEntry
        func list(_ entries: [CgroupStats.BlockIO.Entry]) -> (Int, UnsafeMutablePointer<UnsafeMutablePointer<Entry>?>) {
            let messages = entries.map { entry -> UnsafeMutablePointer<Entry>? in
                arena.make(Entry(), io__containerd__cgroups__v1__blk_ioentry__init) {
                    $0.op = arena.text(entry.operation)
                    $0.major = entry.major
                    $0.minor = entry.minor
                    $0.value = entry.value
                }
            }
            return (messages.count, arena.list(messages))
        }
        return arena.make(Io__Containerd__Cgroups__V1__BlkIOStat(), io__containerd__cgroups__v1__blk_iostat__init) { message in
            (message.n_io_service_bytes_recursive, message.io_service_bytes_recursive) = list(stats.serviceBytes)
            (message.n_io_serviced_recursive, message.io_serviced_recursive) = list(stats.serviced)
            (message.n_io_queued_recursive, message.io_queued_recursive) = list(stats.queued)
            (message.n_io_service_time_recursive, message.io_service_time_recursive) = list(stats.serviceTime)
            (message.n_io_wait_time_recursive, message.io_wait_time_recursive) = list(stats.waitTime)
            (message.n_io_merged_recursive, message.io_merged_recursive) = list(stats.merged)
            (message.n_io_time_recursive, message.io_time_recursive) = list(stats.time)
            (message.n_sectors_recursive, message.sectors_recursive) = list(stats.sectors)
        }
    }

    private static func entries1(_ entries: [CgroupStats.RDMA.Entry], _ arena: Arena)
        -> [UnsafeMutablePointer<Io__Containerd__Cgroups__V1__RdmaEntry>?]
    {
        entries.map { entry in
            arena.make(Io__Containerd__Cgroups__V1__RdmaEntry(), io__containerd__cgroups__v1__rdma_entry__init) {
                $0.device = arena.text(entry.device)
                $0.hca_handles = UInt32(clamping: entry.handles)
                $0.hca_objects = UInt32(clamping: entry.objects)
            }
        }
    }

    // MARK: version 2

    private static func version2(_ stats: CgroupStats) -> [UInt8] {
        let arena = Arena()
        typealias Metrics = Io__Containerd__Cgroups__V2__Metrics
        let message = arena.make(Metrics(), io__containerd__cgroups__v2__metrics__init) { message in
            if let pids = stats.pids {
                message.pids = arena.make(Io__Containerd__Cgroups__V2__PidsStat(), io__containerd__cgroups__v2__pids_stat__init) {
                    $0.current = pids.current
                    $0.limit = pids.limit ?? CgroupStats.unlimited
                }
            }
            if let cpu = stats.cpu {
                message.cpu = arena.make(Io__Containerd__Cgroups__V2__CPUStat(), io__containerd__cgroups__v2__cpustat__init) {
                    $0.usage_usec = cpu.usage / 1000
                    $0.user_usec = cpu.user / 1000
                    $0.system_usec = cpu.kernel / 1000
                    $0.nr_periods = cpu.periods
                    $0.nr_throttled = cpu.throttledPeriods
                    $0.throttled_usec = cpu.throttledTime / 1000
                }
            }
            if let memory = stats.memory {
                message.memory = memory2(memory, arena)
                message.memory_events = arena.make(
                    Io__Containerd__Cgroups__V2__MemoryEvents(), io__containerd__cgroups__v2__memory_events__init
                ) {
                    $0.low = memory.events.low
                    $0.high = memory.events.high
                    $0.max = memory.events.max
                    $0.oom = memory.events.oom
                    $0.oom_kill = memory.events.oomKill
                }
            }
            message.io = arena.make(Io__Containerd__Cgroups__V2__IOStat(), io__containerd__cgroups__v2__iostat__init) { io in
                let devices = stats.blockIO.devices.map { device -> UnsafeMutablePointer<Io__Containerd__Cgroups__V2__IOEntry>? in
                    arena.make(Io__Containerd__Cgroups__V2__IOEntry(), io__containerd__cgroups__v2__ioentry__init) {
                        $0.major = device.major
                        $0.minor = device.minor
                        $0.rbytes = device.readBytes
                        $0.wbytes = device.writeBytes
                        $0.rios = device.readOperations
                        $0.wios = device.writeOperations
                    }
                }
                io.n_usage = devices.count
                io.usage = arena.list(devices)
            }
            let pages = stats.hugepages.map { page -> UnsafeMutablePointer<Io__Containerd__Cgroups__V2__HugeTlbStat>? in
                arena.make(Io__Containerd__Cgroups__V2__HugeTlbStat(), io__containerd__cgroups__v2__huge_tlb_stat__init) {
                    $0.current = page.usage
                    $0.max = page.limit
                    $0.pagesize = arena.text(page.pageSize)
                }
            }
            message.n_hugetlb = pages.count
            message.hugetlb = arena.list(pages)
            if !stats.rdma.current.isEmpty || !stats.rdma.limit.isEmpty {
                message.rdma = arena.make(Io__Containerd__Cgroups__V2__RdmaStat(), io__containerd__cgroups__v2__rdma_stat__init) { rdma in
                    let (current, limit) = (entries2(stats.rdma.current, arena), entries2(stats.rdma.limit, arena))
                    rdma.n_current = current.count
                    rdma.current = arena.list(current)
                    rdma.n_limit = limit.count
                    rdma.limit = arena.list(limit)
                }
            }
        }
        return Arena.packed(message, io__containerd__cgroups__v2__metrics__get_packed_size, io__containerd__cgroups__v2__metrics__pack)
    }

    private static func memory2(_ memory: CgroupStats.Memory, _ arena: Arena)
        -> UnsafeMutablePointer<Io__Containerd__Cgroups__V2__MemoryStat>
    {
        arena.make(Io__Containerd__Cgroups__V2__MemoryStat(), io__containerd__cgroups__v2__memory_stat__init) { message in
            message.anon = memory["anon"]
            message.file = memory["file"]
            message.kernel_stack = memory["kernel_stack"]
            message.slab = memory["slab"]
            message.sock = memory["sock"]
            message.shmem = memory["shmem"]
            message.file_mapped = memory["file_mapped"]
            message.file_dirty = memory["file_dirty"]
            message.file_writeback = memory["file_writeback"]
            message.anon_thp = memory["anon_thp"]
            message.inactive_anon = memory["inactive_anon"]
            message.active_anon = memory["active_anon"]
            message.inactive_file = memory["inactive_file"]
            message.active_file = memory["active_file"]
            message.unevictable = memory["unevictable"]
            message.slab_reclaimable = memory["slab_reclaimable"]
            message.slab_unreclaimable = memory["slab_unreclaimable"]
            message.pgfault = memory["pgfault"]
            message.pgmajfault = memory["pgmajfault"]
            // Newer kernels count these for anonymous and file pages apart.
            message.workingset_refault =
                memory["workingset_refault"] &+ memory["workingset_refault_anon"] &+ memory["workingset_refault_file"]
            message.workingset_activate =
                memory["workingset_activate"] &+ memory["workingset_activate_anon"] &+ memory["workingset_activate_file"]
            message.workingset_nodereclaim = memory["workingset_nodereclaim"]
            message.pgrefill = memory["pgrefill"]
            message.pgscan = memory["pgscan"]
            message.pgsteal = memory["pgsteal"]
            message.pgactivate = memory["pgactivate"]
            message.pgdeactivate = memory["pgdeactivate"]
            message.pglazyfree = memory["pglazyfree"]
            message.pglazyfreed = memory["pglazyfreed"]
            message.thp_fault_alloc = memory["thp_fault_alloc"]
            message.thp_collapse_alloc = memory["thp_collapse_alloc"]
            message.usage = memory.usage.usage
            message.usage_limit = memory.usage.limit
            message.max_usage = memory.usage.peak
            message.swap_usage = memory.swap?.usage ?? 0
            message.swap_limit = memory.swap?.limit ?? 0
            message.swap_max_usage = memory.swap?.peak ?? 0
        }
    }

    private static func entries2(_ entries: [CgroupStats.RDMA.Entry], _ arena: Arena)
        -> [UnsafeMutablePointer<Io__Containerd__Cgroups__V2__RdmaEntry>?]
    {
        entries.map { entry in
            arena.make(Io__Containerd__Cgroups__V2__RdmaEntry(), io__containerd__cgroups__v2__rdma_entry__init) {
                $0.device = arena.text(entry.device)
                $0.hca_handles = UInt32(clamping: entry.handles)
                $0.hca_objects = UInt32(clamping: entry.objects)
            }
        }
    }
}
