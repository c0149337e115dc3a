"""Keeper and shim killed together, the container alive: new guards find its pipes again, and how it ends is true or unknown, never invented."""
import fcntl
import json
import os
import select
import shutil
import signal
import struct
import subprocess
import tempfile
import termios
from pathlib import Path

import pytest

import events
from exec_client import Exec, with_terminals
from harness import IMAGE
from shim_client import (PRECONDITION, Container, Failure, alive, become_subreaper, children, eventually, field, first, log_bytes, log_ended, log_entries, read_record,
                         write_record)
from terminal import Terminal

BIN = Path(__file__).parents[2] / "bin"
GAP = 2
# Says before, waits for USR1, says after and ends with 43.
PATIENT = "trap 'echo after; exit 43' USR1; echo before; while :; do sleep 1000 & wait $!; done"


@pytest.fixture(scope="module", autouse=True)
def reaper():
    become_subreaper()
    yield


@pytest.fixture
def make():
    base = tempfile.mkdtemp(prefix="ctr-regain-")
    made = []

    def container(script, **options):
        made.append(Container(base, str(BIN), ["/bin/sh", "-c", script], str(BIN / "ctrun"), "detached", **options))
        return made[-1]

    yield container
    for each in made:
        each.clean_up()
        reap()
    shutil.rmtree(base)


def reap():
    """What was left to the test and has ended."""
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                return
        except ChildProcessError:
            return


def only_sources(container, text):
    """Restricts where the next shim may learn of the end (key exit_sources of shim.env)."""
    record = read_record(f"{container.bundle}/shim.env")
    write_record(f"{container.bundle}/shim.env", "start", **{**record, "exit_sources": text})


def kill_both(container):
    """SIGKILL to the keeper and its shim, in one go and by pidfd; both are gone when this returns."""
    keeper, shim = os.pidfd_open(container.keeper), os.pidfd_open(container.shim)
    pids = container.keeper, container.shim
    for pidfd in (keeper, shim):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    for pid, pidfd in zip(pids, (keeper, shim)):
        # Orphans of the helper that started them: the test's children.
        os.waitpid(pid, 0)
        os.close(pidfd)


def said(container, text, stream=1):
    return eventually(lambda: text in log_bytes(container.log, stream), f"the log holds {text!r}")


def gaps(container):
    return [entry[0] for entry in log_entries(container.log) if entry[1] & GAP and entry[3] == 0]


def end_unseen(container, pid, number):
    """Sends the signal that ends init while the shim sleeps, and reaps it: only what the kernel keeps can tell of it afterwards."""
    shim = container.shim
    os.kill(shim, signal.SIGSTOP)
    os.kill(pid, number)
    os.waitpid(pid, 0)
    os.kill(shim, signal.SIGCONT)


def regained(container):
    container.start_guards()
    return container.connect()


@pytest.mark.parametrize("source", ["pidfd", "connector"])
@pytest.mark.parametrize("number, code, signalled", [(signal.SIGUSR1, "43", "0"), (signal.SIGKILL, "137", "9"), (signal.SIGUSR2, "0", "0")])
def test_the_status_is_true_though_another_process_reaped_it(make, source, number, code, signalled):
    container = make("trap 'exit 0' USR2; " + PATIENT)
    _, pid = container.run()
    said(container, b"before\n")
    kill_both(container)
    only_sources(container, source)
    client = regained(container)
    end_unseen(container, pid, number)
    assert container.wait(client) == int(code)
    assert (container.exit["code"], container.exit["signal"], container.exit["source"]) == (code, signalled, source)
    eventually(lambda: log_ended(container.log), "the log ends")


def test_a_zombie_tells_where_nothing_else_does(make):
    container = make(PATIENT)
    _, pid = container.run()
    said(container, b"before\n")
    kill_both(container)
    only_sources(container, "zombie")
    client = regained(container)
    os.kill(pid, signal.SIGUSR1)
    assert container.wait(client) == 43
    assert container.exit["source"] == "zombie"
    os.waitpid(pid, 0)


