import CtrProto
import OCI
import SwiftProtobuf
import XCTest

@testable import Commands

final class OutputTests: XCTestCase {
    private func time(_ seconds: Int64, _ nanos: Int32 = 0) -> Google_Protobuf_Timestamp {
        var time = Google_Protobuf_Timestamp()
        time.seconds = seconds
        time.nanos = nanos
        return time
    }

    private func container(_ change: (inout Ctr_V1_Task) -> Void) -> Ctr_V1_Container {
        var container = Ctr_V1_Container()
        container.id = String(repeating: "ab", count: 32)
        container.name = "web"
        container.image = "docker.io/library/busybox:latest"
        container.command = ["sh", "-c", "while :; do date; sleep 1; done"]
        container.createdAt = time(900)
        container.task.status = .running
        container.task.guards = .both
        container.task.startedAt = time(940)
        change(&container.task)
        return container
    }

    func testDurationsInDockersWords() {
        let table: [(Int64, String)] = [
            (0, "Less than a second"), (1, "1 second"), (5, "5 seconds"), (59, "59 seconds"), (60, "About a minute"),
            (119, "About a minute"), (120, "2 minutes"), (3599, "59 minutes"), (3600, "About an hour"), (5399, "About an hour"),
            (5400, "2 hours"), (47 * 3600, "47 hours"), (48 * 3600, "2 days"), (13 * 86400, "13 days"), (14 * 86400, "2 weeks"),
            (59 * 86400, "8 weeks"), (60 * 86400, "2 months"), (729 * 86400, "24 months"), (730 * 86400, "2 years"),
        ]
        for (seconds, text) in table { XCTAssertEqual(humanDuration(seconds: seconds), text, "\(seconds)") }
        XCTAssertEqual(seconds(since: time(10), now: 5_000_000_000), 0)
    }

    func testStatuses() {
        let now: Int64 = 1_000_000_000_000
        let table: [(String, Ctr_V1_Container)] = [
            ("Up About a minute", container { _ in }),
            ("Up 5 seconds", container { $0.startedAt = time(995) }),
            (
                "Up 3 hours (Paused)",
                container {
                    $0.status = .paused; $0.startedAt = time(1000 - 3 * 3600)
                }
            ),
            (
                "Up 5 minutes (unguarded)",
                container {
                    $0.guards = .lost; $0.startedAt = time(700)
                }
            ),
            (
                "Up 5 minutes (unresponsive)",
                container {
                    $0.guards = .unresponsive; $0.startedAt = time(700)
                }
            ),
            (
                "Exited (137) 2 minutes ago",
                container {
                    $0.status = .stopped; $0.exit.code = 137; $0.exit.source = "reaped"; $0.exit.exitedAt = time(880)
                }
            ),
            (
                "Exited (unknown) 2 minutes ago",
                container {
                    $0.status = .unknown; $0.exit.source = "unknown"; $0.exit.exitedAt = time(880)
                }
            ),
            (
                "Exited (unknown)",
                container {
                    $0.status = .unknown; $0.exit.source = "unknown"
                }
            ),
            ("Unknown", container { $0.status = .unknown }),
            ("Created", container { $0.status = .created }),
            ("Created", Ctr_V1_Container()),
        ]
        for (text, container) in table { XCTAssertEqual(container.statusText(now: now), text) }
    }

    func testWhatMayRunIsListed() {
        XCTAssertTrue(container { _ in }.mayBeRunning)
        XCTAssertTrue(container { $0.status = .paused }.mayBeRunning)
        XCTAssertTrue(container { $0.status = .unknown }.mayBeRunning)
        XCTAssertFalse(
            container {
                $0.status = .unknown; $0.exit.source = "unknown"
            }.mayBeRunning)
        XCTAssertFalse(container { $0.status = .stopped }.mayBeRunning)
        XCTAssertFalse(Ctr_V1_Container().mayBeRunning)
    }

    func testTableOfContainers() {
        let text = containerTable([container { _ in }], full: false, now: 1_000_000_000_000).rendered()
        XCTAssertEqual(
            text,
            """
            CONTAINER ID   IMAGE            COMMAND                  CREATED              STATUS              NAMES
            abababababab   busybox:latest   "sh -c while :; do d…"   About a minute ago   Up About a minute   web

            """)
        let colour = containerTable([container { _ in }], full: false, now: 1_000_000_000_000).rendered(colour: true)
        XCTAssertTrue(colour.contains("\u{1b}[32mUp About a minute\u{1b}[0m   web"))
    }

