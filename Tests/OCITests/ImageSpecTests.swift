import XCTest

@testable import OCI

final class ImageSpecTests: XCTestCase {
    private static let digest = "sha256:" + String(repeating: "0", count: 64)
    private static let config = #"{"mediaType":"\#(MediaType.configuration)","digest":"\#(digest)","size":2}"#
    private static let layer = #"{"mediaType":"\#(MediaType.layerGzip)","digest":"\#(digest)","size":3}"#

    private func manifest(_ text: String, _ type: String? = MediaType.manifest) throws -> ImageManifest {
        try ImageManifest(parsing: Array(text.utf8), mediaType: type)
    }

    func testManifestKeepsOrderAndWritesTheSameBytesEachTime() throws {
        let read = try manifest(#"{"schemaVersion":2,"config":\#(Self.config),"layers":[\#(Self.layer)]}"#)
        XCTAssertEqual(read.layers.map(\.size), [3])
        let bytes = read.encoded()
        XCTAssertEqual(try ImageManifest(parsing: bytes, mediaType: MediaType.manifest), read)
        XCTAssertEqual(read.encoded(), bytes)
    }

    func testAmbiguousDocumentsAreRefused() {
        let table = [
            #"{"schemaVersion":2,"config":\#(Self.config),"layers":[],"manifests":[]}"#,
            #"{"schemaVersion":2,"config":\#(Self.config),"layers":[],"layers":[]}"#,
            #"{"schemaVersion":2,"mediaType":"\#(MediaType.index)","config":\#(Self.config),"layers":[]}"#,
            #"{"schemaVersion":2,"mediaType":7,"config":\#(Self.config),"layers":[]}"#,
            #"{"schemaVersion":1,"config":\#(Self.config),"layers":[]}"#,
            #"{"schemaVersion":2,"config":\#(Self.config),"fsLayers":[],"layers":[]}"#,
            #"{"schemaVersion":2,"config":\#(Self.layer),"layers":[]}"#,
            #"{"schemaVersion":2,"config":\#(Self.config),"layers":[\#(Self.config)]}"#,
            #"{"schemaVersion":2,"config":{"mediaType":"\#(MediaType.configuration)","digest":"sha256:../../x","size":2},"layers":[]}"#,
            #"{"schemaVersion":2,"config":{"mediaType":"\#(MediaType.configuration)","digest":"\#(Self.digest)","size":-1},"layers":[]}"#,
            #"{"schemaVersion":2,"config":\#(Self.config)}"#, "[]", "", "{}",
            #"{"schemaVersion":2,"config":\#(Self.config),"layers":[]} x"#,
            #"{"config":\#(Self.config),"layers":[\#(Array(repeating: Self.layer, count: 501).joined(separator: ","))]}"#,
        ]
        for text in table { XCTAssertThrowsError(try manifest(text), text) }
        XCTAssertThrowsError(try manifest(#"{"schemaVersion":2,"config":\#(Self.config),"layers":[]}"#, "application/json"))
        for text in [#"{"manifests":[],"layers":[]}"#, #"{"manifests":[],"config":{}}"#, #"{"manifests":{}}"#, #"{}"#] {
            XCTAssertThrowsError(try ImageIndex(parsing: Array(text.utf8), mediaType: nil), text)
        }
    }

    func testConfigurationKeepsWhatTheImageSays() throws {
        let text = """
            {"os":"linux","architecture":"amd64","created":"2026-11-24T08:09:10.5+01:00","rootfs":{"type":"layers","diff_ids":["\(Self.digest)"]},
             "config":{"User":"bob","Env":["A=B"],"Entrypoint":null,"Cmd":["sh"],"WorkingDir":"/x","Labels":{"k":"v"},"ExposedPorts":{"80/tcp":{}},
             "Volumes":{"/v":{}},"StopSignal":"SIGQUIT"},"history":[]}
            """
        let read = try ImageConfiguration(parsing: Array(text.utf8))
        XCTAssertEqual(read.user.untrusted, "bob")
        XCTAssertEqual(read.command.untrusted, ["sh"])
        XCTAssertEqual(read.entrypoint.untrusted, [])
        XCTAssertEqual(read.labels.untrusted, ["k": "v"])
        XCTAssertEqual(read.exposedPorts.untrusted, ["80/tcp"])
        XCTAssertEqual(read.volumes.untrusted, ["/v"])
        XCTAssertEqual(read.createdNanoseconds.untrusted, 1_795_504_150_500_000_000)
        XCTAssertEqual(read.diffIDs.count, 1)
    }

    func testMalformedConfigurationsAreRefused() {
        let rootfs = #""rootfs":{"type":"layers","diff_ids":[]}"#
        for text in [
            "{}", "[]", #"{"rootfs":{"type":"tree","diff_ids":[]}}"#, #"{"rootfs":{"type":"layers","diff_ids":["x"]}}"#,
            #"{\#(rootfs),"config":{"User":0}}"#, #"{\#(rootfs),"config":{"Env":[1]}}"#, #"{\#(rootfs),"config":{"Labels":["a"]}}"#,
            #"{\#(rootfs),"config":{"Labels":{"a":1}}}"#, #"{\#(rootfs),"config":{"Volumes":[]}}"#, #"{\#(rootfs),\#(rootfs)}"#,
        ] { XCTAssertThrowsError(try ImageConfiguration(parsing: Array(text.utf8)), text) }
    }

    func testTimes() {
        XCTAssertEqual(nanoseconds(rfc3339: "1970-01-01T00:00:00Z"), 0)
        XCTAssertEqual(nanoseconds(rfc3339: "2000-02-29T12:00:00.000000001Z"), 951_825_600_000_000_001)
        XCTAssertEqual(nanoseconds(rfc3339: "1969-12-31T23:59:59Z"), -1_000_000_000)
        XCTAssertEqual(nanoseconds(rfc3339: "2026-11-24T00:00:00-02:30"), 1_795_487_400_000_000_000)
        for text in [
            "", "now", "2026-13-01T00:00:00Z", "2026-01-01T24:00:00Z", "2026-01-01T00:00:00", "2026-01-01T00:00:00.Z",
            "9999-01-01T00:00:00Z",
        ] {
            XCTAssertNil(nanoseconds(rfc3339: text), text)
        }
    }

    func testPlatforms() {
        let here = Platform.host
        XCTAssertTrue(here.runs(Platform(os: "linux", architecture: here.architecture)))
        XCTAssertFalse(here.runs(Platform(os: "windows", architecture: here.architecture)))
        XCTAssertFalse(here.runs(Platform(os: "linux", architecture: "s390x")))
        XCTAssertFalse(here.runs(Platform(os: "linux", architecture: here.architecture, variant: "v99")))
    }
}
