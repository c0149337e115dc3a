import Glibc

/// What is wrong with a container's log options.
public struct LogOptionError: Error, Equatable, CustomStringConvertible {
    public let description: String
    init(_ description: String) { self.description = description }
}

/// A container's log driver and its options, in Docker's spelling. Every driver reads the segments that the shim writes; they differ in
/// what else is made of them.
public struct LogOptions: Equatable, Sendable {
    public enum Driver: String, CaseIterable, Sendable {
        case segments
        case jsonFile = "json-file"
        case cri, journald, none
    }

    /// Bytes of a segment where no option says so.
    public static let defaultSegmentBytes: UInt64 = 16 << 20
    public static let defaultJournal = "/run/systemd/journal/socket"

    public var driver = Driver.segments
    /// `max-size`, bytes; 0: no limit.
    public var maxSize: UInt64 = 0
    /// `max-file`; 0: not given.
    public var maxFile: UInt32 = 0
    /// `path` of json-file and cri; empty: beside the container.
    public var path = ""
    /// `tag` of journald; empty: the short id.
    public var tag = ""
    /// `socket` of journald.
    public var socket = LogOptions.defaultJournal

    /// Checks all that can be checked without looking at the host. An empty driver is `segments`.
    public init(driver name: String, options: [String: String]) throws(LogOptionError) {
        guard let driver = name.isEmpty ? Driver.segments : Driver(rawValue: name) else {
            throw LogOptionError("unknown log driver \"\(name.prefix(64))\": segments, json-file, cri, journald or none")
        }
        self.driver = driver
        for (key, value) in options.sorted(by: { $0.key < $1.key }) {
            switch (key, driver) {
            case ("max-size", _): maxSize = try Self.size(value)
            case ("max-file", _):
                guard let count = UInt32(value), count > 0, count <= 100_000 else {
                    throw LogOptionError("log option max-file \"\(value.prefix(64))\": a number from 1 to 100000 is wanted")
                }
                maxFile = count
            case ("path", .jsonFile), ("path", .cri):
                guard value.hasPrefix("/"), !value.hasSuffix("/"), !value.utf8.contains(0), value.utf8.count < 4000 else {
                    throw LogOptionError("log option path \"\(value.prefix(128))\" is not an absolute path of a file")
                }
                path = value
            case ("tag", .journald): tag = value
            case ("socket", .journald):
                guard value.hasPrefix("/"), !value.utf8.contains(0), value.utf8.count < 108 else {
                    throw LogOptionError("log option socket \"\(value.prefix(128))\" is not an absolute path of at most 107 bytes")
                }
                socket = value
            default: throw LogOptionError("unknown log option \"\(key.prefix(64))\" for log driver \(driver.rawValue)")
            }
        }
    }

    /// Docker's spelling: digits, perhaps a fraction, perhaps k, m, g or t (powers of 1000), perhaps b.
    static func size(_ text: String) throws(LogOptionError) -> UInt64 {
        var digits = text.lowercased()[...]
        if digits.hasSuffix("b") { digits = digits.dropLast() }
        var unit = 1.0
        for (letter, value) in [("k", 1e3), ("m", 1e6), ("g", 1e9), ("t", 1e12)] where digits.hasSuffix(letter) {
            unit = value
            digits = digits.dropLast()
        }
        if digits.hasSuffix(" ") { digits = digits.dropLast() }
        guard !digits.isEmpty, digits.utf8.allSatisfy({ ($0 >= 0x30 && $0 <= 0x39) || $0 == 0x2e }), let number = Double(String(digits)),
            number * unit >= 1000, number * unit <= 1e15
        else { throw LogOptionError("log option max-size \"\(text.prefix(64))\": a size of at least 1k is wanted, such as 10m") }
        return UInt64(number * unit)
    }

    /// After how many bytes a segment is followed by the next.
    public var segmentBytes: UInt64 { maxSize == 0 ? Self.defaultSegmentBytes : maxSize }

    /// How many segments of a stream are kept, 0: all. A driver that reads them gets one more than Docker's one file, so that rotation does not
    /// take away what it is about to read.
    public var segmentCount: UInt32 {
        if maxFile == 0 && maxSize == 0 { return 0 }
        let count = max(maxFile, 1)
        return hasFollower ? max(count, 2) : count
    }

    /// Whether something besides the segments is written.
    public var hasFollower: Bool { [.jsonFile, .cri, .journald].contains(driver) }

    /// The driver's own file, empty when it has none. `directory` is the container's.
    public func file(directory: String, id: String) -> String {
        switch driver {
        case .jsonFile: path.isEmpty ? "\(directory)/\(id)-json.log" : path
        case .cri: path.isEmpty ? "\(directory)/\(id)-cri.log" : path
        case .segments, .journald, .none: ""
        }
    }

    /// What only the host can tell. Blocking.
    public func checkHost() throws(LogOptionError) {
        if !path.isEmpty {
            let parent = String(path[..<(path.lastIndex(of: "/") ?? path.startIndex)])
            var status = stat()
            guard stat(parent.isEmpty ? "/" : parent, &status) == 0, status.st_mode & S_IFMT == S_IFDIR else {
                throw LogOptionError("log option path \(path): \(parent) is not a directory")
            }
            if stat(path, &status) == 0 && status.st_mode & S_IFMT != S_IFREG {
                throw LogOptionError("log option path \(path) is not a regular file")
            }
        }
        if driver == .journald {
            var status = stat()
            guard stat(socket, &status) == 0, status.st_mode & S_IFMT == S_IFSOCK else {
                throw LogOptionError("log driver journald: there is no journal at \(socket)")
            }
        }
    }
}
