"""ctr-shim under an unmodified containerd: Debian 12's own, and the newer ones of Debian's later suites where `make deps-peers` has unpacked them."""
import fcntl
import hashlib
import os
import pty
import random
import re
import shutil
import signal
import struct
import subprocess
import termios
import threading
import time

import events
import pytest
import shim_client
from containerd_world import IMAGE, RUNC, RUNTIME, Containerd, Events, installations
from harness import BIN
from shim_client import GUARD, field, first

VERSIONS = installations()


@pytest.fixture(scope="module", params=sorted(VERSIONS))
def shared(request):
    """One containerd with the image, shared by the tests of this file; at the end nothing of its containers may be left."""
    made = Containerd(VERSIONS[request.param])
    try:
        made.start().import_image()
        before = made.snapshot()
        yield made
        made.assert_no_leaks(before)
    finally:
        made.close()


@pytest.fixture
def world(shared):
    """What a test that failed has left is not the next one's trouble."""
    yield shared
    for client in shared.clients:
        client.close()
    shared.clients.clear()
    for identifier in shared.ctr("containers", "ls", "-q").out.split():
        shared.remove(identifier)


@pytest.fixture
def stream(world):
    made = Events(world)
    yield made
    made.close()


# --- run

def test_a_container_runs_and_its_output_and_status_come_back(world):
    done = world.run("c1", "sh", "-c", "echo out; echo err >&2; exit 7", code=7)
    assert (done.out, done.err.splitlines()[0]) == ("out\n", "err")


def test_a_signal_ends_it_with_128_and_its_number(world):
    client = world.client("run", "--rm", "--runtime", RUNTIME, IMAGE, "c1", "sh", "-c", "echo up; sleep 1000")
    client.out.until(rb"up\n")
    world.ctr("tasks", "kill", "-s", "KILL", "c1")
    assert client.wait() == 137


@pytest.mark.parametrize("program", ["/no/such/program", "/etc/passwd"])
def test_a_program_that_cannot_run_fails_as_with_the_other_shim(world, program):
    ours = world.run("c1", program, code=None)
    theirs = world.run("c2", program, code=None, runtime=RUNC)
    assert ours.code == theirs.code != 0
    assert program in ours.err.splitlines()[-1] and program in theirs.err.splitlines()[-1]
    assert world.tasks() == {}


@pytest.mark.parametrize("script, code", [("exit 0", 0), ("exit 3", 3), ("sh -c 'kill -KILL $$'; exit $?", 137), ("exec /no/such", 127)])
def test_status_and_events_are_those_of_the_other_shim(world, stream, script, code):
    for identifier, runtime in (("ours", RUNTIME), ("theirs", RUNC)):
        world.run(identifier, "sh", "-c", script, runtime=runtime, code=code)
    ours, theirs = stream.until("ours", "/tasks/delete"), stream.until("theirs", "/tasks/exit")
    assert [t for t, _ in ours] == ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]
    # The other shim of containerd 2 may end before its last event is sent.
    assert [t for t, _ in theirs] == [t for t, _ in ours][:len(theirs)]
    for (topic, mine), (_, other) in zip(ours, theirs):
        assert set(mine) == set(other), topic
        assert mine.get("exit_status") == other.get("exit_status"), topic
    assert {m["pid"] for _, m in ours} == {ours[0][1]["pid"]}


def test_large_output_comes_whole(world):
    done = world.run("c1", "sh", "-c", "seq 1 200000")
    assert done.out == "".join(f"{n}\n" for n in range(1, 200001))


# --- a task in the background

