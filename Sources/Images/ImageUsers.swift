import Glibc
import Linux
import Snapshots

extension ImageStore {
    /// Resolves `USER[:GROUP]` with the /etc/passwd and /etc/group of the image's layers. An empty text is what the image says, and root
    /// when it says nothing. Numbers need no entries; names do.
    public func resolveUser(_ user: String, image: LoadedImage) throws -> ResolvedUser {
        let user = user.isEmpty ? image.configuration.user.untrusted : user
        do {
            let view = try snapshots.view(image.chainIDs)
            let database = UserDatabase(
                passwd: try view.readFile("/etc/passwd", limit: UserDatabase.sizeLimit) ?? [],
                group: try view.readFile("/etc/group", limit: UserDatabase.sizeLimit) ?? [])
            return try database.resolve(user)
        } catch { throw ImageError(error, "resolve user", "\"\(user.prefix(128))\"") }
    }
}

/// Resolves `USER[:GROUP]` with the /etc/passwd and /etc/group of a running container, whose files may be anything. Blocking.
public func resolveUser(_ user: String, in root: borrowing RootFS) throws -> ResolvedUser {
    func file(_ path: String) throws(SysError) -> [UInt8] {
        do throws(SysError) { return try root.readFile(path, limit: UserDatabase.sizeLimit) } catch {
            if error.code == ENOENT || error.code == ENOTDIR { return [] }
            throw error
        }
    }
    do {
        return try UserDatabase(passwd: try file("/etc/passwd"), group: try file("/etc/group"), owner: "container").resolve(user)
    } catch { throw ImageError(error, "resolve user", "\"\(user.prefix(128))\"") }
}
