import CLinux
import CShimProto
import Glibc
import Linux
import Records
import TTRPC

/// `start` as containerd calls it: there is no record in the bundle that says how, so this makes one of the command line, the environment and
/// standard input (docs/architecture.md, "Under containerd").
struct ContainerdStart {
    static let inputLimit = 1 << 20
    /// Milliseconds in which the caller has to have given its input.
    static let inputTime: Int64 = 5000

    let record: StartRecord
    /// An existing control group that the guards are put into; empty: they stay in containerd's.
    let shimCgroup: String

    /// Writes the record into the bundle. INVALID options and a runtime that is not there are errors; nothing is made but the record and
    /// the directories for socket and runtime.
    init(_ arguments: Arguments, bundle: Int32) throws(ShimError) {
        let input = try Self.readInput(arguments)
        let options: RuntimeOptions
        do throws(Status) { options = try RuntimeOptions(input.options) } catch {
            throw ShimError("read runtime options", "", error.message)
        }
        var start = try Self.plan(arguments, options)
        if let publishAddress = input.publishAddress { start.publishAddress = publishAddress }
        if options.ioUID != 0 || options.ioGID != 0 { (start.pipeUser, start.pipeGroup) = (options.ioUID, options.ioGID) }
        guard start.publishAddress != nil else {
            throw ShimError("start guards", arguments.id, "neither -address nor TTRPC_ADDRESS says where events go")
        }
        if start.socket.utf8.count > 107 {
            throw ShimError("start guards", arguments.id, "the path \(start.socket) is too long for a socket (107 bytes)")
        }
        try shimErrors { () throws(SysError) in
            try makeDirectory("\(Self.stateDirectory(of: arguments.address))/s", mode: 0o700)
            try makeDirectories(start.runtimeRoot, mode: 0o700)
        }
        try recordErrors { () throws(RecordError) in try start.write(in: bundle) }
        record = start
        shimCgroup = options.shimCgroup
    }

    /// What is written where nobody gives options.
    static func usual(_ arguments: Arguments) throws(ShimError) -> StartRecord { try plan(arguments, RuntimeOptions()) }

    private static func plan(_ arguments: Arguments, _ options: RuntimeOptions) throws(ShimError) -> StartRecord {
        let address = path(of: arguments.address)
        let stateDirectory = stateDirectory(of: arguments.address)
        let program = try shimErrors { () throws(SysError) in try RuntimeChoice.ownProgram() }
        let choice = try RuntimeChoice(options, namespace: arguments.namespace, stateDirectory: stateDirectory, shim: program)
        let name = hash("\(address ?? "")/\(arguments.namespace)/\(arguments.id)")
        var start = StartRecord(
            runtime: choice.runtime, runtimeRoot: choice.runtimeRoot, rootfsMode: .mounted, socket: "\(stateDirectory)/s/\(name)",
            incarnationDirectory: arguments.bundle)
        start.publishAddress = environment("TTRPC_ADDRESS") ?? address.map { $0 + ".ttrpc" }
        choice.apply(to: &start)
        return start
    }

    /// Where `-address` says that containerd's socket is; nil for what is no path.
    static func path(of address: String) -> String? {
        let path = address.hasPrefix("unix://") ? String(address.dropFirst(7)) : address
        return path.hasPrefix("/") ? path : nil
    }

    static func stateDirectory(of address: String) -> String {
        guard let path = path(of: address), let slash = path.utf8.lastIndex(of: UInt8(ascii: "/")), slash > path.utf8.startIndex else {
            return "/run/containerd"
        }
        return String(path[..<slash])
    }

    /// FNV-1a 64, as the names of all sockets of shims.
    static func hash(_ text: String) -> String {
        var value: UInt64 = 0xcbf2_9ce4_8422_2325
        for byte in text.utf8 { value = (value ^ UInt64(byte)) &* 0x100_0000_01b3 }
        let digits = String(value, radix: 16)
        return String(repeating: "0", count: 16 - digits.utf8.count) + digits
    }

    private static func environment(_ name: String) -> String? {
        guard let value = getenv(name) else { return nil }
        let text = String(cString: value)
        return text.isEmpty ? nil : text
    }

