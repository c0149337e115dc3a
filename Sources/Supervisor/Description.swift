import CLinux
import CtrProto
import Glibc
import Linux
import Logging
import Records
import Store
import SwiftProtobuf

/// ROOT/containers/NS/ID/container: what the container's row says, so that a lost database can be rebuilt. One line of text
/// (`ctr-container 1 <crc32> <start_now> <attached> <invented name>`), then the record as ctr.v1.Container.
struct Description {
    static let fileName = "container"
    private static let limit = 8 << 20

    let row: ContainerRow

    init(row: ContainerRow) { self.row = row }

    func encoded() -> [UInt8] {
        let flags = [row.startNow, row.attached, row.inventedName].map { $0 ? "1" : "0" }.joined(separator: " ")
        return Array("ctr-container 1 \(Self.checksum(row.record)) \(flags)\n".utf8) + row.record
    }

    /// nil when `bytes` are no description, or a damaged one.
    init?(decoding bytes: [UInt8]) {
        guard let end = bytes.firstIndex(of: 0x0a) else { return nil }
        let words = String(decoding: bytes[..<end], as: UTF8.self).split(separator: " ")
        let record = Array(bytes[(end + 1)...])
        guard words.count == 6, words[0] == "ctr-container", words[1] == "1", words[2] == Self.checksum(record)[...],
            let container = try? Ctr_V1_Container(serializedBytes: record), Names.isID(container.id), Names.isName(container.name),
            Names.isNamespace(container.namespace)
        else { return nil }
        row = ContainerRow(
            id: container.id, namespace: container.namespace, name: container.name, phase: .created, imageID: container.imageID,
            record: record, startNow: words[3] == "1", attached: words[4] == "1", inventedName: words[5] == "1")
    }

    private static func checksum(_ bytes: [UInt8]) -> String {
        bytes.withUnsafeBytes { buffer in
            guard let base = buffer.baseAddress else { return "0" }
            return String(ctr_crc32(0, base, buffer.count), radix: 16)
        }
    }

    /// Replaces the file in `directory` as a whole. Blocking.
    func write(in directory: String) throws(SysError) {
        let path = "\(directory)/\(Self.fileName)"
        let file = try Linux.open(path + ".tmp", O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, mode: 0o600)
        try writeAll(file.raw, encoded(), name: path)
        try checkErrno("rename", path, rename(path + ".tmp", path))
    }

    /// nil when there is none. Blocking.
    static func read(in directory: String) -> Description? {
        guard let bytes = try? readFile("\(directory)/\(fileName)", limit: limit) else { return nil }
        return Description(decoding: bytes)
    }
}

/// Containers as their directories tell of them, for a database that was lost. Blocking.
struct Rebuild {
    let configuration: Configuration
    let bootID: String
    let logger: Logger

    func contents() throws(SysError) -> StoreContents {
        var contents = StoreContents()
        let root = configuration.root + "/containers"
        for namespace in try Self.entries(root) where Names.isNamespace(namespace) {
            for id in try Self.entries("\(root)/\(namespace)") {
                guard let description = Description.read(in: "\(root)/\(namespace)/\(id)"), description.row.id == id,
                    description.row.namespace == namespace
                else {
                    logger.warning("no container can be made of this directory", metadata: ["path": "\(root)/\(namespace)/\(id)"])
                    continue
                }
                contents.containers.append(description.row)
                contents.tasks[id] = try latestTask(namespace, id)
            }
        }
        return contents
    }

    /// The newest incarnation: ended as its exit record says, else taken for running until its guards are asked.
    private func latestTask(_ namespace: String, _ id: String) throws(SysError) -> TaskRow? {
        let directory = configuration.containerDirectory(namespace, id)
        guard let number = try Self.entries(directory).compactMap({ UInt32($0) }).max() else { return nil }
        let incarnation = try Linux.open("\(directory)/\(number)", O_RDONLY | O_DIRECTORY)
        guard let intent = (try? IntentRecord.read(in: incarnation.raw)) ?? nil else { return nil }
        var row = TaskRow(container: id, incarnation: number, phase: .running, bootID: intent.bootID, started: intent.created)
        if let exit = (try? ExitRecord.read(in: incarnation.raw)) ?? nil {
            row.exit = ExitRow(exit)
            row.phase = row.exit?.code == nil ? .unknown : .stopped
        }
        return row
    }

