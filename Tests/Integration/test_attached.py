"""Output under the log driver none, which is kept for those alone who are attached; and starts in the foreground of containers that are removed after it."""
import os
import secrets
import threading

import pytest

import checks
import events
from harness import IMAGE, one_line_error
from ttrpc_client import Client, encode, one

NONE = ("--log-driver", "none")
FOREIGN = ("--runtime", "io.containerd.runc.v2")
RUNTIMES = pytest.mark.parametrize("runtime", [(), FOREIGN], ids=["own shim", "shim of others"])
COUNTING = "trap 'exit 3' TERM; i=0; while :; do i=$((i+1)); echo $i; usleep 1000; done"
# What the shim keeps at most without a reader: 1 MiB (of others: two segments of 1 MiB), and what is being written.
KEPT = 4 << 20


def kept(world, identifier):
    return sum(path.stat().st_size for path in (world.incarnation(identifier) / "log").glob("std*"))


@RUNTIMES
def test_run_in_front_shows_both_streams_and_the_status(world, runtime):
    result = world.ctrctl("run", "--rm", *NONE, *runtime, IMAGE, "/bin/sh", "-c", "echo out; echo err >&2; exit 7", code=7)
    assert (result.out, result.err) == ("out\n", "err\n")


@RUNTIMES
def test_every_line_of_a_loud_run_is_shown_once(world, runtime):
    """More than is held for a reader: the container waits for it from its first byte on."""
    total = 3000000
    result = world.ctrctl("run", "--rm", *NONE, *runtime, IMAGE, "/bin/sh", "-c", f"seq {total}")
    checks.numbered_lines(result.raw, last=total)


def create(world, script, *config, start):
    """A container that an attached client makes, by the wire alone."""
    identifier = secrets.token_hex(32)
    config = encode((1, "/bin/sh"), (1, "-c"), (1, script), *config)
    with Client(world.address) as client:
        client.call("ctr.v1.Containers", "Create", (1, "default"), (2, identifier), (4, IMAGE), (5, config), (6, start), (7, start))
    return identifier


def pieces(client, identifier):
    for message in client.stream("ctr.v1.Logs", "Read", (1, "default"), (2, identifier), (4, True), (11, True)):
        yield one(message, 4)


@pytest.mark.parametrize("runtime", ["", FOREIGN[1]], ids=["own shim", "shim of others"])
def test_a_client_that_promised_to_read_is_waited_for_from_the_first_byte_on(world, runtime):
    box = create(world, "seq 3000000", (19, "none"), *([(12, runtime)] if runtime else []), start=True)
    # More than is kept where nobody is waited for.
    events.wait_file(world.incarnation(box) / "log" / "index", lambda path: kept(world, box) > KEPT)
    with Client(world.address) as client:
        checks.numbered_lines(b"".join(pieces(client, box)), last=3000000)
    world.ctrctl("rm", box)


def test_what_one_has_read_is_kept_for_another_that_is_slow(world):
    box = create(world, "seq 3000000", (19, "none"), start=True)
    slow = bytearray()
    fast = bytearray()
    far = threading.Event()

    def read_fast():
        with Client(world.address) as client:
            for piece in pieces(client, box):
                fast.extend(piece)
                if len(fast) > 3 << 20:
                    far.set()

    with Client(world.address) as client:
        reading = pieces(client, box)
        while not slow:
            slow += next(reading)
        thread = threading.Thread(target=read_fast)
        thread.start()
        assert far.wait(20)
        for piece in reading:
            slow += piece
        thread.join(30)
    checks.numbered_lines(bytes(slow), last=3000000)
    assert slow.endswith(fast[fast.index(b"\n"):]), "who comes later may have missed the beginning"
    world.ctrctl("rm", box)


def test_a_container_that_is_removed_after_its_run_waits_for_the_client_that_started_it(world):
    box = create(world, "echo out; exit 3", (13, True), start=False)
    with Client(world.address) as client:
        client.call("ctr.v1.Tasks", "Start", (1, "default"), (2, box), (3, True))
        client.call("ctr.v1.Tasks", "Wait", (1, "default"), (2, box))
        # Somebody else's container comes and goes meanwhile.
        world.sh("true")
    with Client(world.address) as client:
        assert b"".join(pieces(client, box)) == b"out\n"
    world.ctrctl("rm", box)