    /// Beside the bundle's other files, replaced as a whole and without a newline: containerd reads it after its own restart.
    static func writeAddress(_ address: String, bundle: Int32) throws(SysError) {
        let file = try Linux.open("address.tmp", O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, mode: 0o600, at: bundle)
        try writeAll(file.raw, Array(address.utf8), name: "address")
        try checkErrno("rename", "address", renameat(bundle, "address.tmp", bundle, "address"))
    }

    // MARK: standard input

    /// What the caller gave: nothing, the options, or (newer containerds) a whole BootstrapParams.
    static func readInput(_ arguments: Arguments) throws(ShimError) -> (options: AnyMessage, publishAddress: String?) {
        let bytes = try readBounded()
        // The two first fields of both messages are strings, so each decodes as the other: identity tells.
        if let params = bootstrap(bytes, arguments) { return params }
        let unpacked = (bytes.isEmpty ? [0] : bytes).withUnsafeBufferPointer {
            google__protobuf__any__unpack(nil, bytes.count, $0.baseAddress)
        }
        guard let unpacked else { throw ShimError("read standard input", "", "neither options nor parameters of a start") }
        defer { google__protobuf__any__free_unpacked(unpacked, nil) }
        return (any(unpacked.pointee), nil)
    }

    static func any(_ message: Google__Protobuf__Any) -> AnyMessage {
        AnyMessage(
            typeURL: message.type_url.map { String(cString: $0) } ?? "",
            value: message.value.data.map { Array(UnsafeBufferPointer(start: $0, count: message.value.len)) } ?? [])
    }

    private static func bootstrap(_ bytes: [UInt8], _ arguments: Arguments) -> (options: AnyMessage, publishAddress: String?)? {
        if bytes.isEmpty { return nil }
        let unpacked = bytes.withUnsafeBufferPointer {
            containerd__runtime__bootstrap__v1__bootstrap_params__unpack(nil, bytes.count, $0.baseAddress)
        }
        guard let unpacked else { return nil }
        defer { containerd__runtime__bootstrap__v1__bootstrap_params__free_unpacked(unpacked, nil) }
        let message = unpacked.pointee
        func text(_ pointer: UnsafeMutablePointer<CChar>?) -> String { pointer.map { String(cString: $0) } ?? "" }
        guard text(message.instance_id) == arguments.id, text(message.namespace_) == arguments.namespace else { return nil }
        var options = AnyMessage(typeURL: "", value: [])
        for index in 0..<message.n_extensions {
            guard let extensionValue = message.extensions?[index]?.pointee.value?.pointee else { continue }
            let found = any(extensionValue)
            if found.typeURL.hasSuffix("Options") { options = found }
        }
        let address = text(message.containerd_ttrpc_address)
        return (options, address.isEmpty ? nil : address)
    }

    /// To the end of standard input, within bounds of size and time; nothing when a terminal is there.
    static func readBounded() throws(ShimError) -> [UInt8] {
        if isatty(0) == 1 { return [] }
        let deadline = now(CLOCK_MONOTONIC) + inputTime * 1_000_000
        var bytes: [UInt8] = []
        while true {
            var waiting = pollfd(fd: 0, events: Int16(POLLIN), revents: 0)
            let left = (deadline - now(CLOCK_MONOTONIC)) / 1_000_000
            if left <= 0 { throw ShimError("read standard input", "", "not given in \(inputTime) ms") }
            if poll(&waiting, 1, Int32(clamping: left)) <= 0 { continue }
            var chunk = [UInt8](repeating: 0, count: 4096)
            let got = read(0, &chunk, chunk.count)
            if got < 0 {
                if errno == EINTR || errno == EAGAIN { continue }
                // Closed by the caller: nothing was given.
                if errno == EBADF { return [] }
                throw ShimError(SysError("read", "standard input", code: errno))
            }
            if got == 0 { return bytes }
            bytes += chunk[..<got]
            if bytes.count > inputLimit { throw ShimError("read standard input", "", "more than \(inputLimit) bytes") }
        }
    }
}
