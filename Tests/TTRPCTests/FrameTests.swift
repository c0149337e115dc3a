import TTRPC
import XCTest

final class FrameTests: XCTestCase {
    private func decodeAll(_ bytes: [UInt8], chunk: Int) -> [FrameDecoder.Event] {
        var decoder = FrameDecoder()
        var events: [FrameDecoder.Event] = []
        var rest = bytes[...]
        while !rest.isEmpty {
            decoder.feed(rest.prefix(chunk))
            rest = rest.dropFirst(chunk)
            while let event = decoder.next() { events.append(event) }
        }
        XCTAssertFalse(decoder.isInsideFrame)
        return events
    }

    func testFramesSurviveEveryWayOfCuttingTheStream() {
        let kinds: [Frame.Kind] = [.request, .response, .data]
        var frames: [Frame] = []
        for index in 0..<20 {
            let data = (0..<Int.random(in: 0...300)).map { _ in UInt8.random(in: 0...255) }
            frames.append(
                Frame(stream: UInt32(index * 2 + 1), kind: kinds[index % 3], flags: Frame.Flags(rawValue: UInt8(index % 8)), data: data))
        }
        let wire = frames.flatMap { $0.encoded() }
        for chunk in [1, 2, 3, 9, 10, 11, 64, 1 << 20] {
            XCTAssertEqual(decodeAll(wire, chunk: chunk), frames.map { FrameDecoder.Event.frame($0) }, "chunks of \(chunk)")
        }
    }

    func testTheHeaderIsBigEndian() {
        let frame = Frame(stream: 0x0102_0304, kind: .data, flags: [.remoteClosed, .noData], data: [0xaa])
        XCTAssertEqual(frame.encoded(), [0, 0, 0, 1, 1, 2, 3, 4, 3, 5, 0xaa])
    }

    func testAFrameOverTheLimitIsSkippedAndTheNextIsRead() {
        let header: [UInt8] = [0, 0x40, 0, 1, 0, 0, 0, 7, 1, 0]
        let next = Frame(stream: 9, kind: .request, data: [1, 2, 3])
        let wire = header + [UInt8](repeating: 0, count: Frame.limit + 1) + next.encoded()
        for chunk in [4096, 1 << 22, wire.count] {
            XCTAssertEqual(decodeAll(wire, chunk: chunk), [.oversize(stream: 7, length: Frame.limit + 1), .frame(next)])
        }
    }

    func testTheLargestFrameIsAccepted() {
        let frame = Frame(stream: 1, kind: .request, data: [UInt8](repeating: 5, count: Frame.limit))
        XCTAssertEqual(decodeAll(frame.encoded(), chunk: 65536), [.frame(frame)])
    }

    func testFramesOfUnknownTypeAreDropped() {
        let known = Frame(stream: 3, kind: .request, data: [1])
        XCTAssertEqual(decodeAll([0, 0, 0, 2, 0, 0, 0, 1, 9, 0, 1, 2] + known.encoded(), chunk: 1000), [.frame(known)])
    }

    func testACutFrameIsNoticed() {
        var decoder = FrameDecoder()
        decoder.feed(Frame(stream: 1, kind: .request, data: [1, 2, 3]).encoded().dropLast())
        XCTAssertNil(decoder.next())
        XCTAssertTrue(decoder.isInsideFrame)
    }
}

final class EnvelopeTests: XCTestCase {
    private let request = RequestEnvelope(
        service: "ctr.v1.Tasks", method: "Wait", payload: [1, 2, 3], timeout: -5, metadata: [("k", "v"), ("k", "w"), ("", "")])
    private let failure = ResponseEnvelope(
        .failure(Status(.notFound, "no such container", details: [AnyMessage(typeURL: "ctr.v1.ErrorInfo", value: [9, 8])])))

    func testEnvelopesComeBackAsTheyWere() {
        XCTAssertEqual(RequestEnvelope(decoding: request.encoded()), request)
        XCTAssertEqual(ResponseEnvelope(decoding: failure.encoded()), failure)
        for payload in [[], [7], [UInt8](repeating: 1, count: 100_000)] as [[UInt8]] {
            XCTAssertEqual(ResponseEnvelope(decoding: ResponseEnvelope(.success(payload)).encoded()), ResponseEnvelope(.success(payload)))
        }
    }

    func testKnownBytes() {
        XCTAssertEqual(
            RequestEnvelope(service: "a", method: "b", payload: [0xff], timeout: 300).encoded(),
            [0x0a, 1, 0x61, 0x12, 1, 0x62, 0x1a, 1, 0xff, 0x20, 0xac, 0x02])
    }

    func testUnknownFieldsAreSkipped() {
        let extra: [UInt8] = [0x78, 1, 0x7d, 1, 2, 3, 4, 0x79, 1, 2, 3, 4, 5, 6, 7, 8, 0x7a, 2, 0, 0]
        XCTAssertEqual(RequestEnvelope(decoding: extra + request.encoded()), request)
    }

    func testMutatedBytesNeverCrashAndTruncationIsSeen() {
        var random = SystemRandomNumberGenerator()
        for original in [request.encoded(), failure.encoded()] {
            for _ in 0..<20_000 {
                var bytes = original
                for _ in 0..<Int.random(in: 1...4, using: &random) {
                    bytes[Int.random(in: 0..<bytes.count, using: &random)] = .random(in: 0...255, using: &random)
                }
                bytes.removeLast(Int.random(in: 0...3, using: &random))
                _ = RequestEnvelope(decoding: bytes)
                _ = ResponseEnvelope(decoding: bytes)
            }
        }
        XCTAssertNil(RequestEnvelope(decoding: [0x0a, 5, 0x61]))
        XCTAssertNil(RequestEnvelope(decoding: [0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]))
        XCTAssertNil(RequestEnvelope(decoding: [0x07]))
    }
}
