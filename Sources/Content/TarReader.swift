/// Reads a tar archive strictly: ustar, V7, GNU long names and PAX. What readers could understand differently is an error, so that nobody
/// sees other entries than those that were checked. One thread at a time.
public final class TarReader {
    private let source: BufferedSource
    private var remaining: Int64 = 0
    private var padding: Int64 = 0
    private var global = PaxRecords()
    private var entries = 0
    private var ended = false

    public static let entryLimit = 1_000_000
    static let extensionLimit: Int64 = 1 << 20
    /// No file is larger; so sums of sizes cannot overflow.
    static let sizeLimit: Int64 = 1 << 50

    public init(_ source: any ByteSource) { self.source = BufferedSource(source) }

    /// The next entry, whatever was left of the last one skipped; nil after the end blocks.
    public func next() throws -> TarEntry? {
        try skip()
        guard !ended else { return nil }
        var records: PaxRecords?
        var longPath: [UInt8]?
        var longLink: [UInt8]?
        while true {
            let block = try source.peek(TarHeader.size)
            if block.isEmpty && records == nil && longPath == nil && longLink == nil {
                // Some writers leave the end blocks out; digests, not these blocks, show whether something is missing.
                ended = true
                return nil
            }
            if block.count < TarHeader.size { throw malformed("the archive is truncated") }
            if TarHeader.isZero(block) {
                if records != nil || longPath != nil || longLink != nil { throw malformed("an extension header without its entry") }
                return try end()
            }
            let header: TarHeader
            do { header = try TarHeader(block) } catch { throw malformed(error.cause) }
            source.consume(TarHeader.size)
            entries += 1
            if entries > Self.entryLimit { throw tooLarge("it has more than \(Self.entryLimit) entries") }
            switch header.type {
            case UInt8(ascii: "x"):
                if records != nil { throw malformed("two PAX headers for one entry") }
                records = try pax(header)
            case UInt8(ascii: "g"):
                let more = try pax(header)
                if more.path != nil || more.link != nil || more.size != nil || !more.attributes.isEmpty {
                    throw malformed("a global PAX header changes paths, sizes or attributes")
                }
                global.uid = more.uid ?? global.uid
                global.gid = more.gid ?? global.gid
                global.modified = more.modified ?? global.modified
            case UInt8(ascii: "L"):
                if longPath != nil { throw malformed("two long names for one entry") }
                longPath = try longText(header)
            case UInt8(ascii: "K"):
                if longLink != nil { throw malformed("two long link names for one entry") }
                longLink = try longText(header)
            default:
                return try entry(header, records ?? PaxRecords(), longPath: longPath, longLink: longLink)
            }
        }
    }

    /// The next bytes of the current entry's content, valid until the next call; empty at its end.
    public func chunk() throws -> UnsafeRawBufferPointer {
        guard remaining > 0 else { return UnsafeRawBufferPointer(start: nil, count: 0) }
        consumePending()
        guard remaining > 0 else { return UnsafeRawBufferPointer(start: nil, count: 0) }
        let bytes = try source.peek(1)
        if bytes.isEmpty { throw malformed("the archive is truncated") }
        pending = Int(min(Int64(bytes.count), remaining))
        return UnsafeRawBufferPointer(rebasing: bytes[..<pending])
    }
    /// What ``chunk()`` has handed out and nobody has consumed yet.
    private var pending = 0

    private func consumePending() {
        source.consume(pending)
        remaining -= Int64(pending)
        pending = 0
    }

    /// All of the current entry's content, which must not be more than `limit` bytes.
    public func content(limit: Int) throws -> [UInt8] {
        if remaining > Int64(limit) { throw tooLarge("an entry of \(remaining) bytes, where \(limit) are allowed") }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(Int(remaining))
        while case let part = try chunk(), !part.isEmpty { bytes.append(contentsOf: part) }
        return bytes
    }

    /// After the last entry: reads on to the end of the stream, so that digests cover all of it.
    public func drain() throws {
        try skip()
        try source.drain()
    }

    private func skip() throws {
        consumePending()
        var left = remaining + padding
        remaining = 0
        padding = 0
        while left > 0 {
            let bytes = try source.peek(1)
            if bytes.isEmpty { throw malformed("the archive is truncated") }
            let step = min(Int64(bytes.count), left)
            source.consume(Int(step))
            left -= step
        }
    }

    private func end() throws -> TarEntry? {
        let blocks = try source.peek(2 * TarHeader.size)
        let second = blocks.dropFirst(TarHeader.size).prefix(TarHeader.size)
        guard second.allSatisfy({ $0 == 0 }) else { throw malformed("a single zero block between entries") }
        ended = true
        return nil
    }

