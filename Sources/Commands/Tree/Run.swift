import ArgumentParser
import CtrProto
import Glibc
import Linux

struct Run: Command {
    static let configuration = CommandConfiguration(
        commandName: "run", _superCommandName: "ctrctl", abstract: "Make a container of an image and run a command in it.",
        usage: "ctrctl run [OPTIONS] IMAGE [COMMAND [ARGUMENT ...]]",
        discussion: """
            Everything behind IMAGE belongs to the command. Without -d the output appears here, signals go to the container, and the \
            exit status is the command's: 128 + n when signal n ended it, 127 when the program was not found, 126 when it cannot be \
            run, 125 when the container could not be made or nobody saw how it ended. When ctrd goes away meanwhile, the container \
            goes on; this program waits for ctrd and continues where it was. Three interrupts within two seconds detach it.
            """,
        helpNames: .long)
    static let examples = [
        "ctrctl run --rm busybox echo hello",
        "ctrctl run -d --name web -v /srv/www:/www:ro -m 64m busybox httpd -f -h /www",
        "ctrctl run --rm -e LANG=C -w /tmp --cpus 0.5 --pids-limit 20 busybox sh -c 'env; pwd'",
    ]
    static var statuses: Statuses { .run }

    @Flag(name: .shortAndLong, help: "Do not stay: print the id of the container and return.")
    var detach = false

    @OptionGroup var container: ContainerOptions
    @OptionGroup var global: GlobalOptions

    func perform(_ manager: Manager) throws -> Int32 {
        var request = try container.request(namespace: manager.namespace)
        request.startNow = true
        request.attached = !detach
        if detach { return try create(request, manager, idFile: container.cidfile) }
        let foreground = try Foreground(manager: manager, request: request)
        let idFile = try container.cidfile.map { path throws(Failure) in try IDFile(path: path, id: request.id) }
        do {
            switch try foreground.run() {
            case .exited(let exit): return status(of: exit)
            case .detached:
                Console.error("detached; container \(shortID(request.id)) is left as it is (ctrctl stop ends it)")
                return 128 + SIGINT
            case .outputClosed: return Failure.brokenPipe
            }
        } catch let error as ClientError {
            // The manager refused it: nothing of it is to stay.
            if !foreground.wasCreated { idFile?.remove() }
            if !foreground.wasCreated && container.remove { removeRest(request, manager) }
            throw error
        }
    }

    private func status(of exit: Ctr_V1_Exit) -> Int32 {
        if exit.isKnown { return Int32(min(exit.code, 255)) }
        Console.error("exit status unknown: \(exit.reason.isEmpty ? "ctrd gives no reason" : exit.reason)")
        return Failure.usage
    }

    /// A container whose command could not be started exists; `--rm` asks for it to go. What does not exist needs nothing.
    private func removeRest(_ request: Ctr_V1_CreateContainerRequest, _ manager: Manager) {
        var delete = Ctr_V1_DeleteContainerRequest()
        delete.namespace = manager.namespace
        delete.container = request.id
        delete.force = true
        do throws(ClientError) {
            _ = try manager.call(API.deleteContainer, delete, within: Manager.readLimit)
        } catch {
            if !error.isNotFound { Console.error("cannot delete container \(shortID(request.id)): \(error)") }
        }
    }
}

struct Create: Command {
    static let configuration = CommandConfiguration(
        commandName: "create", _superCommandName: "ctrctl", abstract: "Make a container without starting it.",
        usage: "ctrctl create [OPTIONS] IMAGE [COMMAND [ARGUMENT ...]]",
        discussion: """
            Takes the options of run and prints the id. Start it with "ctrctl start ID".
            """,
        helpNames: .long)
    static let examples = [
        "ctrctl create --name job busybox sh -c 'date; sleep 5'",
        "ctrctl start $(ctrctl create busybox true)",
    ]

    static var statuses: Statuses { .start }

    @OptionGroup var container: ContainerOptions
    @OptionGroup var global: GlobalOptions

    func perform(_ manager: Manager) throws -> Int32 {
        try create(try container.request(namespace: manager.namespace), manager, idFile: container.cidfile)
    }
}

/// Makes the container and prints its id in full.
private func create(_ request: Ctr_V1_CreateContainerRequest, _ manager: Manager, idFile path: String?) throws -> Int32 {
    let connection = try manager.connect()
    let idFile = try path.map { path throws(Failure) in try IDFile(path: path, id: request.id) }
    do throws(ClientError) {
        _ = try connection.call(API.createContainer, request)
    } catch {
        if case .status = error { idFile?.remove() }
        throw error
    }
    try Console.line(request.id)
    return 0
}
