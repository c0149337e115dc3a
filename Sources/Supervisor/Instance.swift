/// One container.
actor Instance {
    nonisolated let id: String
    nonisolated let namespace: String
    init(id: String, namespace: String) {
        self.id = id
        self.namespace = namespace
    }
}
