import CtrProto
import Glibc
import Images
import Linux
import OCI
import Store
import SwiftProtobuf
import TTRPC

/// Containers by request: made, looked at, deleted.
extension Supervisor {
    // MARK: create

    /// Makes a container and with `start_now` runs it. The same request with the same id joins the first, or has its result.
    public func create(_ original: Ctr_V1_CreateContainerRequest) async throws -> Ctr_V1_CreateContainerResponse {
        var request = original
        if request.namespace.isEmpty { request.namespace = "default" }
        let checks = RequestChecks(request: request)
        try checks.check()
        if !request.id.isEmpty, let instance = registry.instance(request.id) { return try await again(request, instance) }
        try checkLogFile(request)
        try host.check(request.config, container: request.name.isEmpty ? String(request.id.prefix(12)) : request.name)
        let (manifest, _) = try catalog.resolve(namespace: request.namespace, request.image, operation: "create container", exitCode: 125)
        let command = try await command(of: request, manifest, checks)
        let state = newState(request, manifest, command)
        // What is started at once is checked by that; what is only made should not fail much later.
        if !request.startNow {
            _ = try await executor.blocking { [self] in try specification(of: state, detached: state.container.config.runtime.isEmpty) }
        }
        let instance = Instance(state: state, supervisor: self)
        do throws(Registry.Conflict) { try registry.insert(state, instance) } catch {
            switch error {
            case .id(let other): return try await again(request, other)
            case .name(let owner): throw nameInUse(state.name, owner)
            }
        }
        do { try await instance.create() } catch {
            if let error = error as? StoreError { return try await refused(error, request, state) }
            throw SupervisorError.wrapping(error, "create container", state.name, exitCode: 125)
        }
        return response(await instance.state)
    }

    /// Entrypoint and arguments as they are run. The image is read, and the host looked at, only when memory does not know.
    private func command(
        of request: Ctr_V1_CreateContainerRequest, _ manifest: Digest, _ checks: RequestChecks
    ) async throws -> [String] {
        let (catalog, configuration) = (catalog, configuration)
        return try await executor.blocking {
            if checks.concernsHost { try checks.checkHost(configuration) }
            let image: LoadedImage
            do { image = try catalog.load(manifest) } catch {
                throw SupervisorError(
                    .failedPrecondition, "create container", request.image.shown, "image \(request.image.shown) cannot be used: \(error)",
                    exitCode: 125)
            }
            do {
                return try SpecRequest.arguments(
                    entrypoint: request.config.entrypoint, args: request.config.args, image: image.configuration)
            } catch {
                throw SupervisorError(.invalidArgument, "create container", request.image.shown, "\(error)", exitCode: 125)
            }
        }
    }

    private func newState(_ request: Ctr_V1_CreateContainerRequest, _ manifest: Digest, _ command: [String]) -> ContainerState {
        let id = request.id.isEmpty ? Names.makeID() : request.id
        let name = request.name.isEmpty ? Names.invent { registry.isNameFree(namespace: request.namespace, $0) } : request.name
        var container = Ctr_V1_Container()
        container.id = id
        container.namespace = request.namespace
        container.name = name
        container.image = request.image
        container.imageID = manifest.description
        container.config = request.config
        container.command = command
        container.logPath =
            request.config.logSettings?.file(directory: configuration.containerDirectory(request.namespace, id), id: id) ?? ""
        container.createdAt = now(CLOCK_REALTIME).timestamp
        let row = ContainerRow(
            id: id, namespace: request.namespace, name: name, phase: request.startNow ? .creating : .created,
            imageID: manifest.description, record: (try? container.serializedBytes()) ?? [], startNow: request.startNow,
            attached: request.attached, inventedName: request.name.isEmpty)
        let task = request.startNow ? TaskRow(container: id, incarnation: 1, phase: .starting, bootID: host.bootID) : nil
        return ContainerState(row: row, container: container, task: task.map { TaskState(row: $0, proved: true) })
    }

    private func response(_ state: ContainerState) -> Ctr_V1_CreateContainerResponse {
        var response = Ctr_V1_CreateContainerResponse()
        response.container = state.message
        return response
    }

