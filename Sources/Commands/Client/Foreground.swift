import CLinux
import CtrProto
import Glibc
import Linux
import SwiftProtobuf
import TTRPC

/// `run` with the terminal attached: makes the container, carries its output here and signals there, and ends with its status.
///
/// Nothing is remembered about a connection but what it still owes. When one breaks, ``issue()`` asks again for whatever has no
/// answer, under the same id and behind the last byte that was written.
final class Foreground {
    enum End: Equatable {
        case exited(Ctr_V1_Exit)
        /// The user let go of a container that goes on.
        case detached
        /// The reader of standard output is gone.
        case outputClosed
    }

    /// What a request on the first connection was for.
    private enum Owed: Equatable { case create, wait, delete, kill(Int32) }

    private let manager: Manager
    private let request: Ctr_V1_CreateContainerRequest
    private let removes: Bool

    private var control: Connection?
    private var owed: [UInt32: Owed] = [:]
    private var logs: Connection?
    private var sink = LogSink()
    private var reconnector: Reconnector
    private var signals: SignalSource

    private var isCreated = false
    /// Whether the manager said that the container was made and started.
    var wasCreated: Bool { isCreated }
    private var exit: Ctr_V1_Exit?
    private var isDeleted = false
    private var isDetached = false
    private var isOutputClosed = false
    private var toSend: Set<Int32> = []

    /// Fails at once when there is no manager.
    init(manager: Manager, request: Ctr_V1_CreateContainerRequest) throws {
        self.manager = manager
        self.request = request
        removes = request.config.autoRemove
        reconnector = Reconnector(path: manager.address)
        control = try Connection(path: manager.address)
        signals = try SignalSource()
    }

    /// Runs until the container has ended and all of its output is written. Throws ``ClientError`` when the manager refuses.
    func run() throws -> End {
        while true {
            do throws(ClientError) {
                try issue()
            } catch { try outage(error) }
            if isDetached { return .detached }
            if isOutputClosed { return .outputClosed }
            if let exit, sink.isFinished, isDeleted || !removes { return .exited(exit) }
            try step()
        }
    }

    /// Sees to it that everything that is wanted is asked for.
    private func issue() throws(ClientError) {
        if control == nil {
            guard let connection = try reconnector.attempt(bufferSize: 16 << 10) else { return }
            control = connection
        }
        guard let control else { return }
        if !isCreated { return try ask(.create, control) { () throws(ClientError) in try control.start(API.createContainer, request) } }
        if exit == nil {
            try ask(.wait, control) { () throws(ClientError) in
                var wait = Ctr_V1_WaitTaskRequest()
                wait.namespace = manager.namespace
                wait.container = request.id
                return try control.start(API.waitTask, wait)
            }
            for signal in toSend.sorted() {
                toSend.remove(signal)
                var kill = Ctr_V1_KillTaskRequest()
                kill.namespace = manager.namespace
                kill.container = request.id
                kill.signal = UInt32(signal)
                owed[try control.start(API.killTask, kill)] = .kill(signal)
            }
        }
        if logs == nil && !sink.isFinished {
            let connection = try Connection(path: manager.address, bufferSize: 256 << 10)
            let read = sink.request(namespace: manager.namespace, container: request.id, follow: true)
            _ = try connection.start(API.readLogs, read, streaming: true)
            logs = connection
        }
        if exit != nil && sink.isFinished && removes && !isDeleted {
            try ask(.delete, control) { () throws(ClientError) in
                var delete = Ctr_V1_DeleteContainerRequest()
                delete.namespace = manager.namespace
                delete.container = request.id
                return try control.start(API.deleteContainer, delete)
            }
        }
    }

    private func ask(_ what: Owed, _ connection: Connection, _ start: () throws(ClientError) -> UInt32) throws(ClientError) {
        if !owed.values.contains(what) { owed[try start()] = what }
    }

