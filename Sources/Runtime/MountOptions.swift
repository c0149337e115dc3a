import Linux

/// The options of one entry of config.json's mounts, taken apart: flags of the mount, of what is below it, and the file system's own.
struct MountOptions: Equatable {
    var set: MountAttributes = []
    var clear: MountAttributes = []
    var recursiveSet: MountAttributes = []
    var recursiveClear: MountAttributes = []
    var propagations: [(MountPropagation, recursive: Bool)] = []
    var bind = false
    var recursiveBind = false
    var copyUp = false
    /// "key=value" and bare words for the file system.
    var data: [String] = []

    /// Words of mount(8) that change nothing here.
    private static let ignored: Set<String> = [
        "defaults", "async", "auto", "noauto", "user", "nouser", "_netdev", "loud", "nomand", "nolazytime", "noiversion",
    ]

    private static let flags: [String: (MountAttributes, set: Bool)] = [
        "ro": (.readOnly, true), "rw": (.readOnly, false), "nosuid": (.noSUID, true), "suid": (.noSUID, false), "nodev": (.noDevices, true),
        "dev": (.noDevices, false), "noexec": (.noExecution, true), "exec": (.noExecution, false),
        "nodiratime": (.noDirectoryAccessTime, true), "diratime": (.noDirectoryAccessTime, false),
        "nosymfollow": (.noSymbolicLinks, true), "symfollow": (.noSymbolicLinks, false),
    ]

    /// Access times are one field of three values, not flags.
    private static let accessTimes: [String: MountAttributes] = [
        "relatime": [], "noatime": .noAccessTime, "strictatime": .strictAccessTime, "norelatime": .strictAccessTime, "atime": [],
        "nostrictatime": [],
    ]

    private static let propagations: [String: (MountPropagation, recursive: Bool)] = [
        "private": (.private, false), "rprivate": (.private, true), "slave": (.slave, false), "rslave": (.slave, true),
        "shared": (.shared, false), "rshared": (.shared, true), "unbindable": (.unbindable, false), "runbindable": (.unbindable, true),
    ]

    init(_ options: [String]) throws(RuntimeError) {
        for option in options { try add(option) }
    }

    private mutating func add(_ option: String) throws(RuntimeError) {
        if let (attribute, set) = Self.flags[option] {
            if set {
                self.set.insert(attribute)
                clear.remove(attribute)
            } else {
                clear.insert(attribute)
                self.set.remove(attribute)
            }
        } else if let time = Self.accessTimes[option] {
            set.subtract(.accessTimeMask)
            set.formUnion(time)
            clear.formUnion(.accessTimeMask)
        } else if let propagation = Self.propagations[option] {
            propagations.append(propagation)
        } else if option.hasPrefix("r"), let (attribute, set) = Self.flags[String(option.dropFirst())] {
            if set { recursiveSet.insert(attribute) } else { recursiveClear.insert(attribute) }
        } else if option.hasPrefix("r"), let time = Self.accessTimes[String(option.dropFirst())] {
            recursiveSet.formUnion(time)
            recursiveClear.formUnion(.accessTimeMask)
        } else {
            try addOther(option)
        }
    }

    private mutating func addOther(_ option: String) throws(RuntimeError) {
        switch option {
        case "bind": bind = true
        case "rbind":
            bind = true
            recursiveBind = true
        case "tmpcopyup": copyUp = true
        case "remount", "idmap", "ridmap": throw RuntimeError("mount option \"\(option)\" is not supported")
        case _ where Self.ignored.contains(option): break
        case "": break
        default: data.append(option)
        }
    }

    static func == (left: MountOptions, right: MountOptions) -> Bool {
        left.set == right.set && left.clear == right.clear && left.recursiveSet == right.recursiveSet
            && left.recursiveClear == right.recursiveClear && left.propagations.elementsEqual(right.propagations, by: ==)
            && left.bind == right.bind && left.recursiveBind == right.recursiveBind && left.copyUp == right.copyUp
            && left.data == right.data
    }
}