def test_without_a_source_it_is_unknown_and_no_number_is_invented(make):
    container = make(PATIENT)
    _, pid = container.run()
    said(container, b"before\n")
    kill_both(container)
    only_sources(container, "none")
    client = regained(container)
    os.kill(pid, signal.SIGUSR1)
    assert container.wait(client) == 255
    assert container.exit["source"] == "unknown" and "code" not in container.exit and container.exit["reason"]
    assert container.info(client)["exit_source"] == "unknown"
    os.waitpid(pid, 0)


def test_an_end_while_nobody_guarded_is_unknown(make):
    container = make(PATIENT)
    _, pid = container.run()
    said(container, b"before\n")
    kill_both(container)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    client = regained(container)
    container.wait(client)
    assert container.exit["source"] == "unknown" and "code" not in container.exit
    assert sorted(gaps(container)) == [1, 2]
    eventually(lambda: log_ended(container.log), "the log ends")


def test_the_log_goes_on_behind_a_gap(make):
    container = make(PATIENT)
    _, pid = container.run()
    said(container, b"before\n")
    before = read_record(f"{container.bundle}/guards")
    kill_both(container)
    client = regained(container)
    guards = read_record(f"{container.bundle}/guards")
    assert (guards["stdout_pipe"], guards["stderr_pipe"]) == (before["stdout_pipe"], before["stderr_pipe"])
    assert (guards["regained"], guards["lost"]) == ("stdout,stderr", "")
    assert sorted(gaps(container)) == [1, 2]
    os.kill(pid, signal.SIGUSR1)
    assert container.wait(client) == 43
    eventually(lambda: log_ended(container.log), "the log ends")
    assert log_bytes(container.log, 1) == b"before\nafter\n"
    kinds = [(flags & GAP, length) for stream, flags, _, length, _, _ in log_entries(container.log) if stream == 1 and not flags & 4]
    assert kinds == [(0, 7), (GAP, 0), (0, 6)]
    os.waitpid(pid, 0)


def test_a_disk_that_takes_no_gap_gets_it_when_it_works_again(make):
    """Both died, and the log is read-only when the next pair begins, and when its shim dies too: what is missing is said afterwards, what was dropped by its number."""
    container = make("trap 'echo dropped' USR1; trap 'echo after; exit 43' USR2; echo before; while :; do sleep 1000 & wait $!; done")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", container.directory], check=True)
    try:
        _, pid = container.run()
        said(container, b"before\n")
        kill_both(container)
        subprocess.run(["mount", "-o", "remount,ro", container.directory], check=True)
        regained(container)
        os.kill(pid, signal.SIGUSR1)
        eventually(lambda: sum(counted(container.shim)) == len(b"dropped\n"), "the output is dropped and counted")
        shim = events.Pid(container.shim)
        shim.kill_and_wait()
        client = container.connect()
        subprocess.run(["mount", "-o", "remount,rw", container.directory], check=True)
        os.kill(pid, signal.SIGUSR2)
        assert container.wait(client) == 43
        container.delete(client)
        assert log_ended(container.log) and gaps(container) == [1, 2]
        # It may have come before the log was open again.
        lost = [entry[3] for entry in log_entries(container.log) if entry[1] & GAP and entry[3]]
        assert (lost, log_bytes(container.log, 1)) in (([8], b"before\nafter\n"), ([14], b"before\n"))
        container.shutdown(client)
    finally:
        subprocess.run(["umount", "-l", container.directory], check=False)
    reap()


def counted(pid):
    """By the files in memory in which a shim counts what it drops."""
    files = [f"/proc/{pid}/fd/{name}" for name in os.listdir(f"/proc/{pid}/fd")]
    return [os.stat(file).st_size - 4096 for file in files if os.path.lexists(file) and os.readlink(file).startswith("/memfd:dropped")]


