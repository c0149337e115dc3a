import NIOCore
import NIOPosix

/// Where the manager's code runs: one event loop for sockets, actors and tasks alike, so that no request wakes another thread;
/// and a small pool for whatever may wait for a disk or another process.
public final class Executor: TaskExecutor, Sendable {
    public let loop: any EventLoop
    private let pool: NIOThreadPool
    /// For the import of images, which takes seconds and must not keep starts waiting.
    private let longPool: NIOThreadPool

    public init(loop: any EventLoop) {
        self.loop = loop
        pool = NIOThreadPool(numberOfThreads: 4)
        longPool = NIOThreadPool(numberOfThreads: 2)
        pool.start()
        longPool.start()
    }

    public func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        loop.execute { job.runSynchronously(on: self.asUnownedTaskExecutor()) }
    }

    /// Starts a task of its own on the loop.
    @discardableResult
    public func spawn<Value: Sendable>(_ body: @escaping @Sendable () async -> Value) -> Task<Value, Never> {
        Task(executorPreference: self, operation: body)
    }

    /// The same for what may fail.
    public func spawnThrowing<Value: Sendable>(_ body: @escaping @Sendable () async throws -> Value) -> Task<Value, any Error> {
        Task(executorPreference: self, operation: body)
    }

    /// Runs `body`, which may block for milliseconds, on a thread of the pool.
    func blocking<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) async throws -> Value {
        try await run(body, on: pool)
    }

    /// Runs `body`, which may block for a long time.
    func longRunning<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) async throws -> Value {
        try await run(body, on: longPool)
    }

    private func run<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value, on pool: NIOThreadPool) async throws -> Value {
        try await withCheckedThrowingContinuation { continuation in
            pool.submit { state in
                guard state == .active else {
                    continuation.resume(throwing: CancellationError())
                    return
                }
                continuation.resume(with: Result { try body() })
            }
        }
    }

    /// Returns at `deadline`, or throws when the task is cancelled.
    func pause(until deadline: NIODeadline) async throws {
        let promise = loop.makePromise(of: Void.self)
        let timer = loop.scheduleTask(deadline: deadline) { promise.succeed() }
        try await withTaskCancellationHandler {
            try await promise.futureResult.get()
        } onCancel: {
            timer.cancel()
            promise.fail(CancellationError())
        }
    }
}

/// Somebody who waits for something that an actor will tell. Made and registered by the actor without a suspension between its look at the
/// state and the registration, which `withTaskCancellationHandler` and continuations do not promise: an end that is told in between would be
/// missed for ever.
struct Waiter: Sendable {
    private let promise: EventLoopPromise<Void>

    init(on loop: any EventLoop) { promise = loop.makePromise() }

    /// Ends the wait; later ones do nothing.
    func resume() { promise.succeed() }
    func resume(throwing error: any Error) { promise.fail(error) }
    func cancel() { promise.fail(CancellationError()) }

    /// Returns when ``resume()`` was called, also before. `onCancel` is told when the task is cancelled, and is to end the wait.
    func wait(onCancel: @escaping @Sendable () -> Void = {}) async throws {
        try await withTaskCancellationHandler {
            try await promise.futureResult.get()
        } onCancel: {
            onCancel()
        }
    }
}
