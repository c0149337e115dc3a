"""The guards alone, without a manager: keeper and shim under a runtime of Debian's and under ctrun."""
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest

from shim_client import (DEADLINE, EXHAUSTED, EXISTS, GUARD, INVALID, NOT_FOUND, PRECONDITION, TASK3, UNIMPLEMENTED, UNKNOWN, Client, Container,
                         Failure, alive, argv, become_subreaper, children, decode, eventually, field, first, log_bytes, log_ended, log_entries,
                         read_record, signed, stat, write_record)

BIN = Path(__file__).parents[2] / "bin"
RUNC = "/usr/sbin/runc"
CREATED, RUNNING, STOPPED, PAUSED = 1, 2, 3, 4
COUNT = "i=0; while [ $i -lt {n} ]; do i=$((i+1)); echo $i; done"


def runtimes():
    yield pytest.param((RUNC, "mounted"), id="runc")
    yield pytest.param((str(BIN / "ctrun"), "detached"), id="ctrun",
                       marks=pytest.mark.skipif(not (BIN / "ctrun").exists(), reason="bin/ctrun is not built"))


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
    base = tempfile.mkdtemp(prefix="ctr-shim-")
    made = []

    def container(*args, runtime=RUNC, mode="mounted", **options):
        made.append(Container(base, str(BIN), list(args), runtime, mode, **options))
        return made[-1]

    container.base = base
    yield container
    for each in made:
        each.clean_up()
    shutil.rmtree(base)


def sh(make, script, **options):
    return make("/bin/sh", "-c", script, **options)


def code(call):
    with pytest.raises(Failure) as failure:
        call()
    return failure.value.code


def state(container, client):
    return client.call("State", container.target)


def numbers(data):
    return [int(line) for line in data.split()]


def slow_runtime(make, seconds):
    """The runtime, late: `create` waits until the file `go` exists or so many seconds have passed."""
    path = f"{make.base}/slow"
    Path(path).write_text(
        f'#!/bin/sh\ncase " $* " in *" create "*) touch {make.base}/creating; n=0; while [ $n -lt {seconds * 100} ] && [ ! -e {make.base}/go ]; '
        f'do sleep 0.01; n=$((n+1)); done;; esac\nexec {RUNC} "$@"\n')
    os.chmod(path, 0o755)
    return path


def kill_and_wait(pid):
    """SIGKILL, then until the process is nobody's any more or a zombie."""
    began = stat(pid)
    os.kill(pid, signal.SIGKILL)

    def gone():
        now = stat(pid)
        return now is None or now[0] == "Z" or now[2] != began[2]

    eventually(gone, f"{pid} is gone")


