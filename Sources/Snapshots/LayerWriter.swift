import CLinux
import Content
import Glibc
import Linux

/// Unpacks one layer's tar into a directory, in the form that overlayfs stacks (image-spec, layer.md).
///
/// It keeps the directories of the current path open, one a level, and takes every step by descriptor and single component. Lower layers
/// are consulted only where the archive leaves something out: missing parents, whiteouts, links to their files.
final class LayerWriter {
    /// A directory that is open because the current path leads through it.
    final class Level {
        let name: Name
        let directory: OpenDirectory
        /// What its modification time is to be when the path leaves it.
        var modified: timespec
        var dirty = false
        /// What lower layers have of it; computed when first needed.
        var below: LayerView.Directory?

        init(name: Name, directory: OpenDirectory, modified: timespec) {
            self.name = name
            self.directory = directory
            self.modified = modified
        }
    }

    private var stack: [Level]
    private let lower: LayerView.Directory
    private var rootIsOpaque = false
    private var space: SpaceGuard

    /// `root` is empty; `lower` are the layers below, top first.
    init(root: OpenDirectory, lower: [OpenDirectory]) throws {
        self.lower = LayerView.Directory(parts: lower)
        space = SpaceGuard(root.raw)
        if let model = lower.first { try Self.copyAttributes(of: model.status(), from: model, to: root) }
        let top = Level(name: Name([]), directory: root, modified: try root.status().st_mtim)
        top.below = self.lower
        top.dirty = true
        stack = [top]
    }

    /// All entries of `reader`, to the end of its stream.
    func apply(_ reader: TarReader) throws {
        while let entry = try reader.next() {
            do { try apply(entry, reader) } catch let error as SnapshotError {
                throw SnapshotError(error.kind, "unpack", printable(entry.path.prefix(256)), "\(error.operation): \(error.cause)")
            }
        }
        try reader.drain()
        if rootIsOpaque { try hideLowerRoot() }
        while let level = stack.popLast() { try leave(level) }
    }

    private func apply(_ entry: TarEntry, _ reader: TarReader) throws {
        let path = try TreePath(cleaning: entry.path)
        guard let last = path.name else {
            guard entry.kind == .directory else { throw malformed("the root is no directory") }
            try Self.setAttributes(of: stack[0].directory.raw, entry)
            stack[0].modified = timespec(entry.modified)
            return
        }
        if path.components.contains(where: { $0.starts(with: Whiteout.reserved) && $0 != Whiteout.opaque }) { return }
        if path.components.dropLast().contains(where: { $0.starts(with: Whiteout.prefix) }) {
            throw malformed("a directory with the name of a whiteout")
        }
        try enter(path.parent)
        let name = Name(last)
        if last.starts(with: Whiteout.prefix) { return try whiteout(last, entry) }
        stack[stack.count - 1].dirty = true
        switch entry.kind {
        case .directory: try makeDirectory(name, entry)
        case .file: try makeFile(name, entry, reader)
        case .symbolicLink: try makeSymbolicLink(name, entry)
        case .hardLink: try makeHardLink(path, name, entry)
        case .characterDevice, .blockDevice, .fifo: try makeNode(name, entry)
        }
    }

    // MARK: The current directory

    private var current: Level { stack[stack.count - 1] }

    /// Makes `path` the current directory; what is missing of it is made.
    private func enter(_ path: TreePath) throws {
        var shared = 0
        while shared < path.components.count, shared + 1 < stack.count, stack[shared + 1].name.bytes == path.components[shared] {
            shared += 1
        }
        while stack.count > shared + 1, let level = stack.popLast() { try leave(level) }
        var rest = Array(path.components[shared...].reversed())
        var links = 0
        while let component = rest.popLast() {
            if component == [0x2e] { continue }
            if component == [0x2e, 0x2e] {
                if stack.count > 1, let level = stack.popLast() { try leave(level) }
                continue
            }
            guard let target = try descend(Name(component)) else { continue }
            links += 1
            guard links <= LayerView.linkLimit else { throw SnapshotError("enter directory", "\(path)", code: ELOOP) }
            if target.first == UInt8(ascii: "/") {
                while stack.count > 1, let level = stack.popLast() { try leave(level) }
            }
            rest += LayerView.components(target)
            guard stack.count + rest.count <= TreePath.depthLimit else { throw malformed("too deep") }
        }
    }

    /// Steps into the directory `name`, making it when it is missing; or returns where a link of that name points, so that the walk goes
    /// on below the root.
    private func descend(_ name: Name) throws -> [UInt8]? {
        let parent = current
        let existing = try parent.directory.status(name)
        if let existing {
            if existing.isDirectory, let directory = try parent.directory.directory(name) {
                stack.append(Level(name: name, directory: directory, modified: existing.st_mtim))
                return nil
            }
            if existing.isLink { return try parent.directory.link(name) }
            guard existing.isWhiteout else { throw malformed("\(name) is no directory") }
        }
        var model: LayerView.Directory?
        if existing == nil {
            switch try below(parent).lookup(name) {
            case .directory(let directory): model = directory
            case .other(let holder, let status) where status.isLink: return try holder.link(name)
            default: break
            }
        }
        parent.dirty = true
        let directory = try freshDirectory(name)
        if let part = model?.parts.first {
            let status = try part.status()
            try Self.copyAttributes(of: status, from: part, to: directory)
            stack.append(Level(name: name, directory: directory, modified: status.st_mtim))
        } else {
            if fchmod(directory.raw, 0o755) < 0 { throw SnapshotError("set mode", "\(name)", code: errno) }
            stack.append(Level(name: name, directory: directory, modified: try directory.status().st_mtim))
        }
        stack[stack.count - 1].dirty = true
        return nil
    }

