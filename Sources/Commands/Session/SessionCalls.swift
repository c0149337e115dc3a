import CtrProto
import Linux
import TTRPC

/// What a session asks the manager for, and what it makes of the answers.
extension Session {
    /// Sees to it that everything that is wanted is asked for.
    func issue() throws(ClientError) {
        if connection == nil { connection = try reconnector.attempt(bufferSize: 64 << 10) }
        guard let connection else { return }
        if !isOpen { return try ask(isOpeningDoubtful ? .look : .open, connection, open) }
        if plan.output != nil && !sink.isFinished { try ask(.logs, connection, read) }
        if exit == nil {
            try ask(.wait, connection, wait)
            for signal in toSend.sorted() {
                toSend.remove(signal)
                owed[try send(signal, connection)] = .kill(signal)
            }
            if let size = sizes.first, !owed.values.contains(where: \.isResize) {
                sizes.removeFirst()
                owed[try resize(size, connection)] = .resize(size)
            }
            // What is typed before the reading has begun could be answered before it.
            if sink.isPlaced, var request = input?.request() {
                request.namespace = manager.namespace
                request.container = plan.container
                request.execID = plan.execID
                owed[try connection.start(API.writeInput, request)] = .input
            }
        } else if sink.isFinished && plan.removes && !isDeleted {
            try ask(.delete, connection, delete)
        }
    }

    private func ask(
        _ what: Owed, _ connection: Connection, _ start: (Connection) throws(ClientError) -> UInt32
    ) throws(ClientError) {
        if !owed.values.contains(what) { owed[try start(connection)] = what }
    }

    private func open(_ connection: Connection) throws(ClientError) -> UInt32 {
        switch plan.opening {
        case .create(let request): return try connection.start(API.createContainer, request)
        case .exec(let request): return try connection.start(API.exec, request)
        case .start:
            if isOpeningDoubtful {
                var request = Ctr_V1_GetContainerRequest()
                request.namespace = manager.namespace
                request.container = plan.container
                return try connection.start(API.getContainer, request)
            }
            var request = Ctr_V1_StartTaskRequest()
            request.namespace = manager.namespace
            request.container = plan.container
            request.attached = true
            return try connection.start(API.startTask, request)
        case .attach: throw .malformed("nothing to open")
        }
    }

    private func read(_ connection: Connection) throws(ClientError) -> UInt32 {
        var request = sink.request(namespace: manager.namespace, container: plan.container, follow: true)
        request.attach = true
        return try connection.start(API.readLogs, request, streaming: true)
    }

    private func wait(_ connection: Connection) throws(ClientError) -> UInt32 {
        var request = Ctr_V1_WaitTaskRequest()
        request.namespace = manager.namespace
        request.container = plan.container
        request.execID = plan.execID
        return try connection.start(API.waitTask, request)
    }

    private func send(_ signal: Int32, _ connection: Connection) throws(ClientError) -> UInt32 {
        var request = Ctr_V1_KillTaskRequest()
        request.namespace = manager.namespace
        request.container = plan.container
        request.execID = plan.execID
        request.signal = UInt32(signal)
        return try connection.start(API.killTask, request)
    }

    private func resize(_ size: TerminalSize, _ connection: Connection) throws(ClientError) -> UInt32 {
        var request = Ctr_V1_ResizeRequest()
        request.namespace = manager.namespace
        request.container = plan.container
        request.execID = plan.execID
        request.width = size.width
        request.height = size.height
        return try connection.start(API.resize, request)
    }

    private func delete(_ connection: Connection) throws(ClientError) -> UInt32 {
        var request = Ctr_V1_DeleteContainerRequest()
        request.namespace = manager.namespace
        request.container = plan.container
        return try connection.start(API.deleteContainer, request)
    }

    /// Takes what has arrived; false when there is nothing. Stops at output that has to be written first.
    func takeAnswers(_ connection: Connection) throws -> Bool {
        var isNews = false
        while sink.isDrained, let answer = try connection.next() {
            isNews = true
            switch answer {
            case .message(let stream, let payload):
                guard owed[stream] == .logs else { continue }
                reconnector.answered()
                sink.accept(try decode(.success(payload)))
                if sink.isFinished { owed[stream] = nil }
                // A gap is told where it is, before what comes behind it.
                if sink.notice != nil { return true }
            case .end(let stream):
                guard owed.removeValue(forKey: stream) == .logs, !sink.isFinished else { continue }
                // Only the end of the output ends the reading; a manager that shuts down ends the stream without it.
                if exit == nil { throw ClientError.lost(path: manager.address) }
                sink.end()
            case .response(let stream, let result):
                guard let what = owed.removeValue(forKey: stream) else { continue }
                if case .failure(let status) = result, status.endsOnlyTheWait, what.isPatient {
                    owed[stream] = what
                    throw ClientError.lost(path: manager.address)
                }
                reconnector.answered()
                try take(what, result)
            }
        }
        return isNews
    }

    private func take(_ what: Owed, _ result: Result<[UInt8], Status>) throws {
        switch what {
        case .open: try takeOpening(result)
        case .look:
            let response: Ctr_V1_GetContainerResponse = try decode(result)
            guard case .start(let before) = plan.opening else { return }
            isOpeningDoubtful = false
            // It happened: the container is in another run than before.
            if response.container.task.incarnation > before { try opened(response.container.task) }
        case .wait:
            let response: Ctr_V1_WaitTaskResponse = try decode(result)
            exit = response.exit
        case .logs:
            guard case .failure(let status) = result, !sink.isFinished else { return }
            // Once the process has ended somebody else may delete it, and its output with it.
            if exit == nil || status.code != .notFound { tell("cannot read the output: \(ClientError.status(status))") }
            sink.end()
        case .delete:
            // Somebody else deleted it, or the first of two attempts did.
            if case .failure(let status) = result, status.code != .notFound { throw ClientError.status(status) }
            isDeleted = true
        case .kill(let signal):
            // A process that has ended needs no signal.
            if case .failure(let status) = result, !status.saysEnded {
                tell("cannot send signal \(signal) to the container: \(status.message)")
            }
        case .input:
            if case .failure(let status) = result {
                if !status.saysEnded { tell("cannot write standard input: \(status.message)") }
                input?.end()
            } else {
                input?.accept(try decode(result))
            }
        case .resize: break
        }
    }

    private func takeOpening(_ result: Result<[UInt8], Status>) throws {
        switch plan.opening {
        case .create:
            let response: Ctr_V1_CreateContainerResponse = try decode(result)
            try opened(response.container.task)
        case .start:
            let response: Ctr_V1_StartTaskResponse = try decode(result)
            try opened(response.task)
        case .exec:
            let response: Ctr_V1_ExecResponse = try decode(result)
            if !response.exec.containerID.isEmpty { plan.container = response.exec.containerID }
            try opened()
        case .attach: break
        }
    }

    private func opened(_ task: Ctr_V1_Task) throws {
        if !task.containerID.isEmpty { plan.container = task.containerID }
        sink.incarnation = task.incarnation
        try opened()
    }
}

extension Session.Owed {
    fileprivate var isResize: Bool { if case .resize = self { true } else { false } }

    /// Whether a manager that shuts down may leave it to the next one.
    fileprivate var isPatient: Bool {
        switch self {
        case .wait, .logs, .input: true
        case .open, .look, .delete, .kill, .resize: false
        }
    }
}

extension Status {
    fileprivate var saysEnded: Bool { code == .notFound || code == .failedPrecondition }
}
