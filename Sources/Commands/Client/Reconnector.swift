import Glibc
import Linux

/// Finds the way back to a manager that went away: waits for its socket without polling, tries, and keeps a growing distance to one
/// that accepts connections and breaks them.
struct Reconnector {
    let path: String
    private var watch: SocketWatch?
    /// Tries since the last event or answer; sets the distance to the next one.
    private var tries = 0
    /// CLOCK_MONOTONIC time before which there is no try; nil: only an event brings the next one.
    private var retryAt: Int64? = 0
    /// Whether the user was told of this outage.
    private var announced = false

    init(path: String) { self.path = path }

    /// Nanoseconds to the next try: 1 ms, doubled each time, at most 5 s.
    static func delay(afterTries tries: Int) -> Int64 { min(1_000_000 << Int64(min(tries, 13)), 5_000_000_000) }

    /// Between bind(2) and listen(2) of a manager that starts, its socket exists and refuses: so many tries, about a
    /// second in all, follow each event before only the next event counts.
    static let triesPerEvent = 10

    /// Notes that a connection broke. True the first time in an outage: the user is to be told.
    mutating func broke(wasAnswered: Bool) -> Bool {
        if wasAnswered { tries = 0 }
        retryAt = tries == 0 ? 0 : now(CLOCK_MONOTONIC) + Self.delay(afterTries: tries)
        tries += 1
        defer { announced = true }
        return !announced
    }

    /// Notes that the manager answered: the outage, if there was one, is over.
    mutating func answered() {
        tries = 0
        retryAt = 0
        announced = false
        watch = nil
    }

    /// A connection if the manager is there and it is time to try; nil: poll ``descriptor`` until ``deadline``, call ``look()``.
    mutating func attempt(bufferSize: Int) throws(ClientError) -> Connection? {
        guard let due = retryAt, due <= now(CLOCK_MONOTONIC) else { return nil }
        if watch == nil { watch = SocketWatch(path: path) }
        do {
            return try Connection(path: path, bufferSize: bufferSize)
        } catch {
            guard case .cannotConnect(_, let code) = error else { throw error }
            let delay = Self.delay(afterTries: tries)
            tries += 1
            // EAGAIN: it is there, and its queue is full. Without inotify only the clock is left.
            let goesOn = code == EAGAIN || watch == nil || (code == ECONNREFUSED && tries <= Self.triesPerEvent)
            retryAt = goesOn ? now(CLOCK_MONOTONIC) + delay : nil
            return nil
        }
    }

    /// For poll(2); negative while nothing is watched.
    var descriptor: Int32 { watch?.descriptor ?? -1 }

    /// When the next try is due (CLOCK_MONOTONIC, ns); nil: when ``descriptor`` reports something.
    var deadline: Int64? { retryAt }

    /// Takes the events of the watch.
    mutating func look() {
        guard let watch, watch.concernsPath() else { return }
        if watch.isSpent { self.watch = nil }
        tries = 0
        retryAt = 0
    }

    /// Waits until there is a connection, for callers that wait for nothing else.
    mutating func connect(bufferSize: Int = 16 << 10) throws(ClientError) -> Connection {
        while true {
            if let connection = try attempt(bufferSize: bufferSize) { return connection }
            waitFor([(descriptor, Int16(POLLIN))], until: deadline)
            look()
        }
    }
}