# --- a container's life ----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("runtime", runtimes())
def test_a_life(make, runtime):
    c = sh(make, "echo out; echo err >&2; read x < /tmp/go; exit 43", runtime=runtime[0], mode=runtime[1])
    os.mkfifo(f"{make.base}/layer/tmp/go")
    client = c.start_guards().client()
    assert code(lambda: state(c, client)) == NOT_FOUND
    pid = c.create(client)
    assert first(state(c, client), 4) == CREATED
    assert c.info(client)["started"] == 0
    record = read_record(f"{c.bundle}/pid")
    assert (record["pid"], record["started"]) == (str(pid), "0") and int(record["start_time"]) == stat(pid)[2]
    assert code(lambda: c.create(client)) == EXISTS
    assert c.start(client) == pid
    assert read_record(f"{c.bundle}/pid")["started"] == "1"
    assert code(lambda: c.start(client)) == PRECONDITION
    fields = state(c, client)
    assert (first(fields, 1), first(fields, 2), first(fields, 3), first(fields, 4)) == (c.id.encode(), c.bundle.encode(), pid, RUNNING)
    assert signed(first(decode(first(fields, 10)), 1)) == -62135596800
    pids = [first(decode(p), 1) for p in client.call("Pids", c.target)[1]]
    assert pid in pids
    connected = client.call("Connect", c.target, service=TASK3)
    assert (first(connected, 1), first(connected, 2)) == (c.shim, pid)
    info = c.info(client)
    assert (info["shim_pid"], info["keeper_pid"], info["task_pid"], info["started"], info["shim_restarts"]) == (c.shim, c.keeper, pid, 1, 0)
    assert info["task_start_time"] == stat(pid)[2]
    assert code(lambda: c.delete(client)) == PRECONDITION
    assert stat(pid)[1] == c.shim and stat(c.shim)[1] == c.keeper

    waiting = client.send("containerd.task.v2.Task", "Wait", c.target)
    before = time.time_ns()
    with open(f"/proc/{pid}/root/tmp/go", "w"):
        pass
    answer = client.answer(waiting)
    assert first(answer, 1) == 43
    at = decode(first(answer, 2))
    assert before <= first(at, 1) * 10**9 + first(at, 2) <= time.time_ns()
    exit_record = c.exit
    assert (exit_record["code"], exit_record["signal"], exit_record["source"]) == ("43", "0", "reaped")
    assert exit_record["oom"] == "0" and int(exit_record["cpu_ns"]) > 0 and int(exit_record["memory_peak"]) > 0
    assert first(state(c, client), 4) == STOPPED
    info = c.info(client)
    assert (info["exited"], info["exit_status"], info["exit_source"]) == (1, 43, "reaped")
    assert code(lambda: c.kill(client)) == NOT_FOUND
    assert log_bytes(c.log, 1) == b"out\n" and log_bytes(c.log, 2) == b"err\n" and log_ended(c.log)
    shim, keeper = c.shim, c.keeper
    client.call("Shutdown", c.target)
    assert alive(shim), "a shim that has a container stays"
    assert c.delete(client) == 43
    assert code(lambda: state(c, client)) == NOT_FOUND
    assert code(lambda: c.delete(client)) == NOT_FOUND
    c.shutdown(client)
    eventually(lambda: not alive(shim) and not alive(keeper), "guards end")
    assert not os.path.exists(c.socket)
    assert make.base not in "".join(line for line in open("/proc/self/mounts"))


@pytest.mark.parametrize("runtime", runtimes())
def test_the_container_gets_three_descriptors_and_its_own_pipes(make, runtime):
    c = sh(make, "ls -l /proc/1/fd; id -u; echo again > /dev/stdout", runtime=runtime[0], mode=runtime[1], uid=1000)
    os.makedirs(f"{make.base}/layer/dev", exist_ok=True)
    client, _ = c.run()
    assert c.wait(client) == 0, log_bytes(c.log, 2)
    out = log_bytes(c.log, 1).decode()
    links = [line.split()[-3:] for line in out.splitlines() if "->" in line]
    assert [link[0] for link in links] == ["0", "1", "2"], out
    assert links[0][2] == "/dev/null" and links[1][2].startswith("pipe:") and links[2][2].startswith("pipe:")
    assert "1000\nagain\n" in out


@pytest.mark.parametrize("runtime", runtimes())
@pytest.mark.parametrize("status", [0, 1, 2, 126, 127, 128, 137, 254, 255])
def test_exit_codes(make, runtime, status):
    c = sh(make, f"exit {status}", runtime=runtime[0], mode=runtime[1])
    client, _ = c.run()
    assert c.wait(client) == status
    assert (c.exit["code"], c.exit["signal"], c.exit["source"]) == (str(status), "0", "reaped")
    assert c.delete(client) == status


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGUSR1])
def test_ended_by_a_signal(make, number):
    c = make("/bin/sleep", "600")
    client, pid = c.run()
    # Init of a pid namespace ends by signals from above only.
    c.kill(client, signal.SIGKILL if number != signal.SIGKILL else number, everything=number == signal.SIGTERM)
    assert c.wait(client) == 137 and c.exit["signal"] == "9"
    assert code(lambda: c.kill(client, 65)) == INVALID and code(lambda: c.kill(client, 0)) == INVALID


def test_a_handler_chooses_the_status(make):
    c = sh(make, "trap 'exit 17' TERM; echo ready; while :; do sleep 0.05; done")
    client, _ = c.run()
    client.call("WaitLog", service=GUARD)
    c.kill(client, signal.SIGTERM)
    assert c.wait(client) == 17


