import CLinux
import Glibc
import Linux
import OCI

/// Whose a pipe is, in the host's numbers.
struct PipeOwner: Equatable {
    var user: UInt32 = 0
    var group: UInt32 = 0
}

/// A pipe of one stream; both ends are close-on-exec.
final class Pipe {
    private var reader: Int32
    let writer: SharedDescriptor

    /// With an owner: one that its user, and whoever that becomes, can open again for writing through /dev/stdout, and nobody for reading.
    init(owner: PipeOwner?) throws(SysError) {
        var ends: [Int32] = [-1, -1]
        let made = ends.withUnsafeMutableBufferPointer { buffer in buffer.baseAddress.map { ctr_pipe2($0, O_CLOEXEC) } ?? -EINVAL }
        try check("make pipe", "", made)
        reader = ends[0]
        writer = SharedDescriptor(Descriptor(owning: ends[1]))
        guard let owner else { return }
        try checkErrno("set owner of", "pipe", fchown(ends[1], owner.user, owner.group))
        try checkErrno("set mode of", "pipe", fchmod(ends[1], 0o622))
    }

    /// The read end, which is the caller's from then on.
    func takeReader() -> Descriptor {
        let taken = reader
        reader = -1
        return Descriptor(owning: taken)
    }

    /// Both ends, which are the caller's from then on.
    func release() -> (Int32, Int32) { (takeReader().release(), writer.release()) }

    deinit { if reader >= 0 { close(reader) } }
}

extension Container {
    /// Read only where there is something to read: the document is long and seldom has any.
    func readMappings() -> UserMappings {
        guard let bytes = try? readFile("config.json", limit: 16 << 20, at: place.bundleDirectory), UserMappings.mentioned(in: bytes),
            let config = try? JSON(parsing: bytes)
        else { return UserMappings() }
        return UserMappings(config)
    }
}

/// The container's user namespace as config.json has it.
struct UserMappings: Equatable {
    struct Range: Equatable {
        var first: Int64
        var host: Int64
        var size: Int64
    }

    var users: [Range] = []
    var groups: [Range] = []

    init() {}

    static func mentioned(in config: [UInt8]) -> Bool {
        let word = Array("idMappings".utf8)
        return config.withUnsafeBufferPointer { bytes in
            var at = 0
            while at + word.count <= bytes.count {
                if bytes[at] == word[0], let base = bytes.baseAddress, memcmp(base + at, word, word.count) == 0 { return true }
                at += 1
            }
            return false
        }
    }

    init(_ config: JSON) {
        users = Self.ranges(config["linux"]?["uidMappings"])
        groups = Self.ranges(config["linux"]?["gidMappings"])
    }

    private static func ranges(_ mappings: JSON?) -> [Range] {
        var ranges: [Range] = []
        for mapping in mappings?.arrayValue ?? [] {
            if let first = mapping["containerID"]?.integerValue, let host = mapping["hostID"]?.integerValue,
                let size = mapping["size"]?.integerValue
            {
                ranges.append(Range(first: first, host: host, size: size))
            }
        }
        return ranges
    }

    /// The host's numbers for numbers inside the container's user namespace; themselves without one.
    func owner(uid: JSON?, gid: JSON?) -> PipeOwner {
        PipeOwner(user: Self.onHost(uid?.integerValue ?? 0, users), group: Self.onHost(gid?.integerValue ?? 0, groups))
    }

    private static func onHost(_ number: Int64, _ ranges: [Range]) -> UInt32 {
        for range in ranges {
            let distance = number.subtractingReportingOverflow(range.first)
            if !distance.overflow && distance.partialValue >= 0 && distance.partialValue < range.size {
                return UInt32(truncatingIfNeeded: range.host &+ distance.partialValue)
            }
        }
        return UInt32(truncatingIfNeeded: number)
    }
}
