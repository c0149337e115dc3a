/// Options of prctl(2) that the C library's Swift module does not show.
enum ProcessControl {
    static let setDumpable: Int32 = 4
    static let setKeepCapabilities: Int32 = 8
    static let setName: Int32 = 15
    static let dropBoundingCapability: Int32 = 24
    static let setNoNewPrivileges: Int32 = 38
    static let ambientCapabilities: Int32 = 47
    /// Second arguments of `ambientCapabilities`.
    static let raise: UInt = 2, clearAll: UInt = 4
}
