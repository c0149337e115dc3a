import GRDB
import Glibc
import XCTest

@testable import Store
@testable import Supervisor

final class StoreTests: XCTestCase {
    private var directory = ""

    override func setUpWithError() throws {
        var template = Array("/tmp/ctr-test-XXXXXX".utf8CString)
        directory = try XCTUnwrap(
            template.withUnsafeMutableBufferPointer { $0.baseAddress.flatMap { mkdtemp($0) }.map { String(cString: $0) } })
    }

    override func tearDown() {
        for name in (try? Rebuild.entries(directory)) ?? [] { unlink("\(directory)/\(name)") }
        rmdir(directory)
    }

    private var path: String { directory + "/ctrd.db" }

    private func row(_ id: String, name: String, startNow: Bool = false) -> ContainerRow {
        ContainerRow(
            id: id, namespace: "default", name: name, phase: .created, imageID: "sha256:0", record: Array("record of \(id)".utf8),
            startNow: startNow, attached: true, inventedName: false)
    }

    private func event(_ topic: Event.Topic, _ object: String, _ payload: String = "") -> Event {
        Event(namespace: "default", topic: topic, object: object, incarnation: 1, payload: Array(payload.utf8), time: 42)
    }

    func testRowsComeBackAsTheyWere() async throws {
        let container = row("a", name: "x")
        var task = TaskRow(
            container: "a", incarnation: 2, phase: .stopped, pid: 77, startTime: .max, bootID: "boot", started: 5, error: "e")
        task.exit = ExitRow(code: 137, source: "reaped", exited: 9, oomKilled: true)
        let older = TaskRow(container: "a", incarnation: 1, phase: .unknown, bootID: "boot")
        let image = ImageNameRow(namespace: "default", name: "n", manifest: "m", imported: 3)
        do {
            let store = try Store(path: path)
            try await store.commit(
                [.insertContainer(container), .putTask(older), .putTask(task), .putImageName(image)], event: event(.containerCreate, "a"))
        }
        let contents = try Store(path: path).load()
        XCTAssertEqual(contents.containers, [container])
        XCTAssertEqual(contents.tasks, ["a": task], "the latest incarnation")
        XCTAssertEqual(contents.imageNames, [image])
    }

    func testAnUnknownExitHasNoCode() async throws {
        let store = try Store(path: path)
        var task = TaskRow(container: "a", incarnation: 1, phase: .unknown, bootID: "b")
        task.exit = ExitRow(code: nil, source: "unknown", reason: "why", exited: 0)
        try await store.commit([.insertContainer(row("a", name: "x")), .putTask(task)], event: event(.taskExit, "a"))
        XCTAssertEqual(try store.load().tasks["a"]?.exit, task.exit)
    }

    func testAChangeAndItsEventAreOne() async throws {
        let store = try Store(path: path)
        try await store.commit([.insertContainer(row("a", name: "x"))], event: event(.containerCreate, "a"))
        // The second insertion fails, so nothing of its transaction stays: neither the row before it nor the event.
        do {
            try await store.commit(
                [.insertContainer(row("b", name: "y")), .insertContainer(row("c", name: "x"))], event: event(.containerCreate, "b"))
            XCTFail("a name was given twice")
        } catch { XCTAssertEqual(error as? StoreError, .duplicate) }
        XCTAssertEqual(try store.load().containers.map(\.id), ["a"])
        let events = try await store.events(after: 0, limit: 10)
        XCTAssertEqual(events.map(\.event.object), ["a"])
    }

    func testNamesAreUniqueInTheirNamespaceOnly() async throws {
        let store = try Store(path: path)
        var other = row("b", name: "x")
        other.namespace = "other"
        try await store.commit([.insertContainer(row("a", name: "x")), .insertContainer(other)], event: event(.containerCreate, "a"))
        XCTAssertEqual(try store.load().containers.count, 2)
    }

