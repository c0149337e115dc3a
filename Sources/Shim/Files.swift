import CLinux
import Glibc
import Linux

/// Names in the directory at `path`; nothing when it is not there.
func directoryNames(at path: String) -> [String] { opendir(path).map { names(in: $0) } ?? [] }

/// Names in an open directory, which stays the caller's.
func directoryNames(in directory: Int32) -> [String] {
    let copy = ctr_openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0)
    guard copy >= 0, let stream = fdopendir(copy) else { return [] }
    return names(in: stream)
}

private func names(in stream: OpaquePointer) -> [String] {
    defer { closedir(stream) }
    var names: [String] = []
    while names.count < 1 << 20, let entry = readdir(stream) {
        let name = withUnsafePointer(to: &entry.pointee.d_name) { tuple in
            tuple.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
        }
        if name != "." && name != ".." { names.append(name) }
    }
    return names
}

/// Makes what is missing of `path`.
func makeDirectories(_ path: String, mode: mode_t) throws(SysError) {
    if access(path, F_OK) == 0 { return }
    if let slash = path.utf8.lastIndex(of: UInt8(ascii: "/")), slash > path.utf8.startIndex {
        try makeDirectories(String(path[..<slash]), mode: mode)
    }
    try makeDirectory(path, mode: mode)
}

/// Whether `file` is readable within so many milliseconds: of a pidfd, whether its process has ended.
func isReadable(_ file: Int32, milliseconds: Int32 = 0) -> Bool {
    var waiting = pollfd(fd: file, events: Int16(POLLIN), revents: 0)
    return poll(&waiting, 1, milliseconds) > 0
}
