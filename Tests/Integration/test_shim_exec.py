"""Further processes in a container, through the shim alone: their life, their records, their output."""
import os
import resource
import shutil
import signal
import struct
import tempfile
import time
from pathlib import Path

import pytest

from exec_client import Exec, descriptors, processes, restarted
from shim_client import (EXHAUSTED, EXISTS, GUARD, INVALID, NOT_FOUND, PRECONDITION, TASK2, Container, Failure, alive, become_subreaper, children,
                         decode, eventually, field, first, log_bytes, log_entries, read_record, stat)

BIN = Path(__file__).parents[2] / "bin"
RUNC, CTRUN = "/usr/sbin/runc", str(BIN / "ctrun")
CREATED, RUNNING, STOPPED, PAUSED = 1, 2, 3, 4
V2 = next((line.split()[1] for line in Path("/proc/mounts").read_text().splitlines() if line.split()[2] == "cgroup2"), None)


@pytest.fixture(scope="module", autouse=True)
def reaper():
    become_subreaper()
    yield
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                break
        except ChildProcessError:
            break


@pytest.fixture
def make():
    base = tempfile.mkdtemp(prefix="ctr-exec-")
    made = []

    def container(*args, runtime=CTRUN, mode="detached", **options):
        made.append(Container(base, str(BIN), list(args) or ["/bin/sleep", "600"], runtime, mode, **options))
        return made[-1]

    container.base = base
    yield container
    for each in made:
        each.clean_up()
    shutil.rmtree(base)


@pytest.fixture
def running(make):
    """A container that sleeps, and a client of its shim."""
    container = make()
    client, _ = container.run()
    return container, client


def code(call):
    with pytest.raises(Failure) as failure:
        call()
    return failure.value.code


def kill_and_wait(pid):
    began = stat(pid)
    os.kill(pid, signal.SIGKILL)

    def gone():
        now = stat(pid)
        return now is None or now[0] == "Z" or now[2] != began[2]

    eventually(gone, f"{pid} is gone")


def sh(container, client, name, script, **options):
    return Exec(container, client, name, "/bin/sh", "-c", script, **options)


def wrapped_runtime(make, word, script):
    """The runtime, which runs `script` before the action `word`."""
    path = f"{make.base}/wrapped"
    Path(path).write_text(f'#!/bin/sh\ncase " $* " in *" {word} "*) {script};; esac\nexec {CTRUN} "$@"\n')
    os.chmod(path, 0o755)
    return path


# --- a life ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("runtime", [pytest.param((CTRUN, "detached"), id="ctrun"), pytest.param((RUNC, "mounted"), id="runc")])
def test_a_life(make, runtime):
    c = make(runtime=runtime[0], mode=runtime[1])
    client = c.start_guards().client()
    early = sh(c, client, "e1", "true")
    assert code(early.add) == NOT_FOUND
    init = c.create(client)
    c.start(client)
    e = sh(c, client, "e1", "echo out; echo err >&2; exit 43").add()
    record = e.record
    assert (record["exec_id"], record["terminal"], record["stdout"], record["starting"]) == ("e1", "0", "log:", "0")
    fields = e.state()
    assert (first(fields, 1), first(fields, 11), first(fields, 3), first(fields, 4)) == (c.id.encode(), b"e1", 0, CREATED)
    assert first(fields, 6) == b"log:"
    assert [p["exec_id"] for p in processes(client)] == ["e1"] and processes(client)[0]["pid"] == 0
    assert code(e.add) == EXISTS
    assert code(lambda: e.kill(15)) == NOT_FOUND, "it does not run yet"
    waiting = client.send(TASK2, "Wait", e.target)
    pid = e.start()
    assert pid == e.pid and pid != init
    assert first(client.answer(waiting), 1) == 43 == e.wait()
    assert e.exit["source"] == "reaped" and e.exit["code"] == "43"
    assert e.output() == b"out\n" and e.output(2) == b"err\n"
    fields = e.state()
    assert (first(fields, 3), first(fields, 4), first(fields, 9)) == (pid, STOPPED, 43)
    known = processes(client)[0]
    assert (known["pid"], known["exited"], known["exit_status"], known["exit_source"], known["stdout"]) == (pid, 1, 43, "reaped", "log:")
    assert code(e.start) == PRECONDITION
    assert code(lambda: e.kill(9)) == NOT_FOUND
    assert e.delete() == 43
    assert code(e.delete) == NOT_FOUND and code(e.state) == NOT_FOUND and code(e.wait_log) == NOT_FOUND
    assert not os.path.exists(e.directory) and processes(client) == []
    assert sh(c, client, "e1", "exit 7").run().wait() == 7, "an id is free once it is deleted"
    assert first(client.call("State", c.target), 4) == RUNNING


