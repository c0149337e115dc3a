"""A shim becomes another program while its container runs: nobody notices but by the version."""
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from exec_client import processes, restarted, with_terminals
from shim_client import (DEADLINE, GUARD, INVALID, PRECONDITION, TASK2, Container, alive, argv, eventually, field, first, log_bytes, log_entries, stat)
from test_shim_exec import CTRUN, code, kill_and_wait, reaper, sh  # noqa: F401

BIN = Path(__file__).parents[2] / "bin"


@pytest.fixture
def make():
    base = tempfile.mkdtemp(prefix="ctr-upgrade-")
    made = []

    def container(*args, runtime=CTRUN, mode="detached", **options):
        made.append(Container(base, str(BIN), list(args) or ["/bin/sleep", "600"], runtime, mode, **options))
        return made[-1]

    container.base = base
    yield container
    for each in made:
        each.clean_up()
    shutil.rmtree(base)


def version(program):
    return subprocess.run([program, "-v"], capture_output=True, text=True, check=True).stdout.split()[-1]


def other_version(make):
    """The same program under another version, and that."""
    path = f"{make.base}/ctr-shim"
    data = (BIN / "ctr-shim").read_bytes()
    now = version(BIN / "ctr-shim")
    then = now[:-1] + ("8" if now[-1] != "8" else "9")
    text = f"ctr-shim, version {now}".encode()
    assert data.count(text) == 1
    Path(path).write_bytes(data.replace(text, f"ctr-shim, version {then}".encode()))
    os.chmod(path, 0o755)
    assert version(path) == then
    return path, then


def upgrade(client, program=""):
    return first(client.call("Upgrade", field(1, program), GUARD), 1).decode()


def upgrades(client):
    return first(client.call("Info", service=GUARD), 16)


def test_another_version_takes_over(make):
    path, then = other_version(make)
    c = with_terminals(make("/bin/sh", "-c", "trap 'exit 9' TERM; i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done"))
    client, init = c.run()
    os_shim = c.shim
    waiting = client.send(TASK2, "Wait", c.target)
    lives = sh(c, client, "lives", "cat; echo end; exit 3", stdin="spool:").run()
    lives.write(b"before\n")
    terminal = sh(c, client, "terminal", "echo ready; while read x; do echo got $x; done; exit 4", stdin="spool:", terminal=True).run()
    terminal.until(b"ready")
    ended = sh(c, client, "ended", "exit 5").run()
    assert ended.wait() == 5
    registered = sh(c, client, "registered", "exit 6").add()
    exec_waiting = client.send(TASK2, "Wait", lives.target)
    second = c.client()
    log_waiting = second.send(GUARD, "WaitLog", field(1, 1 << 40))
    with_deadline = second.send(TASK2, "Wait", c.target, timeout_ns=1_500_000_000)
    half = c.client()
    frame = field(1, GUARD) + field(2, "Info")
    half.socket.sendall(len(frame).to_bytes(4, "big") + (1).to_bytes(4, "big") + b"\x01\0" + frame[:5])
    known = processes(client)

    assert upgrade(client, path) == then
    assert c.shim == os_shim and argv(os_shim)[0] == "ctr-shim" and os.readlink(f"/proc/{os_shim}/exe") == path
    info = c.info(client)
    assert (info["version"].decode(), info["shim_pid"], info["task_pid"], info["shim_restarts"]) == (then, os_shim, init, 0)
    assert upgrades(client) == 1 and processes(client) == known
    half.socket.sendall(frame[5:])
    assert first(half.answer(1), 3).decode() == then
    lives.write(b"after\n", offset=7, close=True)
    assert first(client.answer(exec_waiting), 1) == 3
    assert lives.output() == b"before\nafter\nend\n"
    terminal.write(b"there\n")
    terminal.until(b"got there")
    terminal.close_io()
    assert terminal.wait() == 4
    registered.start()
    assert registered.wait() == 6 and ended.wait() == 5
    assert [e.delete() for e in (lives, terminal, ended, registered)] == [3, 4, 5, 6]
    assert code(lambda: second.answer(with_deadline)) == DEADLINE
    c.kill(client, signal.SIGTERM)
    assert first(client.answer(waiting), 1) == 9
    assert first(second.answer(log_waiting), 2) == 1
    numbers = [int(line) for line in log_bytes(c.log, 1).split()]
    assert numbers == list(range(1, len(numbers) + 1))
    assert not any(entry[1] & 3 for entry in log_entries(c.log))
    assert c.delete(client) == 9


def test_output_flows_on_over_many_upgrades(make):
    path, then = other_version(make)
    c = make("/bin/sh", "-c", "seq 1 300000; read x < /tmp/go; exit 7")
    os.mkfifo(f"{make.base}/layer/tmp/go")
    client, init = c.run()
    e = sh(c, client, "e", "seq 1 300000; exit 8").run()
    for turn in range(8):
        assert upgrade(client, path if turn % 2 == 0 else str(BIN / "ctr-shim"))
    assert upgrades(client) == 8
    assert e.wait() == 8
    with open(f"/proc/{init}/root/tmp/go", "w") as file:
        file.write("x\n")
    assert c.wait(client) == 7
    expected = b"".join(b"%d\n" % n for n in range(1, 300001))
    assert e.output() == expected
    size, ended = 0, 0
    while not ended:
        answer = client.call("WaitLog", field(1, size), GUARD)
        size, ended = first(answer, 1), first(answer, 2)
    assert log_bytes(c.log, 1) == expected