    /// Waits for news and takes it in.
    private func step() throws {
        var output: Int32 = -1
        if !sink.isDrained {
            switch try sink.write() {
            case .drained: break
            case .blocked(let descriptor): output = descriptor
            case .closed:
                isOutputClosed = true
                return
            }
            if sink.isFinished { logs = nil }
            if output < 0, let logs { return try guarded { () throws(ClientError) in try self.takeLogs(logs, reads: false) } }
        }
        var set = [
            pollfd(fd: signals.descriptor, events: Int16(POLLIN), revents: 0),
            pollfd(fd: control?.descriptor ?? -1, events: control?.pollEvents ?? 0, revents: 0),
            // As long as output is blocked nothing more is read, and the manager's socket fills up: that is the flow control.
            pollfd(fd: output < 0 ? logs?.descriptor ?? -1 : -1, events: Int16(POLLIN), revents: 0),
            pollfd(fd: output, events: Int16(POLLOUT), revents: 0),
            pollfd(fd: control == nil ? reconnector.descriptor : -1, events: Int16(POLLIN), revents: 0),
        ]
        poll(&set, until: control == nil ? reconnector.deadline : nil)
        if set[0].revents != 0 { takeSignals() }
        if set[1].revents != 0, let control { try guarded { () throws(ClientError) in try self.takeAnswers(control) } }
        if set[2].revents != 0, let logs { try guarded { () throws(ClientError) in try self.takeLogs(logs, reads: true) } }
        if set[4].revents != 0 { reconnector.look() }
    }

    private func guarded(_ body: () throws(ClientError) -> Void) throws {
        do throws(ClientError) { try body() } catch { try outage(error) }
    }

    private func takeAnswers(_ control: Connection) throws(ClientError) {
        try control.flush()
        try control.receive()
        while let answer = try control.next() {
            guard case .response(let stream, let result) = answer, let what = owed.removeValue(forKey: stream) else { continue }
            if what == .wait, case .failure(let status) = result, status.endsOnlyTheWait { throw .lost(path: manager.address) }
            reconnector.answered()
            switch what {
            case .create:
                let _: Ctr_V1_CreateContainerResponse = try decode(result)
                isCreated = true
            case .wait:
                let response: Ctr_V1_WaitTaskResponse = try decode(result)
                exit = response.exit
            case .delete:
                // Somebody else deleted it, or the first of two attempts did.
                if case .failure(let status) = result, status.code != .notFound { throw .status(status) }
                isDeleted = true
            case .kill(let signal):
                // A container that has ended needs no signal.
                if case .failure(let status) = result, status.code != .notFound, status.code != .failedPrecondition {
                    Console.error("cannot send signal \(signal) to the container: \(status.message)")
                }
            }
        }
    }

    private func takeLogs(_ logs: Connection, reads: Bool) throws(ClientError) {
        if reads { try logs.receive() }
        while sink.isDrained, let answer = try logs.next() {
            switch answer {
            case .message(_, let payload):
                reconnector.answered()
                sink.accept(try decode(.success(payload)))
                if sink.isFinished {
                    self.logs = nil
                    return
                }
            case .end:
                // Only the end of the output ends the reading; a manager that shuts down ends the stream without it.
                if exit == nil { throw .lost(path: manager.address) }
                sink.end()
                self.logs = nil
            case .response(_, .success): break
            case .response(_, .failure(let status)):
                if status.endsOnlyTheWait { throw .lost(path: manager.address) }
                // Once the container has ended somebody else may delete it, and its output with it.
                if exit == nil || status.code != .notFound { Console.error("cannot read the output: \(ClientError.status(status))") }
                sink.end()
                self.logs = nil
            }
        }
    }

    private func takeSignals() {
        for signal in signals.read() {
            if signals.isThirdInterrupt { isDetached = true }
            if exit == nil { toSend.insert(signal) }
        }
    }

    /// A broken connection takes the other one with it: both lead to the same manager.
    private func outage(_ error: ClientError) throws {
        guard error.isOutage else { throw error }
        let wasAnswered = control?.wasAnswered == true || logs?.wasAnswered == true
        for case .kill(let signal) in owed.values where exit == nil { toSend.insert(signal) }
        control = nil
        logs = nil
        owed = [:]
        if reconnector.broke(wasAnswered: wasAnswered) { Console.outage() }
    }
}
