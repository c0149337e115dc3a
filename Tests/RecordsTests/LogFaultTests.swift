import Glibc
import Linux
import Testing

@testable import Logs

/// A small file system that is gone with its last user.
private final class SmallDisk {
    let outer: TemporaryDirectory
    init(size: String = "64k") throws {
        outer = try TemporaryDirectory()
        try #require(mount("tmpfs", outer.path, "tmpfs", 0, "size=\(size),mode=700") == 0, "mounting needs root")
    }
    var path: String { outer.path }
    func opened() throws -> Descriptor { try Linux.open(path, O_RDONLY | O_DIRECTORY) }
    func fill() throws -> Descriptor {
        let filler = try Linux.open(path + "/filler", O_WRONLY | O_CREAT, mode: 0o600)
        let page = [UInt8](repeating: 1, count: 4096)
        while Glibc.write(filler.raw, page, page.count) > 0 {}
        return filler
    }
    deinit { umount2(outer.path, 2) }
}

/// Disks that take nothing: the container goes on, what is lost is counted, and the log goes on afterwards.
@Suite(.serialized) struct LogFaultTests {
    private func drainAll(_ writer: inout LogWriter, _ pipe: Pipe) -> Int {
        var moved = 0
        while case .moved(let count) = writer.drain(.stdout, from: pipe.reader) { moved += count }
        return moved
    }

    private func collected(_ directory: consuming Descriptor) throws -> Collected {
        var reader = LogReader(directory: directory)
        return try Collected(&reader)
    }

    @Test func whatAFullDiskDroppedIsCountedAndTheLogGoesOn() throws {
        let disk = try SmallDisk()
        let pipe = Pipe()
        var writer = try LogWriter(directory: disk.opened(), segmentBytes: 1 << 24)
        try pipe.write(numbered(10, "a"))
        _ = writer.drain(.stdout, from: pipe.reader)
        let filler = try disk.fill()
        let lost = numbered(2000, "b")
        try pipe.write(lost)
        #expect(drainAll(&writer, pipe) == lost.count)
        // The pipe is silent now, and the index has room in its page: readers learn of the gap at once.
        #expect(try collected(disk.opened()).gaps > 0)
        ftruncate(filler.raw, 0)
        try pipe.write(numbered(10, "c"))
        _ = writer.drain(.stdout, from: pipe.reader)
        pipe.closeWriter()
        #expect(writer.drain(.stdout, from: pipe.reader) == .ended)
        writer.end(.stdout)
        let all = try collected(disk.opened())
        let kept = all.stdout.count - numbered(10, "a").count - numbered(10, "c").count
        try #require(kept >= 0)
        #expect(all.stdout == numbered(10, "a") + lost[..<kept] + numbered(10, "c"))
        #expect(all.gaps == UInt64(lost.count - kept) && all.gaps > 0)
        let directory = try disk.opened()
        let report = try LogVerifier.verify(directory: directory, isLive: true)
        #expect(report.problems == [] && report.gapBytes == all.gaps)
    }

    @Test func aWriterThatFindsAFullDiskBeginsWhenThereIsRoom() throws {
        let disk = try SmallDisk(size: "16k,nr_inodes=2")
        let filler = try disk.fill()
        let pipe = Pipe()
        var writer = try LogWriter(directory: disk.opened(), segmentBytes: 1 << 24)
        let lost = numbered(500, "b")
        try pipe.write(lost)
        #expect(drainAll(&writer, pipe) == lost.count)
        writer.end(.stderr)
        #expect(unlink(disk.path + "/filler") == 0)
        #expect(mount("", disk.path, "", UInt(MS_REMOUNT), "size=64k,nr_inodes=100") == 0)
        _ = filler.raw
        // The disk is asked again after a pause, not by every byte.
        let deadline = now(CLOCK_MONOTONIC) + 5_000_000_000
        while writer.indexSize == 0 && now(CLOCK_MONOTONIC) < deadline { writer.retry() }
        try pipe.write(numbered(5, "c"))
        #expect(drainAll(&writer, pipe) > 0)
        writer.end(.stdout)
        let all = try collected(disk.opened())
        #expect(all.stdout == numbered(5, "c") && all.gaps == UInt64(lost.count) && all.ended)
    }

    @Test func aReadOnlyDiskIsNoError() throws {
        let disk = try SmallDisk()
        try #require(mount("", disk.path, "", UInt(MS_REMOUNT | MS_RDONLY), "") == 0)
        let pipe = Pipe()
        var writer = try LogWriter(directory: disk.opened(), segmentBytes: 1 << 24)
        try pipe.write(numbered(100, "a"))
        #expect(drainAll(&writer, pipe) == numbered(100, "a").count)
        try #require(mount("", disk.path, "", UInt(MS_REMOUNT), "") == 0)
        let deadline = now(CLOCK_MONOTONIC) + 5_000_000_000
        while writer.indexSize == 0 && now(CLOCK_MONOTONIC) < deadline { writer.retry() }
        try pipe.write(numbered(5, "b"))
        #expect(drainAll(&writer, pipe) > 0)
        let all = try collected(disk.opened())
        #expect(all.stdout == numbered(5, "b") && all.gaps == UInt64(numbered(100, "a").count))
    }

