import CLinux
import Glibc
import Linux
import TTRPC

/// One call of one client, as long as it waits for its answer.
struct Call: Equatable {
    let connection: UInt32
    let stream: UInt32
    /// CLOCK_MONOTONIC, nanoseconds; `.max` without a limit. It ends the caller's wait, never the work.
    var deadline = Int64.max
}

/// Serves ttrpc on the listening socket: frames in, calls out, answers in, frames out. Bounded in connections, in calls and in bytes;
/// a peer that does not read is cut, never waited for.
final class Server {
    static let connectionLimit = 64
    static let callLimit = 256
    /// Bytes of answers that a connection may leave unread.
    static let outboundLimit = 1 << 20

    private final class Connection {
        let serial: UInt32
        let socket: Int32
        var decoder = FrameDecoder()
        var outbound: [UInt8] = []
        var lastStream: UInt32 = 0
        var calls = 0
        /// Whether the loop reports when the socket takes more.
        var awaitsRoom = false
        /// Whether it outlives the shim: then requests are taken from the socket as a whole, or not at all.
        var survives = false
        /// Up to this stream a predecessor has taken requests; one that is still in the socket was taken all the same.
        var takenBefore: UInt32 = 0

        /// What stays in the socket is reported once, not again and again.
        var interest: Epoll.Interest {
            let reading: Epoll.Interest = survives ? [.readable, .edge] : .readable
            return awaitsRoom ? reading.union(.writable) : reading
        }

        init(serial: UInt32, socket: Int32) {
            self.serial = serial
            self.socket = socket
        }

        deinit { close(socket) }
    }

    private let listener: Int32
    /// Nothing is accepted and nothing read: the program is about to be changed.
    private var paused = false
    private let loop: Loop
    private var connections: [Connection] = []
    private var nextSerial: UInt32 = 1
    /// Set once by the shim: a call that wants an answer, and a connection that is gone.
    var onCall: (Call, RequestEnvelope) -> Void = { _, _ in }
    var onClose: (UInt32) -> Void = { _ in }
    /// What has connections outlive the shim; nil where a client repeats what was cut.
    var survivors: Survivors?

    /// `listener` stays the caller's.
    init(listener: Int32, loop: Loop) throws(SysError) {
        self.listener = listener
        self.loop = loop
        let flags = try check("prepare socket", "", ctr_fcntl_int(listener, F_GETFL, 0))
        try check("prepare socket", "", ctr_fcntl_int(listener, F_SETFL, flags | O_NONBLOCK))
        try loop.add(listener, .readable, .listener)
    }

