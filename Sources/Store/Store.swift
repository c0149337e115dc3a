import Dispatch
import Foundation
import GRDB
import Synchronization

/// What the user asked for, and what became of it, in SQLite. One writer; every change and its event in one transaction,
/// durable when ``commit(_:event:)`` returns. Transactions that arrive while another is being written share its fsync.
public final class Store: Sendable {
    /// Rows of `events` that are kept; older ones are dropped.
    static let eventLimit = 100_000

    public let path: String
    let connection: DatabaseQueue
    /// Commits run here and nowhere else, so that the waiting ones form the next group.
    private let writer = DispatchQueue(label: "ctrd.store")
    private let waiting = Mutex<[Pending]>([])

    private struct Pending: Sendable {
        let changes: [Change]
        let events: [Event]
        let continuation: CheckedContinuation<Void, any Error>
    }

    /// Opens or makes the database at `path` and brings it to the current schema; `damaged` when SQLite does not accept the file.
    public init(path: String) throws(StoreError) {
        self.path = path
        var configuration = Configuration()
        configuration.label = "ctrd"
        configuration.journalMode = .wal
        do {
            connection = try DatabaseQueue(path: path, configuration: configuration)
            try connection.writeWithoutTransaction { database in
                // GRDB chooses NORMAL beside WAL; then a power cut may take back what was announced.
                try database.execute(sql: "PRAGMA synchronous = FULL")
                if let verdict = try String.fetchOne(database, sql: "PRAGMA quick_check(1)"), verdict != "ok" {
                    throw StoreError.damaged(path: path, cause: verdict)
                }
                try Schema.migrate(database)
            }
        } catch { throw StoreError.wrapping(error, "open", path) }
    }

    /// Opens the database; one that is damaged is moved aside as `<path>.bad-<time>` and a new one made.
    /// - Returns: the store, and why the old database was moved, nil when it was not.
    public static func open(path: String, time: Int64) throws(StoreError) -> (store: Store, damage: String?) {
        do throws(StoreError) { return (try Store(path: path), nil) } catch {
            guard case .damaged = error else { throw error }
            for suffix in ["", "-wal", "-shm"] {
                let moved = rename(path + suffix, "\(path).bad-\(time)\(suffix)")
                if moved < 0 && suffix.isEmpty {
                    throw .database(operation: "move aside", path: path, cause: String(cString: strerror(errno)))
                }
            }
            return (try Store(path: path), "\(error); moved to \(path).bad-\(time)")
        }
    }

    /// Before the process ends: copies what is in the log beside the database into it. A release that then looks at the database and refuses it
    /// changes no byte of it. Nothing is lost without that. Blocking.
    public func settle() {
        _ = try? connection.writeWithoutTransaction { try Row.fetchAll($0, sql: "PRAGMA wal_checkpoint(FULL)") }
    }

    /// Everything that the manager keeps in memory. Blocking.
    public func load() throws(StoreError) -> StoreContents {
        do {
            return try connection.read { database in
                var contents = StoreContents()
                contents.containers = try Row.fetchAll(database, sql: "SELECT * FROM containers").map(ContainerRow.init(row:))
                let latest =
                    "SELECT * FROM tasks AS t WHERE incarnation = (SELECT max(incarnation) FROM tasks WHERE container = t.container)"
                for row in try Row.fetchAll(database, sql: latest) {
                    let task = TaskRow(row: row)
                    contents.tasks[task.container] = task
                }
                contents.imageNames = try Row.fetchAll(database, sql: "SELECT * FROM image_names").map(ImageNameRow.init(row:))
                return contents
            }
        } catch { throw StoreError.wrapping(error, "load", path) }
    }

    /// Writes `changes` and their event as one transaction and returns when it is on the disk.
    /// - Throws: ``StoreError``; then nothing of it was kept.
    public func commit(_ changes: [Change], event: Event) async throws {
        try await commit(changes, events: [event])
    }

    /// The same for changes that several events, or none, tell of.
    public func commit(_ changes: [Change], events: [Event]) async throws {
        try await withCheckedThrowingContinuation { continuation in
            let first = waiting.withLock { waiting in
                waiting.append(Pending(changes: changes, events: events, continuation: continuation))
                return waiting.count == 1
            }
            if first { writer.async { self.writeGroup() } }
        }
    }

    private func writeGroup() {
        let group = waiting.withLock { waiting in
            defer { waiting = [] }
            return waiting
        }
        var results: [Result<Void, StoreError>] = []
        do {
            try connection.writeWithoutTransaction { database in
                try database.inTransaction(.immediate) {
                    for pending in group {
                        // Alone in its group a transaction needs no savepoint: its failure rolls all back.
                        if group.count == 1 {
                            try apply(pending, to: database)
                            results.append(.success(()))
                            continue
                        }
                        do {
                            try database.inSavepoint {
                                try apply(pending, to: database)
                                return .commit
                            }
                            results.append(.success(()))
                        } catch { results.append(.failure(.wrapping(error, "write", path))) }
                    }
                    return .commit
                }
            }
        } catch {
            let failure = StoreError.wrapping(error, "write", path)
            results = Array(repeating: .failure(failure), count: group.count)
        }
        for (pending, result) in zip(group, results) { pending.continuation.resume(with: result.mapError { $0 as any Error }) }
    }

    private func apply(_ pending: Pending, to database: Database) throws {
        for change in pending.changes { try change.apply(to: database) }
        for event in pending.events {
            try event.insert(into: database)
            if database.lastInsertedRowID % 4096 == 0 {
                try database.execute(
                    sql: "DELETE FROM events WHERE sequence <= ?", arguments: [database.lastInsertedRowID - Int64(Self.eventLimit)])
            }
        }
    }

    /// The payload of the last event of `topic` about `object`: how a container that is gone ended.
    public func lastEvent(_ topic: Event.Topic, of object: String) async throws -> [UInt8]? {
        // The literal topic, not a bound one, lets SQLite use the partial index.
        let sql = "SELECT payload FROM events WHERE topic = '\(topic.rawValue)' AND object = ? ORDER BY sequence DESC LIMIT 1"
        return try await connection.read { database in
            try Data.fetchOne(database, sql: sql, arguments: [object]).map { [UInt8]($0) }
        }
    }

    /// All events after `sequence`, oldest first, at most `limit`.
    public func events(after sequence: Int64, limit: Int) async throws -> [(sequence: Int64, event: Event)] {
        try await connection.read { database in
            try Row.fetchAll(
                database, sql: "SELECT * FROM events WHERE sequence > ? ORDER BY sequence LIMIT ?", arguments: [sequence, limit]
            ).compactMap { row in Event(row: row).map { (row["sequence"], $0) } }
        }
    }
}
