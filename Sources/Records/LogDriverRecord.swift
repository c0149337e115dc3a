/// How far a log driver is: what of the segments is in its output, and how long the output file is with exactly that. Not synced: after a
/// power loss the output may lack what it lacks of the log.
public struct LogDriverRecord: TypedRecord {
    public static let kind = "logdriver"
    public static let fileName = "log-driver"
    public static let durable = false

    /// The task's number whose log is being read.
    public var incarnation: UInt32
    /// All of that log is in the output.
    public var done: Bool
    /// Behind the last bytes of each stream that are in the output.
    public var stdoutSegment: UInt32
    public var stdoutOffset: UInt64
    public var stderrSegment: UInt32
    public var stderrOffset: UInt64
    /// Position in the index from which on anything is missing.
    public var position: UInt64
    /// The output file and its length; 0 when there is none.
    public var inode: UInt64
    public var size: UInt64

    public init(incarnation: UInt32) {
        self.incarnation = incarnation
        done = false
        (stdoutSegment, stdoutOffset, stderrSegment, stderrOffset) = (0, 0, 0, 0)
        (position, inode, size) = (0, 0, 0)
    }

    public init(fields: borrowing RecordFields) throws(RecordError) {
        incarnation = try fields.number("incarnation")
        done = try fields.flag("done")
        stdoutSegment = try fields.number("stdout_segment")
        stdoutOffset = try fields.number("stdout_offset")
        stderrSegment = try fields.number("stderr_segment")
        stderrOffset = try fields.number("stderr_offset")
        position = try fields.number("position")
        inode = try fields.number("inode")
        size = try fields.number("size")
    }

    public func fill(_ record: inout Record) {
        record.set("incarnation", incarnation)
        record.set("done", done)
        record.set("stdout_segment", stdoutSegment)
        record.set("stdout_offset", stdoutOffset)
        record.set("stderr_segment", stderrSegment)
        record.set("stderr_offset", stderrOffset)
        record.set("position", position)
        record.set("inode", inode)
        record.set("size", size)
    }
}
