"""Execs through the manager: what they are, how they fail, and that none runs twice whoever is killed in between."""
import os
import pwd
import signal
import sqlite3

import pytest

import events
from events import Pid
from exec_api import (ALREADY_EXISTS, FAILED_PRECONDITION, INVALID_ARGUMENT, NOT_FOUND, RUNNING, STOPPED, TASKS, Aside, kill, listed, read, run, start,
                      target, wait)
from harness import IMAGE
from ttrpc_client import Client, RPCError, decode, encode, one, text


@pytest.fixture
def client(world):
    with Client(world.address) as made:
        yield made


@pytest.fixture
def box(world):
    """A container to exec in; the tests of this file share none of it."""
    identifier = world.background("exec sleep 600")
    yield identifier
    world.ctrctl("rm", "-f", identifier)


def refused(call, *args, **options):
    with pytest.raises(RPCError) as error:
        call(*args, **options)
    assert "\n" not in error.value.message
    return error.value


def exit_code(error):
    return one(decode(one(decode(error.details[0]), 2)), 3, 0)


def until(question, timeout=20):
    """The first answer that is not false; each is asked for after the one before it was answered."""
    deadline = events.Deadline(timeout)
    while True:
        answer = question()
        if answer:
            return answer
        deadline.left(str(question))


def test_output_and_status(world, client, box):
    assert run(world, client, box, "/bin/sh", "-c", "echo out; echo err >&2; exit 7") == (7, b"out\n", b"err\n")
    assert run(world, client, box, "/bin/sh", "-c", "kill -9 $$")[0] == 137


def test_it_is_the_containers_process_in_everything_else(world, client, box):
    script = "grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status; readlink /proc/self/ns/pid; readlink /proc/self/ns/mnt; pwd; id -u; env | sort"
    mine = run(world, client, box, "/bin/sh", "-c", script)[1]
    own = world.sh(script).encode()

    def stable(text):
        return [line for line in text.splitlines() if not line.startswith((b"pid:", b"mnt:", b"HOSTNAME", b"SHLVL", b"_="))]
    assert stable(mine) == stable(own)
    init = world.task(box)["pid"]
    assert os.readlink(f"/proc/{init}/ns/mnt").encode() in mine


def test_environment_and_working_directory(world, client, box):
    code, out, _ = run(world, client, box, "/bin/sh", "-c", "echo $ADDED $PATH; pwd", env=["ADDED=x y", "PATH=/bin"], cwd="/tmp")
    assert (code, out) == (0, b"x y /bin\n/tmp\n")


def test_users_are_looked_up_in_the_containers_own_files(world, client, box):
    run(world, client, box, "/bin/sh", "-c", "echo 'eve:x:1234:1235::/home/eve:/bin/sh' >> /etc/passwd; echo 'crew:x:77:eve' >> /etc/group")
    show = ["/bin/sh", "-c", "echo $(id -u):$(id -G):$HOME"]
    assert run(world, client, box, *show, user="eve")[1] == b"1234:1235 77:/home/eve\n"
    assert run(world, client, box, *show, user="eve:crew")[1] == b"1234:77:/home/eve\n"
    assert run(world, client, box, *show, user="4321:99")[1] == b"4321:99:/\n"
    error = refused(start, client, box, "/bin/true", user="mallory")
    assert error.code == INVALID_ARGUMENT and "no such user in the container's /etc/passwd" in error.message


@pytest.mark.parametrize("link", ["/proc/1/root/etc/passwd", "../../../../../../../../etc/passwd", "/proc/self/root/etc/passwd"])
def test_no_user_of_the_host_is_found(world, client, box, link):
    stranger = next(user.pw_name for user in pwd.getpwall() if user.pw_name not in ("root", "alice", "bob"))
    run(world, client, box, "/bin/sh", "-c", f"cp /etc/passwd /etc/kept; rm /etc/passwd; ln -s {link} /etc/passwd")
    refused(start, client, box, "/bin/true", user=stranger)
    run(world, client, box, "/bin/sh", "-c", "rm /etc/passwd; mkfifo /etc/passwd")
    refused(start, client, box, "/bin/true", user=stranger)  # and a FIFO is not waited for


def test_privileged_has_all_capabilities(world, client, box):
    with open("/proc/self/status") as status:
        bounding = next(line.split()[1] for line in status if line.startswith("CapBnd"))
    script = ["/bin/sh", "-c", "grep CapEff /proc/self/status"]
    assert int(run(world, client, box, *script, privileged=True)[1].split()[1], 16) == int(bounding, 16)
    assert int(run(world, client, box, *script)[1].split()[1], 16) != int(bounding, 16)


