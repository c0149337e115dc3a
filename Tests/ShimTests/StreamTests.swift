import Records
import TTRPC
import Testing

@testable import Shim

@Suite struct StreamPlaceTests {
    @Test func everyNameOfAnOutputMeansOnePlace() throws {
        #expect(try StreamPlace.output("") == .nothing)
        #expect(try StreamPlace.output("log:") == .log(attached: false))
        #expect(try StreamPlace.output("log:attached") == .log(attached: true))
        #expect(try StreamPlace.output("/run/fifo/x") == .fifo("/run/fifo/x"))
        #expect(try StreamPlace.output("fifo:///run/x") == .fifo("/run/x"))
        #expect(try StreamPlace.output("file:///var/log/x") == .file("/var/log/x"))
        #expect(try StreamPlace.output("binary:///bin/logger") == .logger(program: "/bin/logger", arguments: []))
        #expect(
            try StreamPlace.output("binary:///bin/my%20logger?a=b&flag&c=d%26e=f")
                == .logger(program: "/bin/my logger", arguments: ["a", "b", "flag", "c", "d&e=f"]))
    }

    @Test(arguments: ["log", "log:other", "relative", "file://relative", "file:/one", "binary://x", "spool:", "fd://1", "/a\0b"])
    func otherNamesOfAnOutputAreRefused(_ name: String) {
        #expect(throws: Status.self) { try StreamPlace.output(name) }
    }

    @Test func inputs() throws {
        #expect(try StreamPlace.input("") == .nothing)
        #expect(try StreamPlace.input("spool:") == .spool)
        #expect(try StreamPlace.input("/fifo") == .fifo("/fifo"))
        for name in ["log:", "file:///x", "binary:///x", "x", "spool:1"] {
            #expect(throws: Status.self) { try StreamPlace.input(name) }
        }
    }

    @Test func namesOfTheFirstProcessAreInItsRecord() throws {
        var record = PidRecord(process: .init(pid: 5, startTime: 6), bootID: "b", created: 7)
        #expect(try PidRecord(record.record).streams == StreamNames())
        record.streams = StreamNames(terminal: true, stdin: "spool:", stdout: "/a b", stderr: "%\n")
        #expect(try PidRecord(record.record).streams == record.streams)
    }
}

@Suite struct ParkedNameTests {
    @Test(arguments: [
        ParkedName(.rootfs, letters: ""), ParkedName(.process(execID: ""), letters: "Oms"),
        ParkedName(.process(execID: "e-1.x_2"), letters: "oeis"),
    ])
    func whatIsWrittenIsRead(_ name: ParkedName) {
        #expect(ParkedName(name.text, count: name.owner == .rootfs ? 1 : name.letters.utf8.count) == name)
    }

    @Test func whatIsNoneIsNotRead() {
        #expect(ParkedName("rootfs", count: 0) == nil)
        #expect(ParkedName("init os", count: 1) == nil, "fewer descriptors than letters")
        #expect(ParkedName("exec/ o", count: 1) == nil)
        #expect(ParkedName("other o", count: 1) == nil)
        #expect(ParkedName("", count: 0) == nil)
    }

    @Test func theTextOfTheRootIsThatOfTheFirstRelease() { #expect(ParkedName(.rootfs, letters: "").text == "rootfs") }
}

@Suite struct UserMappingTests {
    @Test func numbersOfTheHost() throws {
        let mappings = UserMappings([
            "linux": [
                "uidMappings": [["containerID": 0, "hostID": 100_000, "size": 1000], ["containerID": 1000, "hostID": 5, "size": 1]],
                "gidMappings": [["containerID": 0, "hostID": 200_000, "size": 10]],
            ]
        ])
        #expect(mappings.owner(uid: 7, gid: 9) == PipeOwner(user: 100_007, group: 200_009))
        #expect(mappings.owner(uid: 1000, gid: 10) == PipeOwner(user: 5, group: 10))
        #expect(mappings.owner(uid: nil, gid: nil) == PipeOwner(user: 100_000, group: 200_000))
        #expect(UserMappings().owner(uid: 7, gid: 8) == PipeOwner(user: 7, group: 8))
        #expect(UserMappings.mentioned(in: Array(#"{"linux":{"uidMappings":[]}}"#.utf8)) && !UserMappings.mentioned(in: Array("{}".utf8)))
    }
}

@Suite struct ShimStateTests {
    @Test func aStateSurvives() throws {
        var state = ShimState(version: "0.1.0", upgrades: 3, restarts: 2, lock: 14, mounted: true)
        state.connections = [
            .init(descriptor: 20, serial: 7, lastStream: 99, inbound: [1, 2, 3], outbound: [], skipped: 0),
            .init(descriptor: 12, serial: 8, lastStream: 1, inbound: [], outbound: Array(repeating: 9, count: 5000), skipped: 1 << 21),
        ]
        state.waits = [
            .init(call: Call(connection: 7, stream: 3, deadline: 5_000_000_000), method: "Wait"),
            .init(call: Call(connection: 7, stream: 5), method: "WaitLog", execID: "e", indexSize: 400),
            .init(call: Call(connection: 8, stream: 1), method: "WriteInput", execID: "e", request: [8, 1]),
        ]
        state.reads = [.init(execID: "e", indexSize: 360)]
        #expect(try ShimState.decode(state.encoded()) == state)
        #expect(state.descriptors == [12, 14, 20])
        #expect(try ShimState.decode(ShimState(lock: -1).encoded()).connections.isEmpty)
    }

    @Test func whatIsNoStateIsRefused() {
        for bytes in [[], [0xff], Array("no state".utf8), [0x08, 0x02]] as [[UInt8]] {
            #expect(throws: Status.self) { try ShimState.decode(bytes) }
        }
    }

    @Test func inputThatWaitsSurvives() throws {
        for write in [
            Input.Write(data: [1, 2], offset: 7, close: false), Input.Write(data: [], offset: nil, close: true),
            Input.Write(data: [0], offset: 0, close: true),
        ] {
            let (execID, decoded) = try Messages.writeInput(Messages.writeInputRequest(execID: "e", write))
            #expect(execID == "e" && decoded == write)
        }
    }
}

@Suite struct ExecIDTests {
    @Test func namesThatAreFine() throws {
        for name in ["a", "0123456789abcdef", "A-b_c.d", String(repeating: "x", count: 128)] { try Container.validate(name) }
    }

    @Test(arguments: ["", ".", "..", ".hidden", "a/b", "a b", "ä", "a\0", String(repeating: "x", count: 129)])
    func namesThatAreNot(_ name: String) { #expect(throws: Status.self) { try Container.validate(name) } }
}

@Suite struct ExecRecordTests {
    @Test func whatIsWrittenIsRead() throws {
        var record = ExecRecord(
            execID: "e", terminal: true, stdin: "spool:", stdout: "log:", stderr: "", created: 5, createdBoot: 6, cgroup: "/a/b")
        record.columns = 80
        record.rows = 24
        record.starting = true
        #expect(try ExecRecord(record.record) == record)
        let plain = ExecRecord(execID: "e", terminal: false, stdin: "", stdout: "", stderr: "", created: 5, createdBoot: 6)
        #expect(try ExecRecord(plain.record) == plain)
    }
}
