import CLinux
import Glibc
import Linux
import Records

extension Container {
    /// What a shim finds at its start, and makes of it (docs/architecture.md, "The shim").
    func takeOver() throws(ShimError) {
        process = try recordErrors { () throws(RecordError) in try PidRecord.read(in: place.bundleDirectory) }
        exit = try recordErrors { () throws(RecordError) in try ExitRecord.read(in: place.incarnationDirectory) }
        guard let process else {
            // Nothing was created, but a predecessor may have died in the middle of it.
            if place.restarts > 0 {
                for file in (try? parking.drain()) ?? [] { close(file) }
                perform(.clean, for: nil)
            }
            return
        }
        rootfs = parkedRootfs()
        if stdoutWriter >= 0 || stderrWriter >= 0 { handOverPipes() }
        if exit != nil {
            phase = .stopped
            pump.initEnded()
            return
        }
        phase = process.started == nil ? .created : .running
        do throws(SysError) {
            // Before the process is looked at: whoever is not its parent must not miss its end.
            witness = Witness(of: process.process, place: place, loop: loop)
            let opened = SharedDescriptor(try process.process.open())
            pidfd = opened
            witness?.pidfd = opened
            try loop.add(opened.raw, .readable, .initProcess)
            // Created or running, running or paused: the record says what was begun, the runtime what came of it.
            if process.started != nil { perform(.inquire, for: nil) }
        } catch {
            if error.code != ESRCH { throw ShimError(error) }
            recordGone()
        }
    }

    private func parkedRootfs() -> SharedDescriptor? {
        guard let found = try? parking.peek("rootfs") else { return nil }
        return SharedDescriptor(found)
    }

    /// Whether the shim may end: it has no container, or its caller knows that the container has ended and wants no more of it.
    func isDisposable(immediately: Bool) -> Bool {
        switch phase {
        case .none, .deleted: operation == nil
        case .stopped: immediately
        case .created, .running, .paused: false
        }
    }
}
