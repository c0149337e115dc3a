import ArgumentParser
import CtrProto
import Glibc
import Linux
import OCI
import SwiftProtobuf

/// What the help of a command ends with.
protocol HasExamples {
    /// Command lines as they are typed.
    static var examples: [String] { get }
}

/// A word of the command line that does something.
protocol Command: ParsableCommand, HasExamples {
    var global: GlobalOptions { get }
    static var statuses: Statuses { get }
    /// Does it and returns the exit status. Throws ``Failure`` or ``ClientError``.
    func perform(_ manager: Manager) throws -> Int32
}

extension Command {
    static var statuses: Statuses { .plain }

    // swift-format-ignore: AllPublicDeclarationsHaveDocumentation
    func run() throws { throw ExitCode(try perform(try global.manager())) }
}

/// The containers or images that a command is about.
struct Targets: ParsableArguments {
    @Argument(help: ArgumentHelp("Ids, the first digits of an id, or names.", valueName: "id"), completion: .containers)
    var ids: [String]
}

/// Calls `method` for each id, prints what `show` makes of each answer, and errors as they come. The status is that of the last
/// error, or 0.
func forEach<Request, Response>(
    _ ids: [String], _ manager: Manager, _ method: Method<Request, Response>, patient: Bool = false, _ statuses: Statuses = .plain,
    request: (String) -> Request, show: @escaping (String, Response) throws(Failure) -> Void
) throws -> Int32 {
    var status: Int32 = 0
    try manager.callEach(method, ids.map(request), patient: patient) { index, result in
        do throws(ClientError) {
            let response = try result.get()
            do throws(Failure) { try show(ids[index], response) } catch {
                Console.error(error.message)
                status = error.code
            }
        } catch {
            let failure = Failure(error, statuses)
            Console.error(failure.message)
            status = failure.code
        }
    }
    return status
}

/// Prints a list of documents as `--output json` does.
func printDocuments(_ documents: [JSON]) throws(Failure) { try Console.write(JSON.array(documents).document) }

extension CompletionKind {
    /// Names of containers, for whoever may ask the manager.
    static var containers: CompletionKind { .shellCommand("ctrctl ps -a 2>/dev/null | awk 'NR > 1 { print $NF }'") }
}