    /// Names in a directory, none when it is missing.
    static func entries(_ path: String) throws(SysError) -> [String] {
        let directory: Descriptor
        do throws(SysError) { directory = try Linux.open(path, O_RDONLY | O_DIRECTORY) } catch {
            if error.code == ENOENT || error.code == ENOTDIR { return [] }
            throw error
        }
        return try RootFS.entries(of: directory.raw)
    }
}

/// Removes what belongs to no container. Everything is listed before the registry is asked, and a container is in the registry before
/// anything of it is on the disk: so nothing of a new one is taken for a leftover. Blocking.
struct Sweep: Sendable {
    let configuration: Configuration
    let registry: Registry
    let catalog: ImageCatalog
    let host: Host
    let logger: Logger

    func run() throws {
        try catalog.content.cleanIngest()
        try catalog.snapshots.cleanIngest()
        try sweepState()
        try sweepSockets()
        try sweepCgroups()
        for (namespace, id) in try catalog.snapshots.containers() where !isKnown(namespace, id) {
            found("snapshot", id)
            try catalog.snapshots.remove(namespace: namespace, id: id)
        }
        for namespace in try Rebuild.entries(configuration.root + "/containers") {
            for id in try Rebuild.entries("\(configuration.root)/containers/\(namespace)") where !isKnown(namespace, id) {
                found("directory", id)
                try Leftovers.removeTree("\(configuration.root)/containers/\(namespace)", id)
            }
        }
    }

    private func isKnown(_ namespace: String, _ id: String) -> Bool { registry.instance(id)?.namespace == namespace }

    private func found(_ what: String, _ name: String) {
        logger.warning("leftover removed", metadata: ["kind": "\(what)", "name": "\(name)"])
    }

    /// A bundle without a container: its cgroups go with whoever is in them, then the directory.
    private func sweepState() throws {
        for namespace in try Rebuild.entries(configuration.state)
        where Names.isNamespace(namespace) && !["s", "runtime"].contains(namespace) {
            for id in try Rebuild.entries("\(configuration.state)/\(namespace)") where Names.isID(id) && !isKnown(namespace, id) {
                found("bundle", id)
                let leftovers = Leftovers(configuration: configuration, namespace: namespace, id: id, incarnation: 0)
                try leftovers.removeGuards(host.cgroups)
                try leftovers.removeRuntimeState(host.cgroups)
            }
        }
    }

    private func sweepSockets() throws {
        let names = try Rebuild.entries(configuration.state + "/s")
        let known = Set(
            registry.instances().compactMap { registry.state($0.id) }.compactMap { state in
                state.task.map { Names.socketName(namespace: state.namespace, id: state.id, incarnation: $0.row.incarnation) }
            })
        for name in names where name.utf8.count == 16 && name.utf8.allSatisfy(Names.isHexDigit) && !known.contains(name) {
            found("socket", name)
            unlink("\(configuration.state)/s/\(name)")
        }
    }

    private func sweepCgroups() throws {
        let parents = Set(host.cgroups.v1.map(\.mountPoint) + (host.cgroups.unified.map { [$0] } ?? [])).map {
            "\($0)/\(configuration.cgroupParent)"
        }
        for parent in parents {
            for namespace in try Rebuild.entries(parent) {
                for id in try Rebuild.entries("\(parent)/\(namespace)") where Names.isID(id) {
                    let known = namespace == "shims" ? registry.instance(id) != nil : isKnown(namespace, id)
                    if known { continue }
                    found("cgroup", "\(namespace)/\(id)")
                    try ContainerCgroup("/\(configuration.cgroupParent)/\(namespace)/\(id)", in: host.cgroups).remove()
                }
            }
        }
    }
}
