"""Terminals and standard input of the first process and of execs, through the shim alone."""
import os
import random
import shutil
import tempfile
import threading
from pathlib import Path

import pytest

from exec_client import Exec, descriptors, processes, restarted, with_terminals
from shim_client import (GUARD, PRECONDITION, TASK2, Container, Failure, become_subreaper, eventually, field, first, log_bytes, stat)
from test_shim_exec import CTRUN, RUNC, code, kill_and_wait, reaper, sh  # noqa: F401

BIN = Path(__file__).parents[2] / "bin"
OUT_OF_RANGE = 11
PLACES = ["init", "exec"]
RUNTIMES = [pytest.param((CTRUN, "detached"), id="ctrun"), pytest.param((RUNC, "mounted"), id="runc")]


@pytest.fixture
def make():
    base = tempfile.mkdtemp(prefix="ctr-streams-")
    made = []

    def container(*args, runtime=CTRUN, mode="detached", **options):
        made.append(Container(base, str(BIN), list(args) or ["/bin/sleep", "600"], runtime, mode, **options))
        return made[-1]

    container.base = base
    yield container
    for each in made:
        each.clean_up()
    shutil.rmtree(base)


class First(Exec):
    """The first process of a container, with the calls of an exec."""

    def __init__(self, container, client, **streams):
        super().__init__(container, client, "", **streams)
        self.directory, self.log, self.stdin = container.directory, container.log, streams["stdin"]

    @property
    def target(self):
        return self.container.target

    def create(self):
        streams = field(4, self.spec["terminal"]) + field(5, self.stdin)
        return first(self.client.call("Create", self.container.create_message() + streams), 1)

    @property
    def pid(self):
        return int(self.container.info(self.client)["task_pid"])


def process(make, place, script, runtime=(CTRUN, "detached"), terminal=False, stdin="spool:"):
    """A running process whose input we write: the container's first, or an exec of one that sleeps."""
    if place == "init":
        c = with_terminals(make("/bin/sh", "-c", script, runtime=runtime[0], mode=runtime[1]), terminal)
        os.mkfifo(f"{make.base}/layer/tmp/go")
        client = c.start_guards().client()
        e = First(c, client, terminal=terminal, stdin=stdin, stdout="", stderr="")
        e.create()
        c.start(client)
        return c, e
    c = with_terminals(make(runtime=runtime[0], mode=runtime[1]))
    os.mkfifo(f"{make.base}/layer/tmp/go")
    client, _ = c.run()
    return c, sh(c, client, "e", script, stdin=stdin, terminal=terminal).run()


def restart(c, e):
    shim = c.shim
    kill_and_wait(shim)
    e.client = restarted(c, shim)


def data_of(size, seed=1):
    return random.Random(seed).randbytes(size)


# --- standard input ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_input_reaches_the_process_and_ends(make, place, runtime):
    c, e = process(make, place, "cat; echo end", runtime)
    assert e.write(b"one\n") == (4, 0)
    assert e.write(b"one\ntwo\n", offset=0) == (8, 0), "what is held is passed over"
    assert e.write(b"wo\nthree\n", offset=5) == (14, 0)
    assert e.write(b"four\n", append=True) == (19, 0)
    e.until(b"four\n")
    assert code(lambda: e.write(b"x", offset=20)) == OUT_OF_RANGE
    assert e.write(b"", append=True, close=True) == (19, 1)
    assert e.wait() == 0
    assert e.output() == b"one\ntwo\nthree\nfour\nend\n"
    assert code(lambda: e.write(b"late", append=True)) == PRECONDITION


@pytest.mark.parametrize("place", PLACES)
def test_close_io_is_an_end_of_file(make, place):
    c, e = process(make, place, "cat; echo end")
    e.write(b"x\n")
    e.close_io()
    e.close_io()
    assert e.wait() == 0 and e.output() == b"x\nend\n"


def test_input_before_the_start(make):
    c = make()
    client, _ = c.run()
    e = sh(c, client, "e", "cat", stdin="spool:").add()
    assert e.write(b"early\n", close=True) == (6, 1)
    assert code(lambda: e.write(b"more", offset=6)) == PRECONDITION
    assert e.write(b"early\n", close=True) == (6, 1), "the same once more"
    e.start()
    assert e.wait() == 0 and e.output() == b"early\n"
    other = sh(c, client, "o", "cat").run()
    assert code(lambda: other.write(b"x")) == PRECONDITION, "no input was asked for"
    assert other.wait() == 0


