// What is written is read back as the same document; nothing crashes, and nothing runs away.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ bytes: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    let input = Array(UnsafeBufferPointer(start: bytes, count: count))
    guard let document = try? JSON(parsing: input) else { return 0 }
    for pretty in [false, true] {
        let written = document.encoded(pretty: pretty)
        guard let again = try? JSON(parsing: written), again == document else { fatalError("not the same document: \(document)") }
    }
    return 0
}
