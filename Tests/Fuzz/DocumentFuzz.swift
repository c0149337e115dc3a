// The documents of others, config.json and image configurations: typed or refused.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ bytes: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    let input = Array(UnsafeBufferPointer(start: bytes, count: count))
    _ = try? RuntimeSpec(parsing: input)
    _ = try? ImageConfiguration(parsing: input)
    if let text = String(validating: input, as: UTF8.self) {
        _ = Digest(text)
        if let reference = try? Reference(parsing: text), let again = try? Reference(parsing: reference.description) {
            guard again.description == reference.description else { fatalError("a reference changes when it is read again") }
        }
    }
    return 0
}
