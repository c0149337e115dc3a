import CLinux
import Glibc
import Linux
import Records
import Testing

@testable import LogDrivers
@testable import Logs

/// A container's directory with a log that is written here.
private final class Box {
    let path: String
    let id = String(repeating: "ab", count: 32)
    private var pipes = LogPair<[Int32]>(both: [-1, -1])
    private var writer: LogWriter?

    init(segmentBytes: UInt64 = 500, segmentCount: UInt32 = 0) throws {
        var template = Array("/tmp/ctr-test-XXXXXX".utf8CString)
        path = template.withUnsafeMutableBufferPointer { buffer in
            buffer.baseAddress.flatMap { mkdtemp($0) }.map { String(cString: $0) } ?? "/nonexistent"
        }
        try incarnation(1, segmentBytes, segmentCount)
    }

    func incarnation(_ number: Int, _ segmentBytes: UInt64 = 500, _ segmentCount: UInt32 = 0) throws {
        try makeDirectory("\(path)/\(number)", mode: 0o700)
        try makeDirectory("\(path)/\(number)/log", mode: 0o700)
        writer = try LogWriter(
            directory: Linux.open("\(path)/\(number)/log", O_RDONLY | O_DIRECTORY), segmentBytes: segmentBytes, segmentCount: segmentCount)
        for stream in LogStream.allCases {
            for end in pipes[stream] where end >= 0 { close(end) }
            var ends: [Int32] = [-1, -1]
            _ = ends.withUnsafeMutableBufferPointer { Glibc.pipe($0.baseAddress) }
            pipes[stream] = ends
        }
    }

    func write(_ text: String, _ stream: LogStream = .stdout) throws { try write(Array(text.utf8), stream) }
    func write(_ bytes: [UInt8], _ stream: LogStream = .stdout) throws {
        try writeAll(pipes[stream][1], bytes, name: "pipe")
        let pipe = pipes[stream][0]
        while case .moved = writer?.drain(stream, from: pipe) ?? .empty {}
    }
    func end() { for stream in LogStream.allCases { writer?.end(stream) } }

    /// A driver as the manager makes one after its start.
    func driver(_ name: String, _ options: [String: String] = [:]) throws -> LogDriver {
        try LogDriver(
            options: LogOptions(driver: name, options: options),
            container: DrivenContainer(id: id, name: "box", image: "image:1", directory: path))
    }

    func text(_ file: String) throws -> String { String(decoding: try readFile(file, limit: 1 << 26), as: UTF8.self) }
    var json: String { "\(path)/\(id)-json.log" }
    var names: [String] {
        get throws {
            let directory = try Linux.open(path, O_RDONLY | O_DIRECTORY)
            return try RootFS.entries(of: directory.raw).sorted()
        }
    }

    deinit {
        for stream in LogStream.allCases { for end in pipes[stream] where end >= 0 { close(end) } }
        if let slash = path.lastIndex(of: "/"), let parent = try? Linux.open("/tmp", O_RDONLY | O_DIRECTORY) {
            try? RootFS.removeTree(parent.raw, String(path[path.index(after: slash)...]))
        }
    }
}

/// Steps until nothing more is there.
private func run(_ driver: LogDriver) -> LogDriver.Outcome {
    while true {
        let outcome = driver.step()
        if outcome != .more { return outcome }
    }
}

/// The `log` values of a json-file, joined.
private func logs(_ text: String) -> String {
    text.split(separator: "\n").map { line -> String in
        let value = line.dropFirst("{\"log\":\"".count).prefix { $0 != "\"" }
        return value.replacingNewlines
    }.joined()
}

extension Substring {
    fileprivate var replacingNewlines: String { hasSuffix("\\n") ? dropLast(2) + "\n" : String(self) }
}