def test_list_ps_pause_resume_kill_and_remove(world, stream):
    world.background("c1", "sh", "-c", "sleep 1000 & wait")
    pid, status = world.tasks()["c1"]
    assert status == "RUNNING" and events.comm(pid) == "sh"
    listed = [int(line.split()[0]) for line in world.ctr("tasks", "ps", "c1").out.splitlines()[1:]]
    assert pid in listed and len(listed) == 2
    world.ctr("tasks", "pause", "c1")
    assert world.tasks()["c1"] == (pid, "PAUSED")
    world.ctr("tasks", "resume", "c1")
    assert world.tasks()["c1"] == (pid, "RUNNING")
    init = events.Pid(pid)
    world.ctr("tasks", "kill", "-s", "TERM", "c1")
    world.ctr("tasks", "kill", "-s", "KILL", "c1", code=None)
    init.wait()
    stream.until("c1", "/tasks/exit")
    assert world.tasks()["c1"][1] == "STOPPED"
    world.ctr("tasks", "rm", "c1", code=None)
    world.ctr("containers", "rm", "c1")
    assert [t for t, _ in stream.until("c1", "/tasks/delete")] == [
        "/tasks/create", "/tasks/start", "/tasks/paused", "/tasks/resumed", "/tasks/exit", "/tasks/delete"]
    assert "c1" not in world.tasks()


def metrics(world, identifier):
    """What ctr makes of the message: name to value."""
    return dict(re.findall(r"^(\S+)\s+(\S.*?)\s*$", world.ctr("tasks", "metrics", identifier).out.split("METRIC", 1)[1], re.M))


def test_metrics_are_shown(world):
    for identifier, runtime in (("ours", RUNTIME), ("theirs", RUNC)):
        world.background(identifier, "sleep", "1000", runtime=runtime)
    ours, theirs = metrics(world, "ours"), metrics(world, "theirs")
    usage, limit = ("memory.usage_in_bytes", "memory.limit_in_bytes") if os.path.exists("/sys/fs/cgroup/memory") else ("memory.usage", "memory.usage_limit")
    assert set(ours) == set(theirs)
    assert int(ours["pids.current"]) == 1 and int(ours[usage]) > 4096
    assert ours[limit] == theirs[limit]
    for identifier in ("ours", "theirs"):
        world.remove(identifier)


def test_metrics_are_those_of_version_2_where_nothing_else_is():
    """A containerd, and all it starts, that sees the hierarchy of version 2 alone: whatever controllers it has, the processors' time is there."""
    world = Containerd(VERSIONS["bookworm"])
    program = world.directory / "bin/containerd"
    program.unlink()
    program.write_text(f"""#!/bin/sh
exec unshare -m sh -c 'umount -R /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec {world.programs}/containerd "$@"' sh "$@"
""")
    program.chmod(0o755)
    try:
        world.start().import_image()
        before = world.snapshot()
        for identifier, runtime in (("ours", RUNTIME), ("theirs", RUNC)):
            world.background(identifier, "sleep", "1000", options=("--cpu-shares", "0"), runtime=runtime)
        ours, theirs = metrics(world, "ours"), metrics(world, "theirs")
        assert {"cpu.usage_usec", "cpu.user_usec"} <= set(ours) <= set(theirs) and int(ours["cpu.usage_usec"]) > 0, (ours, theirs)
        for identifier in ("ours", "theirs"):
            world.remove(identifier)
        world.assert_no_leaks(before)
    finally:
        world.close()


def test_the_first_process_is_where_the_caller_wants_its_cgroup(world):
    world.background("c1", "sleep", "1000")
    groups = open(f"/proc/{world.tasks()['c1'][0]}/cgroup").read()
    assert f"/{world.namespace}/c1" in groups
    world.remove("c1")


# --- options

@pytest.fixture(scope="module")
def replaced():
    """A containerd whose runc shim is ours: ctr gives options to no other."""
    made = Containerd(VERSIONS["bookworm"])
    program = made.directory / "bin/containerd-shim-runc-v2"
    program.unlink()
    program.symlink_to(os.path.realpath(made.shim_program))
    try:
        made.start().import_image()
        before = made.snapshot()
        yield made
        made.assert_no_leaks(before)
    finally:
        made.close()


def test_runc_runs_under_this_shim(replaced):
    done = replaced.run("c1", "sh", "-c", "echo hello; exit 5", options=("--runc-binary", "runc"), runtime=RUNC, code=5)
    assert done.out == "hello\n"


def test_a_runtime_of_another_root_keeps_its_state_there(replaced):
    root = replaced.directory / "elsewhere"
    replaced.background("c1", "sleep", "1000", options=("--runc-binary", "runc", "--runc-root", str(root)), runtime=RUNC)
    assert (root / replaced.namespace / "c1" / "state.json").exists()
    replaced.remove("c1")


