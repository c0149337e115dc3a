import CLinux
import Glibc
import Linux

/// A mount as Create names it (containerd.types.Mount).
struct MountRequest: Equatable {
    var type: String
    var source: String
    var options: [String]
}

/// Makes the root file system: one detached mount, seen by nobody until the runtime attaches it.
enum Rootfs {
    /// The detached mount for `mounts`; without any, a copy of what is at `bundle`/rootfs. The descriptor is the caller's.
    static func make(_ mounts: [MountRequest], bundle: String) throws(SysError) -> Descriptor {
        guard let mount = mounts.first else { return try Mounts.bind(bundle + "/rootfs", recursive: true) }
        guard mounts.count == 1 else { throw SysError("mount", "root file system from \(mounts.count) mounts", code: EINVAL) }
        let (attributes, rest) = split(mount.options)
        if mount.type == "bind" || rest.contains("bind") || rest.contains("rbind") {
            let detached = try Mounts.bind(mount.source, recursive: rest.contains("rbind"))
            try Mounts.change(detached, name: mount.source, set: attributes)
            return detached
        }
        if mount.type == "overlay" { return try overlay(source: mount.source, rest, attributes) }
        return try Mounts.filesystem(mount.type, source: mount.source, options: rest, attributes: attributes)
    }

    /// The options of mount(8) that say how a mount behaves, and those of the file system itself.
    private static func split(_ options: [String]) -> (attributes: MountAttributes, rest: [String]) {
        var attributes: MountAttributes = []
        var rest: [String] = []
        for option in options {
            switch option {
            case "ro": attributes.insert(.readOnly)
            case "nosuid": attributes.insert(.noSUID)
            case "nodev": attributes.insert(.noDevices)
            case "noexec": attributes.insert(.noExecution)
            case "noatime": attributes.insert(.noAccessTime)
            case "rw", "suid", "dev", "exec", "relatime", "defaults": break
            default: rest.append(option)
            }
        }
        return (attributes, rest)
    }

    /// Strings of fsconfig(2) end at 255 bytes, which two layers fill. Newer kernels take the layers one by one (`lowerdir+`); where they
    /// do not, mount(2) takes a page in a mount namespace that nobody else sees.
    private static func overlay(source: String, _ options: [String], _ attributes: MountAttributes) throws(SysError) -> Descriptor {
        var others: [String] = []
        var lower: [String] = []
        for option in options {
            if option.hasPrefix("lowerdir=") { lower = layers(option.dropFirst(9)) } else { others.append(option) }
        }
        do throws(SysError) {
            return try Mounts.filesystem(
                "overlay", source: source, options: lower.map { "lowerdir+=" + $0 } + others, attributes: attributes)
        } catch {
            // EINVAL: the option is not known, or a string is too long.
            if error.code != EINVAL { throw error }
            let text = options.joined(separator: ",")
            if options.allSatisfy({ $0.utf8.count <= 255 }) {
                return try Mounts.filesystem("overlay", source: source, options: options, attributes: attributes)
            }
            return try overlayInPrivateNamespace(source: source, layers: lower, others, attributes, text: text)
        }
    }

    /// `a:b\:c` is the two directories `a` and `b:c`.
    static func layers(_ text: Substring) -> [String] {
        var layers: [String] = []
        var current: [UInt8] = []
        var escaped = false
        for byte in text.utf8 {
            if !escaped && byte == UInt8(ascii: "\\") {
                escaped = true
            } else if !escaped && byte == UInt8(ascii: ":") {
                layers.append(String(decoding: current, as: UTF8.self))
                current = []
            } else {
                current.append(byte)
                escaped = false
            }
        }
        layers.append(String(decoding: current, as: UTF8.self))
        return layers
    }

    /// The longest directory that all of `layers` lie in, with its slash: long lists are given relative to it.
    static func commonDirectory(_ layers: [String]) -> String {
        guard let first = layers.first else { return "/" }
        var prefix = Array(first.utf8)
        for layer in layers.dropFirst() {
            let same = zip(prefix, layer.utf8).prefix { $0 == $1 }.count
            prefix.removeLast(prefix.count - same)
        }
        let slash = prefix.lastIndex(of: UInt8(ascii: "/")) ?? -1
        return slash <= 0 ? "/" : String(decoding: prefix[...slash], as: UTF8.self)
    }

    private static func overlayInPrivateNamespace(
        source: String, layers: [String], _ others: [String], _ attributes: MountAttributes, text: String
    ) throws(SysError) -> Descriptor {
        let base = commonDirectory(layers)
        let relative = layers.map { layer in
            var out = ""
            for character in layer.dropFirst(base.count).unicodeScalars {
                if character == ":" || character == "\\" || character == "," { out.unicodeScalars.append("\\") }
                out.unicodeScalars.append(character)
            }
            return out
        }
        let data = (["lowerdir=" + relative.joined(separator: ":")] + others).joined(separator: ",")
        if data.utf8.count >= 4096 { throw SysError("mount overlay", "of \(layers.count) layers", code: E2BIG) }

        var pair: [Int32] = [-1, -1]
        try check(
            "mount overlay", "",
            pair.withUnsafeMutableBufferPointer { buffer in
                buffer.baseAddress.map { ctr_socketpair(Int32(SOCK_SEQPACKET.rawValue) | Int32(SOCK_CLOEXEC.rawValue), $0) } ?? -EINVAL
            })
        let ours = Descriptor(owning: pair[0])
        let theirs = Descriptor(owning: pair[1])
        let child = try check("mount overlay", "", ctr_clone3(CTR_CLONE_NEWNS, nil, -1))
        if child == 0 {
            _exit(mountAndSend(base: base, source: source, data: data, attributes: attributes, to: theirs.raw))
        }
        _ = theirs.release()
        close(pair[1])
        var detached: Int32 = -1
        var code: Int32 = 0
        let got = ctr_recv_fd(ours.raw, &code, 4, &detached, 0)
        var status: Int32 = 0
        _ = ctr_waitid(CTR_P_PID, child, &status, 0)
        guard got == 4, code == 0, detached >= 0 else {
            throw SysError(
                "mount overlay", text.utf8.count > 200 ? "of \(layers.count) layers" : text, code: got == 4 && code != 0 ? code : EIO)
        }
        return Descriptor(owning: detached)
    }

    /// In the child: mounts over the directory of the layers, clones the mount and sends it with errno 0, or errno alone.
    private static func mountAndSend(base: String, source: String, data: String, attributes: MountAttributes, to socket: Int32) -> Int32 {
        do throws(SysError) {
            try Mounts.setPropagationOfAll(.private)
            try checkErrno("enter", base, chdir(base))
            // The target is only a place to hold it: /proc exists everywhere and hides nothing that is needed from here on.
            try check("mount overlay", base, ctr_mount(source, "/proc", "overlay", 0, data))
            let clone = try Mounts.bind("/proc", recursive: false)
            try Mounts.change(clone, name: "overlay", set: attributes)
            var fine: Int32 = 0
            try check("send mount", "", ctr_send_fd(socket, &fine, 4, clone.raw, 0))
            return 0
        } catch {
            var code = error.code
            _ = ctr_send_fd(socket, &code, 4, -1, 0)
            return 1
        }
    }
}
