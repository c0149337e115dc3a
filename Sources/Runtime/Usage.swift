/// Texts of --help.
enum Usage {
    static let general = """
        ctrun runs containers as the OCI runtime specification describes them; its command line is runc's.

        Usage: ctrun [GLOBAL FLAGS] COMMAND [FLAGS] [ID]

        Commands:
          create   make a container out of a bundle; its process waits for start
          start    let the process of a created container run
          run      create and start; stay until it ends, or --detach
          state    show a container's state as JSON
          list     list the containers of --root
          kill     send a signal to a container's first process, or to --all
          pause    stop all processes of a container
          resume   let them go on
          delete   remove a stopped container, or with --force any
          spec     write a config.json to begin with

        Global flags:
          --root DIR          where states are kept (default /run/ctrun)
          --log FILE          append messages to FILE
          --log-format F      text (default) or json
          --debug             log more
          --version, --help

        Example:
          mkdir -p b/rootfs/bin && cp /bin/busybox b/rootfs/bin/sh && ctrun spec -b b && ctrun run -b b demo

        """

    private static let creation = """
          --bundle, -b DIR        directory of config.json (default .)
          --pid-file FILE         write the first process's pid there
          --console-socket SOCK   where the terminal's master goes, when config.json asks for a terminal
          --preserve-fds N        leave descriptors 3 to N+2 open in the container
          --no-pivot              chroot instead of pivot_root (for a root on ramfs; less isolation)
          --no-new-keyring        keep the session keyring of the caller

        """

    static func of(_ command: String) -> String {
        switch command {
        case "create": "Usage: ctrun create [FLAGS] ID\n\n\(creation)\nExample:\n  ctrun create -b /bundles/web web && ctrun start web\n"
        case "run":
            "Usage: ctrun run [FLAGS] ID\n\n  --detach, -d            return once it runs\n\(creation)\nExample:\n  ctrun run -b /bundles/job job\n"
        case "start": "Usage: ctrun start ID\n\nExample:\n  ctrun start web\n"
        case "state": "Usage: ctrun state ID\n\nExample:\n  ctrun state web\n"
        case "list": "Usage: ctrun list [--quiet|-q] [--format|-f table|json]\n\nExample:\n  ctrun list -q\n"
        case "kill":
            "Usage: ctrun kill [--all|-a] ID [SIGNAL]\n\nSIGNAL is a name or a number, TERM by default.\n\nExample:\n  ctrun kill web KILL\n"
        case "delete": "Usage: ctrun delete [--force|-f] ID\n\nExample:\n  ctrun delete -f web\n"
        case "pause", "resume": "Usage: ctrun \(command) ID\n\nExample:\n  ctrun \(command) web\n"
        case "spec": "Usage: ctrun spec [--bundle|-b DIR]\n\nExample:\n  ctrun spec -b /bundles/new\n"
        default: general
        }
    }
}
