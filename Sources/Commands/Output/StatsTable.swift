import CtrProto
import Glibc
import OCI
import SwiftProtobuf

/// One container's line of `stats`: its last two samples.
struct StatsRow {
    let id: String
    let name: String
    private(set) var last: Ctr_V1_TaskStats?
    private var previous: Ctr_V1_TaskStats?

    /// Without a sample: a container that does not run.
    init(id: String, name: String) {
        self.id = id
        self.name = name
    }

    init(_ sample: Ctr_V1_TaskStats) {
        self.init(id: sample.containerID, name: sample.containerName)
        last = sample
    }

    mutating func add(_ sample: Ctr_V1_TaskStats) {
        previous = last
        last = sample
    }

    /// Of one CPU, so that two busy ones are 200; nil before there are two samples, or when the kernel does not count it. A counter
    /// that went back is that of another run.
    var cpuPercent: Double? {
        guard let last, let previous, last.hasCpuUsageNs, previous.hasCpuUsageNs, last.cpuUsageNs >= previous.cpuUsageNs else { return nil }
        let time = last.time.nanoseconds - previous.time.nanoseconds
        return time > 0 ? Double(last.cpuUsageNs - previous.cpuUsageNs) / Double(time) * 100 : nil
    }

    /// What counts as used: without what the kernel would drop at once.
    var memoryUsage: UInt64? {
        guard let last else { return nil }
        if last.hasMemoryWorkingSetBytes { return last.memoryWorkingSetBytes }
        return last.hasMemoryUsageBytes ? last.memoryUsageBytes : nil
    }

    /// The limit, or without one the memory of the host, if that is known.
    func memoryLimit(host: UInt64) -> UInt64? {
        guard let last else { return nil }
        let limit = last.hasMemoryLimitBytes ? last.memoryLimitBytes : host
        let bounded = host > 0 ? min(limit, host) : limit
        return bounded > 0 ? bounded : nil
    }

    func memoryPercent(host: UInt64) -> Double? {
        guard let usage = memoryUsage, let limit = memoryLimit(host: host) else { return nil }
        return Double(usage) / Double(limit) * 100
    }

    /// Docker's columns.
    func cells(full: Bool, host: UInt64) -> [Table.Cell] {
        let usage = memoryUsage.map(binarySize) ?? "--"
        let limit = memoryLimit(host: host).map(binarySize) ?? "--"
        var received: UInt64 = 0
        var sent: UInt64 = 0
        for network in last?.networks ?? [] {
            received &+= network.receivedBytes
            sent &+= network.sentBytes
        }
        let network = last == nil ? "--" : "\(decimalSize(received)) / \(decimalSize(sent))"
        let hasBlocks = last?.hasIoReadBytes == true || last?.hasIoWriteBytes == true
        let blocks = hasBlocks ? "\(decimalSize(last?.ioReadBytes ?? 0)) / \(decimalSize(last?.ioWriteBytes ?? 0))" : "--"
        return [
            .init(full ? id : shortID(id)), .init(name), .init(cpuPercent.map(percent) ?? "--"), .init("\(usage) / \(limit)"),
            .init(memoryPercent(host: host).map(percent) ?? "--"), .init(network), .init(blocks),
            .init(last?.hasPids == true ? "\(last?.pids ?? 0)" : "--"),
        ]
    }
}

func statsTable(_ rows: [StatsRow], full: Bool, host: UInt64) -> Table {
    var table = Table("CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS")
    for row in rows { table.row(row.cells(full: full, host: host)) }
    return table
}

/// Two decimals and the sign, as Docker prints shares.
func percent(_ value: Double) -> String {
    let hundredths = Int64((max(0, min(value, 1e12)) * 100).rounded())
    return "\(hundredths / 100).\(hundredths % 100 < 10 ? "0" : "")\(hundredths % 100)%"
}

