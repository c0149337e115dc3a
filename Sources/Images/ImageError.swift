import Content
import Linux
import OCI
import Snapshots

/// Why an image could not be imported, loaded or used, in one line.
public struct ImageError: Error, Equatable, Sendable, CustomStringConvertible {
    public enum Kind: Equatable, Sendable {
        /// The archive, the layout or the image in it is not what it should be.
        case invalid
        case notFound
        /// The host refused.
        case system(Int32)
    }

    public let kind: Kind
    public let operation: String
    public let object: String
    public let cause: String

    public init(_ kind: Kind, _ operation: String, _ object: String, _ cause: String) {
        self.kind = kind
        self.operation = operation
        self.object = object
        self.cause = cause
    }

    /// What an error of a module below means for `operation` on `object`.
    init(_ error: any Error, _ operation: String, _ object: String) {
        let kind: Kind
        switch error {
        case let error as ImageError:
            self = ImageError(
                error.kind, operation, object, error.object == object ? error.cause : "\(error.operation) \(error.object): \(error.cause)")
            return
        case let error as ContentError:
            switch error.kind {
            case .corrupt, .tooLarge: kind = .invalid
            case .notFound: kind = .notFound
            case .system(let code): kind = .system(code)
            }
        case let error as SnapshotError:
            switch error.kind {
            case .malformed: kind = .invalid
            case .notFound: kind = .notFound
            case .system(let code): kind = .system(code)
            }
        case let error as SysError: kind = error.code == 2 ? .notFound : .system(error.code)
        default: kind = .invalid
        }
        self.init(kind, operation, object, "\(error)")
    }

    public var description: String { (object.isEmpty ? operation : operation + " " + object) + ": " + cause }
}
