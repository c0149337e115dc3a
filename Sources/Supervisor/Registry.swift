import Synchronization
import TTRPC

/// Every container of every namespace, in memory: what lists and inspects read, without waiting for a disk, a shim or an operation.
public final class Registry: Sendable {
    private struct Name: Hashable {
        let namespace, name: String
    }
    private struct Entry {
        var state: ContainerState
        let instance: Instance
    }
    private struct Contents {
        var entries: [String: Entry] = [:]
        var names: [Name: String] = [:]
    }
    private let contents = Mutex(Contents())

    init() {}

    /// What stands in the way of a new container.
    enum Conflict: Error {
        case id(Instance)
        case name(owner: String)
    }

    /// Takes id and name in one step.
    func insert(_ state: ContainerState, _ instance: Instance) throws(Conflict) {
        let conflict = contents.withLock { contents -> Conflict? in
            if let entry = contents.entries[state.id] { return .id(entry.instance) }
            let name = Name(namespace: state.namespace, name: state.name)
            if let owner = contents.names[name] { return .name(owner: owner) }
            contents.entries[state.id] = Entry(state: state, instance: instance)
            contents.names[name] = state.id
            return nil
        }
        if let conflict { throw conflict }
    }

    func remove(_ id: String) {
        contents.withLock { contents in
            guard let entry = contents.entries.removeValue(forKey: id) else { return }
            contents.names[Name(namespace: entry.state.namespace, name: entry.state.name)] = nil
        }
    }

    /// Changes a container's state, if it is still there.
    func update(_ id: String, _ change: @Sendable (inout ContainerState) -> Void) {
        contents.withLock { contents in
            guard var entry = contents.entries[id] else { return }
            change(&entry.state)
            contents.entries[id] = entry
        }
    }

    func state(_ id: String) -> ContainerState? { contents.withLock { $0.entries[id]?.state } }

    func instance(_ id: String) -> Instance? { contents.withLock { $0.entries[id]?.instance } }

    func isNameFree(namespace: String, _ name: String) -> Bool {
        contents.withLock { $0.names[Name(namespace: namespace, name: name)] == nil }
    }

    /// All containers of `namespace` (of all namespaces when empty), newest first.
    public func list(namespace: String) -> [ContainerState] {
        let states = contents.withLock { contents in
            contents.entries.values.compactMap {
                $0.state.visible && (namespace.isEmpty || $0.state.namespace == namespace) ? $0.state : nil
            }
        }
        return states.sorted { ($0.created, $0.id) > ($1.created, $1.id) }
    }

    var isEmpty: Bool { contents.withLock { $0.entries.isEmpty } }

    func instances() -> [Instance] { contents.withLock { $0.entries.values.map(\.instance) } }

    /// The container that `text` names: its id, its name, or the start of exactly one id.
    func resolve(namespace: String, _ text: String, operation: String) throws(SupervisorError) -> Instance {
        let found = contents.withLock { contents -> Result<Instance, SupervisorError> in
            if let entry = contents.entries[text], entry.state.namespace == namespace { return .success(entry.instance) }
            if let id = contents.names[Name(namespace: namespace, name: text)], let entry = contents.entries[id] {
                return .success(entry.instance)
            }
            var matches: [Instance] = []
            if !text.isEmpty && text.utf8.count < 64 && text.utf8.allSatisfy(Names.isHexDigit) {
                for (id, entry) in contents.entries where entry.state.namespace == namespace && id.hasPrefix(text) {
                    matches.append(entry.instance)
                }
            }
            if let only = matches.first, matches.count == 1 { return .success(only) }
            if matches.isEmpty {
                return .failure(SupervisorError(.notFound, operation, text, "no such container: \(text.shown)"))
            }
            return .failure(
                SupervisorError(
                    .invalidArgument, operation, text, "id prefix \"\(text)\" is ambiguous: matches \(matches.count) containers"))
        }
        return try found.get()
    }
}

extension String {
    /// For messages: one line, bounded, whatever a client sent.
    var shown: String {
        let clean = String(String.UnicodeScalarView(unicodeScalars.prefix(128).map { $0.value < 0x20 || $0.value == 0x7f ? "?" : $0 }))
        return unicodeScalars.count > 128 ? clean + "…" : clean
    }
}
