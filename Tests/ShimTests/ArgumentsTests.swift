import Linux
import Testing

@testable import Shim

@Suite struct ArgumentsTests {
    private func parse(_ words: [String]) throws -> Arguments { try Arguments(words, workingDirectory: "/bundle") }

    @Test func anyOrderOfFlagsIsTheSame() throws {
        let one = try parse([
            "-namespace", "ns", "-address", "/a.sock", "-publish-binary", "/usr/bin/containerd", "-id", "c1", "-debug", "start",
        ])
        let other = try parse(["-id=c1", "-debug", "-address=/a.sock", "-namespace=ns", "start"])
        #expect(one == other)
        #expect(one.action == .start && one.namespace == "ns" && one.id == "c1" && one.bundle == "/bundle")
    }

    @Test func deleteAndRunTakeTheirDirectories() throws {
        #expect(try parse(["-namespace", "ns", "-id", "c1", "-bundle", "/b", "delete"]).bundle == "/b")
        let run = try parse(["-namespace", "ns", "-id", "c1", "-bundle", "/b", "-dir", "/root/containers/ns/c1/1", "run"])
        #expect(run.action == .run && run.directory == "/root/containers/ns/c1/1")
    }

    @Test func theShimIsOfTheReleaseOfAllPrograms() { #expect(Daemon.version == Release.version) }

    @Test func versionAndInfoNeedNothingElse() throws {
        #expect(try parse(["-v"]).action == .version)
        #expect(try parse(["-info"]).action == .info)
    }

    @Test(arguments: [
        [], ["start"], ["-namespace", "ns", "start"], ["-namespace", "ns", "-id", "", "start"], ["-namespace", "ns", "-id"],
        ["-namespace", "ns", "-id", "a/b", "start"], ["-namespace", "..", "-id", "c", "start"], ["-namespace", "ns", "-id", "c", "stop"],
        ["-namespace", "ns", "-id", "c", "-unknown", "start"], ["-namespace", "ns", "-id", "c", "-bundle", "relative", "start"],
        ["-namespace", "ns", "-id", "c", "run"],
    ])
    func wrongCommandLinesAreRefused(_ words: [String]) {
        #expect(throws: ShimError.self) { try parse(words) }
    }
}

@Suite struct RootfsTests {
    @Test func layersAreSplitAtColonsThatAreNotEscaped() {
        #expect(Rootfs.layers("/a:/b") == ["/a", "/b"])
        #expect(Rootfs.layers("/a\\:b:/c\\\\d") == ["/a:b", "/c\\d"])
        #expect(Rootfs.layers("/a") == ["/a"])
    }

    @Test func aPageOfOptionsNamesLayersByNumberAndEscapesTheRest() {
        #expect(
            Rootfs.pageOfOptions(layers: 3, ["upperdir=/a,b\\c", "volatile"]) == "lowerdir=0:1:2,upperdir=/a\\,b\\\\c,volatile")
        #expect(Rootfs.pageOfOptions(layers: 500, ["upperdir=/u", "workdir=/w"]).utf8.count < 4096)
    }
}
