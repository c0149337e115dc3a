"""The manager may die at any time: what it finds when it comes back, and what it says of it."""
import os
import signal
import socket
import struct
import subprocess

import pytest

import checks
import events
import hostcheck
from events import Pid
from harness import IMAGE, one_line_error
from ttrpc_client import REQUEST, Client, RPCError, decode, encode, one, text


def identity(task):
    return task["pid"], task["start_time"]


def test_every_container_is_adopted_with_pid_and_start_time(alone):
    running = [alone.background("exec sleep 600") for _ in range(8)]
    before = alone.tasks()
    alone.restart()
    after = alone.tasks()
    for identifier in running:
        assert identity(after[identifier]) == identity(before[identifier])
        assert after[identifier]["status"] == "running" and after[identifier]["guards"] == "both"
        assert after[identifier]["incarnation"] == 1 and events.start_time(after[identifier]["pid"]) == after[identifier]["start_time"]


def test_again_and_again(alone):
    identifier = alone.background("exec sleep 600")
    before = identity(alone.task(identifier))
    for _ in range(8):
        alone.restart()
        assert identity(alone.task(identifier)) == before


def test_killed_before_it_was_ready(alone):
    """SIGKILL while it boots and adopts, at whatever it is doing then."""
    identifier = alone.background("exec sleep 600")
    before = identity(alone.task(identifier))
    for _ in range(6):
        alone.kill9().launch()
        events.readable([alone.manager.fd], 0.02)
    alone.kill9().start()
    task = alone.task(identifier)
    assert identity(task) == before and task["status"] == "running"


@pytest.mark.parametrize("code", [0, 1, 77, 137, 255])
def test_one_that_ended_meanwhile_shows_its_true_status(alone, code):
    go = alone.directory / "go"
    identifier = alone.background(f"while [ ! -e /go/now ]; do usleep 1000; done; exit {code}", "-v", f"{go}:/go")
    init = Pid(alone.task(identifier)["pid"])
    alone.kill9()
    (go / "now").touch()
    init.wait()
    alone.start()
    assert alone.wait(identifier) == code
    task = alone.task(identifier)
    assert task["status"] == "stopped"
    checks.reaped(task, code)


def test_a_signal_meanwhile_is_shown_as_such(alone):
    identifier = alone.background("exec sleep 600")
    init = Pid(alone.task(identifier)["pid"])
    alone.kill9()
    init.kill_and_wait()
    alone.start()
    assert alone.wait(identifier) == 137
    checks.reaped(alone.task(identifier), 137)


def test_a_paused_container_stays_paused(alone):
    identifier = alone.background("exec sleep 600")
    alone.ctrctl("tasks", "pause", identifier)
    alone.restart()
    assert alone.task(identifier)["status"] == "paused"
    alone.ctrctl("tasks", "resume", identifier)
    assert alone.task(identifier)["status"] == "running"


def lose_guards(world, identifier):
    shim, keeper = world.guards(identifier)
    init = Pid(world.task(identifier)["pid"])
    keeper.kill_and_wait()
    shim.kill_and_wait()
    assert init.alive()
    return init


def task_with(world, identifier, fits, timeout=20):
    """The task once `fits` says so; each answer is asked for, and the manager sees what happens by itself."""
    deadline = events.Deadline(timeout)
    with Client(world.address) as client:
        while True:
            task = world.task(identifier)
            if fits(task):
                return task
            client.call("ctr.v1.System", "Version")
            deadline.left(f"task: {task}")