    /// The id is known: the same request has the same result, another one is refused.
    private func again(
        _ request: Ctr_V1_CreateContainerRequest, _ instance: Instance
    ) async throws -> Ctr_V1_CreateContainerResponse {
        let state = await instance.state
        guard isSame(request, state.container, state.row) else {
            throw SupervisorError(
                .alreadyExists, "create container", state.shortID, "container id \(state.shortID) is already in use", exitCode: 125)
        }
        do { try await instance.settled() } catch {
            throw SupervisorError.wrapping(error, "create container", state.name, exitCode: 125)
        }
        return response(await instance.state)
    }

    private func isSame(_ request: Ctr_V1_CreateContainerRequest, _ container: Ctr_V1_Container, _ row: ContainerRow) -> Bool {
        let sameName = request.name.isEmpty ? row.inventedName : request.name == container.name
        return sameName && request.namespace == container.namespace && request.image == container.image
            && request.config == container.config && request.startNow == row.startNow && request.attached == row.attached
    }

    private func nameInUse(_ name: String, _ owner: String) -> SupervisorError {
        SupervisorError(
            .alreadyExists, "create container", name,
            "container name \"\(name)\" is already in use by container \(owner.prefix(12))", exitCode: 125)
    }

    /// The database knows better than memory: the id lived before.
    private func refused(
        _ error: StoreError, _ request: Ctr_V1_CreateContainerRequest, _ state: ContainerState
    ) async throws -> Ctr_V1_CreateContainerResponse {
        switch error {
        case .deleted(let record):
            let container = try Ctr_V1_Container(serializedBytes: record)
            guard request.config == container.config && request.image == container.image && request.namespace == container.namespace else {
                throw SupervisorError(
                    .alreadyExists, "create container", state.shortID, "container id \(state.shortID) was in use before", exitCode: 125)
            }
            if !container.task.error.isEmpty {
                throw SupervisorError.startFailure(
                    container: container.name, SupervisorError(.unknown, "start container", container.name, container.task.error))
            }
            var response = Ctr_V1_CreateContainerResponse()
            response.container = container
            return response
        case .duplicate:
            throw SupervisorError(
                .alreadyExists, "create container", state.name, "container name \"\(state.name)\" or id \(state.shortID) is already in use",
                exitCode: 125)
        default: throw SupervisorError.wrapping(error, "create container", state.name, exitCode: 125)
        }
    }

    // MARK: get, delete

    public func get(_ request: Ctr_V1_GetContainerRequest) async throws -> Ctr_V1_GetContainerResponse {
        let instance = try find(request.namespace, request.container, "inspect container")
        guard let state = registry.state(instance.id) else { throw gone(request.container, "inspect container") }
        var response = Ctr_V1_GetContainerResponse()
        response.container = state.message
        if state.task != nil {
            let path = configuration.bundle(state.namespace, state.id) + "/config.json"
            response.specJson = try await executor.blocking { [self] in
                if let bytes = try? readFile(path, limit: 16 << 20) { return String(decoding: bytes, as: UTF8.self) }
                // The bundle is gone with the task or with the last boot; made again it is the same.
                let spec = try? specification(of: state, detached: state.container.config.runtime.isEmpty)
                return spec.map { String(decoding: $0.encoded(), as: UTF8.self) } ?? ""
            }
        }
        return response
    }

    public func delete(_ request: Ctr_V1_DeleteContainerRequest) async throws -> Ctr_V1_DeleteContainerResponse {
        let instance = try find(request.namespace, request.container, "delete container")
        do { try await instance.delete(force: request.force) } catch {
            throw SupervisorError.wrapping(error, "delete container", request.container.shown)
        }
        await collectImage(of: instance)
        var response = Ctr_V1_DeleteContainerResponse()
        response.id = instance.id
        return response
    }

    /// An image that lost its names while this container used it goes with the last such container.
    private func collectImage(of instance: Instance) async {
        let manifest = await instance.state.row.imageID
        guard !catalog.manifests.contains(manifest), !imagesInUse.contains(manifest) else { return }
        _ = try? await catalog.exclusively { [self] in try await catalog.collect(inUse: imagesInUse) }
    }

    func find(_ namespace: String, _ text: String, _ operation: String) throws(SupervisorError) -> Instance {
        try registry.resolve(namespace: namespace.isEmpty ? "default" : namespace, text, operation: operation)
    }

    func gone(_ text: String, _ operation: String) -> SupervisorError {
        SupervisorError(.notFound, operation, text.shown, "no such container: \(text.shown)")
    }
}
