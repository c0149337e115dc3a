import CLinux
import Glibc
import Linux
import Logs
import Records
import TTRPC

/// Streams of processes: what their names mean here, and what of them outlives a shim in the parking queue.
extension Container {
    /// Has `process` keep what changes in its streams parked.
    func attach(_ process: Process) {
        process.input.onClosed = { [unowned self, unowned process] in self.unpark(process) }
        process.output.onEnded = { [unowned self, unowned process] in
            self.unpark(process)
            if process.isFirst { self.deleteIfEnded() } else { self.deleteIfDrained(process) }
        }
    }

    /// Where output named `name` goes; for the first process under our manager nothing said means the log.
    func outputPlace(_ name: String, of process: Process) throws(Status) -> StreamPlace {
        let place = try StreamPlace.output(name)
        return place == .nothing && process.isFirst && self.place.start.publishAddress == nil ? .log(attached: false) : place
    }

    /// The sinks of a process's output by its stream names; nil where a stream goes nowhere and needs no pipe.
    func sinks(of process: Process) throws(Status) -> (stdout: (any Sink)?, stderr: (any Sink)?) {
        let stdout = try outputPlace(process.names.stdout, of: process)
        // A terminal has one stream.
        let stderr = process.names.terminal ? .nothing : try outputPlace(process.names.stderr, of: process)
        holdFIFOs(of: process)
        do throws(SysError) {
            var log: LogSink?
            if stdout.isLog || stderr.isLog {
                let attached = stdout == .log(attached: true) || stderr == .log(attached: true)
                if let open = process.output.log { log = open } else { log = try makeLog(of: process, attached: attached) }
            }
            var out = try sink(stdout, log, process, .stdout)
            let err = try sink(stderr, log, process, .stderr)
            // A terminal that nobody reads would hold up its process.
            if process.names.terminal && out == nil && !stdout.isLogger { out = try NothingSink() }
            // What only one of the two streams is written to is over once that one is.
            if let log {
                process.output.keep(log: log)
                if !stdout.isLog { log.end(.stdout) }
                if !stderr.isLog { log.end(.stderr) }
            }
            return (out, err)
        } catch {
            throw Status(error.code == ENOENT || error.code == EACCES ? .invalidArgument : .unknown, error.description)
        }
    }

    private func makeLog(of process: Process, attached: Bool) throws(SysError) -> LogSink {
        let dropped = process.parkedDrops
        process.parkedDrops = ParkedDrops()
        let log =
            // A container goes on without whoever may attach to it; an exec was made for its reader.
            attached
            ? try AttachedLog(in: process.exitDirectory, isAwaited: !process.isFirst, dropped: dropped)
            : try LogSink(
                in: process.exitDirectory, segmentBytes: place.start.segmentBytes, segmentCount: place.start.segmentCount, dropped: dropped)
        log.onDropping = { [unowned self, unowned process] in (try? self.park(process)) != nil }
        return log
    }

    private func sink(_ place: StreamPlace, _ log: LogSink?, _ process: Process, _ stream: LogStream) throws(SysError) -> (any Sink)? {
        switch place {
        case .log: return log
        case .fifo(let path):
            do throws(SysError) {
                if let fifo = try fifo(path, of: process, stream) { return fifo }
                return try FileSink(path)
            } catch {
                // The caller has removed the name since Create, and no predecessor has parked what it meant: nobody can read it.
                if error.code != ENOENT || process.record == nil { throw error }
                return try NothingSink()
            }
        case .file(let path): return try FileSink(path)
        case .nothing, .spool, .logger: return nil
        }
    }

    /// The FIFO that `process` reads its input from; nil where it reads from none.
    func openInputFIFO(of process: Process) throws(SysError) -> InputFIFO? {
        guard case .fifo(let path)? = try? StreamPlace.input(process.names.stdin) else { return nil }
        if let known = process.inputFIFO { return known }
        let fifo = try InputFIFO(path, number: process.number, loop: loop)
        keep(fifo, of: process)
        try park(process)
        if process.isInputClosed { fifo.close() }
        return fifo
    }

    func keep(_ fifo: InputFIFO, of process: Process) {
        fifo.onChange = { [unowned self, unowned process] in self.unpark(process) }
        process.inputFIFO = fifo
    }

    private func fifo(_ path: String, of process: Process, _ stream: LogStream) throws(SysError) -> (any Sink)? {
        if let known = stream == .stdout ? process.stdoutFIFO : process.stderrFIFO { return known }
        guard let fifo = try CallerFIFO(path, number: process.number, loop: loop) else { return nil }
        keep(fifo, of: process, stream)
        // At once: a reader whose last writer dies sees an end.
        try park(process)
        return fifo
    }

