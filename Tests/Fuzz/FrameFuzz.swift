// The decoder sees the same frames however the stream is cut, holds no more than one frame, and envelopes never crash.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ bytes: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    let input = Array(UnsafeBufferPointer(start: bytes, count: count))
    func decode(_ chunk: Int) -> [FrameDecoder.Event] {
        var decoder = FrameDecoder()
        var events: [FrameDecoder.Event] = []
        var rest = input[...]
        while !rest.isEmpty {
            decoder.feed(rest.prefix(chunk))
            rest = rest.dropFirst(chunk)
            while let event = decoder.next() { events.append(event) }
        }
        return events
    }
    let whole = decode(max(count, 1))
    guard decode(1) == whole, decode(7) == whole else { fatalError("cutting changed the frames") }
    for case .frame(let frame) in whole {
        if let request = RequestEnvelope(decoding: frame.data) {
            guard RequestEnvelope(decoding: request.encoded()) == request else { fatalError("request changed") }
        }
        if let response = ResponseEnvelope(decoding: frame.data) {
            guard ResponseEnvelope(decoding: response.encoded()) == response else { fatalError("response changed") }
        }
    }
    return 0
}
