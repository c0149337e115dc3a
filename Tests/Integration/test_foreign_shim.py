"""Shims of others: an unmodified containerd-shim-runc-v2 of Debian's as --runtime io.containerd.runc.v2, driven as our own."""
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import threading

import pytest

import checks
import events
import hostcheck
from events import Pid
from harness import BIN, IMAGE
from ttrpc_client import Client, RPCError, decode, encode, one, text

SHIM = shutil.which("containerd-shim-runc-v2")
RUNC = ("--runtime", "io.containerd.runc.v2")
PATIENT = "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 1000 & wait $!; done"
TASKS = "ctr.v1.Tasks"
CREATED, RUNNING, PAUSED, STOPPED = 1, 2, 3, 4


def test_the_shim_of_debian_is_installed():
    assert SHIM and shutil.which("runc"), "make deps-peers installs them"


def foreign(world, identifier):
    return world.record(world.bundle(identifier) / "foreign")


def shim(world, identifier):
    return Pid(world.task(identifier)["shim_pid"])


def logger(world, identifier):
    return Pid(int(world.record(world.incarnation(identifier) / "log" / "pid")["pid"]))


def mounted(world, identifier):
    return f"{world.bundle(identifier)}/rootfs" in open("/proc/self/mountinfo").read()


@pytest.fixture
def patient(world):
    identifier = world.background(PATIENT, *RUNC)
    said(world, identifier, b"ready\n")
    yield identifier
    world.ctrctl("rm", "-f", identifier)


def said(world, identifier, data):
    follower = world.client("logs", "-f", identifier)
    follower.out.until(data)
    follower.close()


# --- a container's life

@pytest.mark.parametrize("code", [0, 7, 255])
def test_run_prints_both_streams_and_returns_the_status(world, code):
    result = world.ctrctl("run", "--rm", *RUNC, IMAGE, "/bin/sh", "-c", f"echo out; echo err >&2; exit {code}", code=code)
    assert (result.out, result.err) == ("out\n", "err\n")


def test_names_paths_and_what_is_recorded(world, patient):
    record = foreign(world, patient)
    assert record["program"] == SHIM and record["version"] == "2" and record["incarnation"] == "1"
    assert record["address"].startswith("unix:///")
    task = world.task(patient)
    assert task["guards"] == "shim_only" and task["keeper_pid"] == 0
    assert f"0::/{world.cgroup_parent}/shims/{patient}" in open(f"/proc/{task['shim_pid']}/cgroup").read()
    by_path = world.ctrctl("run", "--rm", "--runtime", SHIM, IMAGE, "echo", "by path")
    assert by_path.out == "by path\n"


def test_the_promises_that_do_not_hold_are_named(world, patient):
    with Client(world.address) as client:
        container = decode(one(client.call("ctr.v1.Containers", "Get", (1, "default"), (2, patient)), 1))
    limits = [line.decode() for line in decode(one(container, 8)).get(14, [])]
    assert any("killed shim is not replaced" in line for line in limits) and any("exit status is lost" in line for line in limits)
    assert all("\n" not in line for line in limits)


@pytest.mark.parametrize("name, says", [
    ("io.containerd.nosuch.v2", "containerd-shim-nosuch-v2"), ("/nowhere/containerd-shim-x-v2", "/nowhere/containerd-shim-x-v2"), ("io..v2", "io..v2")])
def test_a_shim_that_does_not_exist_is_named_with_its_places(world, name, says):
    result = world.ctrctl("run", "--rm", "--runtime", name, IMAGE, "true", code=125)
    assert says in result.err and len(result.err.strip().splitlines()) == 1
    if name.endswith("nosuch.v2"):
        assert str(BIN) in result.err and "/usr/bin" in result.err


@pytest.mark.parametrize("command, code", [("/no/such", 127), ("/etc/passwd", 126)])
def test_what_cannot_be_executed_has_the_usual_status(world, command, code):
    world.ctrctl("run", "--rm", *RUNC, IMAGE, command, code=code)


