import GRDB

/// Why the database did not take a change.
public enum StoreError: Error, Equatable, Sendable, CustomStringConvertible {
    /// SQLite's words for a failed operation; nothing of the transaction was kept.
    case database(operation: String, path: String, cause: String)
    /// The file is no database, or a damaged one.
    case damaged(path: String, cause: String)
    case newer(found: Int, known: Int)
    /// A row with this id, or with this namespace and name, is there already.
    case duplicate
    /// A container of this id lived and was deleted; `record` is ctr.v1.Container as it was then.
    case deleted(record: [UInt8])

    public var description: String {
        switch self {
        case .database(let operation, let path, let cause): "\(operation) in \(path): \(cause)"
        case .damaged(let path, let cause): "database \(path) is damaged: \(cause)"
        case .newer(let found, let known):
            "the database has schema version \(found), this ctrd knows \(known): run the ctrd that wrote it, or a newer one"
        case .duplicate: "the id or name is in use"
        case .deleted: "a container of this id was deleted"
        }
    }

    static func wrapping(_ error: any Error, _ operation: String, _ path: String) -> StoreError {
        if let error = error as? StoreError { return error }
        guard let error = error as? DatabaseError else {
            return .database(operation: operation, path: path, cause: "\(error)")
        }
        let cause = error.message ?? "SQLite error \(error.resultCode.rawValue)"
        switch error.resultCode {
        case .SQLITE_CORRUPT, .SQLITE_NOTADB: return .damaged(path: path, cause: cause)
        case .SQLITE_CONSTRAINT: return .duplicate
        default: return .database(operation: operation, path: path, cause: cause)
        }
    }
}
