import CtrProto
import SwiftProtobuf

enum ContainerFixture {
    /// ctr.v1.Container as a row holds it.
    static func record(id: String, name: String, namespace: String = "default") throws -> [UInt8] {
        var container = Ctr_V1_Container()
        container.id = id
        container.name = name
        container.namespace = namespace
        container.imageID = "sha256:1"
        return try container.serializedBytes()
    }
}
