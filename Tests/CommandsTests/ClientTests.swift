import CtrProto
import Glibc
import TTRPC
import XCTest

@testable import Commands

final class ClientTests: XCTestCase {
    private func status(_ exitCode: UInt32?) throws -> ClientError {
        var details: [AnyMessage] = []
        if let exitCode {
            var info = Ctr_V1_ErrorInfo()
            info.exitCode = exitCode
            details.append(AnyMessage(typeURL: "ctr.v1.ErrorInfo", value: try info.serializedBytes()))
        }
        return .status(Status(.invalidArgument, "exec: \"x\": executable file not found in $PATH", details: details))
    }

    func testErrorsBecomeExitStatuses() throws {
        XCTAssertEqual(Failure(try status(127), .run).code, 127)
        XCTAssertEqual(Failure(try status(126), .start).code, 126)
        XCTAssertEqual(Failure(try status(125), .plain).code, 1)
        XCTAssertEqual(Failure(try status(nil), .run).code, 125)
        XCTAssertEqual(Failure(try status(nil), .start).code, 1)
        XCTAssertEqual(Failure(try status(0), .start).code, 1)
        XCTAssertEqual(Failure(try status(4096), .run).code, 125)
        let gone = ClientError.cannotConnect(path: "/run/ctrd/ctrd.sock", code: ENOENT)
        XCTAssertEqual(Failure(gone).message, "cannot connect to ctrd at /run/ctrd/ctrd.sock: No such file or directory (is ctrd running?)")
        XCTAssertEqual(Failure(gone, Run.statuses).code, 125)
        XCTAssertEqual(Failure(gone, Ps.statuses).code, 1)
    }

    func testWhichErrorsAreOutages() {
        XCTAssertTrue(ClientError.lost(path: "").isOutage)
        XCTAssertTrue(ClientError.cannotConnect(path: "", code: ECONNREFUSED).isOutage)
        XCTAssertFalse(ClientError.status(Status(.unavailable, "")).isOutage)
        XCTAssertTrue(Status(.unavailable, "").endsOnlyTheWait)
        XCTAssertFalse(Status(.notFound, "").endsOnlyTheWait)
    }

    func testDirectoriesOnTheWayToASocket() {
        let steps = SocketWatch.steps(to: "/run/ctrd/ctrd.sock")
        XCTAssertEqual(steps.map(\.directory), ["/", "/run", "/run/ctrd"])
        XCTAssertEqual(steps.map(\.name), ["run", "ctrd", "ctrd.sock"])
        XCTAssertEqual(SocketWatch.steps(to: "x/s").map(\.directory), [".", "./x"])
    }

    func testAWatchSeesTheSocketAndItsMissingDirectories() throws {
        let root = "/tmp/ctrctl-watch-\(getpid())"
        XCTAssertEqual(mkdir(root, 0o700), 0)
        defer { for path in ["a/s", "a/other", "a"] { _ = Glibc.remove(root + "/" + path) }; rmdir(root) }
        let first = try XCTUnwrap(SocketWatch(path: root + "/a/s"))
        XCTAssertFalse(first.concernsPath())
        XCTAssertEqual(mkdir(root + "/b", 0o700), 0)
        rmdir(root + "/b")
        XCTAssertFalse(first.concernsPath())
        XCTAssertEqual(mkdir(root + "/a", 0o700), 0)
        XCTAssertTrue(first.concernsPath())
        XCTAssertTrue(first.isSpent)
        let second = try XCTUnwrap(SocketWatch(path: root + "/a/s"))
        close(creat(root + "/a/other", 0o600))
        XCTAssertFalse(second.concernsPath())
        rename(root + "/a/other", root + "/a/s")
        XCTAssertTrue(second.concernsPath())
        XCTAssertFalse(second.isSpent)
    }

    func testDelaysGrowAndEnd() {
        XCTAssertEqual((0...3).map { Reconnector.delay(afterTries: $0) }, [1_000_000, 2_000_000, 4_000_000, 8_000_000])
        XCTAssertEqual(Reconnector.delay(afterTries: 1000), 5_000_000_000)
    }

