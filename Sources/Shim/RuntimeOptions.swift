import CShimProto
import Glibc
import Linux
import TTRPC

/// Which OCI runtime the caller wants and how: containerd.runc.v1.Options, or the same words as the text of a configuration
/// (runtimeoptions.v1.Options), which is what containerd gives to runtimes whose kind it does not know.
struct RuntimeOptions: Equatable {
    static let textLimit = 64 << 10

    var noPivotRoot = false
    var noNewKeyring = false
    /// A control group that exists, for the guards.
    var shimCgroup = ""
    /// Owner of the process's pipes; 0: the container's user.
    var ioUID: UInt32 = 0
    var ioGID: UInt32 = 0
    /// A path, or a name that is looked for beside the shim and in PATH; empty: ctrun.
    var binary = ""
    var root = ""
    var systemdCgroup = false

    init() {}

    /// INVALID_ARGUMENT for options of another runtime and for what cannot be decoded. Paths of configuration files are read.
    init(_ any: AnyMessage) throws(Status) {
        let name = any.typeURL.split(separator: "/").last ?? ""
        switch name {
        case "": return
        case "containerd.runc.v1.Options": try decodeRunc(any.value)
        case "runtimeoptions.v1.Options", "containerd.runtimeoptions.v1.Options": try decodeText(any.value)
        default:
            throw Status(.invalidArgument, "options of the kind \(name.prefix(100)) are not known here; use containerd.runc.v1.Options")
        }
        for path in [shimCgroup, binary, root] where path.utf8.contains(0) || path.utf8.count > 4096 {
            throw Status(.invalidArgument, "runtime options: not a path: \(path.prefix(100))")
        }
    }

    private mutating func decodeRunc(_ bytes: [UInt8]) throws(Status) {
        // An empty message is one whose fields are all at their defaults; the C code wants an address for it all the same.
        let unpacked = (bytes.isEmpty ? [0] : bytes).withUnsafeBufferPointer {
            containerd__runc__v1__options__unpack(nil, bytes.count, $0.baseAddress)
        }
        guard let unpacked else { throw Status(.invalidArgument, "the runtime options cannot be decoded") }
        defer { containerd__runc__v1__options__free_unpacked(unpacked, nil) }
        let message = unpacked.pointee
        noPivotRoot = message.no_pivot_root != 0
        noNewKeyring = message.no_new_keyring != 0
        shimCgroup = message.shim_cgroup.map { String(cString: $0) } ?? ""
        ioUID = message.io_uid
        ioGID = message.io_gid
        binary = message.binary_name.map { String(cString: $0) } ?? ""
        root = message.root.map { String(cString: $0) } ?? ""
        systemdCgroup = message.systemd_cgroup != 0
    }

    private mutating func decodeText(_ bytes: [UInt8]) throws(Status) {
        let unpacked = (bytes.isEmpty ? [0] : bytes).withUnsafeBufferPointer {
            runtimeoptions__v1__options__unpack(nil, bytes.count, $0.baseAddress)
        }
        guard let unpacked else { throw Status(.invalidArgument, "the runtime options cannot be decoded") }
        defer { runtimeoptions__v1__options__free_unpacked(unpacked, nil) }
        let path = unpacked.pointee.config_path.map { String(cString: $0) } ?? ""
        let body = unpacked.pointee.config_body
        var text = body.data.map { Array(UnsafeBufferPointer(start: $0, count: body.len)) } ?? []
        if text.isEmpty && !path.isEmpty {
            do throws(SysError) { text = try readFile(path, limit: Self.textLimit) } catch {
                throw Status(.invalidArgument, "runtime options: \(error.description)")
            }
        }
        if text.count > Self.textLimit { throw Status(.invalidArgument, "runtime options: more than \(Self.textLimit) bytes") }
        try read(text: text)
    }

    /// Lines of `Key = value` as TOML writes strings, numbers and truth; tables and keys that are not known are passed over.
    mutating func read(text: [UInt8]) throws(Status) {
        for line in text.split(separator: 0x0a) {
            let parts = line.split(separator: UInt8(ascii: "="), maxSplits: 1)
            guard parts.count == 2 else { continue }
            let key = String(decoding: parts[0], as: UTF8.self).filter { $0 != " " && $0 != "\t" && $0 != "\"" }
            guard set(key, Self.trimmed(parts[1])) else {
                throw Status(
                    .invalidArgument, "runtime options: bad value of \(key): \(String(decoding: parts[1].prefix(100), as: UTF8.self))")
            }
        }
    }

    /// False for a value that the key cannot have.
    private mutating func set(_ key: String, _ value: ArraySlice<UInt8>) -> Bool {
        func assign<Value>(_ place: inout Value, _ value: Value?) -> Bool {
            if let value { place = value }
            return value != nil
        }
        return switch key {
        case "NoPivotRoot": assign(&noPivotRoot, Self.truth(value))
        case "NoNewKeyring": assign(&noNewKeyring, Self.truth(value))
        case "SystemdCgroup": assign(&systemdCgroup, Self.truth(value))
        case "ShimCgroup": assign(&shimCgroup, Self.string(value))
        case "BinaryName": assign(&binary, Self.string(value))
        case "Root": assign(&root, Self.string(value))
        case "IoUid": assign(&ioUID, UInt32(String(decoding: value, as: UTF8.self)))
        case "IoGid": assign(&ioGID, UInt32(String(decoding: value, as: UTF8.self)))
        default: true
        }
    }

    private static func truth(_ value: ArraySlice<UInt8>) -> Bool? {
        value.elementsEqual("true".utf8) ? true : value.elementsEqual("false".utf8) ? false : nil
    }

    /// Without blanks around it, and without a comment behind it where the value is not a string.
    private static func trimmed(_ value: ArraySlice<UInt8>) -> ArraySlice<UInt8> {
        let blanks: [UInt8] = [0x20, 0x09, 0x0d]
        var value = value.drop { blanks.contains($0) }
        if value.first != UInt8(ascii: "\"") && value.first != UInt8(ascii: "'") { value = value.prefix { $0 != UInt8(ascii: "#") } }
        while let last = value.last, blanks.contains(last) { value.removeLast() }
        return value
    }

    /// A quoted string; one with an escape in it is none of the values that make sense here.
    private static func string(_ value: ArraySlice<UInt8>) -> String? {
        guard let quote = value.first, quote == UInt8(ascii: "\"") || quote == UInt8(ascii: "'"),
            let end = value.dropFirst().firstIndex(of: quote)
        else { return nil }
        let inside = value[(value.startIndex + 1)..<end]
        return inside.contains(UInt8(ascii: "\\")) ? nil : String(decoding: inside, as: UTF8.self)
    }
}
