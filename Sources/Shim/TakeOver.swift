import CLinux
import Glibc
import Linux
import Records
import TTRPC

extension Container {
    /// What a shim finds at its start, and makes of it (docs/architecture.md, "The shim").
    func takeOver() throws(ShimError) {
        parking.widen()
        first.record = try recordErrors { () throws(RecordError) in try PidRecord.read(in: place.bundleDirectory) }
        first.exit = try recordErrors { () throws(RecordError) in try ExitRecord.read(in: place.incarnationDirectory) }
        first.names = first.record?.streams ?? StreamNames()
        // What the container writes before anybody asks for it is taken from the start; where containerd says where to, it says so in Create.
        if first.record != nil || place.start.publishAddress == nil {
            do throws(Status) { try connectFirst() } catch { throw ShimError("open log", place.id, error.message) }
        }
        guard let record = first.record else {
            // Nothing was created, but a predecessor may have died in the middle of it.
            if place.restarts > 0 {
                for file in (try? parking.drain()) ?? [] { close(file) }
                perform(.clean, for: nil)
            }
            return
        }
        takeParked()
        if stdoutWriter >= 0 || stderrWriter >= 0 { handOverPipes() }
        publish(.created(pid: pid, streams: first.names, mounts: []), again: true)
        if record.started != nil { publish(.started(pid: pid), again: true) }
        if let exit = first.exit {
            phase = .stopped
            first.output.processEnded()
            publish(.exited(execID: "", pid: pid, status: first.exitCode, at: exit.exited), again: true)
            return
        }
        phase = record.started == nil ? .created : .running
        do throws(SysError) {
            // Before the process is looked at: whoever is not its parent must not miss its end.
            first.witness = Witness(of: record.process, place: place, loop: loop, number: first.number)
            let opened = SharedDescriptor(try record.process.open())
            first.pidfd = opened
            first.witness?.pidfd = opened
            try loop.add(opened.raw, .readable, .process)
            // Created or running, running or paused: the record says what was begun, the runtime what came of it.
            if record.started != nil { perform(.inquire, for: nil) }
        } catch {
            if error.code != ESRCH { throw ShimError(error) }
            recordGone(first)
        }
    }

    /// What a predecessor has parked; the last message of a name counts.
    private func takeParked() {
        guard let messages = try? parking.peek() else { return }
        parked = messages.count
        for message in messages {
            guard let name = ParkedName(message.text, count: message.files.count), name.owner == .rootfs else {
                for file in message.files { close(file) }
                continue
            }
            rootfs = SharedDescriptor(Descriptor(owning: message.files[0]))
        }
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