def test_a_failed_start_leaves_nothing(alone):
    before = alone.snapshot()
    alone.ctrctl("run", "--name", "bad", *RUNC, IMAGE, "/no/such", code=127)
    alone.assert_no_leaks(before)


def test_stop_and_start_again(world):
    identifier = world.background(PATIENT, *RUNC)
    said(world, identifier, b"ready\n")
    world.ctrctl("stop", identifier)
    checks.reaped(world.task(identifier), 3)
    assert world.ctrctl("logs", identifier).out == "ready\nbye\n"
    world.ctrctl("start", identifier)
    task = world.task(identifier)
    assert task["status"] == "running" and task["incarnation"] == 2
    said(world, identifier, b"ready\n")
    world.ctrctl("rm", "-f", identifier)


def test_pause_and_resume(world, patient):
    world.ctrctl("tasks", "pause", patient)
    assert world.task(patient)["status"] == "paused"
    world.ctrctl("tasks", "resume", patient)
    assert world.task(patient)["status"] == "running"


def test_a_paused_container_is_killed(world):
    identifier = world.background(PATIENT, *RUNC)
    world.ctrctl("tasks", "pause", identifier)
    world.ctrctl("rm", "-f", identifier)


def test_limits_are_written_and_memory_kills_are_seen(world):
    identifier = world.run("-d", *RUNC, "--memory", "16m", IMAGE, "/bin/sh", "-c", "/bin/dd if=/dev/zero of=/dev/null bs=200M count=1; exit 5")
    assert world.wait(identifier) == 5
    assert world.task(identifier)["exit"]["oom_killed"] is True
    world.ctrctl("rm", identifier)


def test_every_line_of_a_loud_container_arrives_once(world):
    total = 200000
    result = world.ctrctl("run", "--rm", *RUNC, IMAGE, "/bin/sh", "-c", f"seq {total}")
    checks.numbered_lines(result.raw, last=total)


def test_the_exit_is_recorded_before_it_is_announced(world):
    identifier = world.background("exit 9", *RUNC)
    assert world.wait(identifier) == 9
    record = world.record(world.incarnation(identifier) / "exit")
    assert (record["code"], record["source"]) == ("9", "reaped")
    world.ctrctl("rm", identifier)


# --- the manager's restarts

def test_a_restarted_manager_finds_the_container_and_its_output(alone):
    identifier = alone.background("i=0; trap 'exit 3' TERM; while :; do i=$((i+1)); echo $i; usleep 2000; done", *RUNC)
    follower = alone.client("logs", "-f", identifier)
    follower.out.until_line(20)
    pid = alone.task(identifier)["pid"]
    for _ in range(3):
        alone.restart()
        task = alone.task(identifier)
        assert (task["status"], task["pid"], task["guards"]) == ("running", pid, "shim_only")
    follower.out.until_line(2000)
    alone.ctrctl("tasks", "kill", identifier)
    assert alone.wait(identifier) == 3
    follower.wait()
    checks.numbered_lines(follower.out.data)


def test_an_end_while_no_manager_ran_is_known_from_the_shim(alone):
    identifier = alone.background(PATIENT, *RUNC)
    said(alone, identifier, b"ready\n")
    init = Pid(alone.task(identifier)["pid"])
    alone.kill9()
    init.kill(signal.SIGTERM)
    init.wait()
    alone.start()
    assert alone.wait(identifier) == 3
    checks.reaped(alone.task(identifier), 3)
    assert alone.ctrctl("logs", identifier).out == "ready\nbye\n"


@pytest.mark.parametrize("call, number", [("symlinkat", 1), ("mknodat", 1), ("renameat", 1), ("renameat", 2), ("renameat", 3), ("renameat", 4), ("connect", 1),
                                          ("waitid,wait4", 1), ("unlinkat", 1), ("inotify_add_watch", 1)])