def test_calls_with_bytes_of_their_own_go_on(make):
    path, then = other_version(make)
    c = make()
    os.mkfifo(f"{make.base}/layer/tmp/go")
    client, _ = c.run()
    e = sh(c, client, "e", "read x < /tmp/go; md5sum", stdin="spool:").run()
    data = os.urandom(900_000)
    pending = e.send_write(data, close=True)
    assert upgrade(client, path) == then
    with open(f"/proc/{e.pid}/root/tmp/go", "w") as file:
        file.write("x\n")
    assert first(client.answer(pending), 1) == len(data)
    assert e.wait() == 0
    assert e.output().split()[0].decode() == hashlib.md5(data).hexdigest()


@pytest.mark.parametrize("script", [None, "exit 0", "exit 1", "kill -9 $$", "echo ctr-shim 1 takes over 0", "exec sleep 600"],
                         ids=["missing", "agrees", "refuses", "dies", "lies", "hangs"])
def test_what_is_no_shim_is_refused(make, script):
    c = make()
    client, init = c.run()
    waiting = client.send(TASK2, "Wait", c.target)
    path = f"{make.base}/none"
    if script is not None:
        Path(path).write_text(f"#!/bin/sh\n{script}\n")
        os.chmod(path, 0o755)
    shim, before = c.shim, os.readlink(f"/proc/{c.shim}/exe")
    assert code(lambda: upgrade(client, path)) == PRECONDITION
    assert c.shim == shim and os.readlink(f"/proc/{shim}/exe") == before and upgrades(client) == 0
    assert code(lambda: upgrade(client, "relative/ctr-shim")) == INVALID
    assert sh(c, client, "e", "exit 2").run().wait() == 2
    c.kill(client)
    assert first(client.answer(waiting), 1) == 137


def test_the_file_under_the_own_name(make):
    """Without a program it is the file that the shim was started from, whatever lies there now."""
    programs = f"{make.base}/programs"
    os.makedirs(programs)
    for name in ("ctr-shim", "ctr-keeper"):
        shutil.copy(BIN / name, programs)
    c = make()
    c.programs = programs
    client, _ = c.run()
    path, then = other_version(make)
    os.rename(path, f"{programs}/ctr-shim")
    assert upgrade(client) == then
    shim = c.shim
    kill_and_wait(shim)
    eventually(lambda: c.shim not in (None, shim), "keeper starts a shim")
    client = c.connect()
    assert c.info(client)["version"].decode() == then and upgrades(client) == 0


def test_a_shim_that_followed_a_killed_one(make):
    """Nothing but the keeper's own is under the keeper's numbers: not the lock, for which the other program would wait for ever."""
    path, then = other_version(make)
    c = make("/bin/sh", "-c", "trap 'exit 9' TERM; while :; do sleep 0.01; done")
    client, _ = c.run()
    old = c.shim
    kill_and_wait(old)
    client = restarted(c, old)
    e = sh(c, client, "e", "cat; exit 3", stdin="spool:").run()
    shim = c.shim
    for program in (path, str(BIN / "ctr-shim"), path):
        assert upgrade(client, program) == version(program) and c.shim == shim
    e.write(b"in", close=True)
    assert e.wait() == 3 and e.output() == b"in"
    c.kill(client, signal.SIGTERM)
    assert c.wait(client) == 9


def test_an_upgrade_waits_for_what_runs(make):
    path, then = other_version(make)
    wrapped = f"{make.base}/wrapped"
    os.mkfifo(f"{make.base}/go")
    Path(wrapped).write_text(f'#!/bin/sh\ncase " $* " in *" exec "*) cat {make.base}/go >/dev/null;; esac\nexec {CTRUN} "$@"\n')
    os.chmod(wrapped, 0o755)
    c = make(runtime=wrapped)
    client, _ = c.run()
    e = sh(c, client, "e", "exit 3").add()
    starting = e.sent_start()
    upgrading = client.send(GUARD, "Upgrade", field(1, path))
    client.call("Pause", c.target)
    client.call("Resume", c.target)
    assert upgrades(client) == 0
    with open(f"{make.base}/go", "w"):
        pass
    assert first(client.answer(upgrading), 1).decode() == then
    assert first(client.answer(starting), 1) == e.pid
    assert e.wait() == 3


def test_an_upgrade_before_create_and_after_the_end(make):
    path, then = other_version(make)
    c = make("/bin/sh", "-c", "echo said; exit 4")
    client = c.start_guards().client()
    assert upgrade(client, path) == then
    c.create(client)
    c.start(client)
    assert c.wait(client) == 4
    eventually(lambda: log_bytes(c.log, 1) == b"said\n", "output")
    assert upgrade(client, str(BIN / "ctr-shim")) != then
    assert c.wait(client) == 4 and c.delete(client) == 4
    assert upgrade(client, path) == then
    keeper, shim = c.keeper, c.shim
    c.shutdown(client)
    eventually(lambda: not alive(shim) and not alive(keeper), "both are gone")
    assert not stat(shim) or stat(shim)[0] == "Z"
