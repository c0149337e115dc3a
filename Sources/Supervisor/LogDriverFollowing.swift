import CtrProto
import Glibc
import Linux
import LogDrivers
import NIOCore
import TTRPC

extension Ctr_V1_ContainerConfig {
    /// nil where the options are none that a container is created with.
    var logSettings: LogOptions? { try? LogOptions(driver: logDriver, options: logOptions) }
}

extension Supervisor {
    /// Two drivers in one file would cut off each other's lines.
    func checkLogFile(_ request: Ctr_V1_CreateContainerRequest) throws(SupervisorError) {
        guard let path = request.config.logSettings?.path, !path.isEmpty else { return }
        guard let owner = registry.list(namespace: "").first(where: { $0.container.logPath == path && $0.id != request.id }) else { return }
        throw SupervisorError(
            .failedPrecondition, "create container", request.name.shown,
            "log option path \(path.shown) is the log file of container \(owner.name)", exitCode: 125)
    }
}

/// Log drivers that follow the segments. Each has a task of its own here: what its output does holds up nobody else.
extension Instance {
    /// How long an output that took nothing is left alone: at first, and at most.
    private static let pauses = (first: Int64(100), last: Int64(5000))
    /// How long a container that is removed waits for the rest of its output.
    private static let patience = TimeAmount.seconds(5)

    /// Has the driver write what is missing of the log, and follow it to the end of the current task. Nothing happens when it is at it, or when
    /// the container has no such driver.
    func driveLog() {
        guard logDriverTask == nil, incarnation > 0, let options = state.container.config.logSettings, options.hasFollower else { return }
        let driver =
            logDriver
            ?? LogDriver(
                options: options,
                container: DrivenContainer(
                    id: id, name: state.name, image: state.container.image, directory: configuration.containerDirectory(namespace, id)))
        logDriver = driver
        logDriverTask = executor.spawn {
            await self.drive(driver)
            await self.logDriven()
        }
    }

    private func logDriven() {
        logDriverTask = nil
        newsOfLink()
    }

    private func drive(_ driver: LogDriver) async {
        var pause = Self.pauses.first
        while !Task.isCancelled {
            var failure: String?
            do {
                let place = try await executor.blocking { try driver.place() }
                if place.done {
                    if place.incarnation >= incarnation { return }
                    try await executor.blocking { try driver.begin(incarnation: place.incarnation + 1) }
                    continue
                }
                switch await step(driver) {
                case .more, .ended: pause = Self.pauses.first
                case .retry(let why): failure = why
                case .idle(let position):
                    pause = Self.pauses.first
                    let news = try await waitLog(incarnation: place.incarnation, indexSize: position)
                    guard news.ended && news.indexSize <= position else { continue }
                    // Nobody writes at this moment, and somebody will again: guards that were lost are made anew.
                    if place.incarnation == incarnation, state.row.phase != .removing, state.task?.row.phase.hasEnded == false {
                        await linkChange(within: nil)
                    } else {
                        try await executor.blocking { try driver.finish() }
                    }
                }
            } catch let error as SysError where error.code == ENOENT {
                return
            } catch is CancellationError {
                return
            } catch { failure = "\(error)" }
            guard let failure else { continue }
            if pause == Self.pauses.first {
                logger.warning("log driver waits", metadata: logContext.merging(["error": "\(failure)"]) { $1 })
            }
            try? await executor.loop.scheduleTask(in: .milliseconds(pause)) {}.futureResult.get()
            pause = min(pause * 2, Self.pauses.last)
        }
    }

    private func step(_ driver: LogDriver) async -> LogDriver.Outcome {
        do { return try await executor.blocking { driver.step() } } catch { return .retry("\(error)") }
    }

    /// Before the segments go: returns when the driver has written all of them, or when that takes too long.
    func finishLog() async {
        driveLog()
        guard logDriverTask != nil else { return }
        newsOfLink()
        let deadline = NIODeadline.now() + Self.patience
        let alarm = executor.loop.scheduleTask(in: Self.patience) { [self] in _ = executor.spawn { await self.newsOfLink() } }
        while logDriverTask != nil && NIODeadline.now() < deadline { await linkChange() }
        alarm.cancel()
        guard let task = logDriverTask else { return }
        task.cancel()
        logger.warning("container removed before its log driver had all of its output", metadata: logContext)
    }
}