    func accept() {
        let serial = nextSerial
        nextSerial &+= 1
        let socket: Int32
        if let survivors {
            guard let accepted = survivors.accept(listener, serial) else { return }
            socket = accepted
        } else {
            socket = ctr_accept4(listener, Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue))
            if socket < 0 { return }
        }
        var (pid, uid, gid): (UInt32, UInt32, UInt32) = (0, 0, 0)
        let known = ctr_peer_credentials(socket, &pid, &uid, &gid) == 0
        let connection = Connection(serial: serial, socket: socket)
        connection.survives = survivors != nil
        guard known, uid == geteuid(), connections.count < Self.connectionLimit,
            (try? loop.add(socket, connection.interest, .connection, number: serial)) != nil
        else {
            survivors?.forget(serial)
            return
        }
        connections.append(connection)
    }

    /// Goes on with the connections of a predecessor; what is in their sockets is reported by the loop.
    func adoptSurvivors() {
        for (serial, socket) in survivors?.adopt() ?? [] {
            let connection = Connection(serial: serial, socket: socket)
            connection.survives = true
            connection.takenBefore = survivors?.lastStream(of: serial) ?? 0
            guard connections.count < Self.connectionLimit,
                (try? loop.add(socket, connection.interest, .connection, number: serial)) != nil
            else {
                survivors?.forget(serial)
                continue
            }
            connection.lastStream = connection.takenBefore
            connections.append(connection)
            nextSerial = max(nextSerial, serial &+ 1)
        }
    }

    /// Carries on what a predecessor did not answer.
    /// `counting`: one more shim has died over them.
    func carryOnCalls(counting: Bool) {
        survivors?.carryOn(
            counting: counting,
            { call, request in
                find(call.connection)?.calls += 1
                onCall(call, request)
            },
            refuse: { call, status in
                if let connection = find(call.connection) { send(.failure(status), stream: call.stream, to: connection) }
            })
    }

    // MARK: becoming another program

    func pause() {
        paused = true
        loop.remove(listener)
        // Not merely without interest: a connection that is cut would be reported without end.
        for connection in connections { loop.remove(connection.socket) }
    }

    func resume() {
        paused = false
        try? loop.add(listener, .readable, .listener)
        for connection in connections { try? loop.add(connection.socket, connection.interest, .connection, number: connection.serial) }
        receiveRest()
    }

    /// Of those that do not outlive a shim anyway.
    var connectionStates: [ShimState.Connection] {
        connections.filter { !$0.survives }.map { connection in
            let rest = connection.decoder.rest
            return ShimState.Connection(
                descriptor: connection.socket, serial: connection.serial, lastStream: connection.lastStream, inbound: rest.bytes,
                outbound: connection.outbound, skipped: UInt64(rest.skip))
        }
    }

    /// The connections of the program that this process was before, and how many calls of each wait.
    func restore(_ states: [ShimState.Connection], waits: [ShimState.Wait]) {
        for state in states {
            let connection = Connection(serial: state.serial, socket: state.descriptor)
            connection.decoder = FrameDecoder(rest: state.inbound, skip: Int(clamping: state.skipped))
            connection.outbound = state.outbound
            connection.lastStream = state.lastStream
            connection.calls = waits.reduce(0) { $0 + ($1.call.connection == state.serial ? 1 : 0) }
            connection.awaitsRoom = !state.outbound.isEmpty
            if (try? loop.add(state.descriptor, connection.interest, .connection, number: state.serial)) == nil { continue }
            connections.append(connection)
            nextSerial = max(nextSerial, state.serial &+ 1)
        }
    }

    /// Handles whole frames that were read before and not looked at.
    func receiveRest() {
        for connection in connections { handleFrames(of: connection) }
    }

    private func handleFrames(of connection: Connection) {
        while !paused, find(connection.serial) === connection, let event = connection.decoder.next() { handle(event, of: connection) }
    }

    private func find(_ serial: UInt32) -> Connection? {
        for connection in connections where connection.serial == serial { return connection }
        return nil
    }

    func handle(_ serial: UInt32, _ events: Epoll.Interest) {
        guard !paused, let connection = find(serial) else { return }
        if events.contains(.writable) { flush(connection) }
        if events.isDisjoint(with: [.readable, .hangUp, .error]) { return }
        if connection.survives { receiveWhole(connection) } else { receive(connection) }
        // Behind its last whole request nothing comes any more.
        if events.contains(.hangUp), find(serial) === connection { drop(connection) }
    }

    /// Takes whole requests alone, each once the journal has it: what this shim has not done when it dies is there for the next.
    private func receiveWhole(_ connection: Connection) {
        for _ in 0..<64 where !paused {
            var header = [UInt8](repeating: 0, count: Frame.headerLength)
            let seen = recv(connection.socket, &header, header.count, Int32(MSG_PEEK) | Int32(MSG_DONTWAIT))
            if seen < 0 && (errno == EAGAIN || errno == EINTR) { return }
            if seen <= 0 { return drop(connection) }
            if seen < header.count { return }
            let length = Frame.headerLength + Int(header[0]) << 24 + Int(header[1]) << 16 + Int(header[2]) << 8 + Int(header[3])
            if length > Survivors.frameLimit || survivors?.journal.hasRoom(for: length) == false { return becomeOrdinary(connection) }
            var bytes = [UInt8](repeating: 0, count: length)
            if recv(connection.socket, &bytes, length, Int32(MSG_PEEK) | Int32(MSG_DONTWAIT)) < length { return }
            let stream = UInt32(header[4]) << 24 | UInt32(header[5]) << 16 | UInt32(header[6]) << 8 | UInt32(header[7])
            let isRequest = header[8] == Frame.Kind.request.rawValue
            let isKnown = isRequest && stream <= connection.takenBefore
            if isRequest && !isKnown && stream % 2 == 1 && stream > connection.lastStream {
                survivors?.journal.begin(connection: connection.serial, stream: stream, request: Array(bytes[Frame.headerLength...]))
            }
            if recv(connection.socket, &bytes, length, Int32(MSG_DONTWAIT)) != length { return drop(connection) }
            if isKnown { continue }
            bytes.withUnsafeBytes { connection.decoder.feed($0) }
            while find(connection.serial) === connection, let event = connection.decoder.next() { handle(event, of: connection) }
            connection.decoder = FrameDecoder()
            if find(connection.serial) !== connection || !connection.survives { return }
        }
        // There may be more; the others come first.
        if !paused { loop.modify(connection.socket, connection.interest, .connection, number: connection.serial) }
    }

    /// Something of it is only in this shim's memory now: it ends with the shim.
    private func becomeOrdinary(_ connection: Connection) {
        connection.survives = false
        survivors?.forget(connection.serial)
        if !paused { loop.modify(connection.socket, connection.interest, .connection, number: connection.serial) }
    }

    private func receive(_ connection: Connection) {
        let got = withUnsafeTemporaryAllocation(byteCount: 4096, alignment: 8) { buffer in
            let got = read(connection.socket, buffer.baseAddress, buffer.count)
            if got > 0 { connection.decoder.feed(UnsafeRawBufferPointer(rebasing: buffer[..<got])) }
            return got > 0 ? got : got == 0 ? 0 : Int(-errno)
        }
        if got == 0 || (got < 0 && got != -Int(EAGAIN) && got != -Int(EINTR)) { return drop(connection) }
        handleFrames(of: connection)
        // Between frames the decoder keeps no buffer: a large request does not stay in memory after its answer.
        if !connection.decoder.isInsideFrame { connection.decoder = FrameDecoder() }
    }

    private func handle(_ event: FrameDecoder.Event, of connection: Connection) {
        switch event {
        case .oversize(let stream, let length):
            let status = Status(.resourceExhausted, "message length \(length) exceeds the limit of \(Frame.limit)")
            send(.failure(status), stream: stream, to: connection)
        case .frame(let frame):
            // Only unary calls exist here; a Data or Response frame belongs to nothing and is passed over.
            guard frame.kind == .request else { return }
            guard frame.stream % 2 == 1, frame.stream > connection.lastStream else {
                let status = Status(.invalidArgument, "stream id \(frame.stream) is even, or not larger than the one before")
                return send(.failure(status), stream: frame.stream, to: connection)
            }
            connection.lastStream = frame.stream
            guard let request = RequestEnvelope(decoding: frame.data) else {
                return send(.failure(Status(.invalidArgument, "the request cannot be decoded")), stream: frame.stream, to: connection)
            }
            guard connection.calls < Self.callLimit else {
                return send(.failure(Status(.resourceExhausted, "too many calls wait for an answer")), stream: frame.stream, to: connection)
            }
            connection.calls += 1
            var call = Call(connection: connection.serial, stream: frame.stream)
            if request.timeout > 0 {
                let (deadline, overflow) = now(CLOCK_MONOTONIC).addingReportingOverflow(request.timeout)
                if !overflow { call.deadline = deadline }
            }
            onCall(call, request)
        }
    }

    /// Answers a call; one whose connection is gone is passed over.
    func answer(_ call: Call, _ result: Result<[UInt8], Status>) {
        guard let connection = find(call.connection) else { return }
        connection.calls -= 1
        send(survivors?.adjusted(call, result) ?? result, stream: call.stream, to: connection)
    }

    private func send(_ result: Result<[UInt8], Status>, stream: UInt32, to connection: Connection) {
        let bytes = Frame(stream: stream, kind: .response, data: ResponseEnvelope(result).encoded()).encoded()
        connection.outbound.append(contentsOf: bytes)
        if !connection.awaitsRoom { flush(connection) }
        if connection.outbound.count > Self.outboundLimit { drop(connection) }
        survivors?.journal.answered(connection: connection.serial, stream: stream)
    }

    private func flush(_ connection: Connection) {
        let written = connection.outbound.withUnsafeBytes { bytes in
            let sent = Glibc.send(connection.socket, bytes.baseAddress, bytes.count, Int32(MSG_NOSIGNAL) | Int32(MSG_DONTWAIT))
            return sent < 0 ? Int(-errno) : sent
        }
        if written < 0 && written != -Int(EAGAIN) && written != -Int(EINTR) { return drop(connection) }
        let rest = connection.outbound.count - max(written, 0)
        connection.outbound = rest == 0 ? [] : Array(connection.outbound.suffix(rest))
        if connection.awaitsRoom == (rest > 0) { return }
        connection.awaitsRoom = rest > 0
        // An answer that is half in the socket is in no journal: it is handed over with the connection, or ends with it.
        if rest > 0 && connection.survives { return becomeOrdinary(connection) }
        if paused { return }
        loop.modify(connection.socket, connection.interest, .connection, number: connection.serial)
    }

    private func drop(_ connection: Connection) {
        guard let index = connections.firstIndex(where: { $0 === connection }) else { return }
        loop.remove(connection.socket)
        connections.remove(at: index)
        onClose(connection.serial)
        survivors?.forget(connection.serial)
    }
}
