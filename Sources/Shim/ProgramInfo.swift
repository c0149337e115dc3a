import CLinux
import CShimProto
import Glibc
import Linux
import TTRPC

/// `-info`: what this shim and the OCI runtime of the given options are (containerd.types.RuntimeInfo), as containerd asks before it starts one.
enum ProgramInfo {
    static let name = "io.containerd.ctr.v2"
    private static let featuresLimit = 1 << 20
    private static let featuresTime: Int64 = 3_000_000_000

    static func runtimeInfo(_ arguments: Arguments) throws(ShimError) -> [UInt8] {
        let given = try ContainerdStart.readInput(arguments).options
        let options: RuntimeOptions
        do throws(Status) { options = try RuntimeOptions(given) } catch { throw ShimError("read runtime options", "", error.message) }
        let program = try shimErrors { () throws(SysError) in try RuntimeChoice.ownProgram() }
        let runtime = try RuntimeChoice.find(options.binary.isEmpty ? RuntimeChoice.ownRuntime : options.binary, beside: program)
        let arena = Arena()
        let message = arena.make(Containerd__Types__RuntimeInfo(), containerd__types__runtime_info__init) { message in
            message.name = arena.text(name)
            message.version = arena.make(Containerd__Types__RuntimeVersion(), containerd__types__runtime_version__init) {
                $0.version = arena.text(Daemon.version)
            }
            if !given.typeURL.isEmpty { message.options = arena.any(given.typeURL, given.value) }
            if let features = features(of: runtime) {
                message.features = arena.any("types.containerd.io/opencontainers/runtime-spec/1/features/Features", features)
            }
            message.n_annotations = 1
            message.annotations = arena.list([
                arena.make(Containerd__Types__RuntimeInfo__AnnotationsEntry(), containerd__types__runtime_info__annotations_entry__init) {
                    $0.key = arena.text("org.ctrd.runtime")
                    $0.value = arena.text(runtime)
                }
            ])
        }
        return Arena.packed(message, containerd__types__runtime_info__get_packed_size, containerd__types__runtime_info__pack)
    }

    /// The document that `RUNTIME features` prints; nil of one that does not know the command, or hangs.
    private static func features(of runtime: String) -> [UInt8]? {
        let made = ctr_memfd_create("features", 1)
        guard made >= 0, let null = try? Linux.open("/dev/null", O_RDWR) else { return nil }
        let output = Descriptor(owning: made)
        var words: [UnsafeMutablePointer<CChar>?] = [strdup(runtime), strdup("features"), nil]
        defer { for word in words { free(word) } }
        let descriptors = [null.raw, output.raw, null.raw]
        let pid = words.withUnsafeMutableBufferPointer { words in
            descriptors.withUnsafeBufferPointer { descriptors in
                words.baseAddress.map {
                    ctr_spawn_with(runtime, $0, ctr_environ(), "/", descriptors.baseAddress, 3, UInt32(CTR_SPAWN_DIE_WITH_PARENT))
                } ?? -EINVAL
            }
        }
        if pid <= 0 { return nil }
        let pidfd = ctr_pidfd_open(pid, 0)
        if pidfd >= 0 {
            var waiting = pollfd(fd: pidfd, events: Int16(POLLIN), revents: 0)
            if poll(&waiting, 1, Int32(featuresTime / 1_000_000)) <= 0 { _ = ctr_pidfd_send_signal(pidfd, SIGKILL) }
            close(pidfd)
        }
        var status: Int32 = 0
        guard ctr_waitid(CTR_P_PID, pid, &status, 0) == pid, status == 0, lseek(output.raw, 0, SEEK_SET) == 0,
            let text = try? readAll(output.raw, name: "features", limit: featuresLimit), text.first == UInt8(ascii: "{")
        else { return nil }
        return text
    }
}