def test_what_was_in_the_pipe_is_not_lost(make):
    container = make("trap 'echo written' USR2; " + PATIENT)
    _, pid = container.run()
    said(container, b"before\n")
    os.kill(container.shim, signal.SIGSTOP)
    os.kill(pid, signal.SIGUSR2)
    eventually(lambda: pending(container, pid) >= 8, "the pipe holds what was written")
    kill_both(container)
    client = regained(container)
    os.kill(pid, signal.SIGUSR1)
    assert container.wait(client) == 43
    eventually(lambda: log_ended(container.log), "the log ends")
    assert log_bytes(container.log, 1) == b"before\nwritten\nafter\n"
    reap()


def pending(container, pid):
    """Bytes in the pipe that is the container's standard output."""
    try:
        end = os.open(f"/proc/{container.keeper}/fd/7", os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return 0
    try:
        return struct.unpack("i", fcntl.ioctl(end, termios.FIONREAD, b"\0" * 4))[0]
    finally:
        os.close(end)


def test_a_pipe_is_found_in_any_process_of_the_container(make):
    container = make("(trap 'echo late' USR1; while :; do sleep 1000 & wait $!; done) & echo ready; exec >/dev/null 2>&1 sleep 1000")
    _, pid = container.run()
    said(container, b"ready\n")
    child = eventually(lambda: next((p for p in children(pid) if alive(p)), None), "the child of init")
    kill_both(container)
    client = regained(container)
    assert read_record(f"{container.bundle}/guards")["regained"] == "stdout,stderr"
    os.kill(child, signal.SIGUSR1)
    said(container, b"late\n")
    container.kill(client)
    assert container.wait(client) == 137
    reap()


def test_a_stream_that_nobody_holds_any_more_has_ended(make):
    container = make("echo ready; trap 'exit 5' USR1; exec >/dev/null; while :; do sleep 1000 & wait $!; done")
    _, pid = container.run()
    said(container, b"ready\n")
    eventually(lambda: any(entry[0] == 1 and entry[1] & 4 for entry in log_entries(container.log)), "stdout ends")
    kill_both(container)
    client = regained(container)
    guards = read_record(f"{container.bundle}/guards")
    assert (guards["regained"], guards["lost"]) == ("stderr", "")
    assert gaps(container) == [2]
    os.kill(pid, signal.SIGUSR1)
    assert container.wait(client) == 5
    reap()


def test_a_writer_that_ignores_sigpipe_goes_on_and_nothing_comes_twice(make):
    """Twelve kills of both while it writes: what is there is in order, and each hole is said."""
    container = make("trap '' PIPE; trap 'exit 9' USR1; i=0; while :; do i=$((i+1)); echo $i 2>/dev/null; [ $((i % 20)) = 0 ] && usleep 1000; done")
    client, pid = container.run()
    rounds = 12
    for number in range(rounds):
        size = written(container)
        eventually(lambda: written(container) > size + 500, "it writes")
        kill_both(container)
        assert alive(pid)
        client = regained(container)
    size = written(container)
    eventually(lambda: written(container) > size + 500, "it writes on")
    os.kill(pid, signal.SIGUSR1)
    assert container.wait(client) == 9
    eventually(lambda: log_ended(container.log), "the log ends")
    assert gaps(container).count(1) == rounds
    pieces = split_at_gaps(container)
    numbers, partial = [], 0
    for piece in pieces:
        lines = piece.split(b"\n")
        # A line that was cut by the loss of its reader can stand at either edge of a piece.
        whole = lines[1:-1] if numbers else lines[:-1]
        partial += len(piece) - sum(len(line) + 1 for line in whole)
        values = [int(line) for line in whole if line]
        assert all(b == a + 1 for a, b in zip(values, values[1:])), "a hole without a gap"
        numbers += values
    assert all(b > a for a, b in zip(numbers, numbers[1:])), "something came twice"
    assert len(numbers) > 1000
    reap()


def written(container):
    """Bytes of standard output in the log."""
    try:
        return os.path.getsize(f"{container.log}/stdout.000001")
    except FileNotFoundError:
        return 0


def split_at_gaps(container):
    pieces = [b""]
    for stream, flags, segment, length, offset, _ in log_entries(container.log):
        if stream != 1 or flags & 4:
            continue
        if flags & GAP:
            pieces.append(b"")
            continue
        with open(f"{container.log}/stdout.{segment:06d}", "rb") as file:
            file.seek(offset)
            pieces[-1] += file.read(length)
    return pieces


def test_a_writer_without_a_handler_dies_of_sigpipe_and_that_is_told(make):
    container = make("trap 'exec yes' USR1; echo before; while :; do sleep 1000 & wait $!; done")
    _, pid = container.run()
    said(container, b"before\n")
    kill_both(container)
    os.kill(pid, signal.SIGUSR1)
    eventually(lambda: not alive(pid), "it ends, for nobody reads")
    client = regained(container)
    container.wait(client)
    assert container.exit["source"] in ("unknown", "zombie")
    if container.exit["source"] == "zombie":
        assert container.exit["code"] == "1" or container.exit["signal"] == "13"
    assert sorted(gaps(container)) == [1, 2]
    reap()


def test_the_connector_wakes_the_shim_for_nobody_else(make):
    container = make(PATIENT)
    _, pid = container.run()
    said(container, b"before\n")
    kill_both(container)
    only_sources(container, "connector")
    client = regained(container)
    shim = container.shim
    # Quiet after the half second in which it gives its memory back.
    before = eventually(lambda: settled(shim), "the shim sleeps")
    for _ in range(50):
        subprocess.run(["/bin/true"], check=True)
    assert switches(shim) - before <= 1, "ends of others woke the shim"
    end_unseen(container, pid, signal.SIGUSR1)
    assert container.wait(client) == 43 and container.exit["source"] == "connector"


def switches(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)


def settled(pid):
    """The count, once it did not change for a second."""
    count = switches(pid)
    select.select([], [], [], 1)
    return count if switches(pid) == count else None


def test_a_first_thread_that_ends_early_does_not_speak_for_the_process(make, tmp_path):
    """The process events tell of threads: the last one counts."""
    source, program = tmp_path / "early.c", tmp_path / "early"
    source.write_text("""
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>
static void *rest(void *unused) {
    sigset_t set; int number;
    sigemptyset(&set); sigaddset(&set, SIGUSR1);
    sigwait(&set, &number);
    sigemptyset(&set); sigaddset(&set, SIGUSR2);
    sigwait(&set, &number);
    exit(55);
}
int main(void) {
    sigset_t set; int number; pthread_t thread;
    sigemptyset(&set); sigaddset(&set, SIGUSR1); sigaddset(&set, SIGUSR2); sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, 0);
    pthread_create(&thread, 0, rest, 0);
    write(1, "ready\\n", 6);
    sigemptyset(&set); sigaddset(&set, SIGHUP);
    sigwait(&set, &number);
    syscall(SYS_exit, 33);
}
""")
    subprocess.run(["cc", "-static", "-o", program, source, "-lpthread"], check=True)
    container = make("true")
    shutil.copy(program, f"{container.base}/layer/bin/early")
    container.config(["/bin/early"], 0, "detached")
    client, pid = container.run()
    said(container, b"ready\n")
    kill_both(container)
    only_sources(container, "connector")
    client = regained(container)
    os.kill(pid, signal.SIGHUP)
    eventually(lambda: Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] == "Z", "the first thread has ended")
    os.kill(pid, signal.SIGUSR1)
    assert container.info(client)["exited"] == 0
    end_unseen(container, pid, signal.SIGUSR2)
    assert container.wait(client) == 55 and container.exit["source"] == "connector"


