/// Texts of --help.
enum Usage {
    static let general = """
        ctrun runs containers as the OCI runtime specification describes them; its command line is runc's.

        Usage: ctrun [GLOBAL FLAGS] COMMAND [FLAGS] [ID]

        Commands:
          create   make a container out of a bundle; its process waits for start
          start    let the process of a created container run
          exec     run a further process in a container
          run      create and start; stay until it ends, or --detach
          state    show a container's state as JSON
          list     list the containers of --root
          ps       show the processes of a container
          events   show what a container uses, and when its memory runs out
          update   change the limits of a container
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

    private static let execution = """
        Usage: ctrun exec [FLAGS] ID [--] COMMAND [ARGS]
               ctrun exec [FLAGS] --process FILE ID

          --process, -p FILE      the OCI process object to run, in place of a command
          --detach, -d            return once it runs
          --pid-file FILE         write the process's pid there
          --console-socket SOCK   where the terminal's master goes, with --detach
          --tty, -t               give it a terminal
          --cwd DIR               working directory inside the container
          --env, -e NAME=VALUE    set a variable (again for more)
          --user, -u UID[:GID]    numbers
          --additional-gids, -g GID
          --cap, -c CAP           a further capability
          --no-new-privs          no set-uid program gains anything
          --preserve-fds N        leave descriptors 3 to N+2 open in it
          --cgroup [CTRL:]NAME    run it in that control group below the container's
          --ignore-paused         wait for resume instead of failing
          --apparmor PROFILE

        What is not given is as in the container's config.json. The exit status is the process's, 255 when it could not be run.

        Example:
          ctrun exec web sh -c 'ps; id'

        """

    private static let updating = """
        Usage: ctrun update [FLAGS] ID

          --resources, -r FILE    a "resources" object of the OCI specification, "-" for standard input; other flags then mean nothing
          --memory N              bytes, also as 512m; -1 for no limit
          --memory-swap N         memory and swap together
          --memory-reservation N
          --cpu-shares N          relative weight, 2 to 262144
          --cpu-quota N           microseconds in each --cpu-period N; -1 for no limit
          --cpuset-cpus LIST      such as 0-2,7
          --cpuset-mems LIST
          --pids-limit N          -1 for no limit
          --blkio-weight N        10 to 1000

        All that was asked for is changed, or nothing.

        Example:
          ctrun update --memory 512m --memory-swap 1g web

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
        case "exec": execution
        case "update": updating
        case "ps":
            "Usage: ctrun ps [--format|-f table|json] ID [PS OPTIONS]\n\nPS OPTIONS are -ef by default.\n\nExample:\n  ctrun ps web -o pid,args\n"
        case "events":
            "Usage: ctrun events [--stats] [--interval 5s] ID\n\n  --stats           once, instead of in each interval\n\nExample:\n  ctrun events --stats web\n"
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
