import Glibc
import Linux
import NIOCore
import Records
import Store
import TTRPC

/// A new keeper and shim for a container that lost both.
extension Instance {
    private static let regainDeadline = TimeAmount.seconds(20)
    /// New pairs by itself within ``regainWindow``; guards that die at once again are left to the next operation.
    private static let regainLimit = 3
    private static let regainWindow = TimeAmount.seconds(60)

    /// Begins to make new guards where the container has none any more. Nothing waits for it.
    func regainByItself() {
        let now = NIODeadline.now()
        regains.removeAll { $0 + Self.regainWindow < now }
        guard regains.count < Self.regainLimit else { return }
        regains.append(now)
        regain()
    }

    private func regain() { enqueue(.guards) { await $0.regainNow() } }

    /// Before an operation that needs a shim: makes new guards where there are none, as far as that is possible.
    func guarded() async {
        guard state.task?.guards == .lost else { return }
        try? await perform(.guards) { await $0.regainNow() }
    }

    /// The same for one that does not wait for them.
    func guardedSoon() {
        if state.task?.guards == .lost && isIdle { regain() }
    }

    /// Runs `ctr-shim start` in the same bundle, which finds the pipes of the container again, and adopts what that made. While it fails the
    /// task stays without guards, and says why.
    private func regainNow() async {
        guard let task = state.task, task.guards == .lost, !task.row.phase.hasEnded, state.row.phase != .removing else { return }
        // A shim of others knows nothing of a container that another process of it made.
        guard foreign == nil else { return }
        let plan = LaunchPlan(state: state, supervisor: supervisor)
        do {
            let keeper = try await executor.blocking { try plan.renewGuards() }
            // It may have ended while they were made; then they are dismissed with the task.
            adoptKeeper(keeper)
            link?.cancel()
            let (open, number, losses) = (try await ShimConnection.dial(socketPath, executor: executor), incarnation, guardLosses)
            link = executor.spawn { await self.introduceAndWatch(open, incarnation: number) }
            let alarm = executor.loop.scheduleTask(in: Self.regainDeadline) { [self] in
                _ = executor.spawn { await self.newsOfLink() }
            }
            defer { alarm.cancel() }
            let deadline = NIODeadline.now() + Self.regainDeadline
            while state.task?.guards == .lost && guardLosses == losses && NIODeadline.now() < deadline { await linkChange() }
            guard state.task?.guards != .lost else { throw fail(.unavailable, "make guards", "the new shim does not answer") }
            if state.task?.row.phase.hasEnded != false { return }
            logger.notice("container has guards again", metadata: logContext)
            await write([], .taskGuarded)
        } catch {
            logger.error("no new guards", metadata: logContext.merging(["error": "\(error)"]) { $1 })
            let cause = SupervisorError.cause(of: error).text
            note { task in
                if task.guards == .lost { task.note = "shim and keeper are gone, and new ones could not be made: \(cause)" }
            }
        }
    }
}