def test_a_runtime_that_is_not_there_is_named(replaced):
    done = replaced.run("c1", "true", options=("--runc-binary", "/no/such/runc"), runtime=RUNC, code=None)
    assert done.code != 0 and "/no/such/runc" in done.err and "No such file" in done.err


def test_the_systemd_driver_is_refused_by_ctrun(replaced):
    done = replaced.run("c1", "true", options=("--runc-systemd-cgroup", "--cgroup", "system.slice:ctrd:c1"), runtime=RUNC, code=None)
    assert done.code != 0 and "systemd-cgroup" in done.err, done


def test_options_come_as_a_configuration_file_too(world):
    path = world.directory / "runtime.toml"
    path.write_text('BinaryName = "/usr/sbin/runc" # another one\nNoPivotRoot = false\n')
    world.background("c1", "sleep", "1000", options=("--runtime-config-path", str(path)))
    assert (world.directory / "runc" / world.namespace / "c1" / "state.json").exists()
    world.remove("c1")
    path.write_text("NoPivotRoot = maybe\n")
    done = world.run("c1", "true", options=("--runtime-config-path", str(path)), code=None)
    assert done.code != 0 and "NoPivotRoot" in done.err


def hierarchies():
    """Directories that control groups of a test may be made in."""
    return [line.split()[1] for line in open("/proc/mounts") if line.split()[2] in ("cgroup", "cgroup2")]


def test_the_guards_are_put_into_the_control_group_that_the_options_name(world):
    """In each hierarchy in which it exists; the container is where its own configuration says."""
    group = f"/{world.namespace}-shims/here"
    made = [f"{top}{group}" for top in hierarchies() if top.endswith(("memory", "systemd", "unified", "/cgroup"))]
    for path in made:
        os.makedirs(path)
    config = world.directory / "runtime.toml"
    try:
        config.write_text(f'ShimCgroup = "{group}"\n')
        world.background("c1", "sleep", "1000", options=("--runtime-config-path", str(config)))
        shim, keeper = world.guards("c1")
        for process in (shim.pid, keeper.pid):
            inside = [line for line in open(f"/proc/{process}/cgroup").read().splitlines() if line.endswith(":" + group)]
            assert len(inside) == len(made), inside
        pid = world.tasks()["c1"][0]
        assert group not in open(f"/proc/{pid}/cgroup").read()
        # A successor too.
        shim.kill_and_wait()
        assert running(world, "c1", pid)
        assert open(f"/proc/{world.guards('c1')[0].pid}/cgroup").read() == open(f"/proc/{keeper.pid}/cgroup").read()
        world.remove("c1")
        config.write_text('ShimCgroup = "/no/such/group"\n')
        done = world.run("c2", "true", options=("--runtime-config-path", str(config)), code=None)
        assert done.code != 0 and "/no/such/group" in done.err
    finally:
        for path in made:
            shim_client.eventually(lambda: not open(f"{path}/cgroup.procs").read(), f"{path} is empty")
            os.rmdir(path)
            os.rmdir(os.path.dirname(path))


def test_out_of_memory_is_told_before_the_end(world, stream):
    """Of the first process, whose end it is, and of another, after which the first goes on."""
    for identifier, script, code in (("first", "exec tail /dev/zero", 137), ("other", "tail /dev/zero; exit 4", 4)):
        world.run(identifier, "sh", "-c", script, options=("--memory-limit", str(16 << 20)), code=code)
        seen = stream.until(identifier, "/tasks/delete")
        assert once(seen) == ["/tasks/create", "/tasks/start", "/tasks/oom", "/tasks/exit", "/tasks/delete"]
        assert seen[2][1] == {"container_id": identifier}


# --- another program

def upgrade(world, identifier, program):
    with shim_client.Client(world.socket(identifier)) as client:
        return first(client.call("Upgrade", field(1, str(program)), GUARD), 1)


@pytest.fixture
def programs(world):
    """Two builds of the shim."""
    other = world.directory / "other" / "ctr-shim"
    other.parent.mkdir()
    shutil.copy(BIN / "ctr-shim", other)
    yield [other, BIN / "ctr-shim"]
    shutil.rmtree(other.parent)


