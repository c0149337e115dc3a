/// The name of an image, normalised as Docker does: `busybox` is `docker.io/library/busybox:latest`.
public struct Reference: Hashable, Sendable, CustomStringConvertible {
    /// Host and optional port; `docker.io` when the text named none.
    public let domain: String
    /// Repository below the domain, such as `library/busybox`.
    public let path: String
    public let tag: String?
    public let digest: Digest?

    /// Why a text names no image.
    public struct SyntaxError: Error, Equatable, Sendable, CustomStringConvertible {
        public let text: String
        public let reason: String
        public var description: String { "invalid image reference \"\(text.prefix(300))\": \(reason)" }
    }

    static let defaultDomain = "docker.io"
    static let officialPrefix = "library/"

    /// Reads `[host[:port]/]path[:tag][@sha256:hex]`. Without tag and digest the tag is `latest`.
    public init(parsing text: String) throws(SyntaxError) {
        func fail(_ reason: String) -> SyntaxError { SyntaxError(text: text, reason: reason) }
        if text.isEmpty { throw fail("it is empty") }
        if text.utf8.count > 512 { throw fail("it is longer than 512 bytes") }
        if Digest(hex: text) != nil { throw fail("64 hexadecimal digits are an id, not a name") }

        var name = Substring(text)
        var digest: Digest?
        if let at = name.firstIndex(of: "@") {
            guard let parsed = Digest(name[name.index(after: at)...]) else { throw fail("malformed digest") }
            digest = parsed
            name = name[..<at]
        }
        var tag: String?
        let lastSlash = name.lastIndex(of: "/") ?? name.startIndex
        if let colon = name[lastSlash...].lastIndex(of: ":") {
            let candidate = name[name.index(after: colon)...]
            guard Self.isTag(candidate) else { throw fail("malformed tag") }
            tag = String(candidate)
            name = name[..<colon]
        }

        var domain = Substring(Self.defaultDomain)
        var path = name
        if let slash = name.firstIndex(of: "/"), Self.looksLikeHost(name[..<slash]) {
            domain = name[..<slash]
            path = name[name.index(after: slash)...]
            guard Self.isHost(domain) else { throw fail("malformed host name") }
            if domain == "index.docker.io" { domain = Substring(Self.defaultDomain) }
        }
        var repository = String(path)
        if domain == Self.defaultDomain && !repository.utf8.contains(UInt8(ascii: "/")) {
            repository = Self.officialPrefix + repository
        }
        if repository.utf8.contains(where: { $0 >= UInt8(ascii: "A") && $0 <= UInt8(ascii: "Z") }) {
            throw fail("the repository name must be lower-case")
        }
        guard Self.isPath(repository) else { throw fail("malformed repository name") }
        guard domain.utf8.count + 1 + repository.utf8.count <= 255 else { throw fail("the name is longer than 255 bytes") }

        self.domain = String(domain)
        self.path = repository
        self.tag = tag ?? (digest == nil ? "latest" : nil)
        self.digest = digest
    }

    /// Host and repository, without tag and digest.
    public var name: String { domain + "/" + path }

    /// The whole normalised reference.
    public var description: String { name + suffix }

    /// The shortest text that means the same: `busybox:latest`, `bar/bb:latest`, `localhost:5000/x:1`.
    public var familiar: String {
        guard domain == Self.defaultDomain else { return description }
        if path.hasPrefix(Self.officialPrefix) {
            let rest = path.dropFirst(Self.officialPrefix.count)
            if !rest.utf8.contains(UInt8(ascii: "/")) { return rest + suffix }
        }
        return path + suffix
    }

    private var suffix: String { (tag.map { ":" + $0 } ?? "") + (digest.map { "@\($0)" } ?? "") }
}

extension Reference {
    private static func isLowerOrDigit(_ byte: UInt8) -> Bool {
        (byte >= UInt8(ascii: "a") && byte <= UInt8(ascii: "z")) || (byte >= UInt8(ascii: "0") && byte <= UInt8(ascii: "9"))
    }

