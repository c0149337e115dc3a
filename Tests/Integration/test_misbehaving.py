"""Processes that misbehave: they may ruin their own container, never what guards it, and never another container."""
import os
import signal
import time
from pathlib import Path

import checks
import events
from events import Pid
from harness import IMAGE
from test_guards import info
from ttrpc_client import one

SHIM_KIB = 440  # at work; given back when it is quiet


def own_kib(pid):
    """Memory that only this process has, and what of it was swapped out; without pages of the program's file."""
    values = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    return sum(int(values[name].split()[0]) for name in ("Private_Dirty", "Swap"))


def segments(world, identifier, stream):
    return b"".join(path.read_bytes() for path in sorted((world.incarnation(identifier) / "log").glob(f"{stream}.*")))


def assert_guarded(world, identifier):
    """The first shim still guards it, answers, and others are served meanwhile."""
    started = time.monotonic()
    assert one(info(world, identifier), 12, 0) == 0, "the shim was replaced"
    assert world.sh("echo served") == "served\n"
    assert time.monotonic() - started < 10


def test_output_without_a_single_newline(world):
    size = 50_000_000
    identifier = world.background(f"head -c {size} /dev/zero | tr '\\0' x; exit 4")
    assert world.wait(identifier) == 4
    checks.reaped(world.task(identifier), 4)
    assert segments(world, identifier, "stdout") == b"x" * size
    world.ctrctl("rm", identifier)


def test_a_flood_neither_grows_the_shim_nor_delays_others(world):
    """As much as the host can write, in writes of a megabyte."""
    count = 1500
    identifier = world.background(f"dd if=/dev/zero bs=1M count={count} 2>/dev/null; exec sleep 600")
    shim, _ = world.guards(identifier)
    index = world.incarnation(identifier) / "log" / "index"

    def written():
        return sum(path.stat().st_size for path in index.parent.glob("stdout.*"))
    most = 0
    for part in (1, 4, 8):
        events.wait_file(index, lambda _: written() >= part * count * 1_000_000 // 10, 60)
        most = max(most, own_kib(shim.pid))
        assert_guarded(world, identifier)
    events.wait_file(index, lambda _: written() == count << 20, 120)
    assert most <= SHIM_KIB, f"{most} KiB while it moved the flood"
    world.ctrctl("rm", "-f", identifier)


def test_standard_streams_closed_and_opened_again(world):
    script = "exec 3>&1 4>&2; i=0; while [ $i -lt 300 ]; do i=$((i+1)); exec 1>&- 2>&-; exec 1>&3 2>&4; echo $i; echo $i >&2; done; " \
             "while [ $i -lt 600 ]; do i=$((i+1)); echo $i > /dev/stdout; echo $i > /dev/stderr; done; exit 6"
    identifier = world.background(script)
    assert world.wait(identifier) == 6
    for stream in ("stdout", "stderr"):
        checks.numbered_lines(segments(world, identifier, stream), last=600)
    world.ctrctl("rm", identifier)


def test_streams_closed_for_good_end_the_log_and_not_the_container(world):
    identifier = world.background("echo last words; exec 1>&- 2>&-; exec sleep 600")
    follower = world.client("logs", "-f", identifier)
    assert follower.wait() == 0 and follower.out.data == b"last words\n"
    assert world.task(identifier)["status"] == "running"
    assert_guarded(world, identifier)
    world.ctrctl("rm", "-f", identifier)


def test_ten_thousand_zombies(world):
    """Their parent never waits for them; the end of the container takes them all."""
    identifier = world.background("i=0; while [ $i -lt 10000 ]; do i=$((i+1)); true & done; echo made; exec sleep 600")
    follower = world.client("logs", "-f", identifier)
    follower.out.until(b"made\n", 120)
    assert_guarded(world, identifier)
    world.ctrctl("kill", identifier)
    assert world.wait(identifier) == 137
    checks.reaped(world.task(identifier), 137)
    world.ctrctl("rm", identifier)


def test_daemons_that_fork_twice_go_with_their_container(world):
    script = "i=0; while [ $i -lt 50 ]; do i=$((i+1)); (setsid sh -c 'trap \"\" TERM HUP INT; sleep 1000' >/dev/null 2>&1 &) ; done; echo made; exec sleep 600"
    identifier = world.background(script)
    world.client("logs", "-f", identifier).out.until(b"made\n", 60)
    assert_guarded(world, identifier)
    world.ctrctl("stop", "-t", "0", identifier)
    assert world.wait(identifier) == 137
    world.ctrctl("rm", identifier)


def test_a_fork_bomb_within_its_limit(world):
    identifier = world.background("(f() { f | f & }; while :; do f; done) & exec sleep 600", "--pids-limit", "100")
    shim, _ = world.guards(identifier)
    events.wait_file(world.incarnation(identifier) / "log" / "index", lambda path: path.stat().st_size > 0, 60)
    assert_guarded(world, identifier)
    world.ctrctl("kill", "-s", "KILL", identifier)
    assert world.wait(identifier) == 137
    assert shim.alive() and own_kib(shim.pid) <= SHIM_KIB
    world.ctrctl("rm", identifier)


def test_a_stranger_that_keeps_the_pipe_open_after_the_end(world):
    """The streams are drained for two seconds, then they end, whoever still holds them."""
    identifier = world.background("echo before; exec sleep 600")
    held = os.open(f"/proc/{world.task(identifier)['pid']}/fd/1", os.O_WRONLY)
    try:
        world.ctrctl("kill", identifier)
        assert world.wait(identifier) == 137
        follower = world.client("logs", "-f", identifier)
        assert follower.wait(20) == 0 and follower.out.data == b"before\n"
    finally:
        os.close(held)
    world.ctrctl("rm", identifier)


def test_a_stopped_shim_holds_up_its_own_container_only_until_the_deadline(world):
    other, identifier = world.background("exec sleep 600"), world.background("trap 'exit 3' TERM; while :; do usleep 10000; done")
    shim, _ = world.guards(identifier)
    shim.kill(signal.SIGSTOP)
    try:
        started = time.monotonic()
        world.ctrctl("pause", other)
        world.ctrctl("unpause", other)
        world.ctrctl("stop", "-t", "1", other)
        world.sh("true")
        assert time.monotonic() - started < 20, "others waited for the stopped shim"
        world.ctrctl("rm", "-f", identifier, timeout=60)
    finally:
        shim.kill(signal.SIGCONT)
    assert identifier not in world.containers()
    world.ctrctl("rm", other)


def test_a_container_that_uses_up_its_descriptors(world):
    script = "i=3; while [ $i -lt 900 ]; do eval \"exec $i>&1\" || break; i=$((i+1)); done; echo $i; exit 8"
    result = world.ctrctl("run", "--rm", IMAGE, "/bin/sh", "-c", script, code=8)
    assert int(result.out) > 3
    assert Pid(world.process.pid).alive()
