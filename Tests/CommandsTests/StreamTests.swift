import CtrProto
import Glibc
import XCTest

@testable import Commands

/// What comes from and goes to a process.
final class StreamTests: XCTestCase {
    /// A pipe of which both ends are closed at the end of the test.
    private func pipe() -> (read: Int32, write: Int32) {
        var ends: [Int32] = [0, 0]
        XCTAssertEqual(Glibc.pipe(&ends), 0)
        return (ends[0], ends[1])
    }

    private func put(_ text: String, _ descriptor: Int32) {
        let bytes = Array(text.utf8)
        XCTAssertEqual(write(descriptor, bytes, bytes.count), bytes.count)
    }

    private func text(_ descriptor: Int32) -> String {
        var room = [UInt8](repeating: 0, count: 4096)
        let got = read(descriptor, &room, room.count)
        return String(decoding: room.prefix(max(0, got)), as: UTF8.self)
    }

    private func answer(_ offset: UInt64, closed: Bool = false) -> Ctr_V1_WriteInputResponse {
        var response = Ctr_V1_WriteInputResponse()
        response.offset = offset
        response.closed = closed
        return response
    }

    // MARK: input

    func testInputIsReadOnlyWhenTheLastWasTaken() throws {
        let (out, into) = pipe()
        defer { close(out) }
        var pump = InputPump(descriptor: out, .whole, closesAtEnd: true, keys: nil)
        XCTAssertEqual(pump.pollDescriptor, out)
        XCTAssertNil(pump.request())
        put("one", into)
        XCTAssertEqual(pump.read(), .some)
        XCTAssertEqual(pump.pollDescriptor, -1)
        let first = try XCTUnwrap(pump.request())
        XCTAssertEqual(first.data, Data(Array("one".utf8)))
        XCTAssertEqual(first.offset, 0)
        XCTAssertFalse(first.append || first.close)
        XCTAssertNil(pump.request())
        // Two of the three were taken.
        pump.accept(answer(2))
        XCTAssertEqual(pump.pollDescriptor, -1)
        let rest = try XCTUnwrap(pump.request())
        XCTAssertEqual(rest.data, Data(Array("e".utf8)))
        XCTAssertEqual(rest.offset, 2)
        pump.accept(answer(3))
        XCTAssertEqual(pump.pollDescriptor, out)
        close(into)
        XCTAssertEqual(pump.read(), .some)
        let last = try XCTUnwrap(pump.request())
        XCTAssertTrue(last.close && last.data.isEmpty && last.offset == 3)
        pump.accept(answer(3, closed: true))
        XCTAssertTrue(pump.isOver)
        XCTAssertNil(pump.request())
    }

    func testWhatHadNoAnswerIsSentAgainAtItsOffset() throws {
        let (out, into) = pipe()
        defer { close(out); close(into) }
        var pump = InputPump(descriptor: out, .whole, closesAtEnd: true, keys: nil)
        put("abc", into)
        _ = pump.read()
        let first = try XCTUnwrap(pump.request())
        pump.lost()
        XCTAssertEqual(pump.request(), first)
        pump.accept(answer(3))
        XCTAssertEqual(pump.pollDescriptor, out)
    }

    func testSharedInputFindsOutWhatWasTaken() throws {
        let (out, into) = pipe()
        defer { close(out); close(into) }
        var pump = InputPump(descriptor: out, .shared, closesAtEnd: false, keys: nil)
        let question = try XCTUnwrap(pump.request())
        XCTAssertTrue(question.append && question.data.isEmpty && !question.close)
        pump.accept(answer(100))
        put("abcde", into)
        _ = pump.read()
        XCTAssertTrue(try XCTUnwrap(pump.request()).append)
        pump.lost()
        // The end has moved by two: that much had arrived.
        XCTAssertTrue(try XCTUnwrap(pump.request()).data.isEmpty)
        pump.accept(answer(102))
        XCTAssertEqual(try XCTUnwrap(pump.request()).data, Data(Array("cde".utf8)))
        // Somebody else wrote as well.
        pump.accept(answer(200))
        XCTAssertEqual(pump.pollDescriptor, out)
    }

    func testTheEndOfASharedInputLeavesItOpen() throws {
        let (out, into) = pipe()
        defer { close(out) }
        var pump = InputPump(descriptor: out, .shared, closesAtEnd: false, keys: nil)
        _ = pump.request()
        pump.accept(answer(0))
        close(into)
        _ = pump.read()
        XCTAssertNil(pump.request())
        XCTAssertTrue(pump.isOver)
    }