def test_a_shim_becomes_another_program_under_containerd(world, stream, programs):
    """Its connection, calls, events and every byte of input and output go on; execs that ran, and new ones, end as they should."""
    before = world.log_text().count('msg="shim disconnected" id=c1')
    client = world.client("run", "--rm", "--runtime", RUNTIME, IMAGE, "c1", "sh", "-c", "cat; exit 9", stdin=subprocess.PIPE)
    data = b"".join(b"%d\n" % n for n in range(400000))

    def type_it():
        client.process.stdin.write(data)
        client.process.stdin.flush()
    shim_client.eventually(lambda: world.tasks().get("c1", (0, ""))[1] == "RUNNING", "c1 runs")
    pid = world.tasks()["c1"][0]
    shim, keeper = world.guards("c1")
    execs = [world.client("tasks", "exec", "--exec-id", f"e{n}", "c1", "sh", "-c", f"echo up; until [ -e /tmp/go ]; do usleep 20000; done; exit {n}")
             for n in range(1, 4)]
    for each in execs:
        each.out.until(rb"up\n")
    typist = threading.Thread(target=type_it)
    typist.start()
    for number in range(8):
        client.out.until_line(1 + number * 20000)
        assert upgrade(world, "c1", programs[number % 2])
        assert os.path.samefile(f"/proc/{shim.pid}/exe", programs[number % 2])
    client.out.until_line(400000)
    done = world.ctr("tasks", "exec", "--exec-id", "new", "c1", "sh", "-c", "cat; exit 7", code=7, stdin=b"in")
    assert done.out == "in"
    world.ctr("tasks", "pause", "c1")
    assert upgrade(world, "c1", programs[0])
    assert world.tasks()["c1"] == (pid, "PAUSED")
    world.ctr("tasks", "resume", "c1")
    open(f"/proc/{pid}/root/tmp/go", "w").close()
    assert [each.wait() for each in execs] == [1, 2, 3]
    typist.join()
    client.process.stdin.close()
    assert client.wait() == 9
    assert client.out.data == data
    assert shim.alive() is False and not keeper.alive() and world.log_text().count('msg="shim disconnected" id=c1') - before == 1
    seen = stream.until("c1", "/tasks/delete")
    of_init = [(topic, message) for topic, message in seen if message.get("id", "c1") == "c1" and "exec" not in topic]
    assert once(of_init) == ["/tasks/create", "/tasks/start", "/tasks/paused", "/tasks/resumed", "/tasks/exit", "/tasks/delete"]
    for name, status in (("e1", 1), ("e2", 2), ("e3", 3), ("new", 7)):
        of_exec = [(topic, message) for topic, message in seen if name in (message.get("exec_id"), message.get("id"))]
        assert once(of_exec)[:3] == ["/tasks/exec-added", "/tasks/exec-started", "/tasks/exit"] and of_exec[-1][1]["exit_status"] == status


@pytest.mark.parametrize("to", ["fifo", "file"])
def test_a_shim_becomes_another_program_when_output_or_process_has_ended(world, programs, to):
    options = ("--log-uri", f"file://{world.directory}/{to}.out") if to == "file" else ()
    world.background("c1", "sh", "-c", "echo one; exec >&- 2>&-; until [ -e /tmp/go ]; do usleep 20000; done; exit 5", options=options)
    pid = world.tasks()["c1"][0]
    init = events.Pid(pid)
    shim, _ = world.guards("c1")
    for program in programs:
        assert upgrade(world, "c1", program)
    assert world.tasks()["c1"] == (pid, "RUNNING")
    open(f"/proc/{pid}/root/tmp/go", "w").close()
    init.wait()
    events.wait_file(world.bundle("c1") / "exit")
    for program in programs:
        assert upgrade(world, "c1", program)
    assert world.tasks()["c1"] == (pid, "STOPPED")
    assert shim.alive() and world.shim_starts("c1") == 1
    assert "exit with non-zero exit code 5" in world.ctr("tasks", "rm", "c1", code=None).err
    world.ctr("containers", "rm", "c1")


# --- death of the shim

