import CtrProto
import Images
import OCI
import Store
import TTRPC

/// Images by request.
extension Supervisor {
    public func importImages(_ request: Ctr_V1_ImportImagesRequest) async throws -> Ctr_V1_ImportImagesResponse {
        let namespace = request.namespace.isEmpty ? "default" : request.namespace
        guard Names.isNamespace(namespace) else {
            throw SupervisorError(.invalidArgument, "import images", namespace.shown, "invalid namespace \"\(namespace.shown)\"")
        }
        guard request.path.hasPrefix("/"), !request.path.utf8.contains(0) else {
            throw SupervisorError(.invalidArgument, "import images", request.path.shown, "path \"\(request.path.shown)\" is not absolute")
        }
        var response = Ctr_V1_ImportImagesResponse()
        do { response.images = try await catalog.importImages(namespace: namespace, path: request.path, name: request.name) } catch {
            throw Self.imageError(error, "import images", request.path)
        }
        return response
    }

    public func image(_ request: Ctr_V1_GetImageRequest) async throws -> Ctr_V1_GetImageResponse {
        let namespace = request.namespace.isEmpty ? "default" : request.namespace
        let (manifest, _) = try catalog.resolve(namespace: namespace, request.image, operation: "inspect image")
        var response = Ctr_V1_GetImageResponse()
        do {
            response.image = try await executor.blocking { [catalog] in
                catalog.message(namespace: namespace, try catalog.load(manifest))
            }
        } catch { throw Self.imageError(error, "inspect image", request.image) }
        return response
    }

    public func listImages(_ request: Ctr_V1_ListImagesRequest) async throws -> Ctr_V1_ListImagesResponse {
        var response = Ctr_V1_ListImagesResponse()
        response.images = try await catalog.list(namespace: request.namespace.isEmpty ? "default" : request.namespace)
        return response
    }

    /// Takes one name away, or by id all; an image without names and containers goes, with every blob and layer that only it needed.
    public func deleteImage(_ request: Ctr_V1_DeleteImageRequest) async throws -> Ctr_V1_DeleteImageResponse {
        let namespace = request.namespace.isEmpty ? "default" : request.namespace
        return try await catalog.exclusively { [self] in
            let (manifest, name) = try catalog.resolve(namespace: namespace, request.image, operation: "delete image")
            let id = manifest.description
            let names = catalog.rows(namespace: namespace).filter { $0.manifest == id }
            let doomed = name.map { name in names.filter { $0.name == name } } ?? names
            func refuse(_ message: String) -> SupervisorError {
                SupervisorError(.failedPrecondition, "delete image", request.image.shown, message)
            }
            if name == nil && names.count > 1 && !request.force {
                throw refuse("image \(request.image.shown) has \(names.count) names: delete them by name or use --force")
            }
            // The image itself stays with its other names; the last one takes it along.
            if doomed.count == names.count {
                for state in registry.list(namespace: namespace) where state.row.imageID == id {
                    let ended = state.task?.row.phase.hasEnded ?? true
                    if !ended { throw refuse("image \(request.image.shown) is in use by running container \(state.name)") }
                    if !request.force {
                        throw refuse("image \(request.image.shown) is in use by container \(state.name): delete it first or use --force")
                    }
                }
            }
            var response = Ctr_V1_DeleteImageResponse()
            do {
                try await catalog.untag(doomed)
                response.untagged = doomed.map(\.name).filter { Digest($0) == nil }.sorted()
                if !catalog.manifests.contains(id) && !imagesInUse.contains(id) {
                    response.deleted = try await catalog.collect(inUse: imagesInUse)
                }
            } catch { throw Self.imageError(error, "delete image", request.image) }
            return response
        }
    }

    private static func imageError(_ error: any Error, _ operation: String, _ object: String) -> SupervisorError {
        switch error {
        case let error as ImageError:
            let code: StatusCode
            switch error.kind {
            case .invalid: code = .invalidArgument
            case .notFound: code = .notFound
            case .system(let number): code = number == 28 ? .resourceExhausted : .internal
            }
            return SupervisorError(code, operation, object.shown, "\(error)")
        case let error as Reference.SyntaxError:
            return SupervisorError(.invalidArgument, operation, object.shown, "\(error)")
        default: return SupervisorError.wrapping(error, operation, object.shown)
        }
    }
}
