/// A value that an image's author chose, and nobody has looked at yet.
///
/// Functions that open host paths, start programs or decide anything take plain values; so whoever passes such a value on has to
/// write `.untrusted`, and those places are the list of what an image can reach.
public struct FromImage<Value: Sendable>: Sendable {
    /// The value as it was in the image.
    public let untrusted: Value

    public init(_ value: Value) { untrusted = value }
}

extension FromImage: Equatable where Value: Equatable {}
extension FromImage: Hashable where Value: Hashable {}