    func keep(_ fifo: CallerFIFO, of process: Process, _ stream: LogStream) {
        fifo.onRoom = { [unowned process] in process.output.sinkHasRoom() }
        fifo.onChange = { [unowned self, unowned process] in self.unpark(process) }
        if stream == .stdout { process.stdoutFIFO = fifo } else { process.stderrFIFO = fifo }
    }

    /// What a sink needs that a predecessor has parked. The caller's FIFOs: what is in them is in no other; counts of what was dropped.
    func adoptSinks(of process: Process, _ predecessor: ParkedProcess?) {
        process.parkedDrops = ParkedDrops(stdout: predecessor?.take("d"), stderr: predecessor?.take("D"))
        for (stream, flowing, ended) in [(LogStream.stdout, Character("f"), Character("F")), (.stderr, "g", "G")] {
            guard let parked = predecessor?.take(flowing) ?? predecessor?.take(ended),
                let fifo = try? CallerFIFO(parked: parked, number: process.number, loop: loop)
            else { continue }
            keep(fifo, of: process, stream)
        }
    }

    /// Create names the streams of the first process, which until now went to the log.
    func name(first names: StreamNames) throws(Status) {
        let usual = [StreamPlace.nothing, .log(attached: false)]
        let (stdout, stderr) = (try StreamPlace.output(names.stdout), try StreamPlace.output(names.stderr))
        _ = try StreamPlace.input(names.stdin)
        first.names = names
        if names.terminal || !usual.contains(stdout) || !usual.contains(stderr) {
            // Under containerd nothing was connected before its names were known.
            if stdoutReader < 0 { stdoutReader = first.output.disconnect(.stdout) }
            if stderrReader < 0 { stderrReader = first.output.disconnect(.stderr) }
        }
        try startLogger(first: names, stdout: stdoutReader, stderr: stderrReader)
        try connectFirst()
    }

    /// Streams of the first process from the keeper's pipes, as its names say.
    func connectFirst() throws(Status) {
        let sinks = try sinks(of: first)
        do throws(SysError) {
            let (stdout, stderr) = (stdoutReader, stderrReader)
            (stdoutReader, stderrReader) = (-1, -1)
            try connectFirst(.stdout, stdout, to: sinks.stdout)
            try connectFirst(.stderr, stderr, to: sinks.stderr)
        } catch { throw Status(.unknown, error.description) }
    }

    private func connectFirst(_ stream: LogStream, _ pipe: Int32, to sink: (any Sink)?) throws(SysError) {
        guard let sink, pipe >= 0 else { return Inherited.giveBack(pipe) }
        // A stream that had ended when the program was changed has left /dev/null in the place of its pipe.
        if place.upgrades > 0 && !Inherited.isPipe(pipe) { return sink.end(stream) }
        try first.output.connect(stream, pipe, to: sink)
    }

    // MARK: terminals and input

    /// A socket for the runtime's terminal of `process`, whose output then flows through the pipe of `writer`.
    func console(in directory: String, for process: Process, writer: SharedDescriptor) throws(SysError) -> Console {
        let console = try Console(directory: directory, loop: loop, number: process.number)
        console.onMaster = { [unowned self, unowned process] master in
            do throws(SysError) {
                try process.output.connect(terminal: master, writer: writer)
                if process.input.spool != nil { try process.input.connect(terminal: master) }
                try process.inputFIFO?.connect(terminal: master)
                try self.park(process)
            } catch {
                // Without its terminal the process is told that it hung up.
                process.output.abandon()
            }
        }
        return console
    }

    func resize(_ call: Call, execID: String, width: UInt32, height: UInt32) {
        with(execID, call) { process in
            let (columns, rows) = (UInt16(clamping: width), UInt16(clamping: height))
            guard process.names.terminal else {
                return answer(call, .failure(Status(.failedPrecondition, "the process has no terminal")))
            }
            if let master = process.output.master {
                let resized = ctr_pty_resize(master.raw, columns, rows)
                return answer(
                    call,
                    resized < 0 ? .failure(Status(.unknown, SysError("resize", "terminal", code: -resized).description)) : .success([]))
            }
            guard process.phase == .none, process.exec != nil else {
                return answer(call, .failure(Status(.failedPrecondition, "the process's terminal is closed")))
            }
            // Kept for Start, over a restart of the shim too.
            process.exec?.columns = columns
            process.exec?.rows = rows
            do throws(RecordError) {
                try process.exec?.write(in: process.pidDirectory)
                answer(call, .success([]))
            } catch { answer(call, .failure(Status(.unknown, error.description))) }
        }
    }