def test_a_manager_that_is_killed_in_a_start_leaves_it_done_or_undone(alone, call, number):
    """strace kills the manager at one call after another of a start; the next manager has the container running or not at all."""
    name = "c" + secrets.token_hex(3)
    before = alone.snapshot()
    # The manager's threads, and not what it starts.
    threads = os.listdir(f"/proc/{alone.process.pid}/task")
    strace = subprocess.Popen(["strace", *(word for thread in threads for word in ("-p", thread)), "-o", "/dev/null", "-e", f"trace={call}",
                               "-e", f"inject={call}:signal=KILL:when={number}"], stderr=subprocess.PIPE)
    for _ in threads:
        assert b"attached" in strace.stderr.readline()
    client = alone.client("run", "-d", "--name", name, *RUNC, IMAGE, "/bin/sh", "-c", PATIENT)
    assert events.readable([client.pidfd, alone.manager.fd], 20)
    alone.kill9()
    strace.wait(20)
    strace.stderr.close()
    alone.start()
    assert client.wait() in (0, 125), client
    # The next manager carries the start on, or undoes it.
    deadline = events.Deadline(30)
    while True:
        found = [t for t in alone.tasks().values() if t["container_name"] == name]
        if not found or found[0]["status"] in ("running", "stopped"):
            break
        deadline.left(found[0])
    if found:
        alone.ctrctl("rm", "-f", name)
    remove_manager(before, alone)


def remove_manager(before, world):
    kept = {**before, "process": before["process"] | {item for item in world.snapshot()["process"] if item.startswith(f"{world.process.pid}@")}}
    world.assert_no_leaks(kept)


# --- what is lost with such a shim, and is said

def test_a_killed_shim_leaves_the_container_and_its_log(alone):
    identifier = alone.background("trap 'echo bye; exit 3' TERM; i=0; while :; do i=$((i+1)); echo $i; usleep 2000; done", *RUNC)
    follower = alone.client("logs", "-f", identifier)
    follower.out.until_line(10)
    init = Pid(alone.task(identifier)["pid"])
    shim(alone, identifier).kill_and_wait()
    lines = follower.out.data.count(b"\n")
    follower.out.until_line(lines + 200)
    task = alone.task(identifier)
    assert init.alive() and task["status"] == "running" and task["guards"] == "lost"
    alone.ctrctl("kill", "--signal", "TERM", identifier)
    init.wait()
    alone.ctrctl("tasks", "wait", identifier, code=None)
    task = alone.task(identifier)
    # The manager held a pidfd: from Linux 6.15 on the kernel tells, before that a zombie does while there is one; else it is unknown, and no number.
    assert (task["exit"]["source"] in ("pidfd", "zombie") and task["exit"]["code"] == 3) or (task["exit"]["source"] == "unknown" and task["exit"]["reason"])
    follower.wait()
    alone.ctrctl("rm", identifier)


def test_an_end_that_nobody_saw_is_true_or_unknown_and_never_137(alone):
    identifier = alone.background(PATIENT, *RUNC)
    said(alone, identifier, b"ready\n")
    init, guard = Pid(alone.task(identifier)["pid"]), shim(alone, identifier)
    alone.kill9()
    guard.kill_and_wait()
    init.kill(signal.SIGTERM)
    init.wait()
    alone.start()
    end = alone.task(identifier)["exit"]
    # Known only while pid 1 has not collected it.
    assert (end["source"], end["code"]) == ("zombie", 3) or (end["source"] == "unknown" and "the shim died" in end["reason"])
    alone.ctrctl("rm", identifier)


def test_a_container_whose_shim_was_killed_is_removed_with_everything(alone):
    before = alone.snapshot()
    identifier = alone.background("sleep 1000 & exec sleep 1000", *RUNC)
    assert mounted(alone, identifier)
    shim(alone, identifier).kill_and_wait()
    alone.ctrctl("rm", "-f", identifier)
    assert not mounted(alone, identifier) and not os.path.exists(foreign_socket(alone, identifier))
    alone.assert_no_leaks(before)