def test_what_is_refused(running):
    c, client = running
    for name in ("a/b", "..", ".", "x" * 129, "ä", "a b"):
        assert code(sh(c, client, name, "true").add) == INVALID, name
    for streams in ({"stdout": "nowhere"}, {"stdin": "log:"}, {"stderr": "spool:"}):
        assert code(sh(c, client, "e", "true", **streams).add) == INVALID
    assert code(lambda: client.call("Exec", c.target + field(2, "e"))) == INVALID, "no process"
    for spec in (b"", b"[]", b"{", b"nothing"):
        assert code(lambda: client.call("Exec", c.target + field(2, "e") + field(7, field(1, "x") + field(2, spec)))) == INVALID
    for method in ("Start", "State", "Wait", "Delete", "CloseIO", "ResizePty"):
        assert code(lambda: client.call(method, c.target + field(2, "none"))) == NOT_FOUND, method
    assert code(lambda: client.call("Kill", c.target + field(2, "none") + field(3, 9))) == NOT_FOUND
    assert code(lambda: client.call("WriteInput", field(1, "none") + field(2, "x"), GUARD)) == NOT_FOUND
    assert processes(client) == [] and (not os.path.exists(f"{c.bundle}/exec") or os.listdir(f"{c.bundle}/exec") == [])


def test_a_command_that_is_not_there(running):
    c, client = running
    e = Exec(c, client, "e", "/bin/missing").add()
    waiting = client.send(TASK2, "Wait", e.target)
    with pytest.raises(Failure) as failure:
        e.start()
    assert failure.value.code == INVALID and "missing" in failure.value.message
    assert first(client.answer(waiting), 1) == 255
    assert code(e.start) == PRECONDITION
    assert first(e.state(), 4) == STOPPED and processes(client)[0]["exit_source"] == "unknown"
    assert e.delete() == 255 and processes(client) == []


def test_pids_name_their_exec(running):
    c, client = running
    e = sh(c, client, "e", "sleep 600").run()
    eventually(lambda: len(client.call("Pids", c.target)[1]) >= 2, "both are listed")
    named = {}
    for message in client.call("Pids", c.target)[1]:
        fields = decode(message)
        info = decode(first(fields, 2, b""))
        named[first(fields, 1)] = (first(info, 1, b""), first(decode(first(info, 2, b"")), 1, b""))
    assert named[e.pid] == (b"containerd.runc.v1.ProcessDetails", b"e")
    assert named[c.info(client)["task_pid"]] == (b"", b"")


def test_a_kill_reaches_the_whole_group(running):
    c, client = running
    e = sh(c, client, "e" * 40, "(trap '' TERM; sleep 600) & (sleep 600) & echo ready; wait", stdout="log:").run()
    e.until(b"ready")
    if V2:
        group = f"{V2}/{c.parent}/{c.namespace}/{c.id}/exec-{'e' * 32}"
        assert len(Path(f"{group}/cgroup.procs").read_text().split()) >= 3
        assert e.record["cgroup"].endswith(f"/exec-{'e' * 32}")
    e.kill()
    assert e.wait() == 137
    if V2:
        eventually(lambda: Path(f"{group}/cgroup.procs").read_text() == "", "the group is empty")
    e.delete()
    if V2:
        assert not os.path.exists(group)
    assert first(client.call("State", c.target), 4) == RUNNING


def test_a_signal_reaches_the_process_alone(running):
    c, client = running
    e = sh(c, client, "e", "trap 'exit 5' USR1; echo ready; while :; do sleep 1; done").run()
    e.until(b"ready")
    e.kill(signal.SIGUSR1)
    assert e.wait() == 5