    /// What lower layers have of the directory of `level`, which is on the stack.
    private func below(_ level: Level) throws -> LayerView.Directory {
        if lower.parts.isEmpty { return lower }
        guard let index = stack.firstIndex(where: { $0 === level }), index > 0 else { return lower }
        if let known = level.below { return known }
        var found = LayerView.Directory(parts: [])
        if !level.directory.isOpaque, case .directory(let directory) = try below(stack[index - 1]).lookup(level.name) { found = directory }
        level.below = found
        return found
    }

    private func leave(_ level: Level) throws {
        guard level.dirty else { return }
        try Self.setTimes(level.directory.raw, level.modified)
    }

    // MARK: Whiteouts

    private enum Whiteout {
        static let prefix = Array(".wh.".utf8)
        static let opaque = Array(".wh..wh..opq".utf8)
        /// Other names of AUFS mean nothing to anybody.
        static let reserved = Array(".wh..wh.".utf8)
    }

    private func whiteout(_ name: [UInt8], _ entry: TarEntry) throws {
        guard entry.kind == .file || entry.kind == .hardLink else { throw malformed("a whiteout that is no file") }
        let level = current
        if name == Whiteout.opaque {
            guard !lower.parts.isEmpty else { return }
            if stack.count == 1 { rootIsOpaque = true } else { try level.directory.makeOpaque() }
            return
        }
        let hidden = Array(name.dropFirst(Whiteout.prefix.count))
        guard !hidden.isEmpty, hidden != [0x2e], hidden != [0x2e, 0x2e] else { throw malformed("a whiteout without a name") }
        try hide(Name(hidden), in: level)
    }

    /// Hides what lower layers have under `name`; what this layer has, wherever in the archive, stays.
    private func hide(_ name: Name, in level: Level) throws {
        if let existing = try level.directory.status(name) {
            if existing.isDirectory, let directory = try level.directory.directory(name) { try directory.makeOpaque() }
            return
        }
        if case .absent = try below(level).lookup(name) { return }
        level.dirty = true
        if mknodat(level.directory.raw, name.chars, S_IFCHR, 0) < 0 { throw SnapshotError("make whiteout", "\(name)", code: errno) }
    }

    /// overlayfs never asks whether a layer's root is opaque, so each name of lower layers is hidden by itself.
    private func hideLowerRoot() throws {
        while stack.count > 1, let level = stack.popLast() { try leave(level) }
        for part in lower.parts {
            for name in try part.names() { try hide(name, in: stack[0]) }
        }
    }

    // MARK: Entries

    private func makeDirectory(_ name: Name, _ entry: TarEntry) throws {
        var directory: OpenDirectory?
        if let existing = try current.directory.status(name), existing.isDirectory { directory = try current.directory.directory(name) }
        let open = try directory ?? freshDirectory(name)
        try Self.setAttributes(of: open.raw, entry)
        let level = Level(name: name, directory: open, modified: timespec(entry.modified))
        level.dirty = true
        stack.append(level)
    }

    /// A new directory, root's, 0700, in place of whatever has its name. Where a whiteout was, lower layers stay hidden.
    private func freshDirectory(_ name: Name) throws -> OpenDirectory {
        let parent = current.directory
        var wasHidden = false
        if mkdirat(parent.raw, name.chars, 0o700) < 0 {
            guard errno == EEXIST else { throw SnapshotError("create directory", "\(name)", code: errno) }
            wasHidden = try parent.status(name)?.isWhiteout ?? false
            try parent.remove(name)
            if mkdirat(parent.raw, name.chars, 0o700) < 0 { throw SnapshotError("create directory", "\(name)", code: errno) }
        }
        guard let directory = try parent.directory(name) else { throw SnapshotError("open directory", "\(name)", code: ENOENT) }
        if wasHidden { try directory.makeOpaque() }
        return directory
    }

    private func makeFile(_ name: Name, _ entry: TarEntry, _ reader: TarReader) throws {
        let parent = current.directory
        let raw = try creating(name) {
            ctr_openat(parent.raw, name.chars, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o600)
        }
        let file = Descriptor(owning: raw)
        while case let part = try reader.chunk(), !part.isEmpty {
            try space.willWrite(part.count)
            try checked { try writeAll(file.raw, part, name: "\(name)") }
        }
        try Self.setAttributes(of: file.raw, entry)
        try Self.setTimes(file.raw, timespec(entry.modified))
    }