def foreign_socket(world, identifier):
    import hashlib
    return f"/run/containerd/s/{hashlib.sha256(f'{world.address}/default/{identifier}'.encode()).hexdigest()}"


def test_a_killed_logger_ends_the_log_with_a_gap(alone):
    identifier = alone.background("trap '' PIPE; trap 'exit 3' TERM; echo one; while :; do usleep 1000; echo more 2>/dev/null; done", *RUNC)
    follower = alone.client("logs", "-f", identifier)
    follower.out.until(b"one\n")
    logger(alone, identifier).kill_and_wait()
    follower.wait()
    index = (alone.incarnation(identifier) / "log" / "index").read_bytes()
    flags = [index[at + 5] for at in range(0, len(index), 40)]
    assert flags.count(2) == 2 and flags.count(4) == 2
    assert alone.task(identifier)["status"] == "running"
    alone.ctrctl("rm", "-f", identifier)


def test_a_container_without_a_row_is_swept_with_its_mount_and_its_shim(alone):
    before = alone.snapshot()
    identifier = alone.background(PATIENT, *RUNC)
    guard, init = shim(alone, identifier), Pid(alone.task(identifier)["pid"])
    alone.kill9()
    for name in ("ctrd.db", "ctrd.db-wal", "ctrd.db-shm"):
        if (alone.root / name).exists():
            (alone.root / name).unlink()
    (alone.incarnation(identifier).parent / "container").unlink()
    alone.start()
    guard.wait()
    init.wait()
    events.wait_file(alone.bundle(identifier), lambda path: not os.path.exists(path))
    assert not mounted(alone, identifier)
    alone.import_box()
    shutil.rmtree(alone.incarnation(identifier).parent, ignore_errors=True)


# --- execs

def execute(world, identifier, *args, terminal=False, stdin=False, attached=False):
    """Tasks.Exec; the exec's id."""
    config = [(1, arg) for arg in args] + [(6, terminal), (7, stdin), (8, attached)]
    exec_id = secrets.token_hex(32)
    with Client(world.address) as client:
        client.call(TASKS, "Exec", (1, "default"), (2, identifier), (3, exec_id), (4, encode(*config)))
    return exec_id


def wait_exec(world, identifier, exec_id):
    with Client(world.address) as client:
        return decode(one(client.call(TASKS, "Wait", (1, "default"), (2, identifier), (3, exec_id)), 1))


def exec_output(world, identifier, exec_id, stream=None):
    out = b""
    with Client(world.address) as client:
        for message in client.stream("ctr.v1.Logs", "Read", (1, "default"), (2, identifier), (4, True), (6, exec_id)):
            if stream is None or one(message, 1, 0) == stream:
                out += one(message, 4)
    return out


def write_input(world, identifier, data, offset, exec_id="", close=False):
    with Client(world.address) as client:
        answer = client.call(TASKS, "WriteInput", (1, "default"), (2, identifier), (3, exec_id), (4, data), (5, offset), (7, close))
        return one(answer, 1, 0), bool(one(answer, 2, 0))


def test_exec_runs_and_its_output_and_status_arrive(world, patient):
    exec_id = execute(world, patient, "/bin/sh", "-c", "echo out; echo err >&2; exit 6", attached=True)
    assert exec_output(world, patient, exec_id, 1) == b"out\n"
    assert one(wait_exec(world, patient, exec_id), 1, 0) == 6