@pytest.mark.parametrize("place", PLACES)
def test_the_answer_waits_until_there_is_room(make, place):
    c, e = process(make, place, "read x < /tmp/go; cat")
    data = data_of(900_000)
    pending = e.send_write(data)
    # Behind it on the same connection: had there been room, the first would have been answered before.
    assert code(lambda: e.write(b"", append=True, timeout_ns=300_000_000)) == 4
    assert pending not in e.client.answers
    with open(f"/proc/{e.pid}/root/tmp/go", "w") as file:
        file.write("x\n")
    assert first(e.client.answer(pending), 1) == len(data)
    e.write(b"", append=True, close=True)
    assert e.wait() == 0 and e.output() == data


def test_a_large_input_passes_through(make):
    c = make()
    client, _ = c.run()
    e = sh(c, client, "e", "cat", stdin="spool:").run()
    data = data_of(5_000_000)
    at = 0
    while at < len(data):
        offset, _ = e.write(data[at:at + 700_000], offset=at)
        at = offset
    e.write(b"", offset=at, close=True)
    assert e.wait() == 0 and e.output() == data


def test_what_nobody_reads_is_bounded(make):
    c = make()
    client, _ = c.run()
    e = sh(c, client, "e", "sleep 600", stdin="spool:").run()
    data = data_of(1 << 20)
    pending = e.send_write(data)
    assert code(lambda: e.write(b"x", append=True, timeout_ns=200_000_000)) == 4
    spools = [f"/proc/{c.shim}/fd/{n}" for n in os.listdir(f"/proc/{c.shim}/fd") if "memfd:stdin" in os.readlink(f"/proc/{c.shim}/fd/{n}")]
    assert len(spools) == 1 and os.stat(spools[0]).st_size <= (256 << 10) + (64 << 10)
    e.kill()
    assert code(lambda: client.answer(pending)) == PRECONDITION
    assert e.wait() == 137 and code(lambda: e.write(b"x")) == PRECONDITION


def test_a_process_that_closes_its_input(make):
    c = make()
    client, _ = c.run()
    e = sh(c, client, "e", "exec < /dev/null; echo closed; sleep 600", stdin="spool:").run()
    e.until(b"closed")
    eventually(lambda: code_or_none(lambda: e.write(b"x" * 1000, append=True)) == PRECONDITION, "the shim learns of it")
    assert processes(client)[0]["input_open"] == 0
    e.kill()
    assert e.wait() == 137


def code_or_none(call):
    try:
        call()
    except Failure as failure:
        return failure.code
    return None


@pytest.mark.parametrize("place", PLACES)
def test_kills_in_the_middle_of_input(make, place):
    """Each byte reaches the process once: a client goes on where the answer says, whatever was cut."""
    c, e = process(make, place, "cat; echo end >&2")
    data = data_of(6_000_000, seed=7)
    done = threading.Event()
    kills = []

    def killer():
        for pause in (0.15, 0.1, 0.2, 0.12):
            if done.wait(pause):
                return
            shim = c.shim
            if shim:
                kill_and_wait(shim)
                kills.append(shim)

    thread = threading.Thread(target=killer)
    thread.start()
    at = 0
    while at < len(data):
        try:
            at, _ = e.write(data[at:at + 200_000], offset=at)
        except (ConnectionError, OSError):
            e.client = c.connect()
    thread.join()
    done.set()
    assert len(kills) == 4
    e.client = c.connect()
    e.write(b"", offset=len(data), close=True)
    assert e.wait() == 0
    assert e.output() == data and e.output(2) == b"end\n"


@pytest.mark.parametrize("place", PLACES)
def test_a_close_outlives_the_shim(make, place):
    c, e = process(make, place, "read x < /tmp/go; cat; echo end")
    e.write(b"x\n", close=True)
    restart(c, e)
    with open(f"/proc/{e.pid}/root/tmp/go", "w") as file:
        file.write("x\n")
    assert e.wait() == 0 and e.output() == b"x\nend\n"


# --- terminals -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_terminal_echoes_and_ends(make, place, runtime):
    c, e = process(make, place, "test -t 0 && test -t 1 && test -t 2 && echo terminal; read x; echo \"got $x\"; exit 6", runtime, terminal=True)
    e.until(b"terminal\r\n")
    e.write(b"typed\n")
    assert e.wait() == 6
    assert e.output() == b"terminal\r\ntyped\r\ngot typed\r\n" and e.output(2) == b""
    assert first(e.state(), 8) == 1


