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
}