@pytest.mark.parametrize("when", ["manager alive", "manager dead"])
def test_with_both_guards_gone_new_ones_are_made(alone, when):
    identifier = alone.background("trap 'exit 7' TERM; while :; do sleep 600 & wait; done")
    before = alone.task(identifier)
    if when == "manager dead":
        shim, keeper = alone.guards(identifier)
        alone.kill9()
        keeper.kill_and_wait()
        shim.kill_and_wait()
        alone.start()
    else:
        lose_guards(alone, identifier)
    task = task_with(alone, identifier, lambda t: t["guards"] == "both" and t["keeper_pid"] not in (0, before["keeper_pid"]))
    assert identity(task) == identity(before) and task["status"] == "running" and task["shim_pid"] != before["shim_pid"]
    alone.guards(identifier)
    assert "running" in one_line_error(alone.ctrctl("rm", identifier, code=1))
    alone.ctrctl("kill", "-s", "TERM", identifier)
    alone.ctrctl("tasks", "wait", identifier, code=None)
    checks.true_exit(alone.task(identifier), 7)
    alone.ctrctl("rm", identifier)
    assert identifier not in alone.containers()


def test_while_no_guards_can_be_made_it_is_shown_and_can_be_killed(alone):
    shown, killed = alone.background("exec sleep 600"), alone.background("exec sleep 600")
    alone.kill9()
    alone.write_config(shim="/bin/false")
    alone.start()
    inits = [lose_guards(alone, identifier) for identifier in (shown, killed)]
    for identifier in (shown, killed):
        task = task_with(alone, identifier, lambda t: t["guards"] == "lost" and "could not be made" in t["error"])
        assert task["status"] == "running" and "\n" not in task["error"]
    alone.ctrctl("kill", killed)
    inits[1].wait()
    alone.ctrctl("tasks", "wait", killed, code=None)
    checks.true_exit(alone.task(killed), 137)
    alone.kill9()
    alone.write_config()
    alone.start()
    task = task_with(alone, shown, lambda t: t["guards"] == "both")
    assert task["pid"] == inits[0].pid and not task["error"]
    alone.ctrctl("rm", "-f", shown, killed)


def test_with_both_guards_gone_rm_f_is_enough(alone):
    identifier = alone.background("sleep 600 & exec sleep 600")
    init = lose_guards(alone, identifier)
    alone.ctrctl("rm", "-f", identifier)
    init.wait()


def test_with_both_guards_and_the_process_gone_the_status_is_unknown_not_invented(alone):
    """Or a zombie's own, as long as pid 1 has not reaped it."""
    identifier = alone.background("exec sleep 600")
    shim, keeper = alone.guards(identifier)
    init = Pid(alone.task(identifier)["pid"])
    alone.kill9()
    keeper.kill_and_wait()
    shim.kill_and_wait()
    init.kill_and_wait()
    alone.start()
    alone.ctrctl("tasks", "wait", identifier, code=None)
    assert checks.true_exit(alone.task(identifier), 137) in ("unknown", "zombie")
    alone.ctrctl("rm", identifier)


def test_listing_does_not_wait_for_a_stopped_shim(alone):
    stuck, well = alone.background("exec sleep 600"), alone.background("exec sleep 600")
    shim, _ = alone.guards(stuck)
    shim.kill(signal.SIGSTOP)
    try:
        alone.ctrctl("tasks", "list", timeout=5)
        alone.ctrctl("ps", "-a", timeout=5)
        alone.ctrctl("inspect", stuck, timeout=5)
        alone.sh("true", )
        alone.restart()
        tasks = alone.tasks()
        assert tasks[well]["status"] == "running" and stuck in tasks
        alone.ctrctl("kill", well, timeout=10)
        assert alone.wait(well, 10) == 137
    finally:
        shim.kill(signal.SIGCONT)
    alone.ctrctl("kill", stuck)
    assert alone.wait(stuck) == 137
    checks.reaped(alone.task(stuck), 137)


def test_deleting_a_running_container_is_refused(alone):
    identifier = alone.background("exec sleep 600")
    for command in (("rm",), ("containers", "delete")):
        error = one_line_error(alone.ctrctl(*command, identifier, code=1))
        assert "running" in error and identifier[:12] in error
    assert alone.task(identifier)["status"] == "running"
    alone.ctrctl("containers", "delete", "--force", identifier)
    assert identifier not in alone.containers()


def test_a_second_create_with_the_same_name_is_refused(alone):
    first = alone.background("exec sleep 600", "--name", "taken")
    error = one_line_error(alone.ctrctl("run", "-d", "--name", "taken", IMAGE, "true", code=125))
    assert "taken" in error
    assert list(alone.containers()) == [first] and alone.task(first)["status"] == "running"


