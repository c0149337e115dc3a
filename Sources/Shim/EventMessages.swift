import CShimProto
import Linux

/// Events as containerd takes them: one message and one topic each, in an envelope.
enum EventMessages {
    /// The message of `event` alone. Of an exec it is the same whenever it is made.
    static func body(_ event: TaskEvent, id: String, bundle: String) -> [UInt8] { message(event, id: id, bundle: bundle, Arena()).2 }

    /// A ForwardRequest that says `event`, which happened to the container `id` at `time` (CLOCK_REALTIME, nanoseconds).
    static func forward(_ event: TaskEvent, id: String, bundle: String, namespace: String, time: Int64) -> [UInt8] {
        let arena = Arena()
        let (topic, kind, body) = message(event, id: id, bundle: bundle, arena)
        let request = arena.make(
            Containerd__Services__Events__Ttrpc__V1__ForwardRequest(), containerd__services__events__ttrpc__v1__forward_request__init
        ) { request in
            request.envelope = arena.make(Containerd__Types__Envelope(), containerd__types__envelope__init) { envelope in
                envelope.timestamp = arena.time(time)
                envelope.namespace_ = arena.text(namespace)
                envelope.topic = arena.text(topic)
                envelope.event = arena.any("containerd.events." + kind, body)
            }
        }
        return Arena.packed(
            request, containerd__services__events__ttrpc__v1__forward_request__get_packed_size,
            containerd__services__events__ttrpc__v1__forward_request__pack)
    }

    private static func message(_ event: TaskEvent, id: String, bundle: String, _ arena: Arena) -> (String, String, [UInt8]) {
        switch event {
        case .created(let pid, let streams, let mounts):
            let message = arena.make(Containerd__Events__TaskCreate(), containerd__events__task_create__init) { message in
                message.container_id = arena.text(id)
                message.bundle = arena.text(bundle)
                message.pid = UInt32(bitPattern: pid)
                message.io = arena.make(Containerd__Events__TaskIO(), containerd__events__task_io__init) { io in
                    io.stdin = arena.text(streams.stdin)
                    io.stdout = arena.text(streams.stdout)
                    io.stderr = arena.text(streams.stderr)
                    io.terminal = streams.terminal ? 1 : 0
                }
                let rootfs = mounts.map { mount($0, arena) as UnsafeMutablePointer<Containerd__Types__Mount>? }
                message.n_rootfs = rootfs.count
                message.rootfs = arena.list(rootfs)
            }
            return (
                "/tasks/create", "TaskCreate",
                Arena.packed(message, containerd__events__task_create__get_packed_size, containerd__events__task_create__pack)
            )
        case .started(let pid):
            let message = arena.make(Containerd__Events__TaskStart(), containerd__events__task_start__init) { message in
                message.container_id = arena.text(id)
                message.pid = UInt32(bitPattern: pid)
            }
            return (
                "/tasks/start", "TaskStart",
                Arena.packed(message, containerd__events__task_start__get_packed_size, containerd__events__task_start__pack)
            )
        case .exited(let execID, let pid, let status, let time):
            let message = arena.make(Containerd__Events__TaskExit(), containerd__events__task_exit__init) { message in
                message.container_id = arena.text(id)
                message.id = arena.text(execID.isEmpty ? id : execID)
                message.pid = UInt32(bitPattern: pid)
                message.exit_status = status
                message.exited_at = arena.time(time)
            }
            return (
                "/tasks/exit", "TaskExit",
                Arena.packed(message, containerd__events__task_exit__get_packed_size, containerd__events__task_exit__pack)
            )
        case .deleted(let execID, let pid, let status, let time):
            let message = arena.make(Containerd__Events__TaskDelete(), containerd__events__task_delete__init) { message in
                message.container_id = arena.text(id)
                message.id = arena.text(execID)
                message.pid = UInt32(bitPattern: pid)
                message.exit_status = status
                message.exited_at = arena.time(time)
            }
            return (
                "/tasks/delete", "TaskDelete",
                Arena.packed(message, containerd__events__task_delete__get_packed_size, containerd__events__task_delete__pack)
            )
        case .execAdded(let execID):
            let message = arena.make(Containerd__Events__TaskExecAdded(), containerd__events__task_exec_added__init) { message in
                message.container_id = arena.text(id)
                message.exec_id = arena.text(execID)
            }
            return (
                "/tasks/exec-added", "TaskExecAdded",
                Arena.packed(message, containerd__events__task_exec_added__get_packed_size, containerd__events__task_exec_added__pack)
            )
        case .execStarted(let execID, let pid):
            let message = arena.make(Containerd__Events__TaskExecStarted(), containerd__events__task_exec_started__init) { message in
                message.container_id = arena.text(id)
                message.exec_id = arena.text(execID)
                message.pid = UInt32(bitPattern: pid)
            }
            return (
                "/tasks/exec-started", "TaskExecStarted",
                Arena.packed(
                    message, containerd__events__task_exec_started__get_packed_size, containerd__events__task_exec_started__pack)
            )
        // These three have one field, the container's id, and so the same bytes.
        case .oom: return ("/tasks/oom", "TaskOOM", named(id, arena))
        case .paused: return ("/tasks/paused", "TaskPaused", named(id, arena))
        case .resumed: return ("/tasks/resumed", "TaskResumed", named(id, arena))
        }
    }

    private static func named(_ id: String, _ arena: Arena) -> [UInt8] {
        let message = arena.make(Containerd__Events__TaskOOM(), containerd__events__task_oom__init) { $0.container_id = arena.text(id) }
        return Arena.packed(message, containerd__events__task_oom__get_packed_size, containerd__events__task_oom__pack)
    }

    private static func mount(_ mount: MountRequest, _ arena: Arena) -> UnsafeMutablePointer<Containerd__Types__Mount> {
        arena.make(Containerd__Types__Mount(), containerd__types__mount__init) { message in
            message.type = arena.text(mount.type)
            message.source = arena.text(mount.source)
            message.target = arena.text(mount.target)
            message.n_options = mount.options.count
            message.options = arena.list(mount.options.map { arena.text($0) })
        }
    }
}
