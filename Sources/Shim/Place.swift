import CLinux
import Glibc
import Linux
import Records

/// Where the shim's container is: names, directories, and who keeps it.
final class Place {
    let namespace: String
    let id: String
    let bundle: String
    /// Directory descriptors of the bundle (STATE) and of the incarnation (ROOT).
    let bundleDirectory: Int32
    let incarnationDirectory: Int32
    /// Create may choose another runtime than `start` did.
    private(set) var start: StartRecord
    let bootID: String
    /// The keeper's file of exits, inherited as descriptor 4.
    let exits: Int32 = Inherited.exits
    /// 0 when there was none at the start.
    let keeperPid: Int32
    private let keeper: SharedDescriptor?
    /// How many shims the incarnation had before this one.
    private(set) var restarts: UInt32 = 0
    let lock: Int32
    /// How often this process became another program.
    let upgrades: UInt32

    /// Takes the lock, which waits for a predecessor's last child to let go of it, and reads what the guards were started with.
    /// `before`: what the program that this process was before has left; it holds the lock then.
    init(_ arguments: Arguments, _ before: ShimState? = nil) throws(ShimError) {
        namespace = arguments.namespace
        id = arguments.id
        bundle = arguments.bundle
        bundleDirectory = try shimErrors { () throws(SysError) in try Linux.open(arguments.bundle, O_RDONLY | O_DIRECTORY).release() }
        upgrades = before?.upgrades ?? 0
        // Another open of it would wait for the first for ever.
        lock = if let before, before.lock > 2 { before.lock } else { try Self.openLock(in: bundleDirectory) }
        try shimErrors { [lock] () throws(SysError) in _ = try check("take lock of", arguments.bundle, ctr_ofd_lock(lock, true)) }
        guard let record = try recordErrors({ [bundleDirectory] () throws(RecordError) in try StartRecord.read(in: bundleDirectory) })
        else {
            throw ShimError("read record", StartRecord.fileName, "no such file in \(arguments.bundle)")
        }
        start = record
        incarnationDirectory = try shimErrors { () throws(SysError) in
            try Linux.open(arguments.directory, O_RDONLY | O_DIRECTORY).release()
        }
        bootID = try shimErrors { () throws(SysError) in try Linux.bootID() }
        let parent = getppid()
        let opened = parent > 1 ? ctr_pidfd_open(parent, 0) : -ESRCH
        // Still the parent after its pidfd was opened: the pidfd is the keeper's.
        let isKeeper = opened >= 0 && getppid() == parent
        keeper = opened >= 0 ? SharedDescriptor(Descriptor(owning: opened)) : nil
        keeperPid = isKeeper ? parent : 0
        restarts = if let before { before.restarts } else { countStart() }
    }

    /// Written before anything is done with it, for this shim's successors.
    func change(_ start: StartRecord) throws(RecordError) {
        try start.write(in: bundleDirectory)
        self.start = start
    }

    static func openLock(in bundle: Int32) throws(ShimError) -> Int32 {
        try shimErrors { () throws(SysError) in
            try Linux.open("lock", O_RDWR | O_CREAT | O_NOFOLLOW, mode: 0o600, at: bundle).release()
        }
    }

    /// The lock file counts the shims that held it, as text; a helper that cannot read it counts from nothing.
    private func countStart() -> UInt32 {
        let text = (try? readAll(lock, name: "lock", limit: 64)) ?? []
        let before = UInt32(String(decoding: text.prefix { $0 >= 0x30 && $0 <= 0x39 }, as: UTF8.self)) ?? 0
        let line = Array("\(before &+ 1)\n".utf8)
        _ = line.withUnsafeBytes { pwrite(lock, $0.baseAddress, $0.count, 0) }
        return before
    }

    var keeperIsAlive: Bool { keeperPid > 0 && getppid() == keeperPid }

    func signalKeeper(_ signal: Int32) {
        if let keeper, keeperPid > 0 { _ = ctr_pidfd_send_signal(keeper.raw, signal) }
    }
}

/// The descriptors that the keeper gives (docs/architecture.md, "The keeper's contract").
enum Inherited {
    static let stdin: Int32 = 0
    static let listener: Int32 = 3
    static let exits: Int32 = 4
    static let parkingReceiver: Int32 = 5
    static let parkingSender: Int32 = 6
    static let stdout: Int32 = 7
    static let stderr: Int32 = 8
    static let stdoutWriter: Int32 = 9
    static let stderrWriter: Int32 = 10
    static let count: Int32 = 11

    /// Takes the numbers that the keeper has nothing for any more, since a program that this one becomes gets what has them.
    static func reserve() {
        for number in listener..<count where ctr_fcntl_int(number, F_GETFD, 0) < 0 { giveBack(number) }
    }

    /// Whether a stream's pipe is there still, and not what ``giveBack(_:)`` puts in its place.
    static func isPipe(_ file: Int32) -> Bool {
        var status = stat()
        return fstat(file, &status) == 0 && status.st_mode & S_IFMT == S_IFIFO
    }

    /// Closes a descriptor. One of the keeper's numbers stays taken, by /dev/null: a program that this one becomes finds no other file there.
    static func giveBack(_ file: Int32) {
        if file < 0 { return }
        if file < count { _ = ctr_dup3(stdin, file, O_CLOEXEC) } else { close(file) }
    }
}