@pytest.mark.parametrize("args, options, code, status, said", [
    (["/no/such/program"], {}, INVALID_ARGUMENT, 127, "/no/such/program"),
    (["/etc/passwd"], {}, INVALID_ARGUMENT, 126, "permission denied"),
    ([], {}, INVALID_ARGUMENT, 125, "command"),
    (["/bin/true"], {"cwd": "relative"}, INVALID_ARGUMENT, 125, "not absolute"),
    (["/bin/true"], {"env": ["=x"]}, INVALID_ARGUMENT, 125, "no assignment"),
    (["/bin/true"], {"identifier": "short"}, INVALID_ARGUMENT, 125, "64 lower-case hex digits"),
])
def test_what_cannot_be_executed(client, box, args, options, code, status, said):
    error = refused(start, client, box, *args, **options)
    assert (error.code, exit_code(error)) == (code, status) and said in error.message
    assert listed(client, box) == []


def test_only_in_a_container_that_runs(world, client, box):
    world.ctrctl("tasks", "pause", box)
    error = refused(start, client, box, "/bin/true")
    assert error.code == FAILED_PRECONDITION and "paused" in error.message and "resume" in error.message
    world.ctrctl("tasks", "resume", box)
    ended = world.run("-d", IMAGE, "/bin/true")
    world.wait(ended)
    error = refused(start, client, ended, "/bin/true")
    assert error.code == FAILED_PRECONDITION and "is not running" in error.message
    world.ctrctl("rm", ended)
    assert refused(start, client, "nosuch", "/bin/true").code == NOT_FOUND


def test_the_same_id_joins_and_another_config_is_refused(world, client, box):
    identifier = os.urandom(32).hex()

    def again():
        with Client(world.address) as other:
            return start(other, box, "/bin/sh", "-c", "echo x >> /tmp/runs; exec sleep 600", identifier=identifier, attached=False)
    callers = [Aside(again) for _ in range(4)]
    pids = {one(caller.join(), 5, 0) for caller in callers}
    assert len(pids) == 1 and 0 not in pids
    assert run(world, client, box, "/bin/cat", "/tmp/runs")[1] == b"x\n"
    error = refused(start, client, box, "/bin/true", identifier=identifier)
    assert error.code == ALREADY_EXISTS
    client.call(TASKS, "DeleteExec", *target(box, identifier), (4, True))


def test_lists_and_deletes(world, client, box):
    first = start(client, box, "/bin/sleep", "600", attached=False, env=["A=b"])
    identifier = text(first, 1)
    (shown,) = listed(client, box)
    assert text(shown, 1) == identifier and text(shown, 2) == box and one(shown, 4, 0) == RUNNING
    assert [a.decode() for a in decode(one(shown, 3))[1]] == ["/bin/sleep", "600"]
    assert events.comm(one(shown, 5, 0)) == "sleep"
    assert refused(client.call, TASKS, "DeleteExec", *target(box, identifier)).code == FAILED_PRECONDITION
    kill(client, box, identifier[:12], signal.SIGTERM)  # a prefix will do
    assert wait(client, box, identifier) == (143, "reaped")
    assert refused(kill, client, box, identifier).code == FAILED_PRECONDITION
    (shown,) = listed(client, box)
    assert one(shown, 4, 0) == STOPPED and one(decode(one(shown, 6)), 1, 0) == 143
    client.call(TASKS, "DeleteExec", *target(box, identifier))
    assert listed(client, box) == []
    assert refused(client.call, TASKS, "DeleteExec", *target(box, identifier)).code == NOT_FOUND
    assert wait(client, box, identifier) == (143, "reaped")  # also long after it was forgotten
    assert one(start(client, box, "/bin/sleep", "600", attached=False, env=["A=b"], identifier=identifier), 4, 0) == STOPPED  # nor is it run again
    assert listed(client, box) == []


def test_an_attached_one_is_forgotten_with_its_client_and_of_others_32_are_kept(world, client, box):
    identifier = text(start(client, box, "/bin/echo", "hello"), 1)
    assert read(world, box, identifier) == (b"hello\n", b"")
    assert [text(e, 1) for e in listed(client, box)] == [identifier]  # its exit was not asked for
    assert wait(client, box, identifier) == (0, "reaped")
    until(lambda: listed(client, box) == [])
    assert not (world.bundle(box) / "exec" / identifier).exists()
    made = []
    for _ in range(36):
        made.append(text(start(client, box, "/bin/true", attached=False), 1))
        wait(client, box, made[-1])
    until(lambda: len(listed(client, box)) == 32)
    assert [text(e, 1) for e in listed(client, box)] == made[-32:]


def test_a_wait_that_comes_while_the_end_is_told_is_answered(world, client, box):
    for _ in range(300):
        identifier = text(start(client, box, "/bin/true", attached=False), 1)
        # So many at once that one of them meets the very moment. Each has its answer, in whatever order.
        waits = client.requests(8, TASKS, "Wait", encode(*target(box, identifier)))
        while waits:
            stream, _, _, answer = client.receive()
            waits.remove(stream)
            end = decode(one(decode(one(decode(answer), 2)), 1))
            assert (one(end, 1, 0), text(end, 2)) == (0, "reaped")
        client.call(TASKS, "DeleteExec", *target(box, identifier))