    func testTransactionsOfAGroupFailAlone() async throws {
        let store = try Store(path: path)
        let outcomes = await withTaskGroup(of: Bool.self) { group in
            for index in 0..<200 {
                let container = row("id\(index)", name: "name\(index % 100)")
                let event = event(.containerCreate, "id\(index)")
                group.addTask { (try? await store.commit([.insertContainer(container)], event: event)) != nil }
            }
            return await group.reduce(into: 0) { $0 += $1 ? 1 : 0 }
        }
        XCTAssertEqual(outcomes, 100, "each name once")
        XCTAssertEqual(try store.load().containers.count, 100)
        let events = try await store.events(after: 0, limit: 1000)
        XCTAssertEqual(events.count, 100)
        XCTAssertEqual(events.map(\.sequence), (1...100).map { Int64($0) }, "without a gap: each event after N exactly once")
    }

    func testSequencesAreNeverUsedAgain() async throws {
        let store = try Store(path: path)
        try await store.commit([], event: event(.imageCreate, "i"))
        try await store.commit([.insertContainer(row("a", name: "x"))], event: event(.containerCreate, "a"))
        let first = try await store.events(after: 0, limit: 10)
        XCTAssertEqual(first.map(\.sequence), [1, 2])
        let rest = try await store.events(after: 1, limit: 10)
        XCTAssertEqual(rest.map(\.event.topic), [.containerCreate])
    }

    func testTheEndOfARemovedContainerIsStillKnown() async throws {
        let store = try Store(path: path)
        try await store.commit([.insertContainer(row("a", name: "x"))], event: event(.containerCreate, "a"))
        try await store.commit([], event: event(.taskExit, "a", "first"))
        try await store.commit([], event: event(.taskExit, "a", "second"))
        try await store.commit([.deleteContainer(id: "a")], event: event(.containerDelete, "a"))
        let payload = try await store.lastEvent(.taskExit, of: "a")
        XCTAssertEqual(payload, Array("second".utf8))
        let none = try await store.lastEvent(.taskExit, of: "b")
        XCTAssertNil(none)
    }

    func testWhatRanAndWasRemovedIsNotRunAgain() async throws {
        let store = try Store(path: path)
        try await store.commit([.insertContainer(row("a", name: "x", startNow: true))], event: event(.containerCreate, "a"))
        try await store.commit([.deleteContainer(id: "a")], event: event(.containerDelete, "a", "as it was"))
        do {
            try await store.commit([.insertContainer(row("a", name: "x", startNow: true))], event: event(.containerCreate, "a"))
            XCTFail("it was made again")
        } catch { XCTAssertEqual(error as? StoreError, .deleted(record: Array("as it was".utf8))) }
        // What was only made may be made again.
        try await store.commit([.insertContainer(row("a", name: "x"))], event: event(.containerCreate, "a"))
    }

    func testADamagedDatabaseIsMovedAside() throws {
        let file = fopen(path, "w")
        fputs(String(repeating: "this is no database\n", count: 500), file)
        fclose(file)
        let (store, damage) = try Store.open(path: path, time: 7)
        XCTAssertNotNil(damage)
        XCTAssertEqual(try store.load(), StoreContents())
        XCTAssertEqual(access(path + ".bad-7", F_OK), 0)
    }

    func testADatabaseOfANewerManagerIsLeftAlone() async throws {
        do {
            let store = try Store(path: path)
            try await store.connection.writeWithoutTransaction { try $0.execute(sql: "PRAGMA user_version = 99") }
        }
        XCTAssertThrowsError(try Store.open(path: path, time: 7)) { error in
            XCTAssertEqual(error as? StoreError, .newer(found: 99, known: Schema.steps.count))
        }
        XCTAssertNotEqual(access(path + ".bad-7", F_OK), 0)
    }

    func testADescriptionIsReadBackOrRefused() throws {
        var container = row(String(repeating: "ab", count: 32), name: "x", startNow: true)
        container.record = try ContainerFixture.record(id: container.id, name: "x")
        let bytes = Description(row: container).encoded()
        var expected = container
        expected.imageID = "sha256:1"
        XCTAssertEqual(Description(decoding: bytes)?.row, expected)
        var damaged = bytes
        damaged[damaged.count - 1] ^= 1
        XCTAssertNil(Description(decoding: damaged))
        XCTAssertNil(Description(decoding: Array(bytes.dropLast())))
        XCTAssertNil(Description(decoding: []))
    }
}
