// A hostile archive is read to its end or refused: no crash, no entry with a name that could leave the tree by its length, bounded work.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ bytes: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    let reader = TarReader(MemorySource(Array(UnsafeBufferPointer(start: bytes, count: count))))
    var entries = 0
    while let entry = try? reader.next() {
        entries += 1
        guard entry.path.count <= 4096, entry.size >= 0 else { fatalError("an entry past the limits") }
        guard entries <= count / 512 else { fatalError("more entries than blocks") }
    }
    return 0
}