@pytest.mark.parametrize("call, number", [("openat", 12), ("openat", 30), ("pwrite64", 1), ("clone3", 1), ("renameat", 1), ("rename", 1)])
def test_a_helper_that_is_killed_leaves_what_the_next_one_needs(make, call, number):
    """The start is repeatable wherever it is cut."""
    container = make(PATIENT)
    _, pid = container.run()
    said(container, b"before\n")
    kill_both(container)
    subprocess.run(["strace", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={number}",
                    f"{BIN}/ctr-shim", "-namespace", container.namespace, "-id", container.id, "-address", "none", "-bundle", container.bundle, "start"],
                   stdin=subprocess.DEVNULL, capture_output=True, cwd=container.bundle, timeout=30)
    reap()
    client = regained(container)
    os.kill(pid, signal.SIGUSR1)
    assert container.wait(client) == 43
    assert container.exit["source"] in ("pidfd", "zombie")
    eventually(lambda: log_ended(container.log), "the log ends")
    assert log_bytes(container.log, 1) == b"before\nafter\n"
    reap()


def execute(container, client, name, script):
    """An exec whose output goes to its log; its pid."""
    process = {"terminal": False, "user": {"uid": 0, "gid": 0}, "args": ["/bin/sh", "-c", script], "cwd": "/", "env": ["PATH=/bin"]}
    spec = field(1, "types.containerd.io/opencontainers/runtime-spec/1/Process") + field(2, json.dumps(process))
    client.call("Exec", container.target + field(2, name) + field(5, "log:") + field(6, "log:") + field(7, spec))
    return first(client.call("Start", container.target + field(2, name)), 1)


