"""Twenty containers and five deaths of their manager, two of them in the middle of a `run`."""
import checks
import events
import hostcheck
from events import Pid
from harness import IMAGE, World

WRITER = "i=0; while :; do i=$((i+1)); echo line $i; [ $((i % 10)) = 0 ] && usleep 3000; done"
CODES = [0, 1, 2, 3, 17, 42, 99, 126, 200, 255]


def interrupted_run(world, number):
    """A `run` whose manager is killed as soon as its directory appears."""
    shelf = world.root / "containers" / "default"
    with events.Inotify(shelf) as watch:
        client = world.client("run", "-d", "--name", f"interrupted-{number}", IMAGE, "/bin/sh", "-c", "exec sleep 600")
        events.readable([watch.fd], 20)
        world.kill9()
    return client


def test_acceptance():
    world = World()
    try:
        world.start().import_box()
        world.sh("true")
        host = world.snapshot()
        go = world.directory / "go"
        writers = [world.background(WRITER, "--name", f"writer-{n}") for n in range(10)]
        enders = {world.background(f"while [ ! -e /go/now ]; do usleep 5000; done; exit {code}", "-v", f"{go}:/go", "--name", f"ender-{code}"): code
                  for code in CODES}
        noted = {i: (t["pid"], t["start_time"]) for i, t in world.tasks().items()}
        assert len(noted) == 20
        follower = world.client("logs", "-f", writers[0])
        follower.out.until_line(100)

        world.restart()                               # 1
        runs = [interrupted_run(world, 1)]            # 2: in the middle of a run
        (go / "now").touch()                          # ten end while no manager is there
        for identifier in enders:
            try:
                with_pid = Pid(noted[identifier][0])
            except ProcessLookupError:
                continue
            if with_pid.start_time == noted[identifier][1]:
                with_pid.wait()
        world.start()
        world.restart()                               # 3
        runs.append(interrupted_run(world, 2))        # 4: in the middle of another
        world.start()
        world.restart()                               # 5

        for number, client in enumerate(runs, 1):
            client.wait()
            present = [c for c in world.containers().values() if c["name"] == f"interrupted-{number}"]
            if present:
                task = world.task(present[0]["id"])
                assert task["status"] == "running" and events.start_time(task["pid"]) == task["start_time"], (task, client.process.returncode, client)
            else:
                assert client.process.returncode != 0, client
        tasks = world.tasks()
        for identifier in writers:
            task = tasks[identifier]
            assert task["status"] == "running" and (task["pid"], task["start_time"]) == noted[identifier]
            assert events.start_time(task["pid"]) == task["start_time"]
        for identifier, code in enders.items():
            assert world.wait(identifier) == code
            checks.reaped(world.task(identifier), code)

        world.ctrctl("kill", *writers)
        for identifier in writers:
            assert world.wait(identifier) == 137
            checks.reaped(world.task(identifier), 137)
            raw = world.ctrctl("logs", identifier).raw
            assert checks.numbered_lines(raw[:raw.rfind(b"\n") + 1], b"line ") > 100
        follower.wait()
        raw = world.ctrctl("logs", writers[0]).raw
        assert follower.out.data == raw, "the follower across five deaths has what the log has"

        world.ctrctl("rm", "-f", *world.containers())
        assert world.containers() == {}
        after = world.snapshot()
        manager = f"{world.process.pid}@"
        after["process"] = {item for item in after["process"] if not item.startswith(manager)}
        host["process"] = set()
        for kind in host:
            assert after[kind] == host[kind], kind
        assert hostcheck.cgroups(world.scope) == set(), "the engine's own directories are gone too"
    finally:
        world.close()