    func testAnOutageIsToldOnce() {
        var reconnector = Reconnector(path: "/tmp/none")
        XCTAssertTrue(reconnector.broke(wasAnswered: true))
        XCTAssertFalse(reconnector.broke(wasAnswered: false))
        reconnector.answered()
        XCTAssertTrue(reconnector.broke(wasAnswered: true))
    }
}

final class LogSinkTests: XCTestCase {
    private var pipes: [Int32] = [0, 0]
    private var sink = LogSink()

    override func setUp() {
        XCTAssertEqual(pipe(&pipes), 0)
        sink = LogSink(stdout: pipes[1], stderr: pipes[1])
    }

    override func tearDown() { pipes.forEach { close($0) } }

    private func frame(_ data: String, segment: UInt32 = 1, offset: UInt64, stream: Ctr_V1_LogStream = .stdout) -> Ctr_V1_ReadLogsResponse {
        var frame = Ctr_V1_ReadLogsResponse()
        frame.stream = stream
        frame.segment = segment
        frame.offset = offset
        frame.data = .init(data.utf8)
        frame.incarnation = 2
        return frame
    }

    private func drained() -> String {
        var buffer = [UInt8](repeating: 0, count: 1 << 17)
        let got = read(pipes[0], &buffer, buffer.count)
        return String(decoding: buffer[..<max(0, got)], as: UTF8.self)
    }

    func testCursorsStandBehindWhatWasWritten() throws {
        XCTAssertEqual(sink.request(namespace: "n", container: "c", follow: true).from, [])
        sink.accept(frame("hello", offset: 100))
        XCTAssertFalse(sink.isDrained)
        XCTAssertEqual(try sink.write(), .drained)
        sink.accept(frame("err", segment: 3, offset: 0, stream: .stderr))
        XCTAssertEqual(try sink.write(), .drained)
        let request = sink.request(namespace: "n", container: "c", follow: true)
        XCTAssertEqual(request.incarnation, 2)
        XCTAssertEqual(request.from.map(\.offset), [105, 3])
        XCTAssertEqual(request.from.map(\.segment), [1, 3])
        XCTAssertEqual(drained(), "helloerr")
    }

    func testWhatIsReceivedTwiceIsWrittenOnce() throws {
        sink.accept(frame("0123456789", offset: 0))
        XCTAssertEqual(try sink.write(), .drained)
        sink.accept(frame("56789abc", offset: 5))
        XCTAssertEqual(try sink.write(), .drained)
        sink.accept(frame("3456", offset: 3))
        XCTAssertTrue(sink.isDrained)
        sink.accept(frame("new", segment: 2, offset: 0))
        XCTAssertEqual(try sink.write(), .drained)
        sink.accept(frame("old", segment: 1, offset: 13))
        XCTAssertTrue(sink.isDrained)
        XCTAssertEqual(drained(), "0123456789abcnew")
    }

    func testAFullPipeBlocksAndTheCursorWaits() throws {
        let text = String(repeating: "x", count: 100_000)
        sink.accept(frame(text, offset: 0))
        guard case .blocked(let descriptor) = try sink.write() else { return XCTFail("a pipe of 64 KiB took 100 kB") }
        XCTAssertEqual(descriptor, pipes[1])
        let first = drained()
        // The rest is asked for again: what was only received is forgotten.
        let request = sink.request(namespace: "n", container: "c", follow: true)
        XCTAssertEqual(request.from.map(\.offset), [UInt64(first.utf8.count)])
        XCTAssertTrue(sink.isDrained)
        sink.accept(frame(String(text.dropFirst(first.utf8.count)), offset: UInt64(first.utf8.count)))
        XCTAssertEqual(try sink.write(), .drained)
        XCTAssertEqual(first.utf8.count + drained().utf8.count, text.utf8.count)
    }

    func testTheEndCountsOnceEverythingIsWritten() throws {
        var last = frame("bye", offset: 0)
        last.ended = true
        sink.accept(last)
        XCTAssertFalse(sink.isFinished)
        XCTAssertEqual(try sink.write(), .drained)
        XCTAssertTrue(sink.isFinished)
    }
}