def once(seen):
    """Topics without what comes twice: an event that containerd took from a shim that was killed before it had written so."""
    topics = [topic for topic, _ in seen]
    return [topic for at, topic in enumerate(topics) if topics[at - 1:at] != [topic]]


def running(world, identifier, pid):
    """containerd gives a shim two seconds to answer; a host that is very busy may need more."""
    return shim_client.eventually(lambda: world.tasks().get(identifier) == (pid, "RUNNING"), f"{identifier} runs", 30)


def test_a_killed_shim_is_replaced_and_containerd_does_not_notice(world, stream):
    before = world.log_text().count('msg="shim disconnected" id=c1')
    client = world.client("run", "--rm", "--runtime", RUNTIME, IMAGE, "c1", "sh", "-c", "echo one; until [ -e /tmp/go ]; do usleep 20000; done; echo two; exit 9")
    client.out.until(rb"one\n")
    pid = world.tasks()["c1"][0]
    for kills in range(1, 4):
        shim, keeper = world.guards("c1")
        shim.kill_and_wait()
        assert running(world, "c1", pid)
        assert world.shim_starts("c1") == kills + 1 and keeper.alive()
    open(f"/proc/{pid}/root/tmp/go", "w").close()
    assert client.wait() == 9
    assert client.out.data == b"one\ntwo\n"
    assert once(stream.until("c1", "/tasks/delete")) == ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]
    # Once, at its normal end.
    assert world.log_text().count('msg="shim disconnected" id=c1') - before == 1


def test_calls_that_a_killed_shim_was_carrying_out_are_carried_on(world):
    """The shim is stopped, asked, and killed with the request in its socket; and killed with the request in its journal."""
    world.background("c1", "sleep", "1000")
    pid = world.tasks()["c1"][0]
    shim, _ = world.guards("c1")
    shim.kill(signal.SIGSTOP)
    client = world.client("tasks", "pause", "c1")
    assert not events.readable([client.pidfd], 0.3)
    shim.kill_and_wait()
    assert client.wait() == 0
    assert world.tasks()["c1"] == (pid, "PAUSED")
    world.ctr("tasks", "resume", "c1")
    world.remove("c1")


def test_without_shim_and_keeper_the_task_ends_with_the_status_that_it_got(world, stream):
    world.background("c1", "sleep", "1000")
    init = events.Pid(world.tasks()["c1"][0])
    shim, keeper = world.guards("c1")
    keeper.kill_and_wait()
    shim.kill_and_wait()
    init.wait()
    seen = stream.until("c1", "/tasks/delete")
    assert [t for t, _ in seen] == ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]
    assert [m["exit_status"] for _, m in seen[2:]] == [137, 137] and seen[2][1]["pid"] == init.pid
    assert "c1" not in world.tasks() and not world.bundle("c1").exists()
    world.ctr("containers", "rm", "c1")


# --- death of containerd

def forwarded(world, identifier_count=None):
    """Topics of the events that containerd took from shims, in their order, by its own log."""
    return re.findall(r'msg="event forwarded" ns=\S+ topic=(\S+)', world.log_text())


def test_a_task_outlives_containerd_and_is_found_again(world):
    world.background("c1", "sh", "-c", "until [ -e /tmp/go ]; do usleep 20000; done; exit 6")
    pid = world.tasks()["c1"][0]
    shim, keeper = world.guards("c1")
    world.kill9().start()
    assert world.tasks()["c1"] == (pid, "RUNNING") and shim.alive() and keeper.alive()
    world.ctr("tasks", "pause", "c1")
    world.ctr("tasks", "resume", "c1")
    client = world.client("tasks", "attach", "c1")
    open(f"/proc/{pid}/root/tmp/go", "w").close()
    assert client.wait() == 6
    world.remove("c1")


