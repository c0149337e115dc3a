import Foundation
import GRDB

extension Change {
    func apply(to database: Database) throws {
        switch self {
        case .insertContainer(let row):
            // What was run once, ended and was removed is not run again because its client asks for the answer that it missed.
            if row.startNow {
                let deleted = try database.cachedStatement(
                    sql: "SELECT payload FROM events WHERE topic = '/containers/delete' AND object = ? ORDER BY sequence DESC LIMIT 1")
                if let record = try Data.fetchOne(deleted, arguments: [row.id]) { throw StoreError.deleted(record: [UInt8](record)) }
            }
            try database.cachedStatement(
                sql: """
                    INSERT INTO containers (id, namespace, name, phase, image_id, record, start_now, attached, invented_name)
                    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
                    """
            ).execute(arguments: [
                row.id, row.namespace, row.name, row.phase.rawValue, row.imageID, Data(row.record), row.startNow, row.attached,
                row.inventedName,
            ])
        case .setPhase(let id, let phase):
            try database.cachedStatement(sql: "UPDATE containers SET phase = ? WHERE id = ?").execute(arguments: [phase.rawValue, id])
        case .setRecord(let id, let record):
            try database.cachedStatement(sql: "UPDATE containers SET record = ? WHERE id = ?").execute(arguments: [Data(record), id])
        case .deleteContainer(let id):
            try database.cachedStatement(sql: "DELETE FROM tasks WHERE container = ?").execute(arguments: [id])
            try database.cachedStatement(sql: "DELETE FROM containers WHERE id = ?").execute(arguments: [id])
        case .putTask(let row):
            try database.cachedStatement(
                sql: """
                    INSERT OR REPLACE INTO tasks (container, incarnation, phase, pid, start_time, boot_id, started, exit_source, exit_code,
                        exit_reason, exited, oom_killed, error) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
                    """
            ).execute(arguments: [
                row.container, row.incarnation, row.phase.rawValue, row.pid, Int64(bitPattern: row.startTime), row.bootID, row.started,
                row.exit?.source, row.exit?.code, row.exit?.reason, row.exit?.exited, row.exit?.oomKilled, row.error,
            ])
        case .deleteTask(let container, let incarnation):
            try database.cachedStatement(sql: "DELETE FROM tasks WHERE container = ? AND incarnation = ?")
                .execute(arguments: [container, incarnation])
        case .putImageName(let row):
            try database.cachedStatement(
                sql: "INSERT OR REPLACE INTO image_names (namespace, name, manifest, imported) VALUES (?, ?, ?, ?)"
            ).execute(arguments: [row.namespace, row.name, row.manifest, row.imported])
        case .deleteImageName(let namespace, let name):
            try database.cachedStatement(sql: "DELETE FROM image_names WHERE namespace = ? AND name = ?")
                .execute(arguments: [namespace, name])
        }
    }
}

extension Event {
    func insert(into database: Database) throws {
        try database.cachedStatement(
            sql: "INSERT INTO events (namespace, topic, object, incarnation, payload, time) VALUES (?, ?, ?, ?, ?, ?)"
        ).execute(arguments: [namespace, topic.rawValue, object, incarnation, Data(payload), time])
    }

    init?(row: Row) {
        guard let topic = Topic(rawValue: row["topic"]) else { return nil }
        self.init(
            namespace: row["namespace"], topic: topic, object: row["object"], incarnation: row["incarnation"],
            payload: [UInt8](row["payload"] as Data), time: row["time"])
    }
}

extension ContainerRow {
    init(row: Row) {
        self.init(
            id: row["id"], namespace: row["namespace"], name: row["name"], phase: ContainerPhase(rawValue: row["phase"]) ?? .created,
            imageID: row["image_id"], record: [UInt8](row["record"] as Data), startNow: row["start_now"], attached: row["attached"],
            inventedName: row["invented_name"])
    }
}

extension TaskRow {
    init(row: Row) {
        var exit: ExitRow?
        if let source = row["exit_source"] as String? {
            exit = ExitRow(
                code: row["exit_code"], source: source, reason: row["exit_reason"] ?? "", exited: row["exited"] ?? 0,
                oomKilled: row["oom_killed"] ?? false)
        }
        self.init(
            container: row["container"], incarnation: row["incarnation"], phase: TaskPhase(rawValue: row["phase"]) ?? .unknown,
            pid: row["pid"], startTime: UInt64(bitPattern: row["start_time"] as Int64), bootID: row["boot_id"], started: row["started"],
            exit: exit, error: row["error"])
    }
}

extension ImageNameRow {
    init(row: Row) {
        self.init(namespace: row["namespace"], name: row["name"], manifest: row["manifest"], imported: row["imported"])
    }
}
