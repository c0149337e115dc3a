import NIOCore
import TTRPC

/// The output of a container that keeps none (log driver `none`), for those who are attached. The shim holds what they have not read, at most
/// 8 MiB, and drops it behind the slowest of them; while nobody is attached it drops all but the newest, and the container is not kept waiting.
extension Instance {
    /// How long output waits for a client that promised to read it, or that comes back after a restart of the manager.
    private static let readerGrace = TimeAmount.seconds(10)
    private static let announcement = TimeAmount.milliseconds(1)

    /// A client reads from now on. Returns its key.
    func attachedReaderCame() -> UInt64 {
        let key = newKey()
        attachedReaders[key] = 0
        attachedFarewell?.cancel()
        attachedFarewell = nil
        return key
    }

    func attachedReaderLeft(_ key: UInt64) {
        attachedReaders[key] = nil
        if attachedReaders.isEmpty { sayFarewell() }
        tellReaders()
    }

    private func tellReaders() { supervisor.logWatch.poke(incarnationDirectory + "/log") }

    /// Notes how far a reader is. Whether others are behind it: then the shim is not told, since it would drop what they have not read.
    func isAhead(_ key: UInt64, at indexSize: UInt64) -> Bool {
        if attachedReaders[key] != indexSize {
            attachedReaders[key] = indexSize
            tellReaders()
        }
        return attachedReaders.values.contains { $0 < indexSize }
    }

    /// Before the container's process runs: from its first byte on it waits for the client that is about to come.
    func announceAttachedReader(_ shim: Shim) async {
        if let foreign { return (try? await foreign.acknowledge("", 0)) ?? () }
        // It is answered with the first output; that it was asked is enough.
        _ = try? await shim.waitLog(exec: "", indexSize: 0, timeout: Self.announcement)
    }

    /// A client reads soon, or the container is kept waiting no longer.
    func expectAttachedReader() {
        guard keepsNoLog, attachedReaders.isEmpty, state.task?.row.phase.hasEnded == false else { return }
        attachedFarewell?.cancel()
        attachedFarewell = executor.loop.scheduleTask(in: Self.readerGrace) { [self] in
            _ = executor.spawn { await self.sayFarewell() }
        }
    }

    private func sayFarewell() {
        guard attachedReaders.isEmpty, state.task?.row.phase.hasEnded == false, let connection else { return }
        let shim = Shim(connection: connection, id: id)
        executor.spawn { [logger, logContext] in
            do { _ = try await shim.waitLog(exec: "", indexSize: .max) } catch {
                logger.debug("farewell not said", metadata: logContext.merging(["error": "\(error)"]) { $1 })
            }
        }
    }
}
