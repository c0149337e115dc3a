import CShimProto
import Glibc
import TTRPC

/// The memory of one outgoing message and of everything that it points to, given back together once it is packed: the generated structs
/// hold plain pointers and own nothing, and take `char *` although packing only reads.
final class Arena {
    private var blocks: [UnsafeMutableRawPointer] = []

    deinit { for block in blocks { free(block) } }

    /// At least one byte, aligned for anything; running out of memory ends the shim, as everywhere in Swift.
    private func block(_ size: Int) -> UnsafeMutableRawPointer {
        guard let block = malloc(max(size, 1)) else { abort() }
        blocks.append(block)
        return block
    }

    /// A message that another one points to: initialized by its own function, then filled.
    func make<Message>(_ empty: Message, _ initialize: (UnsafeMutablePointer<Message>) -> Void, _ fill: (inout Message) -> Void)
        -> UnsafeMutablePointer<Message>
    {
        let place = keep(empty)
        initialize(place)
        fill(&place.pointee)
        return place
    }

    /// A message that is filled already, at an address of its own.
    func keep<Message>(_ message: Message) -> UnsafeMutablePointer<Message> {
        let place = block(MemoryLayout<Message>.size).bindMemory(to: Message.self, capacity: 1)
        place.initialize(to: message)
        return place
    }

    func text(_ value: String) -> UnsafeMutablePointer<CChar>? {
        let bytes = Array(value.utf8)
        return bytes.withUnsafeBufferPointer { source in
            let place = block(bytes.count + 1).bindMemory(to: CChar.self, capacity: bytes.count + 1)
            if let base = source.baseAddress { memcpy(place, base, bytes.count) }
            place[bytes.count] = 0
            return place
        }
    }

    func data(_ value: [UInt8]) -> ProtobufCBinaryData {
        let place = block(value.count).bindMemory(to: UInt8.self, capacity: max(value.count, 1))
        value.withUnsafeBufferPointer { source in
            if let base = source.baseAddress { memcpy(place, base, value.count) }
        }
        return ProtobufCBinaryData(len: value.count, data: place)
    }

    /// What a repeated field of messages or strings points to.
    func list<Element>(_ pointers: [UnsafeMutablePointer<Element>?]) -> UnsafeMutablePointer<UnsafeMutablePointer<Element>?> {
        let place = block(pointers.count * MemoryLayout<UnsafeMutablePointer<Element>?>.stride)
            .bindMemory(to: UnsafeMutablePointer<Element>?.self, capacity: max(pointers.count, 1))
        for (index, pointer) in pointers.enumerated() { place[index] = pointer }
        return place
    }

    func numbers(_ values: [UInt64]) -> UnsafeMutablePointer<UInt64> {
        let place = block(values.count * 8).bindMemory(to: UInt64.self, capacity: max(values.count, 1))
        for (index, value) in values.enumerated() { place[index] = value }
        return place
    }

    func any(_ typeURL: String, _ value: [UInt8]) -> UnsafeMutablePointer<Google__Protobuf__Any> {
        make(Google__Protobuf__Any(), google__protobuf__any__init) { any in
            any.type_url = text(typeURL)
            any.value = data(value)
        }
    }

    func any(_ message: AnyMessage?) -> UnsafeMutablePointer<Google__Protobuf__Any>? { message.map { self.any($0.typeURL, $0.value) } }

    /// Of nanoseconds since 1970.
    func time(_ nanoseconds: Int64) -> UnsafeMutablePointer<Google__Protobuf__Timestamp> { keep(Messages.timestamp(nanoseconds)) }

    static func packed<Message>(
        _ message: UnsafeMutablePointer<Message>, _ size: (UnsafePointer<Message>?) -> Int,
        _ pack: (UnsafePointer<Message>?, UnsafeMutablePointer<UInt8>?) -> Int
    ) -> [UInt8] {
        let length = size(message)
        return [UInt8](unsafeUninitializedCapacity: length) { buffer, count in
            count = length == 0 ? 0 : pack(message, buffer.baseAddress)
        }
    }
}