    func testTableOfTasks() {
        var task = container { _ in }.task
        task.containerID = String(repeating: "cd", count: 32)
        task.containerName = "web"
        task.pid = 42
        var ended = task
        ended.status = .stopped
        ended.pid = 0
        ended.exit.code = 3
        ended.exit.source = "reaped"
        ended.guards = .none
        XCTAssertEqual(
            taskTable([task, ended], full: false, now: 1_000_000_000_000).rendered(),
            """
            CONTAINER      NAME   STATUS    PID   STARTED              EXIT   SOURCE   GUARDS
            cdcdcdcdcdcd   web    running   42    About a minute ago   -      -        both
            cdcdcdcdcdcd   web    stopped   -     About a minute ago   3      reaped   none

            """)
    }

    func testTableOfImagesHasALineForEachName() {
        var image = Ctr_V1_Image()
        image.id = "sha256:" + String(repeating: "0f", count: 32)
        image.names = ["docker.io/library/busybox:latest", "registry:5000/a/b:v1", "localhost/x@sha256:00"]
        image.size = 4_261_000
        image.createdAt = time(1000 - 86400 * 3)
        let text = imageTable([image], full: false, digests: false, now: 1_000_000_000_000).rendered()
        XCTAssertEqual(
            text,
            """
            REPOSITORY          TAG      IMAGE ID       CREATED      SIZE
            busybox             latest   0f0f0f0f0f0f   3 days ago   4.26MB
            registry:5000/a/b   v1       0f0f0f0f0f0f   3 days ago   4.26MB
            localhost/x         <none>   0f0f0f0f0f0f   3 days ago   4.26MB

            """)
    }

    func testHostileTextCannotSteerTheTerminal() {
        var evil = container { _ in }
        evil.name = "a\u{1b}[2J\nb"
        evil.command = ["x\u{9b}31m"]
        let text = containerTable([evil], full: false, now: 0).rendered()
        XCTAssertFalse(text.unicodeScalars.contains { $0.value == 0x1b || $0.value == 0x9b })
        XCTAssertEqual(text.split(separator: "\n").count, 2)
        XCTAssertEqual(printable("a\tb\u{7f}é"), "a\\tb\\x7fé")
    }

    func testTimes() {
        XCTAssertEqual(rfc3339(time(0)), "1970-01-01T00:00:00Z")
        XCTAssertEqual(rfc3339(time(951_782_400)), "2000-02-29T00:00:00Z")
        XCTAssertEqual(rfc3339(time(1_795_509_003, 120_000_000)), "2026-11-24T08:30:03.12Z")
        XCTAssertEqual(rfc3339(time(-1, 1)), "1969-12-31T23:59:59.000000001Z")
        XCTAssertEqual(rfc3339(time(4_102_444_799)), "2099-12-31T23:59:59Z")
        XCTAssertEqual(rfc3339(time(-62_135_596_800)), "0001-01-01T00:00:00Z")
    }

    func testSizes() {
        let table: [(Int64, String)] = [
            (0, "0B"), (999, "999B"), (1000, "1kB"), (4_261_000, "4.26MB"), (10_000_000, "10MB"), (77_840_000, "77.8MB"),
            (999_600_000, "1000MB"), (1_230_000_000, "1.23GB"), (9_996_000, "10MB"),
        ]
        for (bytes, text) in table { XCTAssertEqual(humanSize(bytes), text, "\(bytes)") }
    }

    func testShapeOfAContainerInJSON() throws {
        let json = container {
            $0.status = .stopped; $0.exit.code = 137; $0.exit.source = "reaped"; $0.exit.exitedAt = time(990, 5); $0.guards = .shimOnly
        }
        .document
        XCTAssertEqual(
            json.members?.map(\.key), ["id", "namespace", "name", "image", "image_id", "created_at", "command", "config", "task"])
        let task = try XCTUnwrap(json["task"])
        XCTAssertEqual(task["status"], "stopped")
        XCTAssertEqual(task["guards"], "shim_only")
        XCTAssertEqual(task["started_at"], "1970-01-01T00:15:40Z")
        XCTAssertEqual(
            task["exit"],
            ["code": 137, "source": "reaped", "reason": "", "exited_at": "1970-01-01T00:16:30.000000005Z", "oom_killed": false])
        XCTAssertEqual(Ctr_V1_Container().document["task"], .null)
        XCTAssertEqual(Ctr_V1_Container().document["created_at"], .null)
    }

    func testAnUnknownStatusIsNoNumberInJSON() {
        var exit = Ctr_V1_Exit()
        exit.source = "unknown"
        exit.reason = "host rebooted"
        XCTAssertEqual(exit.document["code"], .null)
        XCTAssertEqual(exit.document["reason"], "host rebooted")
        XCTAssertEqual(exit.codeText, "unknown")
    }

    func testInspectHoldsTheConfigurationOfTheRuntime() {
        var response = Ctr_V1_GetContainerResponse()
        XCTAssertEqual(response.document(execs: nil)["spec"], .null)
        response.specJson = "{\"ociVersion\":\"1.2.0\"}"
        XCTAssertEqual(response.document(execs: nil)["spec"]?["ociVersion"], "1.2.0")
    }
}
