import CtrProto
import OCI
import SwiftProtobuf

// The shapes that `--output json` prints. Names are those of the API; times are RFC 3339; what is absent is null. Stable.

extension JSON {
    init(_ strings: [String]) { self = .array(strings.map { .string($0) }) }
    init(_ map: [String: String]) { self = .object(map.sorted { $0.key < $1.key }.map { Member($0.key, .string($0.value)) }) }
    init(_ number: UInt32) { self = .integer(Int64(number)) }
    init(_ number: UInt64) { self = .unsigned(number) }

    /// null unless `isPresent`.
    init(_ time: Google_Protobuf_Timestamp, if isPresent: Bool) { self = isPresent ? .string(rfc3339(time)) : .null }

    /// The text of a command with `--output json`: indented, with a newline at the end.
    var document: [UInt8] { encoded(pretty: true) + [0x0a] }
}

extension Ctr_V1_Exit {
    var document: JSON {
        [
            "code": isKnown ? JSON(code) : .null, "source": .string(source), "reason": .string(reason),
            "exited_at": JSON(exitedAt, if: hasExitedAt), "oom_killed": .bool(oomKilled),
        ]
    }
}

extension Ctr_V1_Task {
    var document: JSON {
        [
            "container_id": .string(containerID), "container_name": .string(containerName), "incarnation": JSON(incarnation),
            "status": .string(status.word), "pid": JSON(pid), "start_time": JSON(startTime),
            "started_at": JSON(startedAt, if: hasStartedAt),
            "exit": hasExit ? exit.document : .null, "guards": .string(guards.word), "shim_pid": JSON(shimPid),
            "keeper_pid": JSON(keeperPid), "error": .string(error), "image": .string(image), "shim_version": .string(shimVersion),
            "limits_of_guards": JSON(limitsOfGuards),
        ]
    }
}

extension Ctr_V1_ContainerConfig {
    var document: JSON {
        let mounts = mounts.map { mount -> JSON in
            ["source": .string(mount.source), "destination": .string(mount.destination), "read_only": .bool(mount.readOnly)]
        }
        return [
            "args": JSON(args), "entrypoint": JSON(entrypoint), "env": JSON(env), "cwd": .string(cwd), "user": .string(user),
            "mounts": .array(mounts), "read_only": .bool(readOnly), "memory_bytes": .integer(memoryBytes), "nano_cpus": .integer(nanoCpus),
            "pids_limit": .integer(pidsLimit), "hostname": .string(hostname), "network": .string(network), "runtime": .string(runtime),
            "auto_remove": .bool(autoRemove), "labels": JSON(labels), "stop_signal": .string(stopSignal),
            "terminal": .bool(terminal), "open_stdin": .bool(openStdin), "terminal_width": JSON(terminalWidth),
            "terminal_height": JSON(terminalHeight), "privileged": .bool(privileged), "log_driver": .string(logDriver),
            "log_options": JSON(logOptions),
        ]
    }
}

extension Ctr_V1_Container {
    var document: JSON {
        [
            "id": .string(id), "namespace": .string(namespace), "name": .string(name), "image": .string(image),
            "image_id": .string(imageID), "created_at": JSON(createdAt, if: hasCreatedAt), "command": JSON(command),
            "config": config.document, "task": hasTask ? task.document : .null,
        ]
    }
}

extension Ctr_V1_GetContainerResponse {
    /// The container with `spec`, the OCI runtime configuration of its latest task, null before the first start, and `exec_count`,
    /// null when nobody knows it.
    func document(execs: Int?) -> JSON {
        guard case .object(var members) = container.document else { return .null }
        members.append(JSON.Member("exec_count", execs.map { .integer(Int64($0)) } ?? .null))
        members.append(JSON.Member("spec", specJson.isEmpty ? .null : (try? JSON(parsing: Array(specJson.utf8))) ?? .string(specJson)))
        return .object(members)
    }
}

extension Ctr_V1_ExecConfig {
    var document: JSON {
        [
            "args": JSON(args), "env": JSON(env), "cwd": .string(cwd), "user": .string(user), "privileged": .bool(privileged),
            "terminal": .bool(terminal), "open_stdin": .bool(openStdin), "attached": .bool(attached),
        ]
    }
}

extension Ctr_V1_Exec {
    var document: JSON {
        [
            "id": .string(id), "container_id": .string(containerID), "config": config.document, "status": .string(status.word),
            "pid": JSON(pid), "exit": hasExit ? exit.document : .null, "created_at": JSON(createdAt, if: hasCreatedAt),
        ]
    }
}

extension Ctr_V1_Shim {
    var document: JSON {
        [
            "container_id": .string(containerID), "container_name": .string(containerName), "runtime": .string(runtime),
            "shim_pid": JSON(shimPid), "keeper_pid": JSON(keeperPid), "version": .string(version), "guards": .string(guards.word),
            "restarts": JSON(restarts), "upgrades": JSON(upgrades), "outdated": .bool(outdated), "error": .string(error),
        ]
    }
}

extension Ctr_V1_LogVerification {
    var document: JSON {
        [
            "incarnation": JSON(incarnation), "entries": JSON(entries), "bytes": JSON(bytes), "gaps": JSON(gaps),
            "gap_bytes": JSON(gapBytes), "recovered_bytes": JSON(recoveredBytes), "rotated_bytes": JSON(rotatedBytes),
            "ended": .bool(ended), "problems": JSON(problems),
        ]
    }
}

extension Ctr_V1_Image {
    var document: JSON {
        [
            "id": .string(id), "names": JSON(names), "size": .integer(size), "created_at": JSON(createdAt, if: hasCreatedAt),
            "imported_at": JSON(importedAt, if: hasImportedAt), "os": .string(os), "architecture": .string(architecture),
            "config_digest": .string(configDigest), "layers": JSON(layers), "diff_ids": JSON(diffIds), "entrypoint": JSON(entrypoint),
            "cmd": JSON(cmd), "env": JSON(env), "user": .string(user), "working_dir": .string(workingDir), "labels": JSON(labels),
        ]
    }
}

extension Ctr_V1_VersionResponse {
    var document: JSON {
        [
            "version": .string(version), "api_version": .string(apiVersion), "kernel": .string(kernel),
            "architecture": .string(architecture),
        ]
    }
}

extension Ctr_V1_InfoResponse {
    var document: JSON {
        [
            "version": .string(version), "root": .string(root), "state": .string(state), "address": .string(address), "pid": JSON(pid),
            "containers": JSON(containers), "running": JSON(running), "paused": JSON(paused), "stopped": JSON(stopped),
            "images": JSON(images), "cgroup_version": .string(cgroupVersion), "cgroup_controllers": JSON(cgroupControllers),
            "snapshotter": .string(snapshotter), "runtime": .string(runtime), "shim": .string(shim), "kernel": .string(kernel),
            "warnings": JSON(warnings),
        ]
    }
}