    private func body(_ header: TarHeader) throws -> [UInt8] {
        if header.size > Self.extensionLimit { throw tooLarge("an extension header of \(header.size) bytes") }
        begin(header.size)
        let bytes = try content(limit: Int(Self.extensionLimit))
        try skip()
        return bytes
    }

    private func pax(_ header: TarHeader) throws -> PaxRecords {
        let bytes = try body(header)
        do { return try PaxRecords(parsing: bytes) } catch { throw malformed(error.cause) }
    }

    private func longText(_ header: TarHeader) throws -> [UInt8] {
        let bytes = try body(header)
        let text = Array(bytes.prefix { $0 != 0 })
        guard !text.isEmpty, bytes.dropFirst(text.count).allSatisfy({ $0 == 0 }) else { throw malformed("malformed long name") }
        return text
    }

    private func begin(_ size: Int64) {
        remaining = size
        padding = (512 - size % 512) % 512
    }

    private func entry(
        _ header: TarHeader, _ records: PaxRecords, longPath: [UInt8]?, longLink: [UInt8]?
    ) throws -> TarEntry {
        // Of two names, one by each extension, readers believe different ones.
        if let longPath, let path = records.path, longPath != path { throw malformed("GNU and PAX names differ") }
        if let longLink, let link = records.link, longLink != link { throw malformed("GNU and PAX link names differ") }
        let path = records.path ?? longPath ?? header.path
        let link = records.link ?? longLink ?? header.link
        if path.isEmpty { throw malformed("an entry without a name") }
        if path.count > TreePath.byteLimit || link.count > TreePath.byteLimit {
            throw tooLarge("a path is longer than \(TreePath.byteLimit) bytes")
        }
        let size = records.size ?? header.size
        if size > Self.sizeLimit { throw tooLarge("an entry of \(size) bytes") }
        let kind: TarEntry.Kind
        switch header.type {
        case UInt8(ascii: "0"), 0, UInt8(ascii: "7"):
            // What came before ustar had no type for directories. Elsewhere readers disagree about such a name.
            let isDirectory = path.last == UInt8(ascii: "/")
            let isDirectoryInHeader = header.path.last == UInt8(ascii: "/")
            if (isDirectory || isDirectoryInHeader) && (header.type != 0 || size != 0 || isDirectory != isDirectoryInHeader) {
                throw malformed("a file with the name of a directory")
            }
            kind = isDirectory ? .directory : .file
        case UInt8(ascii: "1"): kind = .hardLink
        case UInt8(ascii: "2"): kind = .symbolicLink
        case UInt8(ascii: "3"): kind = .characterDevice
        case UInt8(ascii: "4"): kind = .blockDevice
        case UInt8(ascii: "5"): kind = .directory
        case UInt8(ascii: "6"): kind = .fifo
        case UInt8(ascii: "S"): throw malformed("sparse files are not supported")
        default: throw malformed("unknown entry type \(printable([header.type]))")
        }
        // Some readers skip content here and some do not.
        if kind != .file && size != 0 { throw malformed("content behind an entry that has none") }
        if (kind == .hardLink || kind == .symbolicLink) && link.isEmpty { throw malformed("a link without a target") }
        if link.contains(0) || path.contains(0) { throw malformed("a NUL byte in a name") }
        begin(size)
        return TarEntry(
            kind: kind, path: path, link: link, size: size, mode: header.mode,
            uid: try id(records.uid ?? global.uid ?? header.uid), gid: try id(records.gid ?? global.gid ?? header.gid),
            modified: records.modified ?? global.modified ?? TarTime(seconds: header.modified),
            deviceMajor: try device(header.deviceMajor, limit: 0xfff), deviceMinor: try device(header.deviceMinor, limit: 0xfffff),
            attributes: records.attributes)
    }

    private func id(_ value: Int64) throws -> UInt32 {
        guard value >= 0, value < 1 << 31 else { throw malformed("owner \(value) is out of range") }
        return UInt32(value)
    }

    private func device(_ value: Int64, limit: Int64) throws -> UInt32 {
        guard value >= 0, value <= limit else { throw malformed("device number \(value) is out of range") }
        return UInt32(value)
    }

    private func malformed(_ cause: String) -> ContentError {
        ContentError(.corrupt, "read tar", "at byte \(source.position)", cause)
    }

    private func tooLarge(_ cause: String) -> ContentError {
        ContentError(.tooLarge, "read tar", "at byte \(source.position)", cause)
    }
}
