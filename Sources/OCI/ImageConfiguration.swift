/// What an image says about the processes that will run in it (image-spec, config.md). All of it is the author's word.
public struct ImageConfiguration: Equatable, Sendable {
    public static let sizeLimit = 8 << 20

    public var platform: FromImage<Platform>
    /// When it was built, nanoseconds since 1970; nil when absent or malformed.
    public var createdNanoseconds: FromImage<Int64?>
    public var user: FromImage<String>
    public var environment: FromImage<[String]>
    public var entrypoint: FromImage<[String]>
    public var command: FromImage<[String]>
    public var workingDirectory: FromImage<String>
    public var stopSignal: FromImage<String>
    public var exposedPorts: FromImage<[String]>
    public var volumes: FromImage<[String]>
    /// For show and for filters; nothing is ever decided by them.
    public var labels: FromImage<[String: String]>
    /// Digests of the uncompressed layers, bottom first.
    public var diffIDs: [Digest]

    public init(parsing bytes: [UInt8]) throws(ImageSpecError) {
        let name = "image configuration"
        let json: JSON
        do { json = try JSON(parsing: bytes) } catch { throw ImageSpecError(name, "\(error)") }
        guard case .object = json else { throw ImageSpecError(name, "it is no object") }

        func strings(_ json: JSON?, _ key: String) throws(ImageSpecError) -> [String] {
            guard let value = json?[key], !value.isNull else { return [] }
            // Very old builders wrote a single string where a list belongs.
            if let single = value.stringValue { return [single] }
            guard let list = value.arrayValue, list.count <= 65536 else { throw ImageSpecError(name, "\"\(key)\" is no list of strings") }
            return try list.map { (element) throws(ImageSpecError) in
                guard let text = element.stringValue else { throw ImageSpecError(name, "\"\(key)\" is no list of strings") }
                return text
            }
        }
        func string(_ json: JSON?, _ key: String) throws(ImageSpecError) -> String {
            guard let value = json?[key], !value.isNull else { return "" }
            guard let text = value.stringValue else { throw ImageSpecError(name, "\"\(key)\" is no string") }
            return text
        }
        func keys(_ json: JSON?, _ key: String) throws(ImageSpecError) -> [String] {
            guard let value = json?[key], !value.isNull else { return [] }
            guard let members = value.members else { throw ImageSpecError(name, "\"\(key)\" is no object") }
            return members.map(\.key)
        }

        let config = json["config"]
        platform = FromImage(
            Platform(os: try string(json, "os"), architecture: try string(json, "architecture"), variant: try string(json, "variant")))
        createdNanoseconds = FromImage(json["created"]?.stringValue.flatMap(nanoseconds(rfc3339:)))
        user = FromImage(try string(config, "User"))
        environment = FromImage(try strings(config, "Env"))
        entrypoint = FromImage(try strings(config, "Entrypoint"))
        command = FromImage(try strings(config, "Cmd"))
        workingDirectory = FromImage(try string(config, "WorkingDir"))
        stopSignal = FromImage(try string(config, "StopSignal"))
        exposedPorts = FromImage(try keys(config, "ExposedPorts"))
        volumes = FromImage(try keys(config, "Volumes"))
        labels = FromImage(try stringMap(config?["Labels"], in: name))

        guard let rootfs = json["rootfs"], rootfs["type"]?.stringValue == "layers" else {
            throw ImageSpecError(name, "its rootfs is not of the type \"layers\"")
        }
        diffIDs = try strings(rootfs, "diff_ids").map { (text) throws(ImageSpecError) in
            guard let digest = Digest(text) else { throw ImageSpecError(name, "a diff id is no sha256 digest") }
            return digest
        }
        if diffIDs.count > ImageManifest.layerLimit { throw ImageSpecError(name, "it has more than \(ImageManifest.layerLimit) layers") }
    }
}

/// `2026-11-24T08:09:10.123456789Z` or with an offset such as `+01:00` (RFC 3339), as nanoseconds since 1970; nil when it is malformed.
func nanoseconds(rfc3339 text: String) -> Int64? {
    let bytes = Array(text.utf8)
    guard (20...40).contains(bytes.count) else { return nil }
    func number(_ range: Range<Int>) -> Int64? {
        guard range.upperBound <= bytes.count else { return nil }
        var value: Int64 = 0
        for byte in bytes[range] {
            guard byte >= UInt8(ascii: "0"), byte <= UInt8(ascii: "9") else { return nil }
            value = value * 10 + Int64(byte - UInt8(ascii: "0"))
        }
        return value
    }
    func isAt(_ index: Int, _ scalar: Unicode.Scalar) -> Bool { index < bytes.count && bytes[index] == UInt8(ascii: scalar) }

    guard let year = number(0..<4), isAt(4, "-"), let month = number(5..<7), isAt(7, "-"), let day = number(8..<10),
        isAt(10, "T") || isAt(10, "t") || isAt(10, " "), let hour = number(11..<13), isAt(13, ":"), let minute = number(14..<16),
        isAt(16, ":"), let second = number(17..<19), (1...12).contains(month), (1...31).contains(day), hour < 24, minute < 60, second <= 60
    else { return nil }
    var index = 19
    var fraction: Int64 = 0
    if isAt(index, ".") {
        index += 1
        let begin = index
        var scale: Int64 = 100_000_000
        while index < bytes.count, bytes[index] >= UInt8(ascii: "0"), bytes[index] <= UInt8(ascii: "9") {
            fraction += Int64(bytes[index] - UInt8(ascii: "0")) * scale
            scale /= 10
            index += 1
        }
        if index == begin { return nil }
    }
    var offset: Int64 = 0
    if isAt(index, "Z") || isAt(index, "z") {
        index += 1
    } else {
        guard isAt(index, "+") || isAt(index, "-"), let hours = number(index + 1..<index + 3), isAt(index + 3, ":"),
            let minutes = number(index + 4..<index + 6), hours < 24, minutes < 60
        else { return nil }
        offset = (hours * 60 + minutes) * 60 * (isAt(index, "+") ? 1 : -1)
        index += 6
    }
    guard index == bytes.count else { return nil }

    // Days since 1970 of a proleptic Gregorian date, counted in years that begin in March.
    let shifted = month <= 2 ? year - 1 : year
    let era = shifted / 400
    let yearOfEra = shifted - era * 400
    let dayOfYear = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1
    let days = era * 146_097 + yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear - 719_468
    let seconds = days * 86400 + hour * 3600 + minute * 60 + second - offset
    let (scaled, overflow) = seconds.multipliedReportingOverflow(by: 1_000_000_000)
    return overflow ? nil : scaled + fraction
}
