import CLinux
import Glibc

/// What a process sets for itself (prctl(2)) before it guards others.
public enum ProcessControl {
    /// Orphans below this process become its children instead of pid 1's (PR_SET_CHILD_SUBREAPER).
    public static func becomeSubreaper() throws(SysError) {
        try check("become subreaper", "", ctr_prctl(36, 1, 0, 0, 0))
    }

    /// No core dumps, and no ptrace or /proc access for other users (PR_SET_DUMPABLE).
    public static func becomeNonDumpable() throws(SysError) {
        try check("become non-dumpable", "", ctr_prctl(4, 0, 0, 0, 0))
    }

    /// The name that ps shows, at most 15 bytes (PR_SET_NAME).
    public static func setName(_ name: StaticString) throws(SysError) {
        try check("set process name", "\(name)", ctr_prctl(15, UInt(bitPattern: name.utf8Start), 0, 0, 0))
    }

    /// From now on exactly `blocked` are blocked and `ignored` are ignored.
    public static func setSignals(blocked: [Int32], ignored: [Int32]) throws(SysError) {
        let result = blocked.withUnsafeBufferPointer { blocked in
            ignored.withUnsafeBufferPointer { ignored in
                ctr_set_signals(blocked.baseAddress, Int32(blocked.count), ignored.baseAddress, Int32(ignored.count))
            }
        }
        try check("set signals", "", result)
    }

    /// Blocks `signals` and returns a descriptor that is readable when one is pending (signalfd(2)); non-blocking, close-on-exec, the
    /// caller's.
    public static func signalDescriptor(_ signals: [Int32]) throws(SysError) -> Descriptor {
        let result = signals.withUnsafeBufferPointer { ctr_signalfd($0.baseAddress, Int32($0.count)) }
        return Descriptor(owning: try check("watch signals", "", result))
    }
}