@pytest.mark.parametrize("runtime", runtimes())
def test_a_program_that_is_not_there(make, runtime):
    c = make("/bin/nonexistent", runtime=runtime[0], mode=runtime[1])
    client = c.start_guards().client()
    with pytest.raises(Failure) as failure:
        c.create(client)
        c.start(client)
    assert failure.value.code == INVALID and "nonexistent" in failure.value.message and "\n" not in failure.value.message
    if c.info(client)["task_pid"] == 0:
        assert read_record(f"{c.bundle}/pid") is None
        assert not os.listdir(c.runtime_root)
        c.config(["/bin/sh", "-c", "exit 3"], 0, runtime[1])
        c.create(client)
        c.start(client)
        assert c.wait(client) == 3


def test_a_created_container_can_be_deleted(make):
    c = make("/bin/true")
    client = c.start_guards().client()
    pid = c.create(client)
    assert c.delete(client) == 137
    assert not alive(pid) and c.exit["source"] == "reaped"


@pytest.mark.parametrize("runtime", runtimes())
def test_pause_and_resume(make, runtime):
    c = sh(make, "while :; do echo x; sleep 0.01; done", runtime=runtime[0], mode=runtime[1])
    client, pid = c.run()
    client.call("Pause", c.target)
    assert first(state(c, client), 4) == PAUSED
    kill_and_wait(c.shim)
    client = c.connect()
    eventually(lambda: first(state(c, client), 4) == PAUSED, "the new shim knows that it is paused")
    client.call("Resume", c.target)
    assert first(state(c, client), 4) == RUNNING
    client.call("Pause", c.target)
    c.kill(client)
    assert c.wait(client) == 137


# --- the guards ------------------------------------------------------------------------------------------------------

def test_what_the_guards_look_like(make):
    c = make("/bin/sleep", "600")
    client, pid = c.run()
    shim, keeper = c.shim, c.keeper
    assert argv(shim) == ["ctr-shim", "-namespace", c.namespace, "-id", c.id, "-bundle", c.bundle, "-dir", c.directory, "run"]
    for guard, name in ((shim, "ctr-shim"), (keeper, "ctr-keeper")):
        assert Path(f"/proc/{guard}/comm").read_text() == f"{name}\n"
        assert len(os.listdir(f"/proc/{guard}/task")) == 1
        groups = Path(f"/proc/{guard}/cgroup").read_text()
        assert f"0::/{c.parent}/shims/{c.id}\n" in groups
        assert f"name=systemd:/{c.parent}/shims/{c.id}\n" in groups or "name=systemd" not in groups  # version 2 alone
        assert os.getsid(guard) != os.getsid(0)
        for number in (1, 2):
            assert os.readlink(f"/proc/{guard}/fd/{number}") == "/dev/null"
    # The writers of the pipes are the container's alone by now.
    writers = {os.readlink(f"/proc/{keeper}/fd/{n}") for n in os.listdir(f"/proc/{keeper}/fd") if n in ("9", "10")}
    assert not writers
    assert os.stat(c.socket).st_mode & 0o777 == 0o600
    assert stat(pid)[1] == shim
    assert os.stat(f"{c.log}/index").st_mode & 0o777 == 0o600 and os.stat(c.log).st_mode & 0o777 == 0o700