    /// Standard input has an end behind what was written.
    func closeIO(_ call: Call, execID: String, stdin: Bool) {
        with(execID, call) { process in
            if !stdin || process.names.stdin.isEmpty { return answer(call, .success([])) }
            if process.names.stdin != "spool:" {
                process.isInputClosed = true
                process.inputFIFO?.close()
                return answer(call, .success([]))
            }
            process.input.close(call)
        }
    }

    func writeInput(_ call: Call, execID: String, _ write: Input.Write) {
        with(execID, call) { process in
            if process.phase == .stopped {
                return answer(call, .failure(Status(.failedPrecondition, "the process has ended")))
            }
            if process.names.stdin == "spool:" && !process.input.isThere {
                let what = process.names.terminal ? "the process's terminal" : "the process's standard input"
                return answer(call, .failure(Status(.failedPrecondition, "\(what) was closed when shim and keeper were both killed")))
            }
            let waiting = ([first] + execs).reduce(0) { $0 + $1.input.waitingBytes }
            if write.data.count > 1 << 20 || waiting + write.data.count > 4 << 20 {
                return answer(call, .failure(Status(.resourceExhausted, "too much input waits to be read: 1 MiB a call, 4 MiB in all")))
            }
            process.input.write(call, write)
        }
    }

    // MARK: parking

    func files(of process: Process) -> ParkedFiles {
        var files = ParkedFiles()
        // The keeper holds the first process's pipes.
        if !process.isFirst {
            files.add("o", process.loggerPipes[.stdout]?.raw ?? process.output.pipe(of: .stdout))
            files.add("e", process.loggerPipes[.stderr]?.raw ?? process.output.pipe(of: .stderr))
        }
        files.add("O", process.output.terminalWriter?.raw)
        files.add("d", process.output.log?.dropFiles.stdout)
        files.add("D", process.output.log?.dropFiles.stderr)
        files.add("m", process.output.master?.raw)
        files.add("i", (process.input.pipe ?? process.inputFIFO?.pipe)?.raw)
        files.add("s", process.input.spool?.raw)
        if let fifo = process.inputFIFO { files.add(fifo.isClosed ? "H" : "h", fifo.file?.raw) }
        // Held in another way once the stream has ended: another letter.
        if let fifo = process.stdoutFIFO { files.add(fifo.hasEnded ? "F" : "f", fifo.file?.raw) }
        if let fifo = process.stderrFIFO { files.add(fifo.hasEnded ? "G" : "g", fifo.file?.raw) }
        return files
    }

    /// Parks what `process` has now, behind what is parked of it already: the last message counts.
    func park(_ process: Process) throws(SysError) {
        let files = files(of: process)
        if files.letters == process.parked { return }
        if files.letters.isEmpty { return unpark(process) }
        if !widened { parking.widen() }
        widened = true
        // Messages that nobody needs are not let grow without end.
        if parked > 64 + 4 * (execs.count + 2) { parkAgain() }
        try parking.park(ParkedName(.process(execID: process.execID), letters: files.letters).text, files.files)
        parked += 1
        process.parked = files.letters
    }

    /// Something of `process` is closed, and is to be closed for good.
    func unpark(_ process: Process) {
        if process.parked.isEmpty || files(of: process).letters == process.parked { return }
        parkAgain()
    }

    /// Something that is no stream and no mount of the container, but lives as long. Whether there was room for it.
    func park(guest name: String, _ file: Int32) -> Bool {
        if (try? parking.park(name, [file])) == nil { return false }
        parked += 1
        return true
    }

    /// After the whole queue was taken out: the guests go on living.
    func parkGuests() {
        for guest in guests() { _ = park(guest: guest.name, guest.file) }
    }

    /// The living messages once more behind the rest, then the rest out of the queue: each is in it at every moment. Where the queue takes
    /// no more the old messages stay.
    func parkAgain() {
        let before = parked
        do throws(SysError) {
            if let rootfs {
                try parking.park(ParkedName(.rootfs, letters: "").text, [rootfs.raw])
                parked += 1
            }
            for guest in guests() {
                try parking.park(guest.name, [guest.file])
                parked += 1
            }
            for process in [first] + execs {
                let files = files(of: process)
                process.parked = files.letters
                if files.letters.isEmpty { continue }
                try parking.park(ParkedName(.process(execID: process.execID), letters: files.letters).text, files.files)
                parked += 1
            }
            try parking.drop(before)
            parked -= before
        } catch {}
    }
}

extension StreamPlace {
    var isLog: Bool {
        if case .log = self { return true }
        return false
    }
}
