import Glibc
import Linux
import Testing

@testable import Records

/// A directory that is gone with its last user.
final class TemporaryDirectory {
    let path: String
    let descriptor: Int32

    init() throws {
        var template = Array("/tmp/ctr-test-XXXXXX".utf8CString)
        path = template.withUnsafeMutableBufferPointer { buffer in
            buffer.baseAddress.flatMap { mkdtemp($0) }.map { String(cString: $0) } ?? "/nonexistent"
        }
        descriptor = try Linux.open(path, O_RDONLY | O_DIRECTORY).release()
    }

    deinit {
        if let list = opendir(path) {
            while let entry = readdir(list) {
                let name = withUnsafePointer(to: entry.pointee.d_name) {
                    $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
                }
                unlinkat(descriptor, name, 0)
            }
            closedir(list)
        }
        close(descriptor)
        rmdir(path)
    }

    func write(_ name: String, _ bytes: [UInt8]) throws {
        let file = try Linux.open(name, O_WRONLY | O_CREAT | O_TRUNC, mode: 0o600, at: descriptor)
        try writeAll(file.raw, bytes, name: name)
    }

    func read(_ name: String) throws -> [UInt8] { try readFile(name, limit: 1 << 26, at: descriptor) }
}

/// The same numbers in every run.
struct Random: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return (state ^ state >> 33) &* 0xff51_afd7_ed55_8ccd
    }
}

private let sample = PidRecord(
    process: ProcessIdentity(pid: 4711, startTime: 123_456), bootID: "b6c2e5c8-5d5d-4f5e-9f3a-3f1f2a1b0c9d",
    created: 1_790_000_000_000_000_000,
    started: 1_790_000_000_100_000_000)

@Suite struct RecordTests {
    @Test func bytesAreThoseOfTheFormat() {
        var record = Record(kind: "pid")
        record.set("pid", "12")
        record.set("path", "/a b%\n\u{7f}é")
        let text = String(decoding: record.encoded(), as: UTF8.self)
        // The checksum is Python's zlib.crc32 of the three lines.
        #expect(text == "ctr-record 1 pid\npid 12\npath /a b%25%0A%7Fé\ncrc32 3295fcc4\n")
    }

    @Test func everyFieldComesBack() throws {
        var random = Random(state: 7)
        for _ in 0..<300 {
            var record = Record(kind: "thing")
            for key in ["a", "b_c", "long_key", "z"].shuffled(using: &random) {
                let scalars = (0..<Int.random(in: 0..<40, using: &random)).compactMap { _ in
                    Unicode.Scalar(UInt32.random(in: 0..<0x250, using: &random))
                }
                var value = ""
                value.unicodeScalars.append(contentsOf: scalars)
                record.set(key, value)
            }
            #expect(try Record(decoding: record.encoded(), name: "thing") == record)
        }
    }

    @Test func aFlippedBitIsNoRecord() throws {
        let bytes = sample.record.encoded()
        for index in bytes.indices {
            for bit in 0..<8 {
                var changed = bytes
                changed[index] ^= 1 << UInt8(bit)
                #expect(throws: RecordError.self) { try Record(decoding: changed, name: "pid") }
            }
        }
    }

    @Test func aCutOrLongerFileIsNoRecord() throws {
        let bytes = sample.record.encoded()
        for length in 0..<bytes.count {
            #expect(throws: RecordError.self) { try Record(decoding: Array(bytes[..<length]), name: "pid") }
        }
        for extra in [[0x0a], [0], Array("x y\n".utf8), bytes] as [[UInt8]] {
            #expect(throws: RecordError.self) { try Record(decoding: bytes + extra, name: "pid") }
        }
    }

    @Test func rightChecksumOfWrongTextIsRefused() throws {
        for text in [
            "", "ctr-record 2 pid\n", "ctr-record 1 \n", "ctr-record 1 pid\npid 1\npid 1\n", "ctr-record 1 pid\nPID 1\n",
            "ctr-record 1 pid\npid\n", "ctr-record 1 pid\n\n", "ctr-record 1 pid\npid %41\n", "ctr-record 1 pid\npid %0a\n",
            "ctr-record 1 pid\npid %0", "ctr-record 1 pid\npid 1",
        ] {
            var record = Array(text.utf8)
            let sum = String(crc(record), radix: 16)
            record.append(contentsOf: "crc32 \(String(repeating: "0", count: 8 - sum.count))\(sum)\n".utf8)
            #expect(throws: RecordError.self, "\(text)") { try Record(decoding: record, name: "pid") }
        }
    }

    @Test func typedRecordsComeBack() throws {
        let directory = try TemporaryDirectory()
        func check<R: TypedRecord>(_ record: R, sourceLocation: SourceLocation = #_sourceLocation) throws {
            #expect(try R.read(in: directory.descriptor) == nil, sourceLocation: sourceLocation)
            try record.write(in: directory.descriptor)
            #expect(try R.read(in: directory.descriptor) == record, sourceLocation: sourceLocation)
            unlinkat(directory.descriptor, R.fileName, 0)
        }
        let process = ProcessIdentity(pid: 42, startTime: .max)
        try check(IntentRecord(id: "c1", namespace: "default", incarnation: 3, bootID: "b", created: 5))
        try check(sample)
        try check(PidRecord(process: process, bootID: "b", created: 5))
        try check(GuardsRecord(keeper: process, bootID: "b"))
        try check(
            StartRecord(
                runtime: "/usr/bin/runc", runtimeRoot: "/run/with space", rootfsMode: .mounted, socket: "/run/s/1",
                incarnationDirectory: "/x"))
        try check(
            StartRecord(
                runtime: "r", runtimeRoot: "", rootfsMode: .detached, socket: "s", incarnationDirectory: "d", segmentBytes: 4096))
        for outcome in [.exited(0), .exited(255), .signalled(9), .signalled(64)] as [ExitRecord.Outcome] {
            try check(ExitRecord(process: process, outcome: outcome, source: .reaped, exited: 1, exitedBoot: 2))
        }
        try check(
            ExitRecord(
                process: process, outcome: .unknown(reason: "shim and keeper died\nbefore"), source: .unknown, exited: 1, exitedBoot: 2,
                oom: true, usage: .init(oomKills: 1, cpu: 2, memoryPeak: 3), logEnded: true))
    }