    private func makeSymbolicLink(_ name: Name, _ entry: TarEntry) throws {
        let parent = current.directory
        let target = Name(entry.link)
        guard entry.link.count < TreePath.byteLimit else { throw malformed("a link target that is too long") }
        try creating(name) { symlinkat(target.chars, parent.raw, name.chars) < 0 ? -errno : 0 }
        try setOwnerAndTimes(name, entry)
    }

    private func makeNode(_ name: Name, _ entry: TarEntry) throws {
        let parent = current.directory
        let type: UInt32
        switch entry.kind {
        case .characterDevice: type = S_IFCHR
        case .blockDevice: type = S_IFBLK
        default: type = S_IFIFO
        }
        let device = entry.kind == .fifo ? 0 : ctr_makedev(entry.deviceMajor, entry.deviceMinor)
        if entry.kind == .characterDevice && device == 0 { throw malformed("the device 0:0 means a whiteout") }
        try creating(name) { mknodat(parent.raw, name.chars, type | 0o600, dev_t(device)) < 0 ? -errno : 0 }
        try setOwnerAndTimes(name, entry)
        // It was made just now in a directory that nobody else can reach, so it is no link that this call could follow.
        if fchmodat(parent.raw, name.chars, entry.mode, 0) < 0 { throw SnapshotError("set mode", "\(name)", code: errno) }
    }

    private func makeHardLink(_ path: TreePath, _ name: Name, _ entry: TarEntry) throws {
        let target = try TreePath(cleaning: entry.link)
        guard let last = target.name else { throw malformed("a hard link to the root") }
        if target == path { throw malformed("a hard link to itself") }
        let parentPath = path.parent
        try enter(target.parent)
        let level = current
        let holder = level.directory
        let targetName = Name(last)
        var status = try holder.status(targetName)
        if status == nil, case .other(let source, let below) = try below(level).lookup(targetName) {
            try copyUp(targetName, below, from: source, to: holder)
            level.dirty = true
            status = try holder.status(targetName)
        }
        guard let status, !status.isWhiteout else { throw malformed("the target of the hard link does not exist") }
        if status.isDirectory { throw malformed("a hard link to a directory") }
        // Back before the link is made, so that the directory's modification time is kept.
        try enter(parentPath)
        if let existing = try current.directory.status(name), existing.st_ino == status.st_ino, existing.st_dev == status.st_dev { return }
        let directory = current.directory
        try creating(name) { linkat(holder.raw, targetName.chars, directory.raw, name.chars, 0) < 0 ? -errno : 0 }
        current.dirty = true
    }

    /// A file of a lower layer, copied so that it can have a second name in this one.
    private func copyUp(_ name: Name, _ status: stat, from source: OpenDirectory, to target: OpenDirectory) throws {
        if status.isLink {
            let link = Name(try source.link(name))
            if symlinkat(link.chars, target.raw, name.chars) < 0 { throw SnapshotError("copy link", "\(name)", code: errno) }
            if fchownat(target.raw, name.chars, status.st_uid, status.st_gid, AT_SYMLINK_NOFOLLOW) < 0 {
                throw SnapshotError("set owner", "\(name)", code: errno)
            }
            return
        }
        guard status.isRegular else { throw malformed("a hard link to a special file of a lower layer") }
        try checked {
            let from = Descriptor(
                owning: try check("open", "\(name)", ctr_openat(source.raw, name.chars, O_RDONLY | O_NOFOLLOW | O_CLOEXEC, 0)))
            let flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC
            let to = Descriptor(owning: try check("create", "\(name)", ctr_openat(target.raw, name.chars, flags, 0o600)))
            let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 256 << 10, alignment: 64)
            defer { buffer.deallocate() }
            let bytes = FileSource(from.raw, name: "\(name)")
            while case let got = try bytes.read(into: buffer), got > 0 {
                try space.willWrite(got)
                try writeAll(to.raw, UnsafeRawBufferPointer(rebasing: buffer[..<got]), name: "\(name)")
            }
            try Self.copyAttributes(of: status, from: from.raw, to: to.raw)
            try Self.setTimes(to.raw, status.st_mtim)
        }
    }

    /// Runs a call that makes `name`; what is there already gives way: of two entries with one path the last counts.
    @discardableResult
    private func creating(_ name: Name, _ call: () -> Int32) throws -> Int32 {
        var result = call()
        if result == -EEXIST {
            try current.directory.remove(name)
            result = call()
        }
        if result < 0 { throw SnapshotError("create", "\(name)", code: -result) }
        return result
    }

    private func setOwnerAndTimes(_ name: Name, _ entry: TarEntry) throws {
        let directory = current.directory.raw
        if fchownat(directory, name.chars, entry.uid, entry.gid, AT_SYMLINK_NOFOLLOW) < 0 {
            throw SnapshotError("set owner", "\(name)", code: errno)
        }
        let times = [timespec(entry.modified), timespec(entry.modified)]
        if utimensat(directory, name.chars, times, AT_SYMLINK_NOFOLLOW) < 0 { throw SnapshotError("set times", "\(name)", code: errno) }
    }

    private func malformed(_ cause: String) -> SnapshotError { SnapshotError(.malformed, "unpack layer", "", cause) }
}
