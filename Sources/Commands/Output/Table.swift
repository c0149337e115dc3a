/// Columns as Docker prints them: left-aligned, three spaces between, the last one not padded.
struct Table {
    enum Style: String { case plain = "", good = "32", bad = "31", warning = "33" }

    struct Cell {
        let text: String
        let style: Style
        init(_ text: String, _ style: Style = .plain) {
            self.text = printable(text)
            self.style = style
        }
    }

    private let headings: [String]
    private var rows: [[Cell]] = []

    init(_ headings: String...) { self.headings = headings }
    init(_ headings: [String]) { self.headings = headings.map(printable) }

    mutating func row(_ cells: Cell...) { rows.append(cells) }
    /// At most as many as there are headings count; what is missing is empty.
    mutating func row(_ cells: [Cell]) {
        let missing = max(0, headings.count - cells.count)
        rows.append(cells.prefix(headings.count) + Array(repeating: Cell(""), count: missing))
    }

    /// The finished table with its headings, a line each.
    func rendered(colour: Bool = false) -> String {
        var widths = headings.map(\.unicodeScalars.count)
        for row in rows {
            for (column, cell) in row.enumerated() { widths[column] = max(widths[column], cell.text.unicodeScalars.count) }
        }
        var out = ""
        for row in [headings.map { Cell($0) }] + rows {
            for (column, cell) in row.enumerated() {
                let isStyled = colour && cell.style != .plain
                out += isStyled ? "\u{1b}[\(cell.style.rawValue)m\(cell.text)\u{1b}[0m" : cell.text
                if column + 1 < row.count {
                    out += String(repeating: " ", count: widths[column] - cell.text.unicodeScalars.count + 3)
                }
            }
            out += "\n"
        }
        return out
    }
}
