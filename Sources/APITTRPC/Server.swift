import Glibc
import Logging
import NIOCore
import NIOPosix
import Supervisor

/// Serves ctr.v1 over ttrpc on a Unix socket, to root alone.
public final class Server: Sendable {
    private let methods: MethodTable
    private let executor: Executor
    private let logger: Logger

    /// `events`: the service that shims of others forward their events to, instead of the API.
    public init(supervisor: Supervisor, executor: Executor, logger: Logger, events: Bool = false) {
        methods = events ? .events(supervisor) : .all(supervisor)
        self.executor = executor
        self.logger = logger
    }

    /// Accepts connections on `socket`, which is bound and becomes the channel's.
    public func serve(_ socket: CInt) async throws -> any Channel {
        let (methods, executor, logger) = (methods, executor, logger)
        return try await ServerBootstrap(group: executor.loop)
            .serverChannelOption(.backlog, value: 256)
            // Room for a whole message of a log, so that the next one is read while the client takes this one.
            .childChannelOption(.socketOption(.so_sndbuf), value: 512 << 10)
            .childChannelInitializer { channel in
                Self.owner(of: channel).flatMapThrowing { peer in
                    guard peer.uid == 0 else {
                        logger.warning("connection refused", metadata: ["uid": "\(peer.uid)", "pid": "\(peer.pid)"])
                        throw ChannelError.inappropriateOperationForState
                    }
                    try channel.pipeline.syncOperations.addHandler(ConnectionHandler(methods: methods, executor: executor))
                }
            }
            .withBoundSocket(socket).get()
    }

    /// struct ucred of unix(7).
    private struct PeerCredentials: Sendable {
        var pid: Int32 = 0
        var uid: UInt32 = .max
        var gid: UInt32 = .max
    }

    private static func owner(of channel: any Channel) -> EventLoopFuture<PeerCredentials> {
        guard let provider = channel as? any SocketOptionProvider else {
            return channel.eventLoop.makeSucceededFuture(PeerCredentials())
        }
        return provider.unsafeGetSocketOption(level: .socket, name: .init(rawValue: SO_PEERCRED))
    }
}