def test_a_name_is_free_again_after_removal(alone):
    alone.run("-d", "--name", "reused", IMAGE, "true")
    alone.ctrctl("rm", "-f", "reused")
    alone.run("-d", "--name", "reused", IMAGE, "true")


def test_a_start_of_what_runs_is_refused(alone):
    identifier = alone.background("exec sleep 600")
    assert one_line_error(alone.ctrctl("tasks", "start", identifier, code=1))
    assert alone.task(identifier)["incarnation"] == 1


def test_stop_of_the_manager_leaves_containers_running(alone):
    identifier = alone.background("exec sleep 600")
    before = identity(alone.task(identifier))
    assert alone.stop() == 0
    alone.start()
    assert identity(alone.task(identifier)) == before


# SIGKILL in the middle of a run: at every file that it leaves on its way.

def send_create(world, identifier, *args):
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(30)
    connection.connect(world.address)
    body = encode((1, "default"), (2, identifier), (3, ""), (4, IMAGE), (5, encode(*[(1, a) for a in args])), (6, True))
    frame = encode((1, "ctr.v1.Containers"), (2, "Create"), (3, body))
    connection.sendall(struct.pack(">IIBB", len(frame), 1, REQUEST, 0) + frame)
    return connection


POINTS = {
    "sent": lambda world, i: None,
    "directory": lambda world, i: world.root / "containers" / "default" / i,
    "intent": lambda world, i: world.incarnation(i) / "intent",
    "bundle": lambda world, i: world.bundle(i) / "config.json",
    "start record": lambda world, i: world.bundle(i) / "shim.env",
    "guards": lambda world, i: world.bundle(i) / "guards",
    "lock": lambda world, i: world.bundle(i) / "lock",
    "pid": lambda world, i: world.bundle(i) / "pid",
    "runtime state": lambda world, i: world.bundle(i) / "init.pid",
}


@pytest.mark.parametrize("point", POINTS)
def test_a_run_interrupted_is_finished_or_undone(alone, point):
    identifier = os.urandom(32).hex()
    path = POINTS[point](alone, identifier)
    with send_create(alone, identifier, "/bin/sleep", "600") as connection:
        if path is not None:
            try:
                events.wait_file(path, timeout=20, pidfd=alone.manager.fd)
            except FileNotFoundError:
                pass
        alone.kill9()
        connection.close()
    alone.start()
    listed = alone.containers()
    assert set(listed) <= {identifier}
    with Client(alone.address) as client:  # asked again with the same id it joins the first call, or does it now
        answer = client.call("ctr.v1.Containers", "Create", (1, "default"), (2, identifier), (4, IMAGE),
                             (5, encode((1, "/bin/sleep"), (1, "600"))), (6, True))
        container = decode(one(answer, 1))
        assert text(container, 1) == identifier
    task = alone.task(identifier)
    assert task["status"] == "running" and events.start_time(task["pid"]) == task["start_time"]
    sleepers = [p for p in children_of_shims(alone, identifier) if "sleep" in " ".join(events.cmdline(p))]
    assert sleepers == [task["pid"]], "one container, one process"
    alone.ctrctl("rm", "-f", identifier)
    assert not alone.containers()


def children_of_shims(world, identifier):
    shim, _ = world.guards(identifier)
    return events.children(shim.pid)


def tgid(pid):
    return int(open(f"/proc/{pid}/status").read().split("Tgid:")[1].split()[0])