    @Test func aFileThatMayNotGrowDropsAndTheNextSegmentGoesOn() throws {
        let directory = try TemporaryDirectory()
        let pipe = Pipe()
        var writer = try directory.writer()
        signal(SIGXFSZ, SIG_IGN)
        var old = rlimit()
        getrlimit(__rlimit_resource_t(RLIMIT_FSIZE.rawValue), &old)
        var small = rlimit(rlim_cur: 8192, rlim_max: old.rlim_max)
        try #require(setrlimit(__rlimit_resource_t(RLIMIT_FSIZE.rawValue), &small) == 0)
        let lost = numbered(1500, "x")
        try pipe.write(lost)
        let moved = drainAll(&writer, pipe)
        setrlimit(__rlimit_resource_t(RLIMIT_FSIZE.rawValue), &old)
        #expect(moved == lost.count)
        try pipe.write(numbered(3, "y"))
        _ = writer.drain(.stdout, from: pipe.reader)
        var reader = try directory.reader()
        let all = try Collected(&reader)
        #expect(all.stdout == lost[..<8192] + numbered(3, "y") && all.gaps == UInt64(lost.count - 8192))
    }

    @Test func rotationGoesOnThoughADiskIsFull() throws {
        let disk = try SmallDisk(size: "128k")
        let pipe = Pipe()
        var writer = try LogWriter(directory: disk.opened(), segmentBytes: 16 << 10, segmentCount: 2)
        // Much more than the disk holds: the oldest make room.
        var written = 0
        for number in 0..<100 {
            let bytes = numbered(300, "round \(number)")
            written += bytes.count
            try pipe.write(bytes)
            #expect(drainAll(&writer, pipe) == bytes.count)
        }
        writer.end(.stdout)
        let directory = try disk.opened()
        let report = try LogVerifier.verify(directory: directory, isLive: false)
        #expect(report.problems == [] && report.gapBytes == 0)
        #expect(report.bytes + report.rotatedBytes == UInt64(written))
    }

    /// What was parked of a writer that is gone.
    private final class Kept {
        var file: Int32 = -1
        func keep(_ raw: Int32) -> Bool {
            file = dup(raw)
            return true
        }
    }

    /// The writer is gone with its memory, as after a kill: with a hole only, and with bytes behind the hole that have no entry either.
    @Test(arguments: [false, true])
    func whatAKilledWriterDroppedIsSaidAtItsPlace(goesOn: Bool) throws {
        let disk = try SmallDisk()
        let pipe = Pipe()
        let kept = Kept()
        var expected: [UInt8] = []
        var produced = 0
        do {
            var writer = try LogWriter(directory: disk.opened(), segmentBytes: 1 << 24)
            writer.onDropping = { _, file in kept.keep(file) }
            // So many entries that the next begins a page of its own.
            for number in 0..<102 {
                let line = numbered(1, "\(number)")
                expected += line
                try pipe.write(line)
                _ = writer.drain(.stdout, from: pipe.reader)
            }
            produced = expected.count
            let filler = try disk.fill()
            let lost = numbered(2000, "b")
            try pipe.write(lost)
            #expect(drainAll(&writer, pipe) == lost.count)
            produced += lost.count
            expected += lost[..<(4096 - expected.count)]
            if goesOn {
                // Room for one page, which the segment takes.
                var size = stat()
                fstat(filler.raw, &size)
                ftruncate(filler.raw, size.st_size - 4096)
                let behind = numbered(20, "c")
                try pipe.write(behind)
                #expect(drainAll(&writer, pipe) == behind.count)
                produced += behind.count
            }
            var index = stat()
            #expect(stat(disk.path + "/index", &index) == 0 && index.st_size < 103 * 40)
        }
        #expect(unlink(disk.path + "/filler") == 0)
        try #require(kept.file >= 0)
        var writer = try LogWriter(directory: disk.opened(), segmentBytes: 1 << 24, dropFiles: (kept.file, -1))
        try pipe.write(numbered(3, "d"))
        _ = writer.drain(.stdout, from: pipe.reader)
        let all = try collected(disk.opened())
        let behind = goesOn ? numbered(20, "c") : []
        #expect(all.stdout == expected + behind + numbered(3, "d"))
        #expect(all.gaps == UInt64(produced - expected.count - behind.count))
        // The hole is where the bytes are missing.
        var before = 0
        search: for chunk in all.chunks {
            switch chunk.content {
            case .bytes(let bytes): before += bytes.count
            case .gap: break search
            case .end: break
            }
        }
        #expect(before == expected.count)
        let directory = try disk.opened()
        #expect(try LogVerifier.verify(directory: directory, isLive: true).problems == [])
    }

    /// Killed over the entry itself: it is there, and its bytes are not said again; or it is not.
    @Test(arguments: [true, false])
    func anEntryOverWhichItsWriterDiedCountsOnce(isWritten: Bool) throws {
        let directory = try TemporaryDirectory()
        let pipe = Pipe()
        let counter = try #require(DropCounter(dropped: 0))
        try pipe.write(numbered(100, "x"))
        while counter.take(from: pipe.reader, limit: 1 << 20) > 0, counter.pending < UInt64(numbered(100, "x").count) {}
        let count = counter.pending
        #expect(count == UInt64(numbered(100, "x").count))
        counter.begin(telling: UInt32(count), at: 0)
        if isWritten {
            let entry = LogEntry(stream: .stdout, flags: .gap, segment: 1, length: UInt32(count), offset: 0, time: 1, boot: 1)
            try directory.write("index", index([entry]))
        }
        var writer = try LogWriter(directory: directory.opened(), segmentBytes: 1 << 24, dropFiles: (dup(counter.file.raw), -1))
        writer.end(.stdout)
        var reader = try directory.reader()
        let all = try Collected(&reader)
        #expect(all.gaps == count && all.stdout == [])
    }
}
