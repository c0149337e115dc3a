"""Every command of ctrctl that concerns a container, on one whose shim is another's: it works, or says in one line why not."""
import json

import pytest

import checks
import events
from harness import IMAGE, one_line_error
from terminal import Terminal

RUNC = ("--runtime", "io.containerd.runc.v2")
PATIENT = "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 1000 & wait $!; done"
COUNTING = "trap 'exit 3' TERM; i=0; while :; do i=$((i+1)); echo $i; usleep 1000; done"


@pytest.fixture(scope="module")
def box(world):
    identifier = world.background(PATIENT, "--name", "box", "-m", "64m", *RUNC)
    yield identifier
    world.ctrctl("rm", "-f", "box")


@pytest.fixture
def counting(world):
    identifier = world.background(COUNTING, "--name", "counting", *RUNC)
    yield identifier
    world.ctrctl("rm", "-f", "counting")


def execs(world):
    return {exec["id"]: exec for exec in world.ctrctl("execs", "list", "--output", "json", "box").json()}


def test_exec_in_front_with_its_status_and_input(world, box):
    result = world.ctrctl("exec", "box", "sh", "-c", "echo out; echo err >&2; exit 7", code=7)
    assert (result.out, result.err) == ("out\n", "err\n")
    data = b"".join(b"%d\n" % number for number in range(1, 100001))
    assert world.ctrctl("exec", "-i", "box", "cat", stdin=data).raw == data
    assert world.ctrctl("exec", "-e", "A=b", "-w", "/tmp", "box", "sh", "-c", "echo $A; pwd").out == "b\n/tmp\n"
    assert "executable file not found" in one_line_error(world.ctrctl("exec", "box", "nosuch", code=127))


def test_exec_with_a_terminal(world, box):
    terminal = Terminal(world, "exec", "-it", "box", "sh", "-c", "stty size; read x; exit $x", rows=33, columns=99)
    terminal.until(rb"33 99\r\n")
    terminal.type(b"9\r")
    assert terminal.wait() == 9


def test_execs_in_the_background_are_listed_attached_killed_and_removed(world, box):
    identifier = world.ctrctl("exec", "-d", "box", "sh", "-c", "trap 'exit 4' TERM; while :; do echo tick; usleep 1000; done").out.strip()
    assert execs(world)[identifier]["status"] == "running"
    attached = world.client("attach", "--exec", identifier[:12], "box")
    attached.out.until(b"tick\n")
    assert "running" in one_line_error(world.ctrctl("execs", "delete", "box", identifier, code=1))
    world.ctrctl("execs", "kill", "-s", "TERM", "box", identifier)
    assert attached.wait() == 4
    deadline = events.Deadline(20)
    while execs(world)[identifier]["status"] != "stopped":
        deadline.left("the end of the exec in the list")
    world.ctrctl("execs", "delete", "box", identifier)
    assert identifier not in execs(world)


def test_attach_follows_and_ends_with_the_container(world, counting):
    attached = world.client("attach", "counting")
    attached.out.until_line(50)
    follower = world.client("logs", "-f", "--tail", "5", "counting")
    follower.out.until_line(50)
    world.ctrctl("kill", "-s", "TERM", "counting")
    assert attached.wait() == 3 and follower.wait() == 0
    for client in (attached, follower):
        checks.numbered_lines(client.out.data, first=int(client.out.data.split(b"\n")[0]))
    assert world.ctrctl("logs", "--verify", "counting").code == 0


def test_stats_top_inspect_and_update(world, box):
    stats, = [json.loads(line) for line in world.ctrctl("stats", "--no-stream", "--output", "json", "box").out.splitlines()]
    assert stats["container_id"] == box and stats["pids"] >= 1 and stats["memory_usage_bytes"] > 0 and stats["memory_limit_bytes"] == 64 << 20
    assert str(world.task(box)["pid"]) in world.ctrctl("top", "box").out
    world.ctrctl("update", "-m", "96m", "--pids-limit", "60", "box")
    stats, = [json.loads(line) for line in world.ctrctl("stats", "--no-stream", "--output", "json", "box").out.splitlines()]
    assert stats["memory_limit_bytes"] == 96 << 20 and stats["pids_limit"] == 60
    inspected = world.ctrctl("inspect", "box").json()[0]
    assert inspected["id"] == box and inspected["config"]["runtime"] == RUNC[1] and inspected["task"]["guards"] == "shim_only"


def test_pause_wait_stop_start_and_rm(world, counting):
    world.ctrctl("pause", "counting")
    assert world.task(counting)["status"] == "paused" and "paused" in one_line_error(world.ctrctl("exec", "counting", "true", code=None))
    world.ctrctl("unpause", "counting")
    waiting = world.client("wait", "counting")
    world.ctrctl("stop", "counting")
    assert waiting.wait() == 0 and waiting.out.data.strip() == b"3"
    world.ctrctl("start", "counting")
    assert "stop it first or use --force" in one_line_error(world.ctrctl("rm", "counting", code=1))
    world.ctrctl("kill", "counting")
    assert world.wait("counting") == 137
    assert world.ctrctl("exec", "counting", "true", code=None).code != 0


def test_its_shim_is_listed_and_is_not_ours_to_upgrade(world, box):
    listed = {shim["container_id"]: shim for shim in world.ctrctl("shims", "list", "--output", "json").json()}
    assert listed[box]["runtime"] == RUNC[1] and not listed[box]["outdated"]
    assert "containerd-shim-runc-v2" in one_line_error(world.ctrctl("shims", "upgrade", "box", code=1))


def test_the_size_of_its_log_is_bounded_as_was_asked(world):
    """max-size and max-file reach the logger of a shim of others."""
    box = world.run("-d", *RUNC, "--log-opt", "max-size=100k", "--log-opt", "max-file=3", IMAGE, "/bin/sh", "-c", "seq 300000")
    assert world.wait(box) == 0
    lines = world.ctrctl("logs", "-f", box).raw
    segments = [path.stat().st_size for path in (world.incarnation(box) / "log").glob("stdout.*")]
    assert len(segments) <= 3 and max(segments) <= 100000 + 65536 * 4
    assert lines.endswith(b"300000\n") and len(lines) == sum(segments)
    world.ctrctl("rm", box)
