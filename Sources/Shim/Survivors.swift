import CLinux
import Glibc
import Linux
import TTRPC

/// Has connections and the calls on them outlive the shim. containerd takes a broken connection for the end of the container and deletes it;
/// so its connections are parked with the keeper as soon as they are accepted, requests are taken from the socket as a whole and only once they
/// are in the journal, and a successor goes on with both: containerd sees a shim that took a moment longer (decision 0021).
final class Survivors {
    /// Requests that are longer make their connection an ordinary one, which ends with the shim.
    static let frameLimit = 64 << 10
    /// Shims that may have died over a call before it is refused: it may be what killed them. A Wait does nothing.
    static let repeatLimit: UInt32 = 8

    let journal: CallJournal
    private let parking: Parking
    /// The container's queue holds other things too: it has one more message, and one less that lives.
    var onParked: () -> Void = {}
    var onUnpark: () -> Void = {}
    /// By serial; those that are parked.
    private(set) var sockets: [(serial: UInt32, socket: Int32)] = []
    /// Calls of a predecessor that are carried on.
    private var repeated: [(call: Call, method: String, execID: String)] = []
    /// What a call that its predecessor had carried out already is answered with, instead of the failure.
    var onRepeated: (_ method: String, _ execID: String, _ failure: Status) -> Result<[UInt8], Status> = { .failure($2) }

    init(directory: Int32, parking: Parking) throws(SysError) {
        journal = try CallJournal(in: directory)
        self.parking = parking
    }

    static func name(_ serial: UInt32) -> String { "connection/\(serial)" }

    /// The connections that a predecessor parked, which now are the caller's; each is parked still.
    func adopt() -> [(serial: UInt32, socket: Int32)] {
        guard let messages = try? parking.peek() else { return [] }
        var found: [(serial: UInt32, socket: Int32)] = []
        for message in messages {
            guard message.files.count == 1, message.text.hasPrefix("connection/"), let serial = UInt32(message.text.dropFirst(11)) else {
                for file in message.files { close(file) }
                continue
            }
            if let index = found.firstIndex(where: { $0.serial == serial }) { close(found.remove(at: index).socket) }
            found.append((serial, message.files[0]))
        }
        sockets = found
        for call in journal.open where !found.contains(where: { $0.serial == call.connection }) {
            journal.closed(connection: call.connection)
        }
        return found
    }

    /// The next connection of `listener`, which is the caller's and parked from the first moment: a child accepts it, whom a killed shim does not
    /// take with it, and whose end a successor waits for, since it shares the lock. nil when there is none.
    func accept(_ listener: Int32, _ serial: UInt32) -> Int32? {
        let name = Self.name(serial)
        let child = ctr_clone3(0, nil, -1)
        if child == 0 {
            let socket = ctr_accept4(listener, Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue))
            _exit(socket < 0 || (try? parking.park(name, [socket])) == nil ? 1 : 0)
        }
        var status: Int32 = -1
        guard child > 0, ctr_waitid(CTR_P_PID, child, &status, 0) == child, status == 0 else { return nil }
        onParked()
        var found: Int32?
        for message in (try? parking.peek()) ?? [] {
            if found == nil && message.text == name && message.files.count == 1 {
                found = message.files[0]
            } else {
                for file in message.files { close(file) }
            }
        }
        if let found {
            sockets.append((serial, found))
        } else {
            // Nobody would ever close it.
            onUnpark()
        }
        return found
    }

    /// The connection is closed, or is an ordinary one from now on.
    func forget(_ serial: UInt32) {
        journal.closed(connection: serial)
        repeated.removeAll { $0.call.connection == serial }
        guard let index = sockets.firstIndex(where: { $0.serial == serial }) else { return }
        sockets.remove(at: index)
        onUnpark()
    }

    /// The last stream of a connection that a predecessor took from its socket.
    func lastStream(of serial: UInt32) -> UInt32 {
        journal.open.reduce(0) { $1.connection == serial ? max($0, $1.stream) : $0 }
    }

    // MARK: calls of a predecessor

    /// Hands the open calls of a predecessor to `body`, and those over which shims have died to `refuse`.
    func carryOn(counting: Bool, _ body: (Call, RequestEnvelope) -> Void, refuse: (Call, Status) -> Void) {
        for entry in journal.open {
            var call = Call(connection: entry.connection, stream: entry.stream)
            guard let request = RequestEnvelope(decoding: entry.request), request.method == "Wait" || entry.repeats < Self.repeatLimit
            else {
                refuse(call, Status(.internal, "shims have died over this call, \(entry.repeats) times"))
                continue
            }
            if counting && request.method != "Wait" { journal.repeating(connection: entry.connection, stream: entry.stream) }
            if request.timeout > 0 {
                let (deadline, overflow) = now(CLOCK_MONOTONIC).addingReportingOverflow(request.timeout)
                if !overflow { call.deadline = deadline }
            }
            let execID = request.method == "Start" ? (try? Messages.start(request.payload))?.execID ?? "" : ""
            repeated.append((call, request.method, execID))
            body(call, request)
        }
    }

    /// The answer to `call` as its caller is to see it.
    func adjusted(_ call: Call, _ result: Result<[UInt8], Status>) -> Result<[UInt8], Status> {
        guard !repeated.isEmpty,
            let index = repeated.firstIndex(where: { $0.call.connection == call.connection && $0.call.stream == call.stream })
        else { return result }
        let known = repeated.remove(at: index)
        guard case .failure(let failure) = result else { return result }
        return onRepeated(known.method, known.execID, failure)
    }
}