@pytest.mark.parametrize("place", PLACES)
def test_a_terminal_is_resized(make, place):
    c, e = process(make, place, "echo ready; while read x; do stty size; done", terminal=True)
    e.until(b"ready")
    for columns, rows in ((101, 33), (7, 5)):
        e.resize(columns, rows)
        e.write(b"\n", append=True)
        e.until(b"%d %d" % (rows, columns))
    e.close_io()
    assert e.wait() == 0


def test_a_size_before_the_start(make):
    c = with_terminals(make())
    client, _ = c.run()
    e = sh(c, client, "e", "stty size", terminal=True).add()
    e.resize(120, 40)
    restart(c, e)
    e.start()
    assert e.output() == b"40 120\r\n"
    f = sh(c, e.client, "f", "stty size", terminal=True, consoleSize={"height": 11, "width": 22})
    assert f.run().output() == b"11 22\r\n"
    g = sh(c, e.client, "g", "true")
    assert code(lambda: g.run().resize(1, 1)) == PRECONDITION


@pytest.mark.parametrize("place", PLACES)
def test_the_end_of_a_terminals_input(make, place):
    c, e = process(make, place, "cat; echo end", terminal=True)
    e.write(b"line\nhalf")
    e.close_io()
    assert e.wait() == 0
    assert e.output().endswith(b"halfend\r\n")


@pytest.mark.parametrize("place", PLACES)
def test_a_terminal_outlives_the_shim(make, place):
    c, e = process(make, place, "echo ready; while read x; do echo \"got $x\"; stty size; done; exit 4", terminal=True)
    e.until(b"ready")
    for turn in range(3):
        restart(c, e)
        e.resize(50 + turn, 20)
        e.write(b"turn%d\n" % turn, append=True)
        e.until(b"20 %d" % (50 + turn))
    restart(c, e)
    e.write(b"", append=True, close=True)
    assert e.wait() == 4
    data = e.output()
    assert [data.count(b"got turn%d" % turn) for turn in range(3)] == [1, 1, 1] and data.count(b"20 51") == 1


def test_kills_in_the_middle_of_a_terminals_output(make):
    c = with_terminals(make())
    client, _ = c.run()
    e = sh(c, client, "e", "stty -opost; seq 1 200000; exit 5", terminal=True).run()
    for _ in range(6):
        restart(c, e)
    assert e.wait() == 5
    assert e.output() == b"".join(b"%d\n" % n for n in range(1, 200001))


def test_a_terminal_that_nobody_asked_output_of(make):
    c = with_terminals(make())
    client, _ = c.run()
    e = sh(c, client, "e", "seq 1 100000; exit 3", terminal=True, stdout="", stderr="").run()
    assert e.wait() == 3 and e.delete() == 3


def test_a_background_job_keeps_the_terminal_for_two_seconds_at_most(make):
    c = with_terminals(make())
    client, _ = c.run()
    e = sh(c, client, "e", "(trap '' HUP; sleep 600) & echo said", terminal=True).run()
    assert e.wait() == 0 and e.output() == b"said\r\n"


def test_terminals_leave_nothing(make):
    c = with_terminals(make())
    client, _ = c.run()
    sh(c, client, "first", "cat", terminal=True, stdin="spool:").run().write(b"", close=True)
    sh(c, client, "first", "true").wait()
    sh(c, client, "first", "true").delete()
    before = descriptors(c.shim)
    for n in range(60):
        e = sh(c, client, f"e{n}", "cat", terminal=bool(n % 2), stdin="spool:").run()
        e.write(b"text\n", close=True)
        assert e.wait() == 0
        assert e.output().count(b"text") == (2 if n % 2 else 1)
        e.delete()
    assert descriptors(c.shim) == before and os.listdir(f"{c.bundle}/exec") == []
    restart(c, e)
    assert descriptors(c.shim) == before, "nothing is parked any more"


def test_a_long_path_has_a_console_all_the_same(make):
    long = "e" * 120
    c = with_terminals(make())
    client, _ = c.run()
    e = sh(c, client, long, "test -t 1; exit $?", terminal=True).run()
    assert e.wait() == 0
    assert log_bytes(e.log, 1) == b"" and stat(c.shim)
