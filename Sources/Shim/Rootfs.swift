import CLinux
import Glibc
import Linux

/// A mount as Create names it (containerd.types.Mount).
struct MountRequest: Equatable {
    var type: String
    var source: String
    var options: [String]
    /// Where below the root, empty for the root itself.
    var target = ""
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
        // Linux before 6.5 would find fault with the option only at the end, and write that into the kernel's log for each container.
        if !Mounts.complainsLate("overlay") {
            do throws(SysError) {
                return try Mounts.filesystem(
                    "overlay", source: source, options: lower.map { "lowerdir+=" + $0 } + others, attributes: attributes)
            } catch {
                // EINVAL: the option is not known.
                if error.code != EINVAL { throw error }
            }
        }
        if options.allSatisfy({ $0.utf8.count <= 255 && !$0.utf8.contains(UInt8(ascii: ",")) }) {
            return try Mounts.filesystem("overlay", source: source, options: options, attributes: attributes)
        }
        return try overlayInPrivateNamespace(source: source, layers: lower, others, attributes)
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

    private static func overlayInPrivateNamespace(
        source: String, layers: [String], _ others: [String], _ attributes: MountAttributes
    ) throws(SysError) -> Descriptor {
        let data = pageOfOptions(layers: layers.count, others)
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
            _exit(mountAndSend(layers, source: source, data: data, attributes: attributes, to: theirs.raw))
        }
        _ = theirs.release()
        close(pair[1])
        var detached: Int32 = -1
        var code: Int32 = 0
        let got = ctr_recv_fd(ours.raw, &code, 4, &detached, 0)
        var status: Int32 = 0
        _ = ctr_waitid(CTR_P_PID, child, &status, 0)
        guard got == 4, code == 0, detached >= 0 else {
            throw SysError("mount overlay", "of \(layers.count) layers", code: got == 4 && code != 0 ? code : EIO)
        }
        return Descriptor(owning: detached)
    }

    /// mount(2) takes one page. The layers are the names that ``mountAndSend(_:source:data:attributes:to:)`` gives them: 500 of them, the most
    /// that overlayfs knows, take 2 KB. What separates and escapes options is escaped in the values of the others.
    static func pageOfOptions(layers: Int, _ others: [String]) -> String {
        let escaped = others.map { option in
            var out = ""
            for character in option.unicodeScalars {
                if character == "," || character == "\\" { out.unicodeScalars.append("\\") }
                out.unicodeScalars.append(character)
            }
            return out
        }
        return (["lowerdir=" + (0..<layers).map { "\($0)" }.joined(separator: ":")] + escaped).joined(separator: ",")
    }

    /// In the child: gives the layers short names, mounts, clones the mount and sends it with errno 0, or errno alone.
    private static func mountAndSend(
        _ layers: [String], source: String, data: String, attributes: MountAttributes, to socket: Int32
    ) -> Int32 {
        do throws(SysError) {
            try Mounts.setPropagationOfAll(.private)
            // The target is only a place to hold it: /proc exists everywhere and hides nothing that is needed from here on.
            try check("mount", "tmpfs", ctr_mount("tmpfs", "/proc", "tmpfs", 0, nil))
            try checkErrno("enter", "/proc", chdir("/proc"))
            for (number, layer) in layers.enumerated() { try checkErrno("link", layer, symlink(layer, "\(number)")) }
            try check("mount overlay", "", ctr_mount(source, "/proc", "overlay", 0, data))
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
