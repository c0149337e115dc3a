/// One value of a document with the path that leads to it, for messages such as "config.json: process.cwd: must be a string".
/// null counts as absent, as encoders of other languages write it.
struct SpecReader {
    let value: JSON
    let path: String

    /// Most elements of any list; more is no container.
    static let listLimit = 16384

    private func child(_ key: String) -> String { path.isEmpty ? key : "\(path).\(key)" }

    func failure(_ key: String, _ reason: String) -> SpecError { SpecError(child(key), reason) }

    private func member(_ key: String) -> JSON? {
        guard let found = value[key], !found.isNull else { return nil }
        return found
    }

    func has(_ key: String) -> Bool { member(key) != nil }

    func object(_ key: String) throws(SpecError) -> SpecReader? {
        guard let found = member(key) else { return nil }
        guard found.members != nil else { throw failure(key, "must be an object") }
        return SpecReader(value: found, path: child(key))
    }

    func objects(_ key: String) throws(SpecError) -> [SpecReader] {
        var readers: [SpecReader] = []
        for (index, element) in try list(key).enumerated() {
            guard element.members != nil else { throw failure("\(key)[\(index)]", "must be an object") }
            readers.append(SpecReader(value: element, path: "\(child(key))[\(index)]"))
        }
        return readers
    }

    private func list(_ key: String) throws(SpecError) -> [JSON] {
        guard let found = member(key) else { return [] }
        guard let elements = found.arrayValue else { throw failure(key, "must be an array") }
        if elements.count > Self.listLimit { throw failure(key, "has more than \(Self.listLimit) elements") }
        return elements
    }

    func string(_ key: String) throws(SpecError) -> String? {
        guard let found = member(key) else { return nil }
        return try text(found, key)
    }

    /// The kernel ends strings at NUL: a string with one would mean something else there than here.
    private func text(_ value: JSON, _ key: String) throws(SpecError) -> String {
        guard let text = value.stringValue else { throw failure(key, "must be a string") }
        if text.utf8.contains(0) { throw failure(key, "contains a NUL byte") }
        return text
    }

    func strings(_ key: String) throws(SpecError) -> [String] {
        var texts: [String] = []
        for element in try list(key) { texts.append(try text(element, key)) }
        return texts
    }

    func pairs(_ key: String) throws(SpecError) -> [RuntimeSpec.KeyValue] {
        guard let reader = try object(key), let members = reader.value.members else { return [] }
        if members.count > Self.listLimit { throw failure(key, "has more than \(Self.listLimit) members") }
        var pairs: [RuntimeSpec.KeyValue] = []
        for member in members {
            if member.key.utf8.contains(0) { throw failure(key, "contains a NUL byte") }
            pairs.append(RuntimeSpec.KeyValue(member.key, try reader.text(member.value, member.key)))
        }
        return pairs
    }

    func bool(_ key: String) throws(SpecError) -> Bool {
        guard let found = member(key) else { return false }
        guard let value = found.boolValue else { throw failure(key, "must be true or false") }
        return value
    }

    func signed(_ key: String) throws(SpecError) -> Int64? {
        guard let found = member(key) else { return nil }
        guard let value = found.integerValue else { throw failure(key, "must be a whole number") }
        return value
    }

    func unsigned(_ key: String) throws(SpecError) -> UInt64? {
        guard let found = member(key) else { return nil }
        guard let value = found.unsignedValue else { throw failure(key, "must be a whole number, not negative") }
        return value
    }

    func number<Value: FixedWidthInteger>(_ key: String, _ range: ClosedRange<Value>) throws(SpecError) -> Value? {
        guard let found = member(key) else { return nil }
        guard let value = found.integerValue.flatMap({ Value(exactly: $0) }), range.contains(value) else {
            throw failure(key, "must be a whole number from \(range.lowerBound) to \(range.upperBound)")
        }
        return value
    }

    func numbers(_ key: String, _ range: ClosedRange<UInt32>) throws(SpecError) -> [UInt32] {
        var numbers: [UInt32] = []
        for element in try list(key) {
            guard let value = element.integerValue.flatMap({ UInt32(exactly: $0) }), range.contains(value) else {
                throw failure(key, "must hold whole numbers from \(range.lowerBound) to \(range.upperBound)")
            }
            numbers.append(value)
        }
        return numbers
    }

    func required<Value>(_ key: String, _ value: Value?) throws(SpecError) -> Value {
        guard let value else { throw failure(key, "is missing") }
        return value
    }
}
