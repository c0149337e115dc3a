import CtrProto
import Linux
import SwiftProtobuf

extension Ctr_V1_TaskStatus {
    /// The name in JSON and tables.
    var word: String {
        switch self {
        case .created: "created"
        case .running: "running"
        case .paused: "paused"
        case .stopped: "stopped"
        case .unknown, .UNRECOGNIZED: "unknown"
        }
    }
}

extension Ctr_V1_Guards {
    var word: String {
        switch self {
        case .none: "none"
        case .both: "both"
        case .shimOnly: "shim_only"
        case .keeperOnly: "keeper_only"
        case .lost: "lost"
        case .unresponsive: "unresponsive"
        case .UNRECOGNIZED: "unknown"
        }
    }
}

extension Ctr_V1_Guards {
    var style: Table.Style {
        switch self {
        case .none, .both: .plain
        case .shimOnly, .keeperOnly, .unresponsive: .warning
        case .lost, .UNRECOGNIZED: .bad
        }
    }
}

extension Ctr_V1_Exit {
    /// A status that nobody saw is no number.
    var isKnown: Bool { source != "unknown" && !source.isEmpty }
    var codeText: String { isKnown ? "\(code)" : "unknown" }
}

extension Ctr_V1_Container {
    /// Whether `ps` shows it without `-a`: it runs, or nobody has proved that it does not.
    var mayBeRunning: Bool {
        guard hasTask else { return false }
        switch task.status {
        case .running, .paused: return true
        case .unknown, .UNRECOGNIZED: return !task.hasExit
        case .created, .stopped: return false
        }
    }

    /// Docker's STATUS column; `now` is CLOCK_REALTIME in ns.
    func statusText(now: Int64) -> String {
        guard hasTask else { return "Created" }
        var text: String
        switch task.status {
        case .created: return "Created"
        case .running: text = "Up " + humanDuration(seconds: seconds(since: task.startedAt, now: now))
        case .paused: text = "Up " + humanDuration(seconds: seconds(since: task.startedAt, now: now)) + " (Paused)"
        case .stopped, .unknown, .UNRECOGNIZED:
            guard task.hasExit else { return task.status == .stopped ? "Exited (unknown)" : "Unknown" }
            text = "Exited (\(task.exit.codeText))"
            if task.exit.hasExitedAt { text += " " + humanDuration(seconds: seconds(since: task.exit.exitedAt, now: now)) + " ago" }
            return text
        }
        switch task.guards {
        case .lost: text += " (unguarded)"
        case .unresponsive: text += " (unresponsive)"
        case .none, .both, .shimOnly, .keeperOnly, .UNRECOGNIZED: break
        }
        return text
    }

    var statusStyle: Table.Style {
        guard hasTask else { return .plain }
        switch task.status {
        case .running where task.guards == .lost || task.guards == .unresponsive: return .warning
        case .running: return .good
        case .paused, .unknown, .UNRECOGNIZED: return .warning
        case .stopped: return task.exit.isKnown && task.exit.code == 0 ? .plain : .bad
        case .created: return .plain
        }
    }

    /// Docker's COMMAND column: quoted, and short unless `full`.
    func commandText(full: Bool) -> String {
        let words = printable(command.joined(separator: " "))
        return "\"" + (full ? words : shortened(words, to: 20)) + "\""
    }
}

/// At most `limit` characters, the last one an ellipsis if something was cut.
func shortened(_ text: String, to limit: Int) -> String {
    text.count <= limit ? text : text.prefix(limit - 1) + "…"
}

/// The 12 digits that name a container or an image in tables.
func shortID(_ id: String) -> String {
    let hex = id.hasPrefix("sha256:") ? id.dropFirst(7) : id[...]
    return String(hex.prefix(12))
}

/// A normalised image name as a user types it: without the registry and the folder that are the default.
func familiarName(_ name: String) -> String {
    if name.hasPrefix("docker.io/library/") { return String(name.dropFirst(18)) }
    if name.hasPrefix("docker.io/") { return String(name.dropFirst(10)) }
    return name
}

/// A name cut into repository, tag and digest; what is missing is empty.
func nameParts(_ name: String) -> (repository: String, tag: String, digest: String) {
    var rest = familiarName(name)[...]
    var digest = ""
    if let at = rest.firstIndex(of: "@") {
        digest = String(rest[rest.index(after: at)...])
        rest = rest[..<at]
    }
    // A colon before the last slash belongs to the port of a registry.
    if let colon = rest.lastIndex(of: ":"), !rest[colon...].contains("/") {
        return (String(rest[..<colon]), String(rest[rest.index(after: colon)...]), digest)
    }
    return (String(rest), "", digest)
}
