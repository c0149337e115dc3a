import Glibc
import Linux
import Logging
import NIOCore
import NIOPosix

/// What a shim of others writes into the FIFO `log` of its bundle comes into the manager's own log: one entry a line, so many of so many bytes.
final class ForeignMessages: Sendable {
    private let closing: EventLoopPromise<Void>

    /// Holds the FIFO open from now on, so that the shim never waits and never has nobody to write to.
    init(path: String, logger: Logger, context: Logger.Metadata, _ loop: any EventLoop) {
        closing = loop.makePromise()
        let end = closing.futureResult
        guard let file = try? Linux.open(path, O_RDWR | O_NONBLOCK | O_NOFOLLOW) else {
            closing.succeed()
            return
        }
        let raw = file.release()
        NIOPipeBootstrap(group: loop)
            .channelOption(.recvAllocator, value: FixedSizeRecvByteBufferAllocator(capacity: 4096))
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(MessageHandler(logger: logger, context: context))
                }
            }
            .takingOwnershipOfDescriptor(input: raw)
            .whenComplete { result in
                switch result {
                case .success(let channel): end.whenComplete { _ in channel.close(promise: nil) }
                case .failure: Glibc.close(raw)
                }
            }
    }

    deinit { closing.succeed() }

    func close() { closing.succeed() }
}

/// Cuts the stream into lines and passes over what is too much.
private final class MessageHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer

    private static let lineLimit = 2048
    private static let linesInWindow = 50
    private static let window: Int64 = 10_000_000_000

    private let logger: Logger
    private let context: Logger.Metadata
    private var line: [UInt8] = []
    private var isLong = false
    private var began: Int64 = 0
    private var count = 0
    private var dropped = 0

    init(logger: Logger, context: Logger.Metadata) {
        self.logger = logger
        self.context = context
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        for byte in unwrapInboundIn(data).readableBytesView {
            if byte == 0x0a {
                tell()
                (line, isLong) = ([], false)
            } else if line.count < Self.lineLimit {
                line.append(byte)
            } else {
                isLong = true
            }
        }
    }

    private func tell() {
        if line.isEmpty { return }
        let time = now(CLOCK_MONOTONIC)
        if time - began > Self.window {
            if dropped > 0 { logger.warning("messages of a shim dropped", metadata: context.merging(["count": "\(dropped)"]) { $1 }) }
            (began, count, dropped) = (time, 0, 0)
        }
        guard count < Self.linesInWindow else { return dropped += 1 }
        count += 1
        let text = String(
            String(decoding: line, as: UTF8.self).unicodeScalars.map { $0.value < 0x20 || $0.value == 0x7f ? " " : Character($0) })
        // As logrus writes it: what a shim only mentions is for who looks for it.
        let isError = text.contains("level=error") || text.contains("level=fatal") || text.contains("level=panic")
        logger.log(level: isError ? .warning : .debug, "shim: \(text)\(isLong ? "…" : "")", metadata: context)
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}
