import CLinux
import Glibc
import Linux
import TTRPC

/// Tells whoever drives the shim what happens to its container (containerd.services.events.ttrpc.v1.Events): every event once it is in the
/// spool, in order, the next when one was answered. It waits for nobody: while the other side is away it tries again after growing pauses and
/// whenever a client comes, and wakes nobody when there is nothing to say.
final class Publisher {
    /// How long an answer is waited for, and between attempts (nanoseconds).
    static let answerTime: Int64 = 10_000_000_000
    static let shortestPause: Int64 = 1_000_000_000
    static let longestPause: Int64 = 60_000_000_000
    /// An event that is refused so often is left out: it would hold up all others.
    static let refusalLimit = 3

    private static let service = "containerd.services.events.ttrpc.v1.Events"

    private let socketPath: String
    private let id: String
    private let bundle: String
    private let namespace: String
    private let loop: Loop
    private let spool: EventSpool

    private var socket: SharedDescriptor?
    private var decoder = FrameDecoder()
    /// The rest of the request under way.
    private var outbound: [UInt8] = []
    private var stream: UInt32 = 1
    private var inFlight = false
    private var awaitsRoom = false
    private var refusals = 0
    private var pause = Publisher.shortestPause
    /// CLOCK_MONOTONIC, nanoseconds: when the answer is overdue, or when it is tried again.
    private(set) var deadline = Int64.max

    /// `address` is a path or a unix:// address. What a predecessor left unsaid is said. `underWay`: the event that the program which this
    /// process was before had sent; its answer is still to come, by the connection that it had.
    init(address: String, place: Place, loop: Loop, underWay: ShimState.Connection?) throws(SysError) {
        socketPath = address.hasPrefix("unix://") ? String(address.dropFirst(7)) : address
        id = place.id
        bundle = place.bundle
        namespace = place.namespace
        self.loop = loop
        spool = try EventSpool(in: place.bundleDirectory)
        if let underWay, !spool.isEmpty { carryOn(underWay) } else if !spool.isEmpty { go() }
    }

    // MARK: another program

    /// For ``init(address:place:loop:underWay:)``; nil while no answer is awaited.
    var underWay: ShimState.Connection? {
        guard inFlight, let socket else { return nil }
        let rest = decoder.rest
        return ShimState.Connection(
            descriptor: socket.raw, serial: 0, lastStream: stream, inbound: rest.bytes, outbound: outbound, skipped: UInt64(rest.skip))
    }

    private func carryOn(_ state: ShimState.Connection) {
        let made = SharedDescriptor(Descriptor(owning: state.descriptor))
        awaitsRoom = !state.outbound.isEmpty
        guard (try? loop.add(made.raw, awaitsRoom ? [.readable, .writable] : .readable, .publisher)) != nil else { return later() }
        socket = made
        decoder = FrameDecoder(rest: state.inbound, skip: Int(clamping: state.skipped))
        outbound = state.outbound
        stream = state.lastStream
        inFlight = true
        deadline = now(CLOCK_MONOTONIC) + Self.answerTime
    }

    /// Whether everything was said.
    var isIdle: Bool { spool.isEmpty }

    /// `again`: a successor that cannot know whether its predecessor said it; what can happen only once is then said once. `kept`
    /// is called once it is in the spool, before anybody is told.
    func publish(_ event: TaskEvent, again: Bool, kept: () -> Void) {
        let kind = Self.kind(of: event)
        if spool.knows(kind) || again && kind == EventSpool.Kind.oom && spool.knowsOOM { return }
        if again && kind == EventSpool.Kind.other && spool.holds(EventMessages.body(event, id: id, bundle: bundle)) { return kept() }
        let message = EventMessages.forward(event, id: id, bundle: bundle, namespace: namespace, time: now(CLOCK_REALTIME))
        if spool.append(kind, message) { kept() }
        if deadline == .max { go() }
    }

