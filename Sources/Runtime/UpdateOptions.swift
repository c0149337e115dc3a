import OCI

extension Invocation {
    /// What `update` is asked for: a file ("-" is standard input), or what the flags say, as the "resources" object that says the same.
    struct UpdateOptions: Equatable {
        var file: String?
        private(set) var resources = JSON.object([])

        mutating func take(_ flag: String, _ words: inout Words) throws(RuntimeError) {
            let text = try words.value(flag)
            switch flag {
            case "resources", "r": file = text
            case "memory": set("memory", "limit", .integer(try Self.bytes(flag, text)))
            case "memory-reservation": set("memory", "reservation", .integer(try Self.bytes(flag, text)))
            case "memory-swap": set("memory", "swap", .integer(try Self.bytes(flag, text)))
            case "cpu-shares", "cpu-share": set("cpu", "shares", try Self.number(flag, text, 0...262_144))
            case "cpu-quota": set("cpu", "quota", try Self.number(flag, text, -1...Int64.max))
            case "cpu-period": set("cpu", "period", try Self.number(flag, text, 0...Int64.max))
            case "cpu-burst": set("cpu", "burst", try Self.number(flag, text, 0...Int64.max))
            case "cpu-idle": set("cpu", "idle", try Self.number(flag, text, 0...1))
            case "cpuset-cpus": set("cpu", "cpus", .string(text))
            case "cpuset-mems": set("cpu", "mems", .string(text))
            case "pids-limit": set("pids", "limit", try Self.number(flag, text, -1...Int64.max))
            case "blkio-weight": set("blockIO", "weight", try Self.number(flag, text, 0...1000))
            case "cpu-rt-period", "cpu-rt-runtime", "l3-cache-schema", "mem-bw-schema", "kernel-memory", "kernel-memory-tcp":
                if !text.isEmpty && text != "0" { throw RuntimeError("update: --\(flag) is not supported") }
            default: throw RuntimeError("unknown flag --\(flag) of update; see ctrun --help")
            }
        }

        private mutating func set(_ section: String, _ key: String, _ value: JSON) {
            resources = resources.merged(with: .object([.init(section, .object([.init(key, value)]))]))
        }

        private static func bytes(_ flag: String, _ text: String) throws(RuntimeError) -> Int64 {
            guard let value = Quantity.bytes(text) else {
                throw RuntimeError("update: invalid value for --\(flag): \"\(text.prefix(64))\" is no number of bytes such as 512m")
            }
            return value
        }

        private static func number(_ flag: String, _ text: String, _ range: ClosedRange<Int64>) throws(RuntimeError) -> JSON {
            guard let value = Int64(text), range.contains(value) else {
                throw RuntimeError("update: invalid value for --\(flag): \"\(text.prefix(64))\"")
            }
            return .integer(value)
        }
    }
}

extension JSON {
    /// This document with what `other` says put over it: objects member by member, anything else as a whole. null changes nothing.
    func merged(with other: JSON) -> JSON {
        guard case .object(var members) = self, case .object(let changes) = other else { return other.isNull ? self : other }
        for change in changes {
            if let index = members.firstIndex(where: { $0.key == change.key }) {
                members[index].value = members[index].value.merged(with: change.value)
            } else if !change.value.isNull {
                members.append(change)
            }
        }
        return .object(members)
    }
}
