import Glibc
import Linux

/// What of one process is parked: `init` or `exec/<id>`, and one letter for each descriptor.
struct ParkedName: Equatable {
    /// The first process and an exec; the root mount has a message of its own.
    enum Owner: Equatable {
        case rootfs
        case process(execID: String)
    }

    let owner: Owner
    let letters: String

    init(_ owner: Owner, letters: String) {
        self.owner = owner
        self.letters = letters
    }

    /// nil for what is no message of ours.
    init?(_ text: String, count: Int) {
        let parts = text.split(separator: " ", maxSplits: 1, omittingEmptySubsequences: false)
        letters = parts.count == 2 ? String(parts[1]) : ""
        switch parts[0] {
        case "rootfs":
            guard count == 1 else { return nil }
            owner = .rootfs
            return
        case "init": owner = .process(execID: "")
        default:
            guard parts[0].hasPrefix("exec/"), parts[0].utf8.count > 5 else { return nil }
            owner = .process(execID: String(parts[0].dropFirst(5)))
        }
        if letters.utf8.count != count { return nil }
    }

    var text: String {
        switch owner {
        case .rootfs: "rootfs"
        case .process(let execID): (execID.isEmpty ? "init " : "exec/\(execID) ") + letters
        }
    }
}

/// Descriptors by their letters.
struct ParkedFiles {
    var letters = ""
    var files: [Int32] = []

    mutating func add(_ letter: Character, _ file: Int32?) {
        guard let file, file >= 0 else { return }
        letters.append(letter)
        files.append(file)
    }
}

/// What a predecessor has parked of one process; each descriptor is taken out by its new owner, the rest is closed.
final class ParkedProcess {
    private var entries: [(letter: Character, file: Int32)]

    init(letters: String, files: [Int32]) { entries = Array(zip(letters, files)).map { (letter: $0.0, file: $0.1) } }

    func take(_ letter: Character) -> SharedDescriptor? {
        guard let index = entries.firstIndex(where: { $0.letter == letter }) else { return nil }
        return SharedDescriptor(Descriptor(owning: entries.remove(at: index).file))
    }

    /// Of the pipes among `letters`.
    func inodes(of letters: [Character]) -> [ino_t] {
        entries.filter { letters.contains($0.letter) }.compactMap { entry in
            var status = stat()
            return fstat(entry.file, &status) == 0 ? status.st_ino : nil
        }
    }

    deinit { for entry in entries { close(entry.file) } }
}