@RUNTIMES
def test_nobody_is_waited_for_and_little_is_kept(world, runtime):
    place = world.directory / f"gate{len(runtime)}"
    place.mkdir()
    box = world.run("-d", *NONE, *runtime, "-v", f"{place}:/gate", IMAGE, "/bin/sh", "-c", "seq 3000000; echo > /gate/done; exec sleep 1000")
    events.wait_file(place / "done", timeout=30)
    assert kept(world, box) <= KEPT
    for options in ((), ("-f",), ("--tail", "1")):
        error = one_line_error(world.ctrctl("logs", *options, box, code=1))
        assert "the log driver none, which does not support reading" in error
    world.ctrctl("rm", "-f", box)


@RUNTIMES
def test_all_who_are_attached_see_the_same_without_a_hole(world, runtime):
    box = world.run("-d", *NONE, *runtime, IMAGE, "/bin/sh", "-c", COUNTING)
    first, second = world.client("attach", box), world.client("attach", box)
    for client in (first, second):
        client.out.until_line(100)
    first.close()
    lines = second.out.data.count(b"\n")
    second.out.until_line(lines + 300)
    world.ctrctl("stop", box)
    assert second.wait() == 3
    for client in (first, second):
        begin = int(client.out.data.split(b"\n")[0])
        checks.numbered_lines(client.out.data[:client.out.data.rindex(b"\n") + 1], first=begin)
    world.ctrctl("rm", box)


def test_a_run_in_front_goes_on_under_the_next_manager_and_the_next_shim(alone):
    client = alone.client("run", "--name", "box", *NONE, IMAGE, "/bin/sh", "-c", COUNTING)
    client.out.until_line(50)
    box, = alone.containers()
    for _ in range(3):
        alone.restart()
        lines = client.out.data.count(b"\n")
        client.out.until_line(lines + 50)
        alone.guards(box)[0].kill_and_wait()
        client.out.until_line(lines + 100)
    alone.ctrctl("stop", "box")
    assert client.wait() == 3
    checks.numbered_lines(client.out.data)


def test_a_new_shim_without_a_manager_waits_for_nobody(alone):
    place = alone.directory / "gate"
    place.mkdir()
    os.mkfifo(place / "go")
    box = alone.run("-d", *NONE, "-v", f"{place}:/gate", IMAGE, "/bin/sh", "-c", "read x < /gate/go; seq 3000000; echo > /gate/done; exec sleep 1000")
    shim, _ = alone.guards(box)
    alone.kill9()
    shim.kill_and_wait()
    (place / "go").write_text("go\n")
    events.wait_file(place / "done", timeout=30)
    alone.start()
    assert kept(alone, box) <= KEPT and alone.task(box)["status"] == "running"
    alone.ctrctl("rm", "-f", box)


@pytest.mark.parametrize("options", [(), NONE, FOREIGN], ids=["segments", "none", "shim of others"])
def test_start_in_front_of_a_short_run_shows_all_and_removes_it(world, options):
    for number in range(50 if options != FOREIGN else 10):
        made = world.ctrctl("create", "--rm", *options, IMAGE, "/bin/sh", "-c", f"echo out {number}; echo err {number} >&2; exit {number % 7}").out.strip()
        result = world.ctrctl("start", "-a", made, code=number % 7)
        assert (result.out, result.err) == (f"out {number}\n", f"err {number}\n")
        assert made not in world.containers()


def test_a_short_run_that_a_new_manager_finds_ended_is_shown_to_its_client(alone):
    """The client that started it has not read yet when the manager is killed."""
    place = alone.directory / "gate"
    place.mkdir()
    os.mkfifo(place / "go")
    made = alone.ctrctl("create", "--rm", "-v", f"{place}:/gate", IMAGE, "/bin/sh", "-c", "echo up; read x < /gate/go; echo down; exit 6").out.strip()
    client = alone.client("start", "-a", made)
    client.out.until(b"up\n")
    init = events.Pid(alone.task(made)["pid"])
    alone.kill9()
    (place / "go").write_text("go\n")
    init.wait()
    alone.start()
    assert client.wait() == 6 and client.out.data == b"up\ndown\n"
    assert made not in alone.containers()