def test_execs_are_found_again_by_the_next_manager(alone):
    identifier = alone.background(PATIENT, *RUNC)
    exec_id = execute(alone, identifier, "/bin/sh", "-c", "echo begun; trap 'exit 8' TERM; while :; do sleep 1000 & wait $!; done")
    alone.restart()
    alone.task(identifier)
    with Client(alone.address) as client:
        execs = [decode(item) for item in client.call(TASKS, "ListExecs", (1, "default"), (2, identifier)).get(1, [])]
    assert [(text(item, 1), one(item, 4, 0)) for item in execs] == [(exec_id, RUNNING)]
    with Client(alone.address) as client:
        client.call(TASKS, "Kill", (1, "default"), (2, identifier), (3, int(signal.SIGTERM)), (5, exec_id))
    assert one(wait_exec(alone, identifier, exec_id), 1, 0) == 8
    assert exec_output(alone, identifier, exec_id) == b"begun\n"
    with Client(alone.address) as client:
        client.call(TASKS, "DeleteExec", (1, "default"), (2, identifier), (3, exec_id))
    assert not (alone.bundle(identifier) / "exec" / exec_id).exists()


def test_an_exec_that_cannot_be_run_says_why(world, patient):
    with pytest.raises(RPCError) as failure:
        execute(world, patient, "/no/such/program")
    assert "no such file" in failure.value.message or "not found" in failure.value.message


def test_the_unread_output_of_an_exec_is_bounded(world, patient):
    """The process waits for its reader; nothing is lost, and the bundle, which is in memory, does not fill up."""
    total = 3000000
    exec_id = execute(world, patient, "/bin/sh", "-c", f"seq {total}", attached=True)
    log = world.bundle(patient) / "exec" / exec_id / "log"
    largest = 0
    out = bytearray()
    with Client(world.address) as client:
        for message in client.stream("ctr.v1.Logs", "Read", (1, "default"), (2, patient), (4, True), (6, exec_id)):
            out += one(message, 4)
            largest = max(largest, sum(size(path) for path in log.glob("std*")))
    checks.numbered_lines(bytes(out), last=total)
    assert largest <= 10 << 20, f"{largest} bytes lay there"
    assert one(wait_exec(world, patient, exec_id), 1, 0) == 0


def size(path):
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def test_input_reaches_an_exec_and_ends(world, patient):
    exec_id = execute(world, patient, "/bin/sh", "-c", "cat; echo end", stdin=True, attached=True)
    assert write_input(world, patient, b"hello ", 0, exec_id) == (6, False)
    assert write_input(world, patient, b"hello world\n", 0, exec_id) == (12, False), "what was taken is passed over"
    assert write_input(world, patient, b"", 12, exec_id, close=True) == (12, True)
    assert exec_output(world, patient, exec_id) == b"hello world\nend\n"
    assert one(wait_exec(world, patient, exec_id), 1, 0) == 0


def test_input_of_the_container_goes_on_under_the_next_manager(alone):
    identifier = make_with_input(alone, "/bin/sh", "-c", "cat; echo end; exit 4")
    with Client(alone.address) as client:
        client.call(TASKS, "Start", (1, "default"), (2, identifier))
    data = secrets.token_hex(50000).encode() + b"\n"
    assert write_input(alone, identifier, data[:60000], 0)[0] == 60000
    alone.restart()
    alone.task(identifier)
    assert write_input(alone, identifier, data[30000:], 30000) == (len(data), False)
    assert write_input(alone, identifier, b"", len(data), close=True) == (len(data), True)
    assert alone.wait(identifier) == 4
    assert alone.ctrctl("logs", identifier).raw == data + b"end\n"


def make_with_input(world, *args, terminal=False):
    config = [(1, arg) for arg in args] + [(12, "io.containerd.runc.v2"), (17, terminal), (18, True), (21, 80), (22, 24)]
    identifier = secrets.token_hex(32)
    with Client(world.address) as client:
        client.call("ctr.v1.Containers", "Create", (1, "default"), (2, identifier), (4, IMAGE), (5, encode(*config)))
    return identifier


# --- terminals

