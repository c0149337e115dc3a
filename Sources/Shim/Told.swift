import Glibc
import Linux

/// Which events of an exec are in the spool, or were: a letter each in its file `told`, behind the spool. A successor looks through the spool for
/// what has no letter. An exec without the file was made by a shim that kept none.
struct Told: OptionSet {
    let rawValue: UInt8
    static let added = Told(rawValue: 1)
    static let started = Told(rawValue: 2)
    static let exited = Told(rawValue: 4)

    static let fileName = "told"

    private static let letters: [(Told, UInt8)] = [
        (.added, UInt8(ascii: "a")), (.started, UInt8(ascii: "s")), (.exited, UInt8(ascii: "x")),
    ]

    init(rawValue: UInt8) { self.rawValue = rawValue }

    /// nil when there is no file.
    init?(in directory: Int32) {
        guard let text = try? readFile(Self.fileName, limit: 64, at: directory) else { return nil }
        self = Told(Self.letters.filter { text.contains($0.1) }.map { $0.0 })
    }

    /// The exec that an event is about; nil for those of the first process, and for the one that comes when all of an exec is removed.
    static func of(_ event: TaskEvent) -> (execID: String, told: Told)? {
        switch event {
        case .execAdded(let execID): (execID, .added)
        case .execStarted(let execID, _): (execID, .started)
        case .exited(let execID, _, _, _): execID.isEmpty ? nil : (execID, .exited)
        case .created, .started, .deleted, .oom, .paused, .resumed: nil
        }
    }

    /// Adds its letters to the file, which is made where it is missing.
    func write(in directory: Int32) throws(SysError) {
        let file = try Linux.open(Self.fileName, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW, mode: 0o600, at: directory)
        try writeAll(file.raw, Self.letters.filter { contains($0.0) }.map { $0.1 }, name: Self.fileName)
    }
}
