"""This release installed over the previous one, whose manager goes on running: it starts this release's shims, and the next manager is this one's."""
import signal

import pytest

import checks
import events
from harness import IMAGE, one_line_error
from skew import COUNTING, PREVIOUS


@pytest.fixture(params=["its own client", "the newer client"])
def installed(request, old):
    """The programs are of this release, the running manager is of the previous one; the client is of either."""
    old.install("ctrd", "ctr-shim", "ctr-keeper", "ctrun", *(() if request.param == "its own client" else ("ctrctl",)))
    return old


def test_the_running_manager_drives_the_newer_shims(installed):
    world = installed
    result = world.ctrctl("run", "--rm", IMAGE, "/bin/sh", "-c", "echo out; echo err >&2; exit 7", code=7)
    assert (result.out, result.err) == ("out\n", "err\n")
    box = world.background(COUNTING)
    follower = world.client("logs", "-f", box)
    follower.out.until_line(300)
    assert world.task(box)["status"] == "running" and box[:12] in world.ctrctl("ps").out
    world.ctrctl("pause", box)
    assert world.task(box)["status"] == "paused"
    world.ctrctl("unpause", box)
    world.ctrctl("stop", box)
    follower.wait()
    checks.reaped(world.task(box), 3)
    checks.numbered_lines(follower.out.data, prefix=b"line ")
    world.ctrctl("start", box)
    world.ctrctl("kill", box)
    assert world.wait(box) == 137
    world.ctrctl("rm", box)
    assert not world.containers()


def test_what_it_started_is_taken_over_by_the_next_manager(installed):
    world = installed
    box = world.patient()
    ended = world.background("echo done; exit 5")
    assert world.wait(ended) == 5
    before = world.task(box)
    world.install().restart()
    assert world.is_as(box, before)
    checks.reaped(world.task(ended), 5)
    assert world.ctrctl("logs", ended).out == "done\n"
    assert not world.shims()[box]["outdated"] and world.shims()[box]["version"] != "0.1.0"
    result = world.ctrctl("exec", box, "/bin/sh", "-c", "echo in it; exit 4", code=4)
    assert result.out == "in it\n"
    world.ctrctl("update", "--memory", "64m", box)
    assert world.ctrctl("shims", "upgrade", box).out.strip()
    world.ctrctl("stop", box)
    checks.reaped(world.task(box), 3)
    assert world.ctrctl("logs", box).out == "ready\nbye\n"


def test_the_end_of_such_a_container_while_no_manager_runs_is_the_true_one(installed):
    world = installed
    box = world.patient()
    init = events.Pid(world.task(box)["pid"])
    world.kill9()
    init.kill(signal.SIGTERM)
    init.wait()
    world.install().start()
    assert world.wait(box) == 3
    checks.reaped(world.task(box), 3)


def test_the_keeper_of_the_previous_release_starts_the_newer_shim(old):
    """The shim's file was replaced: a shim that dies is followed by one of this release, under either manager."""
    box = old.background(COUNTING)
    follower = old.client("logs", "-f", box)
    follower.out.until_line(50)
    before = old.task(box)
    shim, keeper = old.guards(box)
    old.install()
    shim.kill_and_wait()
    lines = follower.out.data.count(b"\n")
    follower.out.until_line(lines + 300)
    assert old.task(box)["pid"] == before["pid"] and old.guards(box)[1].pid == keeper.pid
    old.restart()
    assert old.task(box)["pid"] == before["pid"] and not old.shims()[box]["outdated"]
    # The guards could, but the previous release's runtime has kept nothing for it.
    for command in (("exec", box, "true"), ("update", "--memory", "64m", box)):
        error = one_line_error(old.ctrctl(*command, code=None))
        assert "older release" in error and "stop and start the container" in error
    old.ctrctl("stop", box)
    follower.wait()
    checks.reaped(old.task(box), 3)
    checks.numbered_lines(follower.out.data, prefix=b"line ")


def test_the_previous_release_refuses_the_newer_database_and_changes_nothing(old):
    old.install().restart()
    box = old.patient()
    before = old.task(box)
    assert old.stop() == 0
    database = (old.root / "ctrd.db").read_bytes()
    said_before = len(old.log_text())
    old.launch(programs=PREVIOUS)
    assert old.process.wait(30) not in (0, None)
    lines = old.log_text()[said_before:].strip().splitlines()
    assert len(lines) == 1 and "schema version" in lines[0] and "run the ctrd that wrote it, or a newer one" in lines[0]
    assert (old.root / "ctrd.db").read_bytes() == database
    old.start()
    assert old.is_as(box, before)
    old.ctrctl("stop", box)
    checks.reaped(old.task(box), 3)