def test_a_second_start_starts_nothing(make):
    c = make("/bin/sleep", "600")
    results = []
    threads = [threading.Thread(target=lambda: results.append(c.helper())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {(r.returncode, r.stdout, r.stderr) for r in results} == {(0, f"unix://{c.socket}".encode(), b"")}
    client = c.connect()
    shim = c.info(client)["shim_pid"]
    running = [int(p) for p in os.listdir("/proc") if p.isdigit() and stat(int(p)) and c.directory in argv(int(p))]
    assert sorted(running) == sorted([shim, c.keeper])
    assert c.helper().stdout == f"unix://{c.socket}".encode() and c.shim == shim


@pytest.mark.parametrize("damage", ["damaged shim.env", "no config.json", "bad config.json", "long socket"])
def test_a_start_that_cannot_be(make, damage):
    c = make("/bin/true")
    environment, config = Path(f"{c.bundle}/shim.env"), Path(f"{c.bundle}/config.json")
    if damage == "damaged shim.env":
        environment.write_bytes(environment.read_bytes().replace(b"mounted", b"detache"))
    elif damage == "no config.json":
        config.unlink()
    elif damage == "bad config.json":
        config.write_text("{")
    else:
        write_record(environment, "start", runtime=RUNC, runtime_root="/x", rootfs_mode="mounted", socket=f"{make.base}/{'s' * 120}",
                     incarnation_dir=c.directory)
    result = c.helper()
    assert result.returncode == 1 and result.stdout.startswith(b"ctr-shim: ") and result.stdout.count(b"\n") == 1, result
    assert result.stderr == b"" and c.keeper is None


def quiet(*pids, seconds):
    """The time passes; a guard that dies meanwhile ends the test."""
    fds = [os.pidfd_open(pid) for pid in pids]
    ended = select.select(fds, [], [], seconds)[0]
    for fd in fds:
        os.close(fd)
    assert not ended, "a guard died while it should be idle"


def test_idle_guards_do_not_wake(make):
    c = make("/bin/sleep", "600")
    client, _ = c.run()
    client.close()
    shim, keeper = c.shim, c.keeper

    def switches():
        return [line for pid in (shim, keeper) for line in open(f"/proc/{pid}/status") if "ctxt_switches" in line]

    # Half a second after the last event it wakes once, to give memory back.
    quiet(shim, keeper, seconds=0.8)
    before = switches()
    quiet(shim, keeper, seconds=1.5)
    assert switches() == before


# --- deaths ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("runtime", runtimes())
@pytest.mark.parametrize("segment", [None, 20000], ids=["one segment", "rotating"])
def test_shims_killed_while_the_container_writes(make, runtime, segment):
    total = 60000
    c = sh(make, COUNT.format(n=total) + "; exit 43", runtime=runtime[0], mode=runtime[1], segment_bytes=segment)
    client, pid = c.run()
    client.close()
    kills = 0
    for _ in range(8):
        client = c.connect()
        info = c.info(client)
        client.close()
        assert info["task_pid"] == pid and info["shim_restarts"] == kills
        if info["exited"]:
            break
        kill_and_wait(info["shim_pid"])
        kills += 1
    client = c.connect()
    assert c.wait(client) == 43
    assert c.exit["source"] == "reaped" and kills > 0
    eventually(lambda: log_ended(c.log), "log ends")
    assert numbers(log_bytes(c.log, 1)) == list(range(1, total + 1))
    if segment:
        assert os.path.exists(f"{c.log}/stdout.000003")
    assert c.delete(client) == 43
    c.shutdown(client)


def test_init_that_ends_while_its_shim_is_dead(make):
    c = sh(make, "read x < /tmp/go; exit 43")
    os.mkfifo(f"{make.base}/layer/tmp/go")
    client, pid = c.run()
    client.close()
    shim, keeper = c.shim, c.keeper
    os.kill(keeper, signal.SIGSTOP)
    kill_and_wait(shim)
    eventually(lambda: stat(pid)[1] == keeper, "the keeper is init's parent")
    with open(f"/proc/{pid}/root/tmp/go", "w"):
        pass
    eventually(lambda: stat(pid)[0] == "Z", "init has ended")
    os.kill(keeper, signal.SIGCONT)
    client = c.connect()
    assert c.wait(client) == 43 and c.exit["source"] == "reaped"
    entries = Path(f"{c.bundle}/exits").read_bytes()
    assert struct.unpack("<Ii", entries[:8]) == (pid, 43 << 8) and len(entries) % 16 == 0
    assert int(c.exit["exited_boot_ns"]) == struct.unpack("<Q", entries[8:16])[0]
    assert stat(pid) is None


def test_init_of_the_keeper_ends_beside_a_living_shim(make):
    c = sh(make, "read x < /tmp/go; exit 44")
    os.mkfifo(f"{make.base}/layer/tmp/go")
    client, pid = c.run()
    client.close()
    kill_and_wait(c.shim)
    client = c.connect()
    assert stat(pid)[1] == c.keeper
    with open(f"/proc/{pid}/root/tmp/go", "w"):
        pass
    assert c.wait(client) == 44 and c.exit["source"] == "reaped"


def test_the_keeper_dies_and_the_shim_goes_on(make):
    c = sh(make, "trap 'echo bye; exit 17' TERM; echo ready; while :; do sleep 0.02; done")
    client, pid = c.run()
    client.call("WaitLog", service=GUARD)
    shim = c.shim
    kill_and_wait(c.keeper)
    info = eventually(lambda: c.info(client)["keeper_pid"] == 0 and c.info(client), "the shim knows")
    assert info["shim_pid"] == shim and stat(pid)[1] == shim
    c.kill(client, signal.SIGTERM)
    assert c.wait(client) == 17 and c.exit["source"] == "reaped"
    assert log_bytes(c.log, 1) == b"ready\nbye\n" and log_ended(c.log)
    assert c.delete(client) == 17
    c.shutdown(client)
    eventually(lambda: not alive(shim), "shim ends")


def test_keeper_then_a_second_shim_dies(make):
    """Init was the keeper's when that died: the shim is not its parent, and takes the status from where the kernel has it."""
    c = sh(make, "read x < /tmp/go; exit 45")
    os.mkfifo(f"{make.base}/layer/tmp/go")
    client, pid = c.run()
    client.close()
    kill_and_wait(c.shim)
    client = c.connect()
    shim = c.info(client)["shim_pid"]
    kill_and_wait(c.keeper)
    eventually(lambda: stat(pid)[1] not in (shim, c.keeper), "init has another parent")
    with open(f"/proc/{pid}/root/tmp/go", "w"):
        pass
    waiting = client.send("containerd.task.v2.Task", "Wait", c.target)
    status = first(client.answer(waiting), 1)
    assert c.exit["source"] in ("pidfd", "zombie") and (status, c.exit["code"]) == (45, "45")
    os.kill(shim, signal.SIGKILL)


def test_both_die_and_the_files_say_so(make):
    c = sh(make, "echo before; sleep 600")
    client, pid = c.run()
    client.call("WaitLog", service=GUARD)
    shim, keeper = c.shim, c.keeper
    kill_and_wait(keeper)
    kill_and_wait(shim)
    assert alive(pid)
    record = read_record(f"{c.bundle}/pid")
    assert (int(record["pid"]), int(record["start_time"])) == (pid, stat(pid)[2])
    assert c.exit is None and log_bytes(c.log, 1) == b"before\n" and not log_ended(c.log)
    with pytest.raises(ConnectionRefusedError):
        c.client()
    # New guards on the same bundle watch what they find, and invent nothing.
    c.start_guards()
    client = c.connect()
    info = c.info(client)
    assert info["task_pid"] == pid and not info["exited"]
    os.kill(pid, signal.SIGKILL)
    assert c.wait(client) in (137, 255)
    assert (c.exit["source"], c.exit.get("code")) in (("pidfd", "137"), ("connector", "137"), ("zombie", "137"), ("unknown", None))


def test_what_ended_while_nobody_looked_is_unknown(make):
    c = make("/bin/sleep", "600")
    client, pid = c.run()
    shim, keeper = c.shim, c.keeper
    kill_and_wait(keeper)
    kill_and_wait(shim)
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: stat(pid)[1] == os.getpid(), "init is the test's")
    os.waitpid(pid, 0)
    c.start_guards()
    client = c.connect()
    assert c.info(client)["exit_source"] == "unknown" and c.wait(client) == 255
    assert "code" not in c.exit and "died" in c.exit["reason"]


def test_a_shim_that_dies_in_create_leaves_nothing(make):
    c = sh(make, "exit 5", runtime=slow_runtime(make, 20))
    client = c.start_guards().client()
    client.send("containerd.task.v2.Task", "Create", c.create_message())
    eventually(lambda: os.path.exists(f"{make.base}/creating"), "runtime runs")
    shim = c.shim
    runtime = children(shim)
    assert runtime
    kill_and_wait(shim)
    eventually(lambda: not any(alive(p) for p in runtime), "the runtime dies with its shim")
    Path(f"{make.base}/go").touch()
    client = c.connect()
    assert c.info(client)["task_pid"] == 0
    c.create(client)
    c.start(client)
    assert c.wait(client) == 5


def test_a_shim_that_dies_between_create_and_start(make):
    c = sh(make, "exit 6")
    client = c.start_guards().client()
    pid = c.create(client)
    kill_and_wait(c.shim)
    client = c.connect()
    info = c.info(client)
    assert (info["task_pid"], info["started"]) == (pid, 0) and first(state(c, client), 4) == CREATED
    assert c.start(client) == pid
    assert c.wait(client) == 6


def test_an_exit_waits_for_a_full_disk(make):
    """The status stays with the zombie until its record is written; nobody is told before."""
    root = f"{make.base}/root"
    os.makedirs(root)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", root], check=True)
    try:
        os.makedirs(f"{make.base}/upper/u")
        os.makedirs(f"{make.base}/upper/w")
        c = sh(make, "read x < /tmp/go; exit 46", mounts=[
            ("overlay", "overlay", [f"lowerdir={make.base}/layer", f"upperdir={make.base}/upper/u", f"workdir={make.base}/upper/w"])])
        os.mkfifo(f"{make.base}/layer/tmp/go")
        client, pid = c.run()
        with open(f"{root}/filler", "wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(b"x" * 4096)
            except OSError:
                pass
        with open(f"/proc/{pid}/root/tmp/go", "w"):
            pass
        eventually(lambda: stat(pid)[0] == "Z", "init has ended")
        assert code(lambda: c.wait(client, timeout_ns=300_000_000)) == DEADLINE
        assert c.exit is None and stat(pid)[0] == "Z"
        os.unlink(f"{root}/filler")
        assert c.wait(client) == 46 and c.exit["source"] == "reaped"
        c.delete(client)
        c.shutdown(client)
        eventually(lambda: not alive(c.keeper), "guards end")
    finally:
        subprocess.run(["umount", "-l", root], check=True)


def test_orphans_come_to_the_shim_and_are_reaped(make):
    c = sh(make, "for i in 1 2 3 4 5 6 7 8; do (sleep 0.1 &) ; done; echo $$; sleep 0.3; exec sleep 600")
    config = Path(f"{c.bundle}/config.json")
    config.write_text(config.read_text().replace('{"type": "pid"}, ', ""))
    client, pid = c.run()
    shim = c.shim
    eventually(lambda: len(children(shim)) > 1, "orphans arrive")
    eventually(lambda: children(shim) == [pid], "orphans are reaped, init is not")
    c.kill(client, everything=True)
    assert c.wait(client) == 137


def test_output_held_open_after_the_end_is_closed_in_time(make):
    c = sh(make, "(sleep 600 &); echo done; exit 4")
    config = Path(f"{c.bundle}/config.json")
    config.write_text(config.read_text().replace('{"type": "pid"}, ', ""))
    client, _ = c.run()
    assert c.wait(client) == 4
    began = time.monotonic()
    eventually(lambda: log_ended(c.log), "streams end", 5)
    assert time.monotonic() - began > 1
    assert log_bytes(c.log, 1) == b"done\n"
    assert c.delete(client) == 4


def test_the_delete_helper_ends_everything_and_tells_the_truth(make):
    c = sh(make, "trap 'exit 9' TERM; while :; do sleep 0.1; done")
    client, pid = c.run()
    shim, keeper = c.shim, c.keeper
    for _ in range(2):
        result = c.helper("delete")
        assert result.returncode == 0 and result.stderr == b"", result
        fields = decode(result.stdout)
        assert (first(fields, 1), first(fields, 2)) == (pid, 137)
    eventually(lambda: not any(alive(p) for p in (pid, shim, keeper)), "all is gone")


# --- the wire ----------------------------------------------------------------------------------------------------------

@pytest.fixture
def idle(make):
    c = make("/bin/sleep", "600")
    return c, c.start_guards().client()


def test_frames_that_break_the_rules(idle):
    c, client = idle
    client.socket.sendall(struct.pack(">IIBB", (4 << 20) + 1, client.stream, 1, 0) + bytes((4 << 20) + 1))
    assert code(lambda: client.answer(client.stream)) == EXHAUSTED
    client.stream += 2
    assert c.info(client)["shim_pid"] == c.shim
    client.frame(1000, 1, b"")
    assert code(lambda: client.answer(1000)) == INVALID
    client.frame(client.stream, 1, b"\x0a\xff")
    assert code(lambda: client.answer(client.stream)) == INVALID
    client.frame(client.stream, 1, b"")
    assert code(lambda: client.answer(client.stream)) == INVALID, "an id twice"
    client.stream += 2
    client.frame(client.stream, 3, b"data of no stream")
    client.frame(client.stream, 2, b"an answer to nothing")
    client.frame(client.stream, 77, b"of a type that does not exist")
    assert code(lambda: client.call("State", b"\x0a\xff")) == INVALID
    assert code(lambda: client.call("Nothing")) == UNIMPLEMENTED
    assert code(lambda: client.call("Checkpoint", c.target)) == UNIMPLEMENTED
    assert code(lambda: client.call("State", service="no.Service")) == UNIMPLEMENTED
    assert code(lambda: client.call("Info2", service=GUARD)) == UNIMPLEMENTED
    assert code(lambda: client.call("State", field(1, "another"))) == NOT_FOUND
    assert code(lambda: client.call("State", c.target + field(2, "exec"))) == NOT_FOUND
    assert code(lambda: client.call("Create", c.create_message() + field(8, "/checkpoint"))) == UNIMPLEMENTED
    assert code(lambda: client.call("Create", c.create_message() + field(6, "nowhere"))) == INVALID
    assert code(lambda: client.call("Create", field(1, c.id) + field(2, "/elsewhere"))) == INVALID
    client.close()
    half = c.client()
    half.socket.sendall(struct.pack(">IIBB", 100, 1, 1, 0) + b"x")
    half.close()
    assert c.info(c.client())["shim_pid"] == c.shim


def test_a_deadline_ends_the_wait_only(make):
    c = sh(make, "sleep 600", runtime=slow_runtime(make, 20))
    client = c.start_guards().client()
    began = time.monotonic()
    assert code(lambda: client.call("Create", c.create_message(), timeout_ns=200_000_000)) == DEADLINE
    assert 0.15 < time.monotonic() - began < 2
    again = client.send("containerd.task.v2.Task", "Create", c.create_message())
    # The loop goes on while the runtime runs.
    assert c.info(client)["task_pid"] == 0
    Path(f"{make.base}/go").touch()
    pid = first(client.answer(again), 1)
    assert c.info(client)["task_pid"] == pid and c.start(client) == pid
    assert code(lambda: c.wait(client, timeout_ns=50_000_000)) == DEADLINE
    size = os.path.getsize(f"{c.log}/index")
    assert code(lambda: client.call("WaitLog", field(1, size), GUARD, timeout_ns=50_000_000)) == DEADLINE


def test_a_cut_connection_never_ends_a_create(make):
    c = sh(make, "exit 8", runtime=slow_runtime(make, 20))
    client = c.start_guards().client()
    client.send("containerd.task.v2.Task", "Create", c.create_message())
    eventually(lambda: os.path.exists(f"{make.base}/creating"), "runtime runs")
    client.close()
    client = c.client()
    c.info(client)
    Path(f"{make.base}/go").touch()
    eventually(lambda: c.info(client)["task_pid"], "created")
    c.start(client)
    assert c.wait(client) == 8


def test_waits_of_a_cut_connection_are_forgotten(make):
    c = make("/bin/sleep", "600")
    client, _ = c.run()
    for _ in range(5):
        other = c.client()
        for _ in range(40):
            other.send("containerd.task.v2.Task", "Wait", c.target)
        c.info(other)
        other.close()
    with pytest.raises(Failure) as failure:
        other = c.client()
        streams = [other.send("containerd.task.v2.Task", "Wait", c.target) for _ in range(257)]
        other.answer(streams[-1])
    assert failure.value.code == EXHAUSTED
    c.kill(client)
    assert c.wait(client) == 137 and first(other.answer(streams[0]), 1) == 137


def test_connections_are_bounded(idle):
    c, client = idle
    others = []
    for _ in range(63):
        others.append(c.client())
        c.info(others[-1])
    extra = c.client()
    with pytest.raises(ConnectionError):
        c.info(extra)
    others.pop().close()
    eventually(lambda: c._try(), "a place is free again")
    assert c.info(client)["shim_pid"] == c.shim


def test_a_slow_reader_is_cut_and_delays_nobody(idle):
    c, client = idle
    slow = c.client()
    slow.socket.settimeout(5)
    with pytest.raises((ConnectionError, socket.timeout)):
        while True:
            slow.send(GUARD, "Info")
    assert c.info(client)["shim_pid"] == c.shim


def test_only_the_own_user_is_served(idle, make):
    c, client = idle
    for path in (make.base, c.state, f"{c.state}/s"):
        os.chmod(path, 0o755)
    os.chmod(c.socket, 0o666)
    script = ("import socket,sys\ns=socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\n"
              "try:\n s.sendall(b'x' * 10)\n print(len(s.recv(1)))\nexcept ConnectionError:\n print(0)\n")
    result = subprocess.run(["/usr/bin/python3", "-c", script, c.socket], user=65534, group=65534, capture_output=True, text=True, timeout=10)
    assert result.stdout == "0\n", result
    assert c.info(client)["shim_pid"] == c.shim


def test_waiting_for_the_log(make):
    c = sh(make, "read x < /tmp/go; echo one; read x < /tmp/go; echo two")
    os.mkfifo(f"{make.base}/layer/tmp/go")
    client, pid = c.run()
    for line, size in ((b"one\n", 0), (b"two\n", 40)):
        waiting = client.send(GUARD, "WaitLog", field(1, size))
        c.info(client)
        assert waiting not in client.answers
        with open(f"/proc/{pid}/root/tmp/go", "w"):
            pass
        answer = client.answer(waiting)
        assert first(answer, 1) >= size + 40
        assert log_bytes(c.log, 1).endswith(line)
    answer = client.call("WaitLog", field(1, 80), GUARD)
    while not first(answer, 2):
        answer = client.call("WaitLog", field(1, first(answer, 1)), GUARD)
    assert first(answer, 1) == os.path.getsize(f"{c.log}/index") == len(log_entries(c.log)) * 40
    assert first(client.call("WaitLog", field(1, 1 << 40), GUARD), 2) == 1


def test_much_output_fast(make):
    c = sh(make, "dd if=/dev/zero bs=65536 count=512 2>/dev/null; echo end")
    client, _ = c.run()
    assert c.wait(client) == 0
    eventually(lambda: log_ended(c.log), "log ends")
    data = log_bytes(c.log, 1)
    assert len(data) == 512 * 65536 + 4 and data.endswith(b"end\n")
    assert os.path.exists(f"{c.log}/stdout.000002")


def test_memory_of_the_guards(make):
    """Shim and keeper together, at most 180 KB that are theirs alone, after the container wrote a megabyte."""
    made = [sh(make, "dd if=/dev/zero bs=1024 count=1024 2>/dev/null; exec sleep 600") for _ in range(5)]
    for c in made:
        client, _ = c.run()
        entries = []
        while sum(entry[3] for entry in entries) < 1 << 20:
            client.call("WaitLog", field(1, 40 * len(entries)), GUARD)
            entries = log_entries(c.log)
    os.sync()

    def private(pid):
        fields = dict(line.split(":") for line in list(open(f"/proc/{pid}/smaps_rollup"))[1:])
        return sum(int(fields[name].split()[0]) for name in ("Private_Clean", "Private_Dirty", "Swap"))

    def median():
        return sorted(private(c.shim) + private(c.keeper) for c in made)[2]

    # Half a second after the last event a shim has given back what its work took.
    eventually(lambda: median() <= 180, "at most 180 KB", timeout=5)
