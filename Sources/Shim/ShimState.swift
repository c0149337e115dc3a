import CProtobufC
import CShimProto
import Glibc
import Linux
import TTRPC

/// What only the memory of a shim holds, for the program that it becomes (ctr.shim.v1.ShimState).
struct ShimState: Equatable {
    /// Which meaning the fields have; a program that does not know it does not take the state over.
    static let format: UInt32 = 1
    /// Bytes of a state at most: what connections and calls may hold.
    static let limit = 512 << 20

    struct Connection: Equatable {
        var descriptor: Int32
        var serial: UInt32
        var lastStream: UInt32
        var inbound: [UInt8]
        var outbound: [UInt8]
        var skipped: UInt64
    }

    /// A call that waits for its answer.
    struct Wait: Equatable {
        var call: Call
        var method: String
        var execID = ""
        var indexSize: UInt64 = 0
        var request: [UInt8] = []
    }

    struct Read: Equatable {
        var execID: String
        var indexSize: UInt64
    }

    var version = ""
    var upgrades: UInt32 = 0
    var restarts: UInt32 = 0
    var lock: Int32 = -1
    var connections: [Connection] = []
    var waits: [Wait] = []
    var reads: [Read] = []
    var mounted = false
    /// An event is under way to containerd (``Publisher/underWay``).
    var publisher: Connection?

    func encoded() -> [UInt8] {
        var message = Ctr__Shim__V1__ShimState()
        ctr__shim__v1__shim_state__init(&message)
        let copies = Arena()
        message.format = Self.format
        message.version = copies.text(version)
        message.upgrades = upgrades
        message.restarts = restarts
        message.lock = lock
        message.mounted = mounted ? 1 : 0
        func keep(_ connection: Connection) -> UnsafeMutablePointer<Ctr__Shim__V1__ConnectionState> {
            var state = Ctr__Shim__V1__ConnectionState()
            ctr__shim__v1__connection_state__init(&state)
            state.descriptor = connection.descriptor
            state.serial = connection.serial
            state.last_stream = connection.lastStream
            state.inbound = copies.data(connection.inbound)
            state.outbound = copies.data(connection.outbound)
            state.skipped = connection.skipped
            return copies.keep(state)
        }
        message.publisher = publisher.map(keep)
        var connections: [UnsafeMutablePointer<Ctr__Shim__V1__ConnectionState>?] = connections.map(keep)
        var waits: [UnsafeMutablePointer<Ctr__Shim__V1__WaitState>?] = waits.map { wait in
            var state = Ctr__Shim__V1__WaitState()
            ctr__shim__v1__wait_state__init(&state)
            state.connection = wait.call.connection
            state.stream = wait.call.stream
            state.deadline_ns = wait.call.deadline == .max ? 0 : wait.call.deadline
            state.method = copies.text(wait.method)
            state.exec_id = copies.text(wait.execID)
            state.index_size = wait.indexSize
            state.request = copies.data(wait.request)
            return copies.keep(state)
        }
        var reads: [UnsafeMutablePointer<Ctr__Shim__V1__ReadState>?] = reads.map { read in
            var state = Ctr__Shim__V1__ReadState()
            ctr__shim__v1__read_state__init(&state)
            state.exec_id = copies.text(read.execID)
            state.index_size = read.indexSize
            return copies.keep(state)
        }
        return withExtendedLifetime(copies) {
            connections.withUnsafeMutableBufferPointer { connections in
                waits.withUnsafeMutableBufferPointer { waits in
                    reads.withUnsafeMutableBufferPointer { reads in
                        message.n_connections = connections.count
                        message.connections = connections.baseAddress
                        message.n_waits = waits.count
                        message.waits = waits.baseAddress
                        message.n_read = reads.count
                        message.read = reads.baseAddress
                        return Messages.pack(message, ctr__shim__v1__shim_state__get_packed_size, ctr__shim__v1__shim_state__pack)
                    }
                }
            }
        }
    }

    /// INVALID_ARGUMENT for what is no state, or one of another format.
    static func decode(_ bytes: [UInt8]) throws(Status) -> ShimState {
        let (format, state) = try Messages.unpack(bytes, ctr__shim__v1__shim_state__unpack, ctr__shim__v1__shim_state__free_unpacked) { m in
            var state = ShimState()
            state.version = Messages.text(m.version)
            state.upgrades = m.upgrades
            state.restarts = m.restarts
            state.lock = m.lock
            state.mounted = m.mounted != 0
            for index in 0..<m.n_connections {
                if let each = m.connections?[index]?.pointee { state.connections.append(Connection(each)) }
            }
            state.publisher = m.publisher.map { Connection($0.pointee) }
            for index in 0..<m.n_waits {
                guard let each = m.waits?[index]?.pointee else { continue }
                let call = Call(connection: each.connection, stream: each.stream, deadline: each.deadline_ns == 0 ? .max : each.deadline_ns)
                state.waits.append(
                    Wait(
                        call: call, method: Messages.text(each.method), execID: Messages.text(each.exec_id), indexSize: each.index_size,
                        request: Messages.bytes(each.request)))
            }
            for index in 0..<m.n_read {
                guard let each = m.read?[index]?.pointee else { continue }
                state.reads.append(Read(execID: Messages.text(each.exec_id), indexSize: each.index_size))
            }
            return (m.format, state)
        }
        if format != Self.format { throw Status(.invalidArgument, "state of format \(format), not \(Self.format)") }
        return state
    }
}

extension ShimState.Connection {
    fileprivate init(_ state: Ctr__Shim__V1__ConnectionState) {
        self.init(
            descriptor: state.descriptor, serial: state.serial, lastStream: state.last_stream, inbound: Messages.bytes(state.inbound),
            outbound: Messages.bytes(state.outbound), skipped: state.skipped)
    }
}

extension Messages {
    static func writeInputRequest(execID: String, _ write: Input.Write) -> [UInt8] {
        var message = Ctr__Shim__V1__WriteInputRequest()
        ctr__shim__v1__write_input_request__init(&message)
        let copies = Arena()
        message.exec_id = copies.text(execID)
        message.data = copies.data(write.data)
        message.offset = write.offset ?? 0
        message.append = write.offset == nil ? 1 : 0
        message.close = write.close ? 1 : 0
        return withExtendedLifetime(copies) {
            pack(message, ctr__shim__v1__write_input_request__get_packed_size, ctr__shim__v1__write_input_request__pack)
        }
    }
}