def test_kill_takes_along_what_it_started(world, client, box):
    identifier = text(start(client, box, "/bin/sh", "-c", "sleep 711 & sleep 712; true", attached=False), 1)

    shell = one(listed(client, box)[0], 5, 0)
    found = [Pid(shell), *map(Pid, until(lambda: len(events.children(shell)) == 2 and events.children(shell)))]
    kill(client, box, identifier)
    for process in found:
        process.wait()
    assert wait(client, box, identifier)[0] == 137


def test_past_a_shim_that_is_stopped(world, client, box):
    identifier = text(start(client, box, "/bin/sleep", "600", attached=False), 1)
    process = Pid(one(listed(client, box)[0], 5, 0))
    shim, _ = world.guards(box)
    shim.kill(signal.SIGSTOP)
    try:
        kill(client, box, identifier)
        process.wait()
        assert len(listed(client, box)) == 1
    finally:
        shim.kill(signal.SIGCONT)
    assert wait(client, box, identifier) == (137, "reaped")


@pytest.mark.parametrize("victim", ["manager", "shim", "both"])
def test_it_outlives_manager_and_shim(alone, victim):
    box = alone.background("exec sleep 600")
    identifier = os.urandom(32).hex()
    args = ["/bin/sh", "-c", "echo x >> /tmp/runs; echo before; until [ -e /tmp/go ]; do usleep 1000; done; echo after; exit 9"]

    def strike():
        if victim != "shim":
            alone.kill9()
        if victim != "manager":
            alone.guards(box)[0].kill_and_wait()
        if victim != "shim":
            alone.start()
    with Client(alone.address) as client:
        pid = one(start(client, box, *args, identifier=identifier), 5, 0)
    strike()
    with Client(alone.address) as client:
        again = start(client, box, *args, identifier=identifier)
        assert (one(again, 5, 0), one(again, 4, 0)) == (pid, RUNNING)
        assert run(alone, client, box, "/bin/sh", "-c", "touch /tmp/go; cat /tmp/runs")[1] == b"x\n"
        assert read(alone, box, identifier)[0] == b"before\nafter\n"
        assert wait(client, box, identifier) == (9, "reaped")
    alone.ctrctl("rm", "-f", box)


def test_one_that_ended_meanwhile_shows_its_true_status(alone):
    box = alone.background("exec sleep 600")
    with Client(alone.address) as client:
        identifier = text(start(client, box, "/bin/sleep", "600", attached=False), 1)
        process = Pid(one(listed(client, box)[0], 5, 0))
    alone.kill9()
    process.kill(signal.SIGTERM)
    process.wait()
    alone.start()
    with Client(alone.address) as client:
        assert wait(client, box, identifier) == (143, "reaped")
    alone.ctrctl("rm", "-f", box)


def test_killed_before_it_was_answered(alone):
    """SIGKILL of the manager while execs are being started: asked again, each runs once."""
    box = alone.background("exec sleep 600")
    made = [os.urandom(32).hex() for _ in range(12)]

    def ask(identifier):
        with Client(alone.address) as client:
            return start(client, box, "/bin/sh", "-c", f"echo x >> /tmp/{identifier}", identifier=identifier, attached=False)
    for index, identifier in enumerate(made):
        asked = Aside(ask, identifier)
        events.readable([alone.manager.fd], 0.002 * index)
        alone.restart()
        try:
            asked.join()
        except (RPCError, OSError):
            pass
        ask(identifier)
    with Client(alone.address) as client:
        for identifier in made:
            assert wait(client, box, identifier)[0] == 0
        out = run(alone, client, box, "/bin/sh", "-c", "cat " + " ".join(f"/tmp/{identifier}" for identifier in made))[1]
    assert out == b"x\n" * len(made)
    alone.ctrctl("rm", "-f", box)


def test_a_client_that_went_away_holds_up_no_process(world, client, box):
    identifier = text(start(client, box, "/bin/sh", "-c", "yes | head -c 20000000; exit 3"), 1)
    with Client(world.address) as reader:
        next(reader.stream("ctr.v1.Logs", "Read", (1, "default"), (2, box), (4, True), (6, identifier)))
    assert wait(client, box, identifier) == (3, "reaped")


def test_a_slow_reader_gets_every_byte(world, client, box):
    size = 30_000_000
    identifier = text(start(client, box, "/bin/sh", "-c", f"yes | head -c {size}"), 1)
    assert read(world, box, identifier)[0] == b"y\n" * (size // 2)
    assert wait(client, box, identifier) == (0, "reaped")


def test_its_story_in_the_events(world, client, box):
    identifier = text(start(client, box, "/bin/true", attached=False), 1)
    wait(client, box, identifier)
    rows = sqlite3.connect(f"file:{world.root}/ctrd.db?mode=ro", uri=True).execute(
        "SELECT topic, payload FROM events WHERE object = ? ORDER BY sequence", (f"{box}/{identifier}",)).fetchall()
    assert [topic for topic, _ in rows] == ["/tasks/exec-added", "/tasks/exec-started", "/tasks/exec-exit"]
    assert text(decode(rows[-1][1]), 2) == box and text(decode(one(decode(rows[-1][1]), 6)), 2) == "reaped"