def test_a_successor_waits_for_the_program_that_its_predecessor_was_about_to_start(alone):
    """Killed between clone and execve of a helper: until that is executed, which strace delays here, it has the manager's locks and sockets."""
    identifier = os.urandom(32).hex()
    strace = subprocess.Popen(["strace", "-f", "-p", str(alone.process.pid), "-o", "/dev/null", "-e", "trace=execve",
                               "-e", "inject=execve:delay_enter=2000000:when=1"], stderr=subprocess.PIPE)
    try:
        assert b"attached" in strace.stderr.readline()
        with send_create(alone, identifier, "/bin/sleep", "600"):
            # "Process N attached": a thread of the manager, or the helper that was cloned.
            while tgid(cloned := int(strace.stderr.readline().split(b"Process ")[1].split()[0])) != cloned:
                pass
            alone.kill9()
        alone.launch()
        # Until then whoever connects has nobody behind the socket.
        events.wait_file(alone.log, lambda path: path.read_text().count(" listening ") == 2, 30, alone.manager.fd)
        assert alone.task(identifier)["status"] == "running"
    finally:
        strace.terminate()
        strace.wait()
        strace.stderr.close()
    alone.ctrctl("rm", "-f", identifier)


@pytest.mark.parametrize("point", ["exit", "socket gone", "bundle gone"])
def test_a_removal_interrupted_is_finished(alone, point):
    identifier = alone.background("exec sleep 600")
    path, holds = {
        "exit": (alone.incarnation(identifier) / "exit", os.path.exists),
        "socket gone": (alone.state / "s" / os.path.basename(alone.shim_socket(identifier)), lambda p: not os.path.exists(p)),
        "bundle gone": (alone.bundle(identifier), lambda p: not os.path.exists(p)),
    }[point]
    removal = alone.client("rm", "-f", identifier)
    try:
        events.wait_file(path, holds, timeout=20)
    except FileNotFoundError:
        pass
    alone.kill9()
    alone.start()
    removal.wait()
    alone.ctrctl("rm", "-f", identifier, code=None)
    assert identifier not in alone.containers()


def test_a_client_that_waits_goes_on_waiting(alone):
    identifier = alone.background("exec sleep 600")
    waiting = alone.client("tasks", "wait", identifier)
    events.readable([waiting.out.fd], 0.2)
    alone.restart()
    alone.ctrctl("kill", identifier)
    waiting.wait()
    assert waiting.out.data == b"137\n"


def test_a_bad_database_does_not_stop_the_boot(alone):
    identifier = alone.background("exec sleep 600")
    before = identity(alone.task(identifier))
    alone.kill9()
    for side in ("-wal", "-shm"):
        (alone.root / f"ctrd.db{side}").unlink(missing_ok=True)
    (alone.root / "ctrd.db").write_bytes(b"this is not a database" * 1000)
    alone.start()
    assert identity(alone.task(identifier)) == before
    alone.ctrctl("rm", "-f", identifier)
    alone.sh("true")
    for path in alone.root.glob("ctrd.db?*"):
        if path.name not in ("ctrd.db-wal", "ctrd.db-shm"):
            path.unlink()  # what was set aside is kept for a person to look at


def test_what_has_no_row_is_removed_at_boot(alone):
    alone.kill9()
    stray = "ab" * 32
    for path in (alone.root / "snapshots" / "containers" / "default" / stray / "upper", alone.state / "s" / ("0" * 16)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if path.name == "upper" else path.touch()
    (alone.root / "content" / "ingest").mkdir(parents=True, exist_ok=True)
    (alone.root / "content" / "ingest" / "half").touch()
    for hierarchy in hostcheck.hierarchies():
        if hierarchy.endswith(("/unified", "/cgroup")):
            os.makedirs(f"{hierarchy}/{alone.cgroup_parent}/shims/{stray}", exist_ok=True)
    alone.start()  # the fixture's leak check does the rest
    with pytest.raises(RPCError):
        with Client(alone.address) as client:
            client.call("ctr.v1.Containers", "Get", (1, "default"), (2, stray))


def test_descriptors_of_the_manager_do_not_grow(alone):
    def descriptors():
        return len(os.listdir(f"/proc/{alone.process.pid}/fd"))
    for _ in range(3):
        alone.sh("true")
    before = descriptors()
    for _ in range(20):
        alone.sh("true")
    deadline = events.Deadline(10)
    with Client(alone.address) as client:
        while descriptors() > before + 1:
            client.call("ctr.v1.System", "Version")
            deadline.left(f"{descriptors()} descriptors, {before} before")
