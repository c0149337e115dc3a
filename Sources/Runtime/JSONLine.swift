import OCI

/// Small JSON texts of strings alone.
enum JSONLine {
    static func quoted(_ text: String) -> String { String(decoding: JSON.string(text).encoded(), as: UTF8.self) }

    static func object(_ members: [(String, String)]) -> String {
        String(decoding: JSON.object(members.map { JSON.Member($0.0, .string($0.1)) }).encoded(), as: UTF8.self)
    }
}
