import Content

/// Who a process runs as, by the image's own files.
public struct ResolvedUser: Equatable, Sendable {
    public var uid: UInt32
    public var gid: UInt32
    /// The primary group first, then the others: all of them go to setgroups(2).
    public var additionalGids: [UInt32]
    /// Home directory by the password file; `/` when it has none that can be used.
    public var home: String

    public init(uid: UInt32, gid: UInt32, additionalGids: [UInt32], home: String) {
        self.uid = uid
        self.gid = gid
        self.additionalGids = additionalGids
        self.home = home
    }
}

/// Lines of passwd(5) and group(5), as far as they are well-formed: a number that is none never becomes 0.
struct UserDatabase {
    static let sizeLimit = 10 << 20

    struct User: Equatable {
        let name: [UInt8]
        let uid: UInt32
        let gid: UInt32
        let home: [UInt8]
    }
    struct Group: Equatable {
        let name: [UInt8]
        let gid: UInt32
        let members: [[UInt8]]
    }

    private let passwd: [UInt8]
    private let group: [UInt8]
    /// "image" or "container", for messages.
    private let owner: String

    /// The content of both files, empty where there is none.
    init(passwd: [UInt8], group: [UInt8], owner: String = "image") {
        self.passwd = passwd
        self.group = group
        self.owner = owner
    }

    private static let colon = UInt8(ascii: ":")

    private static func lines(_ file: [UInt8]) -> some Sequence<[ArraySlice<UInt8>]> {
        file.lazy.split(separator: UInt8(ascii: "\n")).lazy.map { line in
            line.split(separator: colon, maxSplits: 16, omittingEmptySubsequences: false).map { ArraySlice($0) }
        }
    }

    func user(where matches: (User) -> Bool) -> User? {
        for fields in Self.lines(passwd) where fields.count >= 6 && !fields[0].isEmpty {
            guard let uid = Self.id(fields[2]), let gid = Self.id(fields[3]) else { continue }
            let user = User(name: Array(fields[0]), uid: uid, gid: gid, home: Array(fields[5]))
            if matches(user) { return user }
        }
        return nil
    }

    func groups(where matches: (Group) -> Bool) -> [Group] {
        var found: [Group] = []
        for fields in Self.lines(group) where fields.count >= 3 && !fields[0].isEmpty {
            guard let gid = Self.id(fields[2]) else { continue }
            let members = fields.count > 3 ? fields[3].split(separator: UInt8(ascii: ",")).map { Array($0) } : []
            let group = Group(name: Array(fields[0]), gid: gid, members: members)
            if matches(group) { found.append(group) }
            // NGROUPS_MAX of the kernel.
            if found.count == 65536 { break }
        }
        return found
    }

    /// Digits alone, at most 2^31 - 1.
    static func id(_ text: some Collection<UInt8>) -> UInt32? {
        guard !text.isEmpty, text.count <= 32 else { return nil }
        var value: UInt64 = 0
        for byte in text {
            guard byte >= UInt8(ascii: "0"), byte <= UInt8(ascii: "9") else { return nil }
            value = value * 10 + UInt64(byte - UInt8(ascii: "0"))
            if value > 0x7fff_ffff { return nil }
        }
        return UInt32(value)
    }

    /// `USER[:GROUP]`. What consists of digits is a number and never a name, also when it is too large; what is not found by name is an
    /// error. An empty user is 0. A group that is named stands alone; without one the groups of the user's entry are joined.
    func resolve(_ text: String) throws -> ResolvedUser {
        func refuse(_ cause: String) -> ImageError {
            ImageError(.invalid, "resolve user", "\"\(printable(text.prefix(128).utf8))\"", cause)
        }
        let parts = Array(text.utf8).split(separator: Self.colon, omittingEmptySubsequences: false).map { Array($0) }
        guard parts.count <= 2 else { throw refuse("expected USER or USER:GROUP") }
        let userText = parts.first ?? []
        let groupText = parts.count == 2 ? parts[1] : []
        for part in [userText, groupText] {
            if part.count > 256 || part.contains(where: { $0 < 0x21 || $0 == 0x7f }) { throw refuse("no name of a user or a group") }
            if part.first == UInt8(ascii: "-") || part.first == UInt8(ascii: "+") { throw refuse("no name of a user or a group") }
        }
        func number(_ text: [UInt8], _ what: String) throws -> UInt32? {
            guard !text.isEmpty, text.allSatisfy({ $0 >= UInt8(ascii: "0") && $0 <= UInt8(ascii: "9") }) else { return nil }
            guard let id = Self.id(text) else { throw refuse("the \(what) id is out of range (0 to 2147483647)") }
            return id
        }

        let uid = userText.isEmpty ? 0 : try number(userText, "user")
        let gid = try number(groupText, "group")
        let entry = user { uid == nil ? $0.name == userText : $0.uid == uid }
        guard let uid = uid ?? entry?.uid else { throw refuse("no such user in the \(owner)'s /etc/passwd") }

        var primary = entry?.gid ?? 0
        var others: [UInt32] = []
        if !groupText.isEmpty {
            if let gid {
                primary = gid
            } else {
                guard let found = groups(where: { $0.name == groupText }).first else {
                    throw refuse("no such group in the \(owner)'s /etc/group")
                }
                primary = found.gid
            }
        } else if let entry {
            others = groups { $0.members.contains(entry.name) }.map(\.gid)
        }
        var all = [primary]
        var seen: Set<UInt32> = [primary]
        for gid in others where seen.insert(gid).inserted { all.append(gid) }
        return ResolvedUser(uid: uid, gid: primary, additionalGids: all, home: Self.home(entry?.home ?? []))
    }

    /// A home directory that can stand in an environment and in other files: absolute, printable.
    private static func home(_ bytes: [UInt8]) -> String {
        guard bytes.first == UInt8(ascii: "/"), bytes.count < 4096, !bytes.contains(where: { $0 < 0x20 || $0 == 0x7f }),
            let text = String(validating: bytes, as: UTF8.self)
        else { return "/" }
        return text
    }
}