def test_execs_end_before_the_first_process(running):
    c, client = running
    execs = [sh(c, client, f"e{n}", "sleep 600").run() for n in range(3)]
    waits = [client.send(TASK2, "Wait", e.target) for e in execs]
    last = client.send(TASK2, "Wait", c.target)
    c.kill(client)
    order = []
    for stream in [last] + waits:
        client.answer(stream)
    assert all(int(read_record(f"{e.directory}/exit")["exited_boot_ns"]) <= int(c.exit["exited_boot_ns"]) for e in execs), order
    assert [e.wait() for e in execs] == [137] * 3 and c.wait(client) == 137
    assert code(sh(c, client, "late", "true").add) == PRECONDITION


def test_a_start_after_the_end_is_refused(running):
    c, client = running
    e = sh(c, client, "e", "true").add()
    c.kill(client)
    c.wait(client)
    assert code(e.start) == PRECONDITION
    assert e.delete() == 0


def test_a_paused_container_starts_nothing(running):
    c, client = running
    e = sh(c, client, "e", "exit 3").add()
    client.call("Pause", c.target)
    assert code(e.start) == PRECONDITION
    client.call("Resume", c.target)
    e.start()
    assert e.wait() == 3


def test_no_more_than_the_limit(running):
    c, client = running
    for n in range(128):
        sh(c, client, f"e{n}", "true").add()
    assert code(sh(c, client, "more", "true").add) == EXHAUSTED
    sh(c, client, "e0", "true").delete()
    assert sh(c, client, "more", "exit 4").run().wait() == 4
    assert len(processes(client)) == 128


# --- beside each other -----------------------------------------------------------------------------------------------

def test_a_slow_start_holds_up_no_other(make):
    c = make(runtime=wrapped_runtime(make, "exec", f'case "$*" in *exec/slow/*) cat {make.base}/go >/dev/null;; esac'))
    os.mkfifo(f"{make.base}/go")
    client, _ = c.run()
    slow = sh(c, client, "slow", "exit 9").add()
    pending = slow.sent_start()
    assert sh(c, client, "fast", "exit 2").run().wait() == 2
    client.call("Pause", c.target)
    client.call("Resume", c.target)
    again = slow.sent_start()
    with open(f"{make.base}/go", "w"):
        pass
    pid = first(client.answer(pending), 1)
    assert pid == first(client.answer(again), 1) == slow.pid
    assert slow.wait() == 9


def test_many_at_once(running):
    c, client = running
    execs = [sh(c, client, f"e{n}", f"echo {n}; exit {n}").add() for n in range(40)]
    starts = [e.sent_start() for e in execs]
    pids = [first(client.answer(stream), 1) for stream in starts]
    assert len(set(pids)) == 40
    assert [e.wait() for e in execs] == list(range(40))
    assert [e.output() for e in execs] == [b"%d\n" % n for n in range(40)]
    assert [e.delete() for e in execs] == list(range(40))


def test_a_delete_of_the_container_ends_a_start_that_hangs(make):
    c = make(runtime=wrapped_runtime(make, "exec", f"exec cat {make.base}/never"))
    os.mkfifo(f"{make.base}/never")
    client, _ = c.run()
    e = sh(c, client, "e", "true").add()
    pending = e.sent_start()
    eventually(lambda: any(stat(pid) for pid in children(c.shim) if pid != c.info(client)["task_pid"]), "the runtime runs")
    c.kill(client)
    assert c.wait(client) == 137
    assert c.delete(client) == 137
    assert code(lambda: client.answer(pending)) != 0


def test_a_thousand_leave_nothing(running):
    c, client = running
    sh(c, client, "first", "true").run().wait()
    sh(c, client, "first", "true").delete()
    before = descriptors(c.shim), descriptors(c.keeper)
    for n in range(1000):
        e = sh(c, client, f"e{n}", "echo x").run()
        assert e.wait() == 0
        e.delete()
    assert (descriptors(c.shim), descriptors(c.keeper)) == before
    assert os.listdir(f"{c.bundle}/exec") == [] and processes(client) == []
    if V2:
        assert not [name for name in os.listdir(f"{V2}/{c.parent}/{c.namespace}/{c.id}") if name.startswith("exec-")]
    shim = c.shim
    kill_and_wait(shim)
    client = restarted(c, shim)
    # It asks the runtime first.
    eventually(lambda: descriptors(c.shim) == before[0], "the same descriptors")
    assert sh(c, client, "after", "exit 6").run().wait() == 6