@Suite struct DriverTests {
    @Test func linesAndTheirStreamsAreWritten() throws {
        let box = try Box()
        try box.write("one\ntwo\n")
        try box.write("bad\n", .stderr)
        let driver = try box.driver("json-file")
        guard case .idle = run(driver) else { return #expect(Bool(false)) }
        let lines = try box.text(box.json).split(separator: "\n")
        #expect(lines.count == 3 && lines[0].hasPrefix("{\"log\":\"one\\n\",\"stream\":\"stdout\",\"time\":\"20"))
        #expect(lines[2].hasPrefix("{\"log\":\"bad\\n\",\"stream\":\"stderr\""))
        try box.write("half")
        _ = run(driver)
        #expect(try box.text(box.json).split(separator: "\n").count == 3)
        box.end()
        #expect(run(driver) == .ended)
        #expect(try box.text(box.json).split(separator: "\n").last?.hasPrefix("{\"log\":\"half\",") == true)
        #expect(try driver.place() == (1, true))
    }

    /// Whatever is cut off at whatever moment: a driver that begins again where the record says writes each line once.
    @Test(arguments: ["json-file", "cri"])
    func eachLineIsInTheFileOnceWhoeverDiesWhen(name: String) throws {
        let box = try Box()
        var expected: [String] = []
        var seed: UInt64 = 5
        let file = "\(box.path)/out"
        for round in 0..<60 {
            for _ in 0..<20 {
                seed = seed &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
                expected.append("line \(expected.count) " + String(repeating: "x", count: Int(seed >> 40) % 60))
                try box.write(expected[expected.count - 1] + "\n")
            }
            // Each time a driver of its own, which is killed after its work: with the file behind, and ahead of, its record.
            let record = try? readFile("\(box.path)/log-driver", limit: 1 << 16)
            let driver = try box.driver(name, ["path": file])
            guard case .idle = run(driver) else { return #expect(Bool(false), "round \(round)") }
            if round % 3 == 1, let record {
                let opened = try Linux.open("\(box.path)/log-driver", O_WRONLY | O_TRUNC)
                try writeAll(opened.raw, record, name: "record")
            }
            if round % 3 == 2 {
                let opened = try Linux.open(file, O_WRONLY | O_APPEND)
                try writeAll(opened.raw, Array("{\"log\":\"torn".utf8), name: "file")
            }
        }
        box.end()
        #expect(try run(box.driver(name, ["path": file])) == .ended)
        let lines = try box.text(file).split(separator: "\n").map(String.init)
        #expect(lines.count == expected.count)
        for (line, text) in zip(lines, expected) { #expect(line.contains(name == "cri" ? " stdout F \(text)" : "\"\(text)\\n\"")) }
    }

    @Test func rotationKeepsSoManyFilesWithWholeLines() throws {
        let box = try Box(segmentBytes: 1 << 20)
        let driver = try box.driver("json-file", ["max-size": "1k", "max-file": "3"])
        for number in 0..<100 {
            try box.write("line \(number)\n")
            _ = run(driver)
        }
        #expect(try box.names.filter { $0.contains("-json.log") } == ["", ".1", ".2"].map { "\(box.id)-json.log\($0)" })
        var kept = ""
        for suffix in [".2", ".1", ""] {
            let text = try box.text(box.json + suffix)
            #expect(text.hasSuffix("}\n") && text.utf8.count < 1200 && text.utf8.count > 0)
            kept += logs(text)
        }
        let numbers = kept.split(separator: "\n")
        #expect(numbers.last == "line 99" && numbers.count > 20)
        #expect(numbers == (100 - numbers.count..<100).map { "line \($0)" }[...].map { $0[...] })
    }

    @Test func oneFileIsBegunAnew() throws {
        let box = try Box(segmentBytes: 1 << 20)
        let driver = try box.driver("json-file", ["max-size": "1k"])
        for number in 0..<100 {
            try box.write("line \(number)\n")
            _ = run(driver)
        }
        #expect(try box.names.filter { $0.contains("-json.log") } == ["\(box.id)-json.log"])
        #expect(try logs(box.text(box.json)).hasSuffix("line 98\nline 99\n"))
        #expect(try box.text(box.json).utf8.count < 1200)
    }

    /// At every step of a rotation somebody dies.
    @Test func aCutRotationLosesNoFile() throws {
        for cut in 0..<4 {
            let box = try Box(segmentBytes: 1 << 20)
            var driver: LogDriver? = try box.driver("json-file", ["max-size": "1k", "max-file": "4"])
            var number = 0
            // Three old files, and the next line begins another one.
            while try !box.names.contains("\(box.id)-json.log.3") || box.text(box.json).utf8.count < 1000 {
                try box.write("line \(number)\n")
                number += 1
                _ = driver.map(run)
            }
            driver = nil
            let first = logs(try box.text(box.json + ".2"))
            // As if the next rotation had come so far.
            if cut > 0 { rename(box.json + ".2", box.json + ".3") }
            if cut > 1 { rename(box.json + ".1", box.json + ".2") }
            if cut > 2 { rename(box.json, box.json + ".1") }
            let next = try box.driver("json-file", ["max-size": "1k", "max-file": "4"])
            try box.write("line \(number)\n")
            number += 1
            _ = run(next)
            #expect(try logs(box.text(box.json + ".3")) == first, "cut \(cut)")
            let kept = try [".3", ".2", ".1", ""].map { logs(try box.text(box.json + $0)) }.joined().split(separator: "\n")
            #expect(kept.last == "line \(number - 1)")
            #expect(kept == (number - kept.count..<number).map { "line \($0)" }[...].map { $0[...] }, "cut \(cut)")
        }
    }

    @Test func aFileThatSomebodyRenamesIsBegunAnew() throws {
        let box = try Box()
        let file = "\(box.path)/0.log"
        let driver = try box.driver("cri", ["path": file])
        try box.write("a\nb\n")
        _ = run(driver)
        rename(file, "\(box.path)/0.log.20260101-000000")
        try box.write("c\n")
        _ = run(driver)
        #expect(try box.text("\(box.path)/0.log.20260101-000000").hasSuffix("F a\n") == false)
        #expect(try box.text("\(box.path)/0.log.20260101-000000").hasSuffix("F b\n"))
        #expect(try box.text(file).hasSuffix("F c\n") && box.text(file).split(separator: "\n").count == 1)
        // Also while no driver lives, with lines that no record knows of.
        let opened = try Linux.open(file, O_WRONLY | O_APPEND)
        try writeAll(opened.raw, Array("not recorded\n".utf8), name: "file")
        rename(file, "\(box.path)/0.log.20260101-000001")
        try box.write("d\n")
        _ = run(try box.driver("cri", ["path": file]))
        #expect(try box.text("\(box.path)/0.log.20260101-000001").hasSuffix("F c\n"))
        #expect(try box.text(file).hasSuffix("F d\n"))
    }

    @Test func criFilesAreRenamedAsTheKubeletDoes() throws {
        let box = try Box(segmentBytes: 1 << 20)
        let file = "\(box.path)/0.log"
        let driver = try box.driver("cri", ["path": file, "max-size": "1k", "max-file": "3"])
        for number in 0..<200 {
            try box.write("line \(number)\n")
            _ = run(driver)
        }
        let names = try box.names.filter { $0.hasPrefix("0.log") }
        #expect(names.count == 3 && names[0] == "0.log" && names[1...].allSatisfy { $0.utf8.count == "0.log.20260101-000000".utf8.count })
        let all = try (names[1...] + ["0.log"]).map { try box.text("\(box.path)/\($0)") }.joined()
        let lines = all.split(separator: "\n")
        for (number, line) in zip(200 - lines.count..<200, lines) { #expect(line.hasSuffix(" stdout F line \(number)")) }
    }

    @Test func laterTasksAreWrittenBehindEarlierOnes() throws {
        let box = try Box()
        try box.write("first\n")
        box.end()
        let driver = try box.driver("json-file")
        #expect(run(driver) == .ended)
        try box.incarnation(2)
        try box.write("second\n")
        try driver.begin(incarnation: 2)
        _ = run(driver)
        #expect(try logs(box.text(box.json)) == "first\nsecond\n")
        #expect(try box.driver("json-file").place() == (2, false))
    }

    @Test func linesLongerThanAPartAreSplit() throws {
        let box = try Box(segmentBytes: 1 << 20)
        try box.write([UInt8](repeating: 120, count: 40000) + [10])
        _ = run(try box.driver("json-file"))
        let lines = try box.text(box.json).split(separator: "\n")
        #expect(lines.count == 3 && !lines[0].contains("\\n") && lines[2].contains("x\\n\""))
        #expect(logs(try box.text(box.json)).utf8.count == 40001)
    }

    @Test(.enabled(if: geteuid() == 0, "mounting a small file system needs root"))
    func aFullDiskIsWaitedForAndNothingIsLost() throws {
        let box = try Box(segmentBytes: 1 << 20)
        let disk = "\(box.path)/disk"
        try makeDirectory(disk, mode: 0o700)
        try #require(mount("tmpfs", disk, "tmpfs", 0, "size=16k") == 0)
        defer { umount2(disk, 2) }
        let driver = try box.driver("json-file", ["path": "\(disk)/out"])
        var expected = ""
        var failures = 0
        for number in 0..<400 {
            expected += "line \(number)\n"
            try box.write("line \(number)\n")
            if case .retry(let why) = run(driver) {
                failures += 1
                #expect(why.contains("No space left"))
                #expect(try box.text("\(disk)/out").hasSuffix("}\n"))
            }
        }
        #expect(failures > 0)
        try #require(mount("", disk, "", UInt(MS_REMOUNT), "size=1m") == 0)
        guard case .idle = run(driver) else { return #expect(Bool(false)) }
        #expect(try logs(box.text("\(disk)/out")) == expected)
    }

    @Test func twoDriversDoNotShareAFile() throws {
        let (one, two) = (try Box(), try Box())
        try one.write("a\n")
        try two.write("b\n")
        let first = try one.driver("json-file", ["path": "\(one.path)/out"])
        _ = run(first)
        guard case .retry = run(try two.driver("json-file", ["path": "\(one.path)/out"])) else { return #expect(Bool(false)) }
        #expect(try logs(one.text("\(one.path)/out")) == "a\n")
        _ = first
    }

    // MARK: journal

    /// A journal of the test's own: what it gets, decoded as the native protocol says.
    private final class TestJournal {
        let path: String
        let socket: Int32
        init(_ path: String) throws {
            self.path = path
            socket = Glibc.socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue), 0)
            var address = sockaddr_un()
            address.sun_family = sa_family_t(AF_UNIX)
            withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
            let socket = socket
            let bound = withUnsafePointer(to: &address) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { Glibc.bind(socket, $0, socklen_t(MemoryLayout<sockaddr_un>.size)) }
            }
            try #require(bound == 0)
        }

        func entry() -> [String: [UInt8]]? {
            var bytes = [UInt8](repeating: 0, count: 1 << 20)
            var descriptor: Int32 = -1
            let got = ctr_recv_fd(socket, &bytes, bytes.count, &descriptor, Int32(MSG_DONTWAIT))
            if got < 0 { return nil }
            bytes = Array(bytes[..<got])
            if descriptor >= 0 {
                // F_GET_SEALS: a reader may map it only when nobody can change it.
                #expect(ctr_fcntl_int(descriptor, 1034, 0) == 15)
                lseek(descriptor, 0, SEEK_SET)
                bytes = (try? readAll(descriptor, name: "entry", limit: 1 << 24)) ?? []
                close(descriptor)
            }
            return decode(bytes)
        }

        private func decode(_ bytes: [UInt8]) -> [String: [UInt8]] {
            var fields: [String: [UInt8]] = [:]
            var at = 0
            while at < bytes.count {
                guard let end = bytes[at...].firstIndex(where: { $0 == 0x3d || $0 == 0x0a }) else { break }
                let key = String(decoding: bytes[at..<end], as: UTF8.self)
                if bytes[end] == 0x3d {
                    let stop = bytes[end...].firstIndex(of: 0x0a) ?? bytes.endIndex
                    fields[key] = Array(bytes[(end + 1)..<stop])
                    at = stop + 1
                } else {
                    var length = 0
                    for offset in 0..<8 { length |= Int(bytes[end + 1 + offset]) << (8 * offset) }
                    fields[key] = Array(bytes[(end + 9)..<(end + 9 + length)])
                    #expect(bytes[end + 9 + length] == 0x0a)
                    at = end + 9 + length + 1
                }
            }
            return fields
        }
        deinit {
            close(socket)
            unlink(path)
        }
    }

    @Test func theJournalGetsFields() throws {
        let box = try Box(segmentBytes: 1 << 20)
        let journal = try TestJournal("\(box.path)/journal")
        let driver = try box.driver("journald", ["socket": journal.path, "tag": "{{.Name}}/{{.ID}}"])
        try box.write("hello\n")
        try box.write("bad\n", .stderr)
        _ = run(driver)
        let first = try #require(journal.entry())
        let expected = [
            "MESSAGE": "hello", "PRIORITY": "6", "CONTAINER_ID": "abababababab", "CONTAINER_ID_FULL": box.id, "CONTAINER_NAME": "box",
            "CONTAINER_TAG": "box/abababababab", "IMAGE_NAME": "image:1", "SYSLOG_IDENTIFIER": "box/abababababab",
            "CONTAINER_LOG_POSITION": "1:stdout:0:0",
        ]
        for (key, value) in expected { #expect(first[key] == Array(value.utf8), "\(key)") }
        let second = try #require(journal.entry())
        #expect(second["MESSAGE"] == Array("bad".utf8) && second["PRIORITY"] == Array("3".utf8))
        #expect(journal.entry() == nil)
        // Nothing is said twice.
        try box.write("again\n")
        _ = run(try box.driver("journald", ["socket": journal.path]))
        #expect(journal.entry()?["MESSAGE"] == Array("again".utf8))
        #expect(journal.entry() == nil)
    }

    @Test func largeEntriesComeAsASealedFile() throws {
        let box = try Box(segmentBytes: 1 << 20)
        let journal = try TestJournal("\(box.path)/journal")
        let long = [UInt8](repeating: 120, count: 250_000)
        for begin in stride(from: 0, to: long.count, by: 50000) { try box.write(Array(long[begin..<begin + 50000])) }
        try box.write("\n")
        _ = run(try box.driver("journald", ["socket": journal.path]))
        #expect(journal.entry()?["MESSAGE"] == long)
    }

    @Test func aJournalThatIsFullOrAwayIsWaitedFor() throws {
        let box = try Box(segmentBytes: 1 << 20)
        let path = "\(box.path)/journal"
        let driver = try box.driver("journald", ["socket": path])
        try box.write("0\n")
        guard case .retry = run(driver) else { return #expect(Bool(false)) }
        var journal: TestJournal? = try TestJournal(path)
        for number in 1..<2000 { try box.write("\(number)\n") }
        var got: [String] = []
        var blocked = 0
        while got.count < 1000 {
            if case .retry = run(driver) { blocked += 1 }
            while let entry = journal?.entry() { got.append(String(decoding: entry["MESSAGE"] ?? [], as: UTF8.self)) }
        }
        // The queue of a socket is short: it was full often, and nothing came twice.
        #expect(blocked > 0)
        journal = nil
        guard case .retry = run(driver) else { return #expect(got.count == 2000) }
        journal = try TestJournal(path)
        while got.count < 2000 {
            let outcome = run(driver)
            while let entry = journal?.entry() { got.append(String(decoding: entry["MESSAGE"] ?? [], as: UTF8.self)) }
            if case .idle = outcome { break }
        }
        #expect(got == (0..<2000).map(String.init))
    }
}
