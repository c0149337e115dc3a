import CLinux
import Glibc
import Linux
import OCI

/// `ps`: the processes of a container, as the host numbers and names them.
enum ProcessList {
    private static let outputLimit = 16 << 20

    static func run(_ line: Invocation, json: Bool, options: [String]) throws(RuntimeError) -> [UInt8] {
        let directory = try StateDirectory.open(root: line.root, id: line.id)
        guard let state = try directory.read() else { throw RuntimeError.noContainer }
        var pids: [Int32] = []
        if try directory.status(state) != .stopped { pids = try attempt { () throws(SysError) in try state.cgroup.processes() }.sorted() }
        if json { return JSON.array(pids.map { .integer(Int64($0)) }).encoded() + [0x0a] }
        return try filter(try output(options.isEmpty ? ["-ef"] : options), Set(pids))
    }

    /// Of the host's program, never of one that the container's file system may hold.
    private static func output(_ options: [String]) throws(RuntimeError) -> [UInt8] {
        let places: [String] = ["/usr/bin/ps", "/bin/ps"]
        guard let program = places.first(where: { access($0, X_OK) == 0 }) else {
            throw RuntimeError("ps: there is no /usr/bin/ps on this host: install procps, or use --format json")
        }
        return try attempt("ps") { () throws(SysError) in
            var ends: (Int32, Int32) = (-1, -1)
            let result = withUnsafeMutableBytes(of: &ends) { ctr_pipe2($0.bindMemory(to: Int32.self).baseAddress, O_CLOEXEC) }
            try check("make", "pipe", result)
            let input = Descriptor(owning: ends.0)
            let end = Descriptor(owning: ends.1)
            let pid = withCStrings([program] + options) { arguments in
                ctr_spawn(program, arguments, ctr_environ(), "/", [STDIN_FILENO, end.raw, STDERR_FILENO], 3, false)
            }
            try check("run", program, pid)
            _ = consume end
            let text: [UInt8]
            do throws(SysError) { text = try readAll(input.raw, name: "output of ps", limit: outputLimit) } catch {
                kill(pid, SIGKILL)
                waitpid(pid, nil, 0)
                throw error
            }
            var status: Int32 = 0
            try check("wait for", program, ctr_waitid(CTR_P_PID, pid, &status, 0))
            if exitCode(waitStatus: status) != 0 {
                throw SysError("\(program) ended with status \(exitCode(waitStatus: status))", code: ECANCELED)
            }
            return text
        }
    }

    /// The head, and the lines whose column PID holds one of `pids`.
    static func filter(_ table: [UInt8], _ pids: Set<Int32>) throws(RuntimeError) -> [UInt8] {
        let lines = table.split(separator: 0x0a)
        guard let head = lines.first, let column = head.split(separator: 0x20).firstIndex(where: { $0.elementsEqual("PID".utf8) }) else {
            throw RuntimeError("ps: its output has no column PID: choose options with one")
        }
        var result = Array(head) + [0x0a]
        for line in lines.dropFirst() {
            let fields = line.split(separator: 0x20)
            if column < fields.count, let pid = Int32(String(decoding: fields[column], as: UTF8.self)), pids.contains(pid) {
                result += line
                result.append(0x0a)
            }
        }
        return result
    }
}
