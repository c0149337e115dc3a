import GRDB

/// The tables, one step a version; `PRAGMA user_version` says how many steps a database has taken.
enum Schema {
    /// Steps are only ever appended: a released one is never edited.
    static let steps: [String] = [
        """
        CREATE TABLE containers (
            id TEXT NOT NULL PRIMARY KEY,
            namespace TEXT NOT NULL,
            name TEXT NOT NULL,
            phase TEXT NOT NULL,
            image_id TEXT NOT NULL,
            record BLOB NOT NULL,
            start_now INTEGER NOT NULL,
            attached INTEGER NOT NULL,
            invented_name INTEGER NOT NULL,
            UNIQUE (namespace, name)
        ) WITHOUT ROWID;
        CREATE TABLE tasks (
            container TEXT NOT NULL,
            incarnation INTEGER NOT NULL,
            phase TEXT NOT NULL,
            pid INTEGER NOT NULL,
            start_time INTEGER NOT NULL,
            boot_id TEXT NOT NULL,
            started INTEGER NOT NULL,
            exit_source TEXT,
            exit_code INTEGER,
            exit_reason TEXT,
            exited INTEGER,
            oom_killed INTEGER,
            error TEXT NOT NULL,
            PRIMARY KEY (container, incarnation)
        ) WITHOUT ROWID;
        CREATE TABLE image_names (
            namespace TEXT NOT NULL,
            name TEXT NOT NULL,
            manifest TEXT NOT NULL,
            imported INTEGER NOT NULL,
            PRIMARY KEY (namespace, name)
        ) WITHOUT ROWID;
        CREATE TABLE events (
            sequence INTEGER PRIMARY KEY AUTOINCREMENT,
            namespace TEXT NOT NULL,
            topic TEXT NOT NULL,
            object TEXT NOT NULL,
            incarnation INTEGER NOT NULL,
            payload BLOB NOT NULL,
            time INTEGER NOT NULL
        );
        CREATE INDEX events_exits ON events (object) WHERE topic = '/tasks/exit';
        CREATE INDEX events_deletes ON events (object) WHERE topic = '/containers/delete';
        """,
        // What became of an exec that was forgotten. Queries name one of the topics literally, or the index is of no use to them.
        """
        CREATE INDEX events_execs ON events (object)
            WHERE topic = '/tasks/exec-added' OR topic = '/tasks/exec-started' OR topic = '/tasks/exec-exit';
        """,
    ]

    /// Brings `database` to the current version in one transaction; one from a newer manager is refused, not touched.
    static func migrate(_ database: Database) throws {
        let version = try Int.fetchOne(database, sql: "PRAGMA user_version") ?? 0
        if version == steps.count { return }
        guard version < steps.count else {
            throw StoreError.newer(found: version, known: steps.count)
        }
        try database.inTransaction(.immediate) {
            for step in steps[version...] { try database.execute(sql: step) }
            try database.execute(sql: "PRAGMA user_version = \(steps.count)")
            return .commit
        }
    }
}
