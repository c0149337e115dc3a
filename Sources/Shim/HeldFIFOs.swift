import CLinux
import Glibc
import Linux
import TTRPC

extension Container {
    /// Opens the FIFOs that the output of `process` will go to and parks them, in a child that a killed shim does not take with it. Whoever opens
    /// a FIFO for writing wakes its reader, and a reader that then loses its last writer, between open and parking, has seen the end of all output.
    ///
    /// The child shares the lock of the shim: a successor begins when it is done. FIFOs that cannot be opened are left to the caller to fail on.
    func holdFIFOs(of process: Process) {
        guard place.start.publishAddress != nil, process.record == nil else { return }
        var files = files(of: process)
        var paths: [String] = []
        var letters = files.letters
        let names = process.names
        let outputs = [(names.stdout, "f", process.stdoutFIFO), (names.terminal ? "" : names.stderr, "g", process.stderrFIFO)]
        for (name, letter, known) in outputs where known == nil {
            guard case .fifo(let path)? = try? StreamPlace.output(name) else { continue }
            paths.append(path)
            letters += letter
        }
        if paths.isEmpty { return }
        let text = ParkedName(.process(execID: process.execID), letters: letters).text
        let child = ctr_clone3(0, nil, -1)
        if child == 0 {
            for path in paths {
                let file = ctr_openat(AT_FDCWD, path, O_RDWR | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0)
                var status = stat()
                if file < 0 || fstat(file, &status) < 0 || status.st_mode & S_IFMT != S_IFIFO { _exit(1) }
                files.files.append(file)
            }
            _exit((try? parking.park(text, files.files)) == nil ? 1 : 0)
        }
        var status: Int32 = -1
        guard child > 0, ctr_waitid(CTR_P_PID, child, &status, 0) == child, status == 0 else { return }
        parked += 1
        process.parked = letters
    }
}