def test_what_happens_while_containerd_is_away_is_told_in_order_when_it_is_back(world):
    world.background("c1", "sh", "-c", "until [ -e /tmp/go ]; do usleep 20000; done; exit 6")
    pid = world.tasks()["c1"][0]
    init = events.Pid(pid)
    world.kill9()
    told = len(forwarded(world))
    open(f"/proc/{pid}/root/tmp/go", "w").close()
    init.wait()
    events.wait_file(world.bundle("c1") / "exit")
    world.start()
    assert world.tasks()["c1"] == (pid, "STOPPED")
    events.wait_file(world.log, lambda _: len(forwarded(world)) > told)
    assert forwarded(world)[told:] == ["/tasks/exit"]
    removed = world.ctr("tasks", "rm", "c1", code=None)
    assert "exit with non-zero exit code 6" in removed.err
    world.ctr("containers", "rm", "c1")


def test_a_shim_that_was_killed_while_containerd_was_away_lives_on_too(world):
    world.background("c1", "sh", "-c", "until [ -e /tmp/go ]; do usleep 20000; done; exit 8")
    pid = world.tasks()["c1"][0]
    shim, keeper = world.guards("c1")
    world.kill9()
    told = len(forwarded(world))
    shim.kill_and_wait()
    init = events.Pid(pid)
    open(f"/proc/{pid}/root/tmp/go", "w").close()
    init.wait()
    events.wait_file(world.bundle("c1") / "exit")
    world.start()
    assert world.tasks()["c1"] == (pid, "STOPPED") and keeper.alive()
    events.wait_file(world.log, lambda _: len(forwarded(world)) > told)
    assert forwarded(world)[told:] == ["/tasks/exit"]
    assert "exit with non-zero exit code 8" in world.ctr("tasks", "rm", "c1", code=None).err
    world.ctr("containers", "rm", "c1")


def test_a_shim_with_nothing_to_say_wakes_nobody(world):
    world.background("c1", "sleep", "1000")
    shim, keeper = world.guards("c1")

    def switches(pid):
        return int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", open(f"/proc/{pid}/status").read(), re.M).group(1))
    events.readable([shim.fd], 1.5)
    before = switches(shim.pid), switches(keeper.pid)
    events.readable([shim.fd], 3)
    assert (switches(shim.pid), switches(keeper.pid)) == before
    world.remove("c1")


# --- streams

def test_standard_input_reaches_the_process_and_its_end_too(world):
    data = b"".join(b"%d\n" % n for n in range(100000))
    done = world.run("c1", "sh", "-c", "md5sum; echo end", stdin=data)
    assert done.out == f"{hashlib.md5(data).hexdigest()}  -\nend\n"


def test_a_terminal_answers_resizes_and_ends_with_the_status(world):
    pid, fd = pty.fork()
    if pid == 0:
        os.execve(str(world.directory / "bin/ctr"), world.command("run", "--rm", "-t", "--runtime", RUNTIME, IMAGE, "c1", "sh"), {**world.env, "TERM": "linux"})
    try:
        terminal = events.Output(fd)
        terminal.until(rb"# ")
        fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 77, 0, 0))
        # The size comes by a call of its own.
        os.write(fd, b"until [ \"$(stty size)\" = '33 77' ]; do usleep 20000; done; echo the si'ze'\n")
        # One that comes before ctr listens is lost.
        for _ in range(100):
            os.kill(pid, signal.SIGWINCH)
            terminal.pump(0.2)
            if b"the size" in terminal.data:
                break
        terminal.until(rb"the size")
        os.write(fd, b"tty; exit 4\n")
        terminal.until(rb"/dev/pts/0|/dev/console")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 4
        pid = 0
    finally:
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        os.close(fd)


def test_execs_run_beside_the_first_process(world, stream):
    world.background("c1", "sleep", "1000")
    done = world.ctr("tasks", "exec", "--exec-id", "e1", "c1", "sh", "-c", "echo out; echo err >&2; cat; exit 3", code=3, stdin=b"in")
    assert (done.out, done.err.splitlines()[0]) == ("out\nin", "err")
    world.ctr("tasks", "exec", "--exec-id", "e2", "c1", "/no/such", code=1)
    listed = stream.until("c1", "/tasks/exit")
    assert [t for t, _ in listed] == ["/tasks/create", "/tasks/start", "/tasks/exec-added", "/tasks/exec-started", "/tasks/exit"] + [
        t for t, _ in listed[5:]]
    assert listed[4][1]["id"] == "e1" and listed[4][1]["exit_status"] == 3
    world.remove("c1")


