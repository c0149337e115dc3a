import OCI

/// What of config.json is kept with a container, so that a bundle changed later changes nothing: the process, whose settings further
/// processes inherit, and the limits, as `update` left them.
struct SavedConfiguration: Equatable {
    private(set) var process: JSON
    private(set) var resources: JSON

    init(of document: JSON) {
        process = document["process"] ?? .null
        resources = document["linux"]?["resources"] ?? .object([])
    }

    init(parsing bytes: [UInt8]) throws(RuntimeError) {
        guard let document = try? JSON(parsing: bytes), document["process"]?.members != nil else {
            throw RuntimeError("the container's saved config.json is damaged")
        }
        self.init(of: document)
    }

    /// Puts the limits of a "resources" object over the saved ones.
    mutating func change(resources change: JSON) { resources = resources.merged(with: change) }

    func encoded() -> [UInt8] { document.encoded() }

    private var document: JSON {
        .object([
            .init("ociVersion", .string(Runtime.specVersion)), .init("process", process),
            .init("linux", .object([.init("resources", resources)])),
        ])
    }

    /// The first process as it was asked for.
    func firstProcess() throws(RuntimeError) -> RuntimeSpec.Process {
        do throws(SpecError) { return try RuntimeSpec.process(process).process } catch { throw RuntimeError(error) }
    }
}