def test_an_exec_s_pipes_are_found_again_too(make):
    container = make(PATIENT)
    client, pid = container.run()
    said(container, b"before\n")
    name = "e" * 64
    log = f"{container.bundle}/exec/{name}/log"
    child = execute(container, client, name, "trap 'echo late; exit 21' USR1; echo early; while :; do sleep 1000 & wait $!; done")
    eventually(lambda: os.path.exists(f"{log}/index") and b"early\n" in log_bytes(log, 1), "the exec has written")
    kill_both(container)
    client = regained(container)
    assert f"exec/{name}/stdout" in read_record(f"{container.bundle}/guards")["regained"]
    shim = container.shim
    os.kill(shim, signal.SIGSTOP)
    os.kill(child, signal.SIGUSR1)
    os.waitpid(child, 0)
    os.kill(shim, signal.SIGCONT)
    assert first(client.call("Wait", container.target + field(2, name)), 1) == 21
    assert read_record(f"{container.bundle}/exec/{name}/exit")["source"] == "pidfd"
    eventually(lambda: log_ended(log), "the exec's log ends")
    assert log_bytes(log, 1) == b"early\nlate\n"
    assert sorted(entry[0] for entry in log_entries(log) if entry[1] & GAP) == [1, 2]
    os.kill(pid, signal.SIGUSR1)
    assert container.wait(client) == 43
    reap()


def test_the_manager_makes_new_guards_by_itself(alone):
    """Through the whole engine: both are killed at once, and run goes on as if nothing had been."""
    identifier = alone.background("trap 'echo bye; exit 9' TERM; echo ready; while :; do sleep 1000 & wait $!; done")
    follower = alone.client("logs", "-f", identifier)
    follower.out.until(b"ready\n")
    shim, keeper = alone.guards(identifier)
    keeper.kill()
    shim.kill()
    keeper.wait()
    shim.wait()
    deadline = events.Deadline(20)
    while alone.task(identifier)["guards"] != "both":
        deadline.left("new guards")
    alone.ctrctl("tasks", "kill", identifier)
    assert alone.wait(identifier) == 9
    assert alone.task(identifier)["exit"]["source"] in ("pidfd", "zombie")
    follower.wait()
    assert follower.out.data == b"ready\nbye\n"


# --- terminals: the master goes with the guards, and the kernel hangs up

# Says how it is told that the terminal is gone; without a terminal words have nowhere to go, so it writes them to a file.
HUNG_UP = "trap 'echo hung up > /tmp/said' HUP; trap 'exit 46' USR1; echo ready; while :; do sleep 1000 & wait $!; done"


def with_terminal(make, script):
    """A running container whose first process has a terminal, and the calls for it."""
    container = with_terminals(make(script), terminal=True)
    client = container.start_guards().client()
    client.call("Create", container.create_message() + field(4, True) + field(5, "spool:"))
    container.start(client)
    said(container, b"ready\r\n")
    return container, First(container, client)


class First(Exec):
    """The first process by the calls for an exec's streams."""

    def __init__(self, container, client):
        super().__init__(container, client, "", stdin="spool:", terminal=True)
        self.log = container.log