def test_output_goes_to_a_file(world):
    path = world.directory / "deep" / "er" / "output"
    world.background("c1", "sh", "-c", "echo one; echo two >&2; echo three", options=("--log-uri", f"file://{path}"))
    events.wait_file(path, events.has_text("three\n"))
    assert sorted(path.read_text().split()) == ["one", "three", "two"]
    world.remove("c1")


LOGGER = """#!/usr/bin/python3
import os, sys
out = open(sys.argv[2], "wb")
out.write(f"{os.environ['CONTAINER_NAMESPACE']} {os.environ['CONTAINER_ID']} {sys.argv[1:]}\\n".encode())
os.close(5)
for fd in (3, 4):
    while data := os.read(fd, 65536):
        out.write(b"%d: " % fd + data)
out.write(b"end\\n")
out.close()
"""


def test_output_goes_to_a_program(world):
    program, path = world.directory / "logger", world.directory / "logged"
    program.write_text(LOGGER)
    program.chmod(0o755)
    world.background("c1", "sh", "-c", "echo one; echo two >&2", options=("--log-uri", f"binary://{program}?to={path}"))
    events.wait_file(path, events.has_text("end\n"))
    assert path.read_text() == f"{world.namespace} c1 ['to', '{path}']\n3: one\n4: two\nend\n"
    world.remove("c1")


def test_a_logger_that_does_not_exist_is_named(world):
    done = world.run("c1", "true", options=("--log-uri", "binary:///no/such/logger"), code=None)
    assert done.code != 0 and "/no/such/logger" in done.err


def test_output_that_nobody_reads_waits_for_a_reader_and_survives_the_shim(world):
    """ctr run -d goes away: the FIFO fills up, the process waits, and whoever attaches gets every byte."""
    world.background("c1", "sh", "-c", "until [ -e /tmp/go ]; do usleep 20000; done; seq 1 100000; exit 5")
    pid = world.tasks()["c1"][0]
    open(f"/proc/{pid}/root/tmp/go", "w").close()
    shim, _ = world.guards("c1")
    shim.kill_and_wait()
    assert running(world, "c1", pid)
    client = world.client("tasks", "attach", "c1")
    assert client.wait() == 5
    assert client.out.data == b"".join(b"%d\n" % n for n in range(1, 100001))
    world.remove("c1")


def test_a_client_that_goes_away_ends_neither_input_nor_process(world):
    client = world.client("run", "--rm", "--fifo-dir", world.directory / "fifos", "--runtime", RUNTIME, IMAGE, "c1", "sh", "-c", "echo up; cat; echo ended")
    client.out.until(rb"up\n")
    pid = world.tasks()["c1"][0]
    client.kill()
    client.process.wait()
    assert world.tasks()["c1"] == (pid, "RUNNING")
    world.remove("c1")


def test_shims_killed_at_any_moment_cost_neither_status_nor_output(world, stream):
    """Each container loses up to four shims, at moments that chance picks between its making and its end."""
    seed = int.from_bytes(os.urandom(4), "big")
    chance, kills, number = random.Random(seed), 0, 0
    # On a quick machine more containers end before their turn comes.
    while number < 12 or (kills < 12 and number < 48):
        identifier, code = f"k{number}", number + 1
        number += 1
        client = world.client("run", "--rm", "--runtime", RUNTIME, IMAGE, identifier, "sh", "-c", f"echo a; usleep 30000; echo b; exit {code}")
        mine, next_kill = 0, time.monotonic() + chance.random() * 0.15
        while mine < 4 and not events.readable([client.pidfd], 0.0005):
            if time.monotonic() < next_kill:
                continue
            try:
                shim, _ = world.guards(identifier)
            except (OSError, AssertionError, KeyError, IndexError):
                continue
            shim.kill()
            mine, next_kill = mine + 1, time.monotonic() + chance.random() * 0.05
        kills += mine
        assert client.wait() == code, f"seed {seed}: {client}"
        assert client.out.data == b"a\nb\n", f"seed {seed}: {client}"
        assert once(stream.until(identifier, "/tasks/delete")) == ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"], f"seed {seed}"
    assert kills >= 12, f"seed {seed}"