def test_a_terminal_has_its_size_is_resized_and_logged(world):
    identifier = make_with_input(world, "/bin/sh", "-c", "read line; echo got $line; stty size; exit 2", terminal=True)
    with Client(world.address) as client:
        client.call(TASKS, "Start", (1, "default"), (2, identifier))
        client.call(TASKS, "Resize", (1, "default"), (2, identifier), (4, 111), (5, 44))
    write_input(world, identifier, b"word\n", 0)
    assert world.wait(identifier) == 2
    out = world.ctrctl("logs", "-f", identifier).out.replace("\r", "")
    assert "got word\n" in out and "44 111\n" in out
    world.ctrctl("rm", identifier)


# --- what is read from the host, and changed

def test_processes_and_statistics_and_limits(world):
    identifier = world.background(PATIENT, *RUNC, "--memory", "64m", "--pids-limit", "50")
    said(world, identifier, b"ready\n")
    with Client(world.address) as client:
        rows = client.call(TASKS, "Top", (1, "default"), (2, identifier)).get(2, [])
    assert any(str(world.task(identifier)["pid"]).encode() in row for row in rows)
    with Client(world.address) as client:
        stats = next(client.stream(TASKS, "Stats", (1, "default"), (2, identifier)))
    sample = decode(one(stats, 1))
    assert one(sample, 12, 0) == 64 << 20 and one(sample, 15, 0) >= 1
    with Client(world.address) as client:
        client.call(TASKS, "Update", (1, "default"), (2, identifier), (3, encode((1, 96 << 20))))
    with Client(world.address) as client:
        sample = decode(one(next(client.stream(TASKS, "Stats", (1, "default"), (2, identifier))), 1))
    assert one(sample, 12, 0) == 96 << 20
    world.ctrctl("rm", "-f", identifier)


# --- events

def test_the_event_socket_is_root_s_alone_and_answers_at_once(world):
    assert os.stat(world.address + ".ttrpc").st_mode & 0o777 == 0o600
    with Client(world.address + ".ttrpc") as client:
        envelope = encode((2, "default"), (3, "/tasks/exit"), (4, encode((1, "containerd.events.TaskExit"), (2, encode((1, "nobody"))))))
        assert client.call("containerd.services.events.ttrpc.v1.Events", "Forward", (1, envelope)) == {}
        with pytest.raises(RPCError) as failure:
            client.call("ctr.v1.System", "Version")
        assert failure.value.code == 12


def test_a_lie_about_an_end_ends_nothing(world, patient):
    with Client(world.address + ".ttrpc") as client:
        exited = encode((1, patient), (2, patient), (3, 1), (4, 99))
        envelope = encode((2, "default"), (3, "/tasks/exit"), (4, encode((1, "containerd.events.TaskExit"), (2, exited))))
        client.call("containerd.services.events.ttrpc.v1.Events", "Forward", (1, envelope))
    assert world.task(patient)["status"] == "running"


def test_a_pause_by_somebody_else_is_seen(world, patient):
    """What another client tells the shim reaches the manager as a hint, which looks."""
    with Client(foreign(world, patient)["address"].removeprefix("unix://")) as client:
        client.call("containerd.task.v2.Task", "Pause", (1, patient))
        deadline = events.Deadline(10)
        while world.task(patient)["status"] != "paused":
            deadline.left("the manager sees the pause")
        client.call("containerd.task.v2.Task", "Resume", (1, patient))
        while world.task(patient)["status"] != "running":
            deadline.left("the manager sees the resume")


def test_the_shim_is_told_where_its_events_go(world, patient):
    environment = open(f"/proc/{world.task(patient)['shim_pid']}/environ").read().split("\0")
    assert f"TTRPC_ADDRESS={world.address}.ttrpc" in environment


# --- shims that answer in other ways