    private static func isAlphanumeric(_ byte: UInt8) -> Bool {
        isLowerOrDigit(byte) || (byte >= UInt8(ascii: "A") && byte <= UInt8(ascii: "Z"))
    }

    /// `[A-Za-z0-9_][A-Za-z0-9._-]{0,127}`
    static func isTag(_ text: some StringProtocol) -> Bool {
        let bytes = text.utf8
        guard let first = bytes.first, bytes.count <= 128 else { return false }
        guard isAlphanumeric(first) || first == UInt8(ascii: "_") else { return false }
        return bytes.allSatisfy {
            isAlphanumeric($0) || $0 == UInt8(ascii: "_") || $0 == UInt8(ascii: ".") || $0 == UInt8(ascii: "-")
        }
    }

    private static func looksLikeHost(_ text: Substring) -> Bool {
        text == "localhost"
            || text.utf8.contains {
                $0 == UInt8(ascii: ".") || $0 == UInt8(ascii: ":") || ($0 >= UInt8(ascii: "A") && $0 <= UInt8(ascii: "Z"))
            }
    }

    /// Labels of letters, digits and inner hyphens, or a bracketed IPv6 address; then an optional port.
    private static func isHost(_ text: Substring) -> Bool {
        var host = text
        if host.utf8.first == UInt8(ascii: "[") {
            guard let close = host.firstIndex(of: "]") else { return false }
            let inside = host[host.index(after: host.startIndex)..<close]
            let isAddress = inside.utf8.allSatisfy {
                $0 == UInt8(ascii: ":") || ($0 >= UInt8(ascii: "0") && $0 <= UInt8(ascii: "9"))
                    || ($0 | 0x20 >= UInt8(ascii: "a") && $0 | 0x20 <= UInt8(ascii: "f"))
            }
            let rest = host[host.index(after: close)...]
            return isAddress && inside.utf8.count >= 2 && (rest.isEmpty || isPort(rest))
        }
        if let colon = host.firstIndex(of: ":") {
            guard isPort(host[colon...]) else { return false }
            host = host[..<colon]
        }
        return host.split(separator: ".", omittingEmptySubsequences: false).allSatisfy { label in
            guard let first = label.utf8.first, let last = label.utf8.last else { return false }
            return isAlphanumeric(first) && isAlphanumeric(last)
                && label.utf8.allSatisfy { isAlphanumeric($0) || $0 == UInt8(ascii: "-") }
        }
    }

    private static func isPort(_ text: Substring) -> Bool {
        let digits = text.dropFirst()
        return text.utf8.first == UInt8(ascii: ":") && (1...5).contains(digits.utf8.count)
            && digits.utf8.allSatisfy { $0 >= UInt8(ascii: "0") && $0 <= UInt8(ascii: "9") }
    }

    private static func isPath(_ text: String) -> Bool {
        text.split(separator: "/", omittingEmptySubsequences: false).allSatisfy { isComponent(Array($0.utf8)) }
    }

    /// Groups of `[a-z0-9]+` joined by one of `.`, `_`, `__` or a run of `-`.
    private static func isComponent(_ bytes: [UInt8]) -> Bool {
        guard let first = bytes.first, let last = bytes.last, isLowerOrDigit(first), isLowerOrDigit(last) else { return false }
        var index = 0
        while index < bytes.count {
            if isLowerOrDigit(bytes[index]) {
                index += 1
                continue
            }
            let begin = index
            while index < bytes.count, !isLowerOrDigit(bytes[index]) { index += 1 }
            let separator = bytes[begin..<index]
            let isHyphens = separator.allSatisfy { $0 == UInt8(ascii: "-") }
            let isUnderscores = separator.count <= 2 && separator.allSatisfy { $0 == UInt8(ascii: "_") }
            guard isHyphens || isUnderscores || (separator.count == 1 && separator.first == UInt8(ascii: ".")) else { return false }
        }
        return true
    }
}
