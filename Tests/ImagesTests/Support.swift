import CLinux
import Glibc
import Linux
import OCI
import XCTest

@testable import Content
@testable import Snapshots

/// A directory for one test, removed with everything in it at the end.
class TemporaryDirectoryTests: XCTestCase {
    private(set) var root = ""

    override func setUpWithError() throws {
        _ = try XCTUnwrap(getuid() == 0 ? true : nil, "layers have owners and devices: run the tests as root")
        var template = Array("/tmp/ctrd-images-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw SysError("mkdtemp", code: errno) }
        root = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    override func tearDownWithError() throws {
        guard root.hasPrefix("/tmp/ctrd-images-") else { return }
        try openDirectory("/tmp").remove(Name(String(root.dropFirst(5))))
    }

    func openDirectory(_ path: String) throws -> OpenDirectory {
        OpenDirectory(try Linux.open(path, O_RDONLY | O_DIRECTORY))
    }

    func write(_ path: String, _ bytes: [UInt8]) throws {
        let file = try Linux.open(path, O_WRONLY | O_CREAT | O_TRUNC, mode: 0o644)
        try writeAll(file.raw, bytes, name: path)
    }

    func text(_ path: String) throws -> String { String(decoding: try readFile(path, limit: 1 << 20), as: UTF8.self) }

    func status(_ path: String) -> stat? {
        var status = stat()
        return lstat(path, &status) == 0 ? status : nil
    }

    /// Names below `path`, links not followed, sorted.
    func tree(_ path: String) throws -> [String] {
        try openDirectory(path).names().flatMap { name -> [String] in
            let below = path + "/" + name.description
            let isDirectory = status(below)?.isDirectory ?? false
            return [name.description] + (isDirectory ? try tree(below).map { name.description + "/" + $0 } : [])
        }.sorted()
    }
}

extension Digest {
    static func of(_ text: String) throws -> Digest { try SHA256.digest(of: Array(text.utf8)) }
}