    private static func kind(of event: TaskEvent) -> UInt32 {
        switch event {
        case .created: EventSpool.Kind.created
        case .started: EventSpool.Kind.started
        case .exited(let execID, _, _, _): execID.isEmpty ? EventSpool.Kind.exited : EventSpool.Kind.other
        case .deleted(let execID, _, _, _): execID.isEmpty ? EventSpool.Kind.deleted : EventSpool.Kind.other
        case .oom: EventSpool.Kind.oom
        case .execAdded, .execStarted, .paused, .resumed: EventSpool.Kind.other
        }
    }

    /// A client is there: the other side may be back.
    func clientCame() {
        if spool.isEmpty || inFlight { return }
        pause = Self.shortestPause
        go()
    }

    // MARK: one event after the other

    private func go() {
        guard !inFlight else { return }
        guard let message = spool.first() else { return close() }
        if socket == nil && !connect() { return later() }
        let request = RequestEnvelope(
            service: Self.service, method: "Forward", payload: message, timeout: Self.answerTime / 2,
            metadata: [(key: "containerd-namespace-ttrpc", value: namespace)])
        outbound = Frame(stream: stream, kind: .request, data: request.encoded()).encoded()
        inFlight = true
        deadline = now(CLOCK_MONOTONIC) + Self.answerTime
        flush()
    }

    private func connect() -> Bool {
        let connected = ctr_unix_connect(socketPath, true)
        if connected < 0 { return false }
        let made = SharedDescriptor(Descriptor(owning: connected))
        guard (try? loop.add(made.raw, .readable, .publisher)) != nil else { return false }
        socket = made
        stream = 1
        decoder = FrameDecoder()
        return true
    }

    private func close() {
        if let socket { loop.remove(socket.raw) }
        socket = nil
        decoder = FrameDecoder()
        outbound = []
        inFlight = false
        awaitsRoom = false
        deadline = .max
    }

    /// Nobody is there, or it does not answer: the event stays where it is.
    private func later() {
        close()
        deadline = now(CLOCK_MONOTONIC) + pause
        pause = min(pause * 2, Self.longestPause)
    }

    private func flush() {
        guard let socket else { return }
        let sent = outbound.withUnsafeBytes { bytes in
            let sent = send(socket.raw, bytes.baseAddress, bytes.count, Int32(MSG_NOSIGNAL) | Int32(MSG_DONTWAIT))
            return sent < 0 ? Int(-errno) : sent
        }
        if sent < 0 && sent != -Int(EAGAIN) && sent != -Int(EINTR) { return later() }
        outbound = sent >= outbound.count ? [] : Array(outbound[max(sent, 0)...])
        if awaitsRoom == outbound.isEmpty {
            awaitsRoom = !outbound.isEmpty
            loop.modify(socket.raw, awaitsRoom ? [.readable, .writable] : .readable, .publisher)
        }
    }

    /// The connection is ready.
    func handle(_ events: Epoll.Interest) {
        guard let socket else { return }
        if events.contains(.writable) { flush() }
        if events.isDisjoint(with: [.readable, .hangUp, .error]) { return }
        let got = withUnsafeTemporaryAllocation(byteCount: 1024, alignment: 8) { buffer in
            let got = read(socket.raw, buffer.baseAddress, buffer.count)
            if got > 0 { decoder.feed(UnsafeRawBufferPointer(rebasing: buffer[..<got])) }
            return got < 0 ? Int(-errno) : got
        }
        if got == -Int(EAGAIN) || got == -Int(EINTR) { return }
        if got <= 0 { return later() }
        while let event = decoder.next() {
            guard case .frame(let frame) = event else { return later() }
            if inFlight && frame.kind == .response && frame.stream == stream { answered(ResponseEnvelope(decoding: frame.data)) }
        }
    }

    private func answered(_ response: ResponseEnvelope?) {
        inFlight = false
        stream += 2
        if case .success = response?.result {
            refusals = 0
        } else {
            refusals += 1
            if refusals < Self.refusalLimit { return later() }
            refusals = 0
        }
        pause = Self.shortestPause
        spool.removeFirst()
        go()
    }

    // MARK: time

    func expire(at time: Int64) {
        if deadline > time { return }
        if inFlight { return later() }
        deadline = .max
        go()
    }
}