# --- output ------------------------------------------------------------------------------------------------------------

def test_output_without_a_place_is_dev_null(running):
    c, client = running
    e = sh(c, client, "e", "x=$(for n in 0 1 2; do readlink /proc/$$/fd/$n; done); echo \"$x\" > /tmp/where", stdout="", stderr="").run()
    assert e.wait() == 0
    assert sh(c, client, "r", "cat /tmp/where").run().output() == b"/dev/null\n" * 3
    assert code(e.wait_log) == PRECONDITION and not os.path.exists(e.log)


def test_one_stream_alone(running):
    c, client = running
    e = sh(c, client, "e", "echo out; echo err >&2", stderr="").run()
    assert e.output() == b"out\n" and e.output(2) == b""


def test_a_child_that_keeps_the_pipe_does_not_keep_the_stream(running):
    c, client = running
    e = sh(c, client, "e", "sleep 600 & echo said; exit 0").run()
    assert e.wait() == 0
    began = eventually(lambda: e.exit, "exit record")["exited_boot_ns"]
    assert e.output() == b"said\n"
    assert time.clock_gettime_ns(time.CLOCK_BOOTTIME) - int(began) < 4_000_000_000
    assert e.delete() == 0


def test_another_user_writes_to_its_own_streams(running):
    c, client = running
    e = sh(c, client, "e", "echo again > /dev/fd/1; id -u", user={"uid": 1234, "gid": 5})
    assert e.run().output() == b"again\n1234\n"


class Reader:
    """Reads an attached log as a manager does: what the index speaks of, behind what it has."""

    def __init__(self, e, late=False):
        self.e, self.position, self.ended, self.late = e, 0, 0, late
        self.cursors = {1: (0, 0), 2: (0, 0)}
        self.data = {1: b"", 2: b""}

    def step(self):
        """Waits for more, takes it, and has said that it has what it had."""
        self.position, self.ended = self.e.wait_log(self.position)
        for stream, flags, segment, length, offset, _ in log_entries(self.e.log):
            if flags & 14 or (segment, offset) < self.cursors[stream]:
                continue
            path = f"{self.e.log}/{'stdout' if stream == 1 else 'stderr'}.{segment:06d}"
            if self.late and not os.path.exists(path):
                continue
            with open(path, "rb") as file:
                file.seek(offset)
                piece = file.read(length)
            assert len(piece) == length
            self.data[stream] += piece
            self.cursors[stream] = (segment, offset + length)
        return self

    def all(self):
        while not self.ended:
            self.step()
        return self.data


def test_an_attached_log_waits_for_its_reader(running):
    c, client = running
    size = 24 << 20
    e = sh(c, client, "e", f"head -c {size} /dev/zero; echo end >&2", stdout="log:attached", stderr="log:attached").add()
    reader = Reader(e)
    early = client.send(GUARD, "WaitLog", field(2, "e"))
    e.start()
    client.answer(early)
    eventually(lambda: log_size(e.log) >= 7 << 20, "as much is held as may be unread")
    waiting = client.send(TASK2, "Wait", e.target)
    with pytest.raises(Failure):
        e.wait(timeout_ns=300_000_000)
    assert log_size(e.log) <= (8 << 20) + (1 << 20) and not e.exit
    most = 0
    while not reader.ended:
        reader.step()
        most = max(most, log_size(e.log))
    assert reader.data[1] == bytes(size) and reader.data[2] == b"end\n"
    assert first(client.answer(waiting), 1) == 0 and most <= (8 << 20) + (1 << 20)
    assert os.path.getsize(f"{e.log}/index") < 256 << 10
    e.wait_log(reader.position)
    assert log_size(e.log) < 1 << 20, "what was read is gone"
    e.delete()


