import CLinux
import Glibc
import Linux
import TTRPC

/// The shim becomes another program: same pid, same children, same connections. What only its memory holds goes into a memfd; the new
/// program says in a process of its own whether it understands that, before there is no way back.
extension Container {
    /// How long the new program may look at the state.
    static let checkTime: Int64 = 5_000_000_000
    /// Where it finds the state while it looks.
    static let stateDescriptor: Int32 = 11

    /// Absolute path of the program to become.
    static func upgradeProgram(_ asked: String) throws(Status) -> String {
        let program = asked.isEmpty ? (try? RuntimeChoice.ownProgram()) ?? "" : asked
        guard program.hasPrefix("/"), program.utf8.count < 4096 else {
            throw Status(.invalidArgument, "upgrade to \(program.prefix(200)): not an absolute path")
        }
        return program
    }

    /// Asks `program` whether it takes the state over. Nothing is read from any connection meanwhile.
    func checkUpgrade(_ program: String) {
        do throws(SysError) {
            onUpgrade?.pause()
            let state = onUpgrade?.state() ?? []
            let input = try Self.sealed(state)
            let output = SharedDescriptor(Descriptor(owning: try check("create memfd", "", ctr_memfd_create("verdict", 1))))
            var descriptors = [Int32](repeating: -1, count: Int(Self.stateDescriptor) + 1)
            descriptors[0] = 0
            descriptors[1] = output.raw
            descriptors[2] = 2
            descriptors[Int(Self.stateDescriptor)] = input.raw
            operation?.output = output
            operation?.expected = Self.verdict(on: state)
            operation?.child = try RuntimeCall.spawn(program, ["ctr-shim", "check-state"], directory: "/", descriptors)
            operation?.limit = now(CLOCK_MONOTONIC) + Self.checkTime
        } catch {
            refuseUpgrade(program, error.description)
        }
    }

    /// It took too long: it is killed, and its end comes as any other.
    func upgradeIsLate() {
        operation?.limit = .max
        if let child = operation?.child, child > 0 { Glibc.kill(child, SIGKILL) }
    }

    /// The new program has looked. This returns only when it is not taken.
    func becomeUpgrade(_ program: String, waitStatus: Int32) {
        let said = operation?.output.flatMap { output in
            lseek(output.raw, 0, SEEK_SET) == 0 ? try? readAll(output.raw, name: "verdict", limit: 4096) : nil
        }
        operation?.limit = .max
        guard waitStatus == 0, let said, let expected = operation?.expected,
            String(decoding: said, as: UTF8.self).hasSuffix(" takes over \(expected)\n")
        else {
            let how = ctr_wifsignaled(waitStatus) ? "signal \(ctr_wtermsig(waitStatus))" : "status \(ctr_wexitstatus(waitStatus))"
            return refuseUpgrade(program, "it does not take this shim's state over (\(how))")
        }
        let failure = onUpgrade?.become(program) ?? ENOSYS
        refuseUpgrade(program, SysError("execute", program, code: failure).cause)
    }

    private func refuseUpgrade(_ program: String, _ cause: String) {
        onUpgrade?.resume()
        fail(.failedPrecondition, "upgrade of the shim of \(place.id) to \(program): \(cause)")
    }

    /// What a program that understood `state` prints at the end of its line.
    static func verdict(on state: [UInt8]) -> String {
        let sum = state.withUnsafeBytes { bytes in bytes.baseAddress.map { ctr_crc32(0, $0, bytes.count) } ?? 0 }
        return String(sum, radix: 16)
    }

    /// A memfd with `bytes` that nobody can change, at its beginning.
    static func sealed(_ bytes: [UInt8]) throws(SysError) -> SharedDescriptor {
        let file = SharedDescriptor(Descriptor(owning: try check("create memfd", "", ctr_memfd_create("shim-state", 1 | 2))))
        try writeAll(file.raw, bytes, name: "shim-state")
        try checkErrno("rewind", "shim-state", lseek(file.raw, 0, SEEK_SET))
        try check("seal", "shim-state", ctr_seal(file.raw))
        return file
    }

    // MARK: what is handed over

    /// Every call that waits for something, to be made again by the new program.
    var waitsOfAll: [ShimState.Wait] {
        var waits: [ShimState.Wait] = []
        for process in [first] + execs {
            let execID = process.execID
            for call in process.waits { waits.append(ShimState.Wait(call: call, method: "Wait", execID: execID)) }
            for wait in process.output.waits {
                waits.append(ShimState.Wait(call: wait.call, method: "WaitLog", execID: execID, indexSize: wait.indexSize))
            }
            for wait in process.input.waits {
                let request = Messages.writeInputRequest(execID: execID, wait.write)
                waits.append(ShimState.Wait(call: wait.call, method: "WriteInput", execID: execID, request: request))
            }
            for call in process.deleters { waits.append(ShimState.Wait(call: call, method: "Delete", execID: execID)) }
        }
        for call in operation?.callers ?? [] { waits.append(ShimState.Wait(call: call, method: "Upgrade")) }
        return waits
    }

    var readsOfAll: [ShimState.Read] {
        ([first] + execs).compactMap { process in
            process.output.log.flatMap { $0.acknowledged.map { ShimState.Read(execID: process.execID, indexSize: $0) } }
        }
    }

    /// Makes the calls again that waited when the program was changed.
    func resume(_ state: ShimState) {
        for read in state.reads { find(read.execID)?.output.acknowledge(read.indexSize) }
        for wait in state.waits {
            switch wait.method {
            case "Wait": self.wait(wait.call, execID: wait.execID)
            case "WaitLog":
                if let process = find(wait.execID) {
                    process.output.wait(wait.call, indexSize: wait.indexSize)
                } else {
                    answer(wait.call, .failure(noExec(wait.execID)))
                }
            case "WriteInput":
                do throws(Status) {
                    let (execID, write) = try Messages.writeInput(wait.request)
                    writeInput(wait.call, execID: execID, write)
                } catch { answer(wait.call, .failure(error)) }
            case "Delete": deleteExec(wait.call, wait.execID)
            case "Upgrade": answer(wait.call, .success(Messages.upgraded(version: Daemon.version)))
            default: answer(wait.call, .failure(Status(.unavailable, "the shim has become another program: ask again")))
            }
        }
    }
}

/// What the daemon does of an upgrade: it has the connections.
struct UpgradeSteps {
    /// No call is read any more, until `resume`.
    var pause: () -> Void
    var resume: () -> Void
    var state: () -> [UInt8]
    /// Executes the program; returns errno when that fails.
    var become: (String) -> Int32
}

/// `ctr-shim check-state`: whether this program takes over the state that is its descriptor 11.
enum CheckState {
    /// The line that says so; anything else is an error.
    static func run() throws(ShimError) -> String {
        let bytes = try shimErrors { () throws(SysError) in
            try readAll(Container.stateDescriptor, name: "state", limit: ShimState.limit)
        }
        do throws(Status) { _ = try ShimState.decode(bytes) } catch { throw ShimError("check state", "", error.message) }
        return "ctr-shim \(Daemon.version) takes over \(Container.verdict(on: bytes))\n"
    }
}
