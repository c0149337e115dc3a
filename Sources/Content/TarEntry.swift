/// One entry of a tar archive, with what PAX and GNU extensions say already applied. Paths are bytes: nothing promises UTF-8.
public struct TarEntry: Equatable, Sendable {
    public enum Kind: Equatable, Sendable {
        case file, hardLink, symbolicLink, characterDevice, blockDevice, directory, fifo
    }

    public var kind: Kind
    /// As in the archive: neither cleaned nor checked beyond its length.
    public var path: [UInt8]
    /// Target of a link, as in the archive.
    public var link: [UInt8]
    /// Bytes of content that follow.
    public var size: Int64
    /// Permission bits, with set-user-id, set-group-id and sticky.
    public var mode: UInt32
    public var uid: UInt32
    public var gid: UInt32
    public var modified: TarTime
    public var deviceMajor: UInt32
    public var deviceMinor: UInt32
    /// Extended attributes in the order of the archive.
    public var attributes: [(name: [UInt8], value: [UInt8])]

    public static func == (left: TarEntry, right: TarEntry) -> Bool {
        left.kind == right.kind && left.path == right.path && left.link == right.link && left.size == right.size && left.mode == right.mode
            && left.uid == right.uid && left.gid == right.gid && left.modified == right.modified && left.deviceMajor == right.deviceMajor
            && left.deviceMinor == right.deviceMinor
            && left.attributes.elementsEqual(right.attributes) { $0.name == $1.name && $0.value == $1.value }
    }
}

/// Seconds since 1970, and nanoseconds after that second.
public struct TarTime: Equatable, Sendable {
    public var seconds: Int64
    public var nanoseconds: Int64
    public init(seconds: Int64, nanoseconds: Int64 = 0) {
        self.seconds = seconds
        self.nanoseconds = nanoseconds
    }
}

/// A path below some root, cleaned: components without `.`, `..`, empty ones and NUL, each at most 255 bytes.
public struct TreePath: Hashable, Sendable, CustomStringConvertible {
    public var components: [[UInt8]]

    public static let byteLimit = 4096
    public static let nameLimit = 255
    public static let depthLimit = 255

    public init(components: [[UInt8]]) { self.components = components }

    /// Cleans by text alone, as image-spec's layers mean it: leading `/` and `./` fall away, `a/../b` is `b`; what leaves the root is
    /// refused.
    public init(cleaning path: some Collection<UInt8>) throws {
        func refuse(_ cause: String) -> ContentError {
            ContentError(.corrupt, "read archive path", printable(path.prefix(256)), cause)
        }
        if path.count > Self.byteLimit { throw refuse("it is longer than \(Self.byteLimit) bytes") }
        components = []
        for component in path.split(separator: UInt8(ascii: "/")) {
            if component.elementsEqual([UInt8(ascii: ".")]) { continue }
            if component.elementsEqual([UInt8(ascii: "."), UInt8(ascii: ".")]) {
                guard components.popLast() != nil else { throw refuse("it leads out of the root") }
                continue
            }
            if component.contains(0) { throw refuse("it contains a NUL byte") }
            if component.count > Self.nameLimit { throw refuse("a component is longer than \(Self.nameLimit) bytes") }
            components.append(Array(component))
        }
        if components.count > Self.depthLimit { throw refuse("it is deeper than \(Self.depthLimit) directories") }
    }

    public var isRoot: Bool { components.isEmpty }
    public var name: [UInt8]? { components.last }
    public var parent: TreePath { TreePath(components: Array(components.dropLast())) }
    public func appending(_ name: [UInt8]) -> TreePath { TreePath(components: components + [name]) }

    public var description: String { "/" + components.map { printable($0) }.joined(separator: "/") }
}

/// Bytes of an archive as text for a one-line message: control characters and broken UTF-8 cannot reach a terminal.
public func printable(_ bytes: some Collection<UInt8>) -> String {
    var text = ""
    for scalar in String(decoding: bytes, as: UTF8.self).unicodeScalars {
        let isControl = scalar.value < 0x20 || (0x7f...0x9f).contains(scalar.value)
        text.unicodeScalars.append(isControl ? "?" : scalar)
    }
    return text
}