def test_an_attached_log_goes_on_in_the_next_shim(running):
    c, client = running
    e = sh(c, client, "e", "seq 1 1000000; exit 3", stdout="log:attached").run()
    reader = Reader(e)
    for _ in range(3):
        reader.step()
        shim = c.shim
        kill_and_wait(shim)
        e.client = restarted(c, shim)
    assert reader.all()[1] == b"".join(b"%d\n" % n for n in range(1, 1000001))
    assert e.wait() == 3


def test_an_attached_log_without_a_reader_keeps_the_newest(running):
    c, client = running
    e = sh(c, client, "e", "seq 1 3000000", stdout="log:attached").add()
    e.wait_log(2**64 - 1)
    e.start()
    assert e.wait() == 0, "nobody reads, and it ends all the same"
    data = Reader(e, late=True).all()[1]
    # Entries count too: of a process that writes little at a time there are many.
    assert 1 << 20 <= len(data) + 40 * len(log_entries(e.log)) and len(data) < 2 << 20 and data.endswith(b"\n3000000\n")


def test_a_reader_that_leaves_is_not_waited_for(running):
    c, client = running
    e = sh(c, client, "e", "head -c 20000000 /dev/zero", stdout="log:attached").run()
    e.wait_log(0)
    waiting = client.send(TASK2, "Wait", e.target)
    eventually(lambda: log_size(e.log) >= 7 << 20, "it waits for its reader")
    e.wait_log(2**64 - 1)
    assert first(client.answer(waiting), 1) == 0
    assert log_size(e.log) < 2 << 20


def log_size(directory):
    return sum(os.path.getsize(f"{directory}/{name}") for name in os.listdir(directory) if name != "index")


# --- the shim is killed --------------------------------------------------------------------------------------------------

def test_a_new_shim_finds_every_exec(running):
    c, client = running
    registered = sh(c, client, "registered", "exit 1").add()
    ended = sh(c, client, "ended", "echo gone; exit 2").run()
    assert ended.wait() == 2
    lives = sh(c, client, "lives", "echo before; cat < /tmp/go; echo after; exit 3")
    os.mkfifo(f"{c.base}/layer/tmp/go")
    lives.run()
    lives.until(b"before")
    known = processes(client)
    shim = c.shim
    kill_and_wait(shim)
    client = restarted(c, shim)
    for e in (registered, ended, lives):
        e.client = client
    assert processes(client) == known
    assert registered.start() and registered.wait() == 1
    assert ended.wait() == 2 and ended.output() == b"gone\n"
    assert code(lives.start) == PRECONDITION
    sh(c, client, "go", "echo x > /tmp/go").run()
    assert lives.wait() == 3 and lives.output() == b"before\nx\nafter\n"
    assert lives.exit["source"] == "reaped"
    assert [e.delete() for e in (registered, ended, lives)] == [1, 2, 3]


def test_an_exec_that_ends_while_no_shim_lives(make):
    c = make()
    client, _ = c.run()
    os.mkfifo(f"{make.base}/layer/tmp/go")
    e = sh(c, client, "e", "read x < /tmp/go; echo late; exit 21").run()
    shim = c.shim
    os.kill(c.keeper, signal.SIGSTOP)
    try:
        kill_and_wait(shim)
        with open(f"/proc/{e.pid}/root/tmp/go", "w") as file:
            file.write("x\n")
        eventually(lambda: not alive(e.pid), "the exec ends")
    finally:
        os.kill(c.keeper, signal.SIGCONT)
    e.client = client = restarted(c, shim)
    assert e.wait() == 21 and e.exit["source"] == "reaped"
    assert e.output() == b"late\n" and e.delete() == 21


def test_kills_in_the_middle_of_output(running):
    c, client = running
    e = sh(c, client, "e", "seq 1 400000; echo end >&2; exit 17", stderr="log:").run()
    for _ in range(6):
        shim = c.shim
        kill_and_wait(shim)
        e.client = client = restarted(c, shim)
    assert e.wait() == 17
    assert e.output() == b"".join(b"%d\n" % n for n in range(1, 400001)) and e.output(2) == b"end\n"
    flags = [entry[1] for entry in log_entries(e.log)]
    assert not any(flag & 2 for flag in flags)


