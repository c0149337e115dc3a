import CtrProto
import Images
import Linux
import OCI
import Snapshots
import TTRPC

/// What a container's state means for its root file system and its OCI configuration. Every call may block.
extension Supervisor {
    private func image(of state: ContainerState) throws -> LoadedImage {
        guard let digest = Digest(state.row.imageID) else {
            throw SupervisorError(.internal, "start container", state.name, "malformed image id \(state.row.imageID.shown)", exitCode: 125)
        }
        do { return try catalog.load(digest) } catch {
            throw SupervisorError(
                .failedPrecondition, "start container", state.name, "image \(state.container.image) cannot be used: \(error)", exitCode: 125
            )
        }
    }

    /// Prepares the writable directory; `volatile` for a container that goes when its process does.
    func rootMounts(of state: ContainerState) throws -> [Containerd_Types_Mount] {
        let image = try image(of: state)
        try catalog.snapshots.prepare(namespace: state.namespace, id: state.id, chain: image.chainIDs)
        let mounts = try catalog.snapshots.mounts(
            namespace: state.namespace, id: state.id, chain: image.chainIDs, volatile: state.container.config.autoRemove)
        return mounts.map { mount in
            var message = Containerd_Types_Mount()
            message.type = mount.type
            message.source = mount.source
            message.options = mount.options
            return message
        }
    }

    /// Whether the container's HOME is one that its user or its image chose. Blocking.
    func choosesHome(_ state: ContainerState) -> Bool {
        if state.container.config.env.contains(where: { $0.hasPrefix("HOME=") }) { return true }
        guard let image = try? image(of: state) else { return false }
        return image.configuration.environment.untrusted.contains { $0.hasPrefix("HOME=") }
    }

    func removeSnapshot(namespace: String, id: String) throws { try catalog.snapshots.remove(namespace: namespace, id: id) }

    func writeDescription(of state: ContainerState, in directory: String) throws(SysError) {
        try Description(row: state.row).write(in: directory)
    }

    /// The OCI configuration of the container's next task; `detached` when the runtime takes its root as a descriptor.
    func specification(of state: ContainerState, detached: Bool) throws -> JSON {
        let image = try image(of: state)
        let config = state.container.config
        do {
            let user = try catalog.user(config.user, image: image)
            var request = SpecRequest(
                id: state.id, args: state.container.command,
                env: try SpecRequest.environment(config.env, image: image.configuration),
                cwd: try SpecRequest.workingDirectory(config.cwd, image: image.configuration), user: user,
                cgroupsPath: configuration.cgroupPath(state.namespace, state.id))
            request.hostname = config.hostname
            request.mounts = config.mounts.map { SpecBindMount(source: $0.source, destination: $0.destination, readOnly: $0.readOnly) }
            request.readOnly = config.readOnly
            request.limits = ResourceLimits(config, changed: state.container.limits)
            request.terminal = config.terminal
            request.terminalWidth = config.terminalWidth
            request.terminalHeight = config.terminalHeight
            request.privileged = config.privileged
            if config.privileged {
                request.hostCapabilities = host.capabilities
                request.hostDevices = HostDevices.all()
            }
            request.network = config.network.isEmpty ? "none" : config.network
            request.detachedRootFS = detached
            request.hostLimitsSwap = host.limitsSwap
            return try makeSpec(request)
        } catch {
            throw SupervisorError(.invalidArgument, "start container", state.name, "\(error)", exitCode: 125)
        }
    }
}