    func testATerminalIsReadOnForTheDetachKeys() throws {
        let (out, into) = pipe()
        defer { close(out) }
        var pump = InputPump(descriptor: out, .whole, closesAtEnd: true, keys: .standard)
        put("x", into)
        XCTAssertEqual(pump.read(), .some)
        _ = pump.request()
        XCTAssertEqual(pump.pollDescriptor, out)
        put("y\u{10}", into)
        XCTAssertEqual(pump.read(), .some)
        put("\u{11}", into)
        XCTAssertEqual(pump.read(), .detach)
        close(into)
        XCTAssertEqual(pump.read(), .hungUp)
    }

    func testAnInputThatIsNotTakenIsGivenUp() throws {
        let (out, into) = pipe()
        defer { close(out); close(into) }
        var pump = InputPump(descriptor: out, .whole, closesAtEnd: true, keys: nil)
        put("x", into)
        _ = pump.read()
        _ = pump.request()
        pump.accept(answer(0))
        XCTAssertTrue(pump.isOver)
    }

    // MARK: output

    private func message(
        _ data: String, _ stream: Ctr_V1_LogStream = .stdout, segment: UInt32 = 1, offset: UInt64 = 0, seconds: Int64 = 0
    ) -> Ctr_V1_ReadLogsResponse {
        var message = Ctr_V1_ReadLogsResponse()
        message.stream = stream
        message.segment = segment
        message.offset = offset
        message.data = Data(Array(data.utf8))
        message.incarnation = 1
        message.time.seconds = seconds
        return message
    }

    func testReadingGoesOnBehindWhatWasWritten() throws {
        let (out, into) = pipe()
        defer { close(out); close(into) }
        var sink = LogSink(stdout: into, stderr: into)
        sink.accept(message("hello"))
        XCTAssertEqual(try sink.write(), .drained)
        // Received and not written: asked for again.
        sink.accept(message(" world", offset: 5))
        let request = sink.request(namespace: "n", container: "c", follow: true)
        XCTAssertEqual(request.incarnation, 1)
        XCTAssertEqual(request.from.map(\.offset), [5])
        XCTAssertTrue(sink.isDrained)
        // A message that begins before the place adds only what is behind it.
        sink.accept(message("lo world", offset: 3))
        XCTAssertEqual(try sink.write(), .drained)
        XCTAssertEqual(text(out), "hello world")
        XCTAssertEqual(sink.position.description, "1/stdout:1:11")
    }

    func testATailIsAskedForOnce() throws {
        var selection = LogSelection()
        selection.tail = 0
        var sink = LogSink(selection)
        let first = sink.request(namespace: "", container: "c", follow: true)
        XCTAssertTrue(first.hasTailLines && first.tailLines == 0)
        // Where the reading begins, without data.
        sink.accept(message("", offset: 4096))
        sink.accept(message("", .stderr, segment: 2, offset: 7))
        let second = sink.request(namespace: "", container: "c", follow: true)
        XCTAssertFalse(second.hasTailLines)
        XCTAssertEqual(second.from.map(\.offset), [4096, 7])
        XCTAssertEqual(sink.position.description, "1/stdout:1:4096,stderr:2:7")
    }

    func testAGapIsToldOnce() {
        var sink = LogSink()
        var gap = message("", offset: 9)
        gap.gap = true
        gap.gapBytes = 12
        sink.accept(gap)
        XCTAssertEqual(sink.takeNotice(), "12 bytes of standard output missing here")
        XCTAssertNil(sink.takeNotice())
        sink.accept(gap)
        XCTAssertNil(sink.takeNotice())
        gap.gapBytes = 0
        gap.stream = .stderr
        sink.accept(gap)
        XCTAssertEqual(sink.takeNotice(), "bytes of standard error may be missing here")
    }

    func testLinesBehindTheirTimes() throws {
        let (out, into) = pipe()
        defer { close(out); close(into) }
        var selection = LogSelection()
        selection.timestamps = true
        var sink = LogSink(selection, stdout: into, stderr: into)
        for each in [message("a\nb"), message("c\nd\n", offset: 3, seconds: 1), message("e\n", .stderr, seconds: 2)] {
            sink.accept(each)
            XCTAssertEqual(try sink.write(blocking: true), .drained)
        }
        XCTAssertEqual(
            text(out),
            "1970-01-01T00:00:00.000000000Z a\n1970-01-01T00:00:00.000000000Z bc\n1970-01-01T00:00:01.000000000Z d\n"
                + "1970-01-01T00:00:02.000000000Z e\n")
        // Times are not part of the output.
        XCTAssertEqual(sink.position.description, "1/stdout:1:7,stderr:1:2")
    }
}