/// Four significant digits in powers of 1024, as Docker prints memory: "1.234MiB".
func binarySize(_ bytes: UInt64) -> String { scaled(bytes, by: 1024, ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"], digits: 4) }

/// Three significant digits in powers of 1000, as Docker prints transfers: "1.23MB".
func decimalSize(_ bytes: UInt64) -> String { scaled(bytes, by: 1000, ["B", "kB", "MB", "GB", "TB", "PB", "EB"], digits: 3) }

private func scaled(_ bytes: UInt64, by base: Double, _ units: [String], digits: Int) -> String {
    var value = Double(bytes)
    var unit = 0
    while value >= base && unit + 1 < units.count {
        value /= base
        unit += 1
    }
    // As many decimals as are left beside the digits in front of the point, without zeros at the end.
    var decimals = digits - (value >= 1000 ? 4 : value >= 100 ? 3 : value >= 10 ? 2 : 1)
    if unit == 0 { decimals = 0 }
    var factor: Double = 1
    for _ in 0..<max(0, decimals) { factor *= 10 }
    let rounded = Int64((value * factor).rounded())
    var text = "\(rounded / Int64(factor))"
    if decimals > 0 {
        var fraction = "\(rounded % Int64(factor))"
        fraction = String(repeating: "0", count: decimals - fraction.utf8.count) + fraction
        while fraction.hasSuffix("0") { fraction.removeLast() }
        if !fraction.isEmpty { text += "." + fraction }
    }
    return text + units[unit]
}

extension Google_Protobuf_Timestamp {
    fileprivate var nanoseconds: Int64 { seconds &* 1_000_000_000 &+ Int64(nanos) }
}

extension StatsRow {
    /// One sample as JSON; what the kernel does not count is null.
    func document(host: UInt64) -> JSON {
        let sample = last ?? Ctr_V1_TaskStats()
        func number(_ value: UInt64, if isPresent: Bool) -> JSON { isPresent ? JSON(value) : .null }
        let networks = sample.networks.map { network -> JSON in
            [
                "interface": .string(network.interface), "received_bytes": JSON(network.receivedBytes),
                "received_packets": JSON(network.receivedPackets), "received_errors": JSON(network.receivedErrors),
                "received_dropped": JSON(network.receivedDropped), "sent_bytes": JSON(network.sentBytes),
                "sent_packets": JSON(network.sentPackets), "sent_errors": JSON(network.sentErrors),
                "sent_dropped": JSON(network.sentDropped),
            ]
        }
        let pressure = sample.pressure.map { pressure -> JSON in
            [
                "resource": .string(pressure.resource), "some_10": .double(pressure.some10), "some_60": .double(pressure.some60),
                "some_300": .double(pressure.some300), "some_total_us": JSON(pressure.someTotalUs), "full_10": .double(pressure.full10),
                "full_60": .double(pressure.full60), "full_300": .double(pressure.full300), "full_total_us": JSON(pressure.fullTotalUs),
            ]
        }
        return [
            "container_id": .string(id), "container_name": .string(name), "time": JSON(sample.time, if: sample.hasTime),
            "cpu_percent": cpuPercent.map { .double(rounded($0)) } ?? .null,
            "memory_percent": memoryPercent(host: host).map { .double(rounded($0)) } ?? .null,
            "cpu_usage_ns": number(sample.cpuUsageNs, if: sample.hasCpuUsageNs),
            "cpu_user_ns": number(sample.cpuUserNs, if: sample.hasCpuUserNs),
            "cpu_system_ns": number(sample.cpuSystemNs, if: sample.hasCpuSystemNs),
            "cpu_periods": number(sample.cpuPeriods, if: sample.hasCpuPeriods),
            "cpu_throttled_periods": number(sample.cpuThrottledPeriods, if: sample.hasCpuThrottledPeriods),
            "cpu_throttled_ns": number(sample.cpuThrottledNs, if: sample.hasCpuThrottledNs),
            "memory_usage_bytes": number(sample.memoryUsageBytes, if: sample.hasMemoryUsageBytes),
            "memory_working_set_bytes": number(sample.memoryWorkingSetBytes, if: sample.hasMemoryWorkingSetBytes),
            "memory_limit_bytes": number(sample.memoryLimitBytes, if: sample.hasMemoryLimitBytes),
            "memory_peak_bytes": number(sample.memoryPeakBytes, if: sample.hasMemoryPeakBytes),
            "memory_swap_bytes": number(sample.memorySwapBytes, if: sample.hasMemorySwapBytes),
            "pids": number(sample.pids, if: sample.hasPids), "pids_limit": number(sample.pidsLimit, if: sample.hasPidsLimit),
            "io_read_bytes": number(sample.ioReadBytes, if: sample.hasIoReadBytes),
            "io_write_bytes": number(sample.ioWriteBytes, if: sample.hasIoWriteBytes),
            "io_read_operations": number(sample.ioReadOperations, if: sample.hasIoReadOperations),
            "io_write_operations": number(sample.ioWriteOperations, if: sample.hasIoWriteOperations),
            "networks": .array(networks), "pressure": .array(pressure), "oom_kills": number(sample.oomKills, if: sample.hasOomKills),
            "online_cpus": JSON(sample.onlineCpus),
        ]
    }

    private func rounded(_ value: Double) -> Double { (value * 100).rounded() / 100 }
}