@pytest.mark.parametrize("where", ["before", "after"])
def test_kills_in_the_middle_of_a_start(make, where):
    """The runtime is held before it does anything, and after it has started the process: Start is repeated, the process runs once."""
    script = f'echo x > {make.base}/reached; read x < {make.base}/hold'
    c = make(runtime=wrapped_runtime(make, "exec", script if where == "before" else f"{CTRUN} \"$@\"; status=$?; {script}; exit $status"))
    for name in ("reached", "hold"):
        os.mkfifo(f"{make.base}/{name}")
    client, _ = c.run()
    e = sh(c, client, "e", "echo once >> /tmp/count; sleep 600").add()
    e.sent_start()
    with open(f"{make.base}/reached") as file:
        file.read()
    shim = c.shim
    kill_and_wait(shim)
    client = restarted(c, shim)
    e.client = client
    Path(c.runtime).write_text(f'#!/bin/sh\nexec {CTRUN} "$@"\n')
    if where == "before":
        assert processes(client)[0]["pid"] == 0
        assert e.start() == e.pid
    else:
        assert processes(client)[0]["pid"] == e.pid and code(e.start) == PRECONDITION
    assert alive(e.pid) and first(e.state(), 4) == RUNNING
    count = sh(c, client, "count", "cat /tmp/count").run()
    assert count.output() == b"once\n"
    e.kill()
    assert e.wait() == 137


def test_leftovers_of_a_killed_registration_are_removed(running):
    c, client = running
    directory = f"{c.bundle}/exec/half"
    os.makedirs(f"{directory}/log")
    for name in ("process.json", "exec.tmp", "log/index"):
        Path(f"{directory}/{name}").write_text("half")
    shim = c.shim
    kill_and_wait(shim)
    client = restarted(c, shim)
    assert processes(client) == [] and not os.path.exists(directory)
    assert sh(c, client, "half", "exit 8").run().wait() == 8


# --- limits of a running container -----------------------------------------------------------------------------------------

def test_update_changes_limits(running):
    c, client = running
    resources = b'{"pids":{"limit":77}}'
    client.call("Update", c.target + field(2, field(1, "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources") + field(2, resources)))
    found = [Path(p).read_text().strip() for p in (f"/sys/fs/cgroup/pids/{c.parent}/{c.namespace}/{c.id}/pids.max",
                                                    f"/sys/fs/cgroup/{c.parent}/{c.namespace}/{c.id}/pids.max") if os.path.exists(p)]
    assert found == ["77"]
    assert code(lambda: client.call("Update", c.target)) == INVALID
    with pytest.raises(Failure) as failure:
        client.call("Update", c.target + field(2, field(1, "x") + field(2, b"{")))
    assert failure.value.message


def test_as_many_execs_as_there_may_be_with_few_descriptors(make):
    """The shim raises its own limit, and what it starts has the one that there was; so does what another program of it starts."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, limits[1]))
    try:
        c = make("/bin/sh", "-c", "ulimit -Sn; exec sleep 600")
        client, _ = c.run()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    execs = [Exec(c, client, f"e{n}", "/bin/sh", "-c", "read x; exit $x", stdin="spool:").add() for n in range(128)]
    starts = [e.sent_start() for e in execs]
    assert all(first(client.answer(start), 1) > 1 for start in starts)
    assert len(os.listdir(f"/proc/{c.shim}/fd")) > 1024
    # One dies with all of them in the queue, and one becomes another.
    old = c.shim
    kill_and_wait(old)
    client = restarted(c, old)
    assert first(client.call("Upgrade", service=GUARD), 1)
    for number, e in enumerate(execs):
        e.client = client
        e.write(b"%d\n" % number, close=True)
    assert [e.wait() for e in execs] == list(range(128))
    assert [e.delete() for e in execs] == list(range(128))
    limit = Exec(c, client, "limit", "/bin/sh", "-c", "ulimit -Sn; ulimit -Hn").run()
    assert limit.wait() == 0
    assert limit.output() == b"1024\n%d\n" % limits[1]
    c.kill(client)
    c.wait(client)
    assert b"1024\n" == log_bytes(c.log, 1)