def script(world, name, body):
    path = world.directory / name
    path.write_text("#!/bin/sh\n" + body)
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("answer", [
    '{"version":2,"address":"%s","protocol":"ttrpc"}', "%s", '{"version":3,"address":"%s","protocol":"ttrpc"}'], ids=["json", "text", "a version it has not"])
def test_the_answer_of_start_is_understood_in_each_form(world, answer):
    """A shim that says version 3 and has version 2 is found out."""
    path = script(world, "containerd-shim-forms-v2", f"""
for last; do :; done
[ "$last" = start ] || exec {SHIM} "$@"
address=$({SHIM} "$@") || {{ echo "$address"; exit 1; }}
printf '{answer}' "$address"
""")
    identifier = world.background("trap 'exit 4' TERM; echo up; while :; do sleep 1000 & wait $!; done", "--runtime", path)
    said(world, identifier, b"up\n")
    assert foreign(world, identifier)["version"] == "2"
    world.ctrctl("tasks", "kill", identifier)
    assert world.wait(identifier) == 4
    world.ctrctl("rm", identifier)


def test_a_shim_that_wants_the_newer_start_gets_it(world):
    """It refuses an empty standard input; the second attempt has BootstrapParams there, whose first fields are id and namespace."""
    path = script(world, "containerd-shim-newer-v2", f"""
for last; do :; done
[ "$last" = start ] || exec {SHIM} "$@"
cat > {world.directory}/stdin
[ -s {world.directory}/stdin ] || {{ echo 'shim started through the deprecated API' >&2; exit 1; }}
{SHIM} "$@" < /dev/null
""")
    identifier = world.background("sleep 1000", "--runtime", path)
    parameters = decode((world.directory / "stdin").read_bytes())
    assert text(parameters, 1) == identifier and text(parameters, 2) == "default"
    world.ctrctl("rm", "-f", identifier)


@pytest.mark.parametrize("body, says", [
    ("echo 'no such thing' >&2; exit 1", "no such thing"), ("echo hello", "no address"), ("printf 'tcp://127.0.0.1:1'", "no Unix socket"),
    ("""printf '{"version":3,"address":"unix:///x","protocol":"grpc"}'""", "grpc"), ("yes | head -c 1000000", "no address"), ("exec yes", "timed out"), ("printf '{'", "damaged")],
    ids=["fails", "talks", "tcp", "grpc", "much", "endless", "broken json"])
def test_a_shim_that_answers_nonsense_is_refused_in_one_line(world, body, says):
    path = script(world, "containerd-shim-bad-v2", body)
    result = world.ctrctl("run", "--rm", "--runtime", path, IMAGE, "true", code=125)
    assert says in result.err and len(result.err.strip().splitlines()) == 1, result


def test_what_a_shim_says_to_its_log_is_bounded(alone):
    path = script(alone, "containerd-shim-loud-v2", f"""
for last; do :; done
[ "$last" = start ] || exec {SHIM} "$@"
{SHIM} "$@" || exit 1
(i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo "level=error loud $i"; done; head -c 100000 /dev/zero | tr '\\0' x; echo) > log
""")
    identifier = alone.background("sleep 1000", "--runtime", path)
    alone.ctrctl("rm", "-f", identifier)
    text = alone.log_text()
    assert 10 < text.count("loud") <= 120 and len(text) < 200000


# --- containerd's own view

def test_containerd_s_client_shows_the_same_state(world, patient):
    """The shim's own answer, as containerd's ctr asks for it through `ctr shim`."""
    if not shutil.which("ctr"):
        pytest.fail("ctr is missing: make deps-peers installs it")
    socket_path = foreign(world, patient)["address"].removeprefix("unix://")
    with Client(socket_path) as client:
        state = client.call("containerd.task.v2.Task", "State", (1, patient))
    assert one(state, 3, 0) == world.task(patient)["pid"] and one(state, 4, 0) == RUNNING
    assert text(state, 6).startswith(f"binary://{BIN}/ctr-shim?log=")