    @Test func aStatusIsNeverInvented() throws {
        func exit(_ change: (inout Record) -> Void) -> Record {
            var record = Record(kind: "exit")
            for (key, value) in [
                ("pid", "1"), ("start_time", "1"), ("exited_ns", "1"), ("exited_boot_ns", "1"), ("oom", "0"), ("log_ended", "0"),
            ] {
                record.set(key, value)
            }
            change(&record)
            return record
        }
        for fields in [
            [("source", "reaped")], [("source", "reaped"), ("code", "0")], [("source", "reaped"), ("code", "256"), ("signal", "0")],
            [("source", "reaped"), ("code", "1"), ("signal", "9")], [("source", "unknown")],
            [("source", "unknown"), ("code", "0"), ("signal", "0"), ("reason", "x")],
            [("source", "guess"), ("code", "0"), ("signal", "0")],
            [("code", "0"), ("signal", "0")], [("source", "reaped"), ("code", "+1"), ("signal", "0")],
        ] {
            let record = exit { record in for field in fields { record.set(field.0, field.1) } }
            #expect(throws: RecordError.self, "\(fields)") { try ExitRecord(record) }
        }
        #expect(throws: RecordError.self) { try PidRecord(exit { _ in }) }
    }

    @Test func waitStatusBecomesOutcome() {
        #expect(ExitRecord.Outcome(waitStatus: 0x2b00) == .exited(43))
        #expect(ExitRecord.Outcome(waitStatus: 0xff00).code == 255)
        #expect(ExitRecord.Outcome(waitStatus: 0x89) == .signalled(9))
        #expect(ExitRecord.Outcome(waitStatus: 15).code == 143)
    }

    @Test func aFailedWriteKeepsTheOldRecord() throws {
        let directory = try TemporaryDirectory()
        try sample.write(in: directory.descriptor)
        // A directory in the way of the temporary file.
        try makeDirectory("pid.tmp", mode: 0o700, at: directory.descriptor)
        var other = sample
        other.started = nil
        #expect(throws: RecordError.self) { try other.write(in: directory.descriptor) }
        #expect(try PidRecord.read(in: directory.descriptor) == sample)
        unlinkat(directory.descriptor, "pid.tmp", AT_REMOVEDIR)
        try directory.write("pid.tmp", [1, 2, 3])
        try other.write(in: directory.descriptor)
        #expect(try PidRecord.read(in: directory.descriptor) == other)
    }

    private func crc(_ bytes: [UInt8]) -> UInt32 {
        var sum = ~UInt32(0)
        for byte in bytes {
            sum ^= UInt32(byte)
            for _ in 0..<8 { sum = sum & 1 == 1 ? 0xEDB8_8320 ^ sum >> 1 : sum >> 1 }
        }
        return ~sum
    }
}

@Suite struct ExitsFileTests {
    private func encode(_ entries: [KeeperExit]) -> [UInt8] {
        entries.flatMap { entry in
            withUnsafeBytes(of: entry.pid.littleEndian, Array.init) + withUnsafeBytes(of: entry.waitStatus.littleEndian, Array.init)
                + withUnsafeBytes(of: entry.boot.littleEndian, Array.init)
        }
    }

    @Test func aTornTailIsNoEntry() throws {
        let directory = try TemporaryDirectory()
        let entries = (1...200).map { KeeperExit(pid: $0, waitStatus: $0 << 8, boot: Int64($0) * 1_000_000_000) }
        let bytes = encode(entries)
        for cut in Array(0..<40) + [1000, 1023, 1024, 1025, 3199, 3200] {
            try directory.write("exits", Array(bytes[..<cut]))
            let file = try Linux.open("exits", O_RDONLY, at: directory.descriptor)
            var seen: [KeeperExit] = []
            let end = try ExitsFile.forEach(in: file.raw) { entry in
                seen.append(entry)
                return true
            }
            #expect(seen == Array(entries[..<(cut / 16)]))
            #expect(end == Int64(cut / 16 * 16))
        }
    }

    @Test func aFormerOwnerOfThePidIsNotTheContainer() throws {
        let directory = try TemporaryDirectory()
        let second: Int64 = 1_000_000_000
        try directory.write(
            "exits",
            encode([
                KeeperExit(pid: 7, waitStatus: 0x100, boot: 4 * second), KeeperExit(pid: 8, waitStatus: 0, boot: 6 * second),
                KeeperExit(pid: 7, waitStatus: 0x2b00, boot: 7 * second), KeeperExit(pid: 7, waitStatus: 0x200, boot: 9 * second),
            ]))
        let file = try Linux.open("exits", O_RDONLY, at: directory.descriptor)
        let ticks = UInt64(sysconf(Int32(_SC_CLK_TCK)))
        #expect(try ExitsFile.find(ProcessIdentity(pid: 7, startTime: 5 * ticks), in: file.raw)?.waitStatus == 0x2b00)
        #expect(try ExitsFile.find(ProcessIdentity(pid: 7, startTime: 10 * ticks), in: file.raw) == nil)
        #expect(try ExitsFile.find(ProcessIdentity(pid: 9, startTime: 0), in: file.raw) == nil)
    }
}