@pytest.mark.parametrize("source, told", [("pidfd", "46"), ("none", None)])
def test_a_terminal_is_hung_up_and_its_container_goes_on_without_it(make, source, told):
    container, first_process = with_terminal(make, HUNG_UP)
    pid = int(read_record(f"{container.bundle}/pid")["pid"])
    kill_both(container)
    events.wait_file(f"/proc/{pid}/root/tmp/said", events.has_text("hung up"))
    only_sources(container, source)
    client = first_process.client = regained(container)
    guards = read_record(f"{container.bundle}/guards")
    assert (guards["regained"], guards["lost"]) == ("", "stdout")
    assert gaps(container) == [1], "something may be missing behind what was read"
    # What needs the terminal says that it is gone; nothing waits for it.
    for call in (lambda: first_process.resize(80, 25), lambda: first_process.write(b"typed\n", append=True)):
        with pytest.raises(Failure) as failure:
            call()
        assert failure.value.code == PRECONDITION and "terminal" in failure.value.message
    eventually(lambda: log_ended(container.log), "the log ends with the terminal")
    assert log_bytes(container.log, 1) == b"ready\r\n" and alive(pid)
    end_unseen(container, pid, signal.SIGUSR1)
    container.wait(client)
    if told:
        assert (container.exit["code"], container.exit["source"]) == (told, "pidfd")
    else:
        assert container.exit["source"] == "unknown" and container.exit["reason"].endswith("its terminal was hung up when shim and keeper died")


def test_who_reads_from_the_terminal_reads_its_end_and_that_status_is_true(make):
    """A first process without a handler is not killed by SIGHUP: the kernel lets none of its namespace's own defaults end it."""
    container, first_process = with_terminal(make, "echo ready; cat > /dev/null; exit 8")
    pid = int(read_record(f"{container.bundle}/pid")["pid"])
    kill_both(container)
    eventually(lambda: not alive(pid), "it ends with its input")
    client = regained(container)
    assert container.wait(client) == 8 and container.exit["source"] == "zombie"
    assert gaps(container) == [1]
    reap()


def test_an_exec_s_terminal_is_hung_up_and_the_container_s_streams_go_on(make):
    container = with_terminals(make(PATIENT))
    client, pid = container.run()
    said(container, b"before\n")
    further = Exec(container, client, "t", "/bin/sh", "-c", "echo ready; exec sleep 1000", stdin="spool:", terminal=True).run()
    further.until(b"ready\r\n")
    child = further.pid
    kill_both(container)
    eventually(lambda: not alive(child), "the exec ends with its terminal")
    client = further.client = regained(container)
    assert "exec/t/stdout" in read_record(f"{container.bundle}/guards")["lost"]
    assert further.wait() == 128 + signal.SIGHUP and (further.exit["source"], further.exit["signal"]) == ("zombie", "1")
    os.waitpid(child, 0)
    os.kill(pid, signal.SIGUSR1)
    assert container.wait(client) == 43 and log_bytes(container.log, 1) == b"before\nafter\n"
    reap()


def test_a_client_at_the_terminal_is_told_how_it_ended(alone):
    """Through the whole engine, with a user in front of it: the terminal here is put back, and the exit is true or said to be unknown."""
    terminal = Terminal(alone, "run", "-it", "--name", "seat", IMAGE, "sh", "-c", "echo ready; while read x; do echo \"<$x>\"; done; exit 8")
    terminal.until(rb"ready\r\n")
    shim, keeper = alone.guards(alone.task("seat")["container_id"])
    keeper.kill()
    shim.kill()
    code = terminal.wait()
    assert terminal.settings() == terminal.before
    end = alone.task("seat")["exit"]
    # Its shell reads the end of its input. Who reaps it first is not in our hands: then the status may be unknown, and never another one.
    assert code == end["code"] == 8 if end["source"] != "unknown" else "terminal" in end["reason"], (code, end)
    # It can be started again, and has a terminal again.
    again = Terminal(alone, "start", "-ai", "seat")
    again.until(rb"ready\r\n")
    again.type(b"\x04")
    assert again.wait() == 8
