import Glibc
import Linux
import Testing

@testable import Shim

/// What outlives a shim under containerd: its events and its calls.
@Suite struct SpoolTests {
    /// A directory of its own, removed with it.
    private final class Place {
        let path: String
        let directory: Descriptor

        init() throws {
            var name = Array("/tmp/ctr-spool-XXXXXX".utf8CString)
            try #require(mkdtemp(&name) != nil)
            path = String(decoding: name.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
            directory = try Linux.open(path, O_RDONLY | O_DIRECTORY)
        }

        deinit {
            for name in directoryNames(at: path) { unlink("\(path)/\(name)") }
            rmdir(path)
        }

        func size(_ name: String) -> Int {
            var status = stat()
            return stat("\(path)/\(name)", &status) == 0 ? Int(status.st_size) : -1
        }
    }

    private func number(_ message: [UInt8]?) -> Int? { message.flatMap { Int(String(decoding: $0.prefix { $0 != 0x20 }, as: UTF8.self)) } }

    /// The first may be on its way while the pile is cut: its answer must not take out another.
    @Test func whatIsUnderWayIsNotDropped() throws {
        let place = try Place()
        let spool = try EventSpool(in: place.directory.raw)
        for index in 0..<EventSpool.countLimit { spool.append(EventSpool.Kind.other, Array("\(index) ".utf8)) }
        #expect(number(spool.first()) == 0)
        spool.append(EventSpool.Kind.exited, Array("9999 ".utf8))
        #expect(number(spool.first()) == 0)
        spool.removeFirst()
        let next = try #require(number(spool.first()))
        #expect(next > 100 && next < 9999)
        var last: Int?
        while let message = spool.first() {
            last = number(message)
            spool.removeFirst()
        }
        #expect(last == 9999)
    }

    /// A pile that is never empty, because there is always one more, is long only in the file.
    @Test func whatIsTakenInTimeIsNeverDropped() throws {
        let place = try Place()
        let spool = try EventSpool(in: place.directory.raw)
        let filling = [UInt8](repeating: 0x2e, count: 4000)
        for index in 0..<3 { spool.append(EventSpool.Kind.other, Array("\(index) ".utf8) + filling) }
        for index in 3..<500 {
            spool.append(EventSpool.Kind.other, Array("\(index) ".utf8) + filling)
            #expect(number(spool.first()) == index - 3)
            spool.removeFirst()
            #expect(place.size("events") <= EventSpool.limit + 4096)
        }
        let successor = try EventSpool(in: place.directory.raw)
        #expect(number(successor.first()) == 497)
    }

    @Test func whatCannotBeReadCostsItsContentAlone() throws {
        let place = try Place()
        for name in ["events", "calls"] {
            let file = try Linux.open("\(place.path)/\(name)", O_WRONLY | O_CREAT, mode: 0o600)
            #expect(ftruncate(file.raw, 32 << 20) == 0)
        }
        let spool = try EventSpool(in: place.directory.raw)
        #expect(spool.isEmpty)
        spool.append(EventSpool.Kind.created, [1])
        let again = try EventSpool(in: place.directory.raw)
        #expect(again.first() == [1])
        let journal = try CallJournal(in: place.directory.raw)
        #expect(journal.open.isEmpty && place.size("calls") == 0)
    }

    @Test func callsThatWaitAreBounded() throws {
        let place = try Place()
        let journal = try CallJournal(in: place.directory.raw)
        let request = [UInt8](repeating: 1, count: 64 << 10)
        var stream: UInt32 = 1
        while journal.hasRoom(for: request.count) {
            journal.begin(connection: 1, stream: stream, request: request)
            stream += 2
        }
        #expect(journal.open.count == 64)
        let successor = try CallJournal(in: place.directory.raw)
        #expect(successor.open.count == 64 && successor.open.last?.stream == stream - 2)
        journal.closed(connection: 1)
        #expect(journal.hasRoom(for: request.count) && place.size("calls") == 0)
    }
}
