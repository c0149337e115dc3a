/// The release that all programs of this tree are.
public enum Release {
    public static let version = "0.2.0"
}
