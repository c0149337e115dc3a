"""Keeper and shim: who is whose parent, and what goes on when either is killed."""
import signal
import subprocess

import pytest

import checks
import events
from events import Pid, children, cmdline, comm, parent, threads
from harness import BIN, IMAGE
from ttrpc_client import Client, one, text

COUNTER = "i=0; while :; do i=$((i+1)); echo $i; [ $((i % 50)) = 0 ] && usleep 1000; done"


def info(world, identifier):
    """The shim's own answer. While a shim is being replaced the keeper holds the socket, so this waits for the new one."""
    with Client(world.shim_socket(identifier)) as client:
        return client.call("ctr.shim.v1.Guard", "Info")


def ended(client, identifier):
    """Whether the shim says that the container ended; asked when its log moved."""
    return one(client.call("ctr.shim.v1.Guard", "Info"), 6, 0)


@pytest.fixture
def sleeping(world):
    identifier = world.background("exec sleep 600")
    yield identifier
    world.ctrctl("rm", "-f", identifier)


def test_keeper_shim_and_init_are_parents_in_a_row(world, sleeping):
    shim, keeper = world.guards(sleeping)
    init = world.task(sleeping)["pid"]
    assert parent(init) == shim.pid and parent(shim.pid) == keeper.pid
    assert parent(keeper.pid) not in (world.process.pid, shim.pid)


def test_process_names_and_arguments(world, sleeping):
    shim, keeper = world.guards(sleeping)
    assert comm(shim.pid) == "ctr-shim" and comm(keeper.pid) == "ctr-keeper"
    assert cmdline(shim.pid)[0].rsplit("/", 1)[-1] == "ctr-shim"
    assert str(world.incarnation(sleeping)) in cmdline(shim.pid) and str(world.bundle(sleeping)) in cmdline(shim.pid)


def test_both_run_one_thread(world, sleeping):
    for guard in world.guards(sleeping):
        assert threads(guard.pid) == 1


@pytest.mark.parametrize("program", ["ctr-shim", "ctr-keeper", "ctrun", "ctrctl"])
def test_the_programs_are_static(program):
    out = subprocess.run(["readelf", "-lW", str(BIN / program)], capture_output=True, text=True, check=True).stdout
    assert "INTERP" not in out and "NEEDED" not in out


def test_the_guards_live_in_a_cgroup_of_their_own(world, sleeping):
    for guard in world.guards(sleeping):
        groups = open(f"/proc/{guard.pid}/cgroup").read()
        assert f"0::/{world.cgroup_parent}/shims/{sleeping}" in groups, groups
        assert f"/{world.cgroup_parent}/default/" not in groups
    groups = open(f"/proc/{world.task(sleeping)['pid']}/cgroup").read()
    assert f"memory:/{world.cgroup_parent}/default/{sleeping}\n" in groups or f"0::/{world.cgroup_parent}/default/{sleeping}" in groups


def test_the_container_holds_write_ends_only(world, sleeping):
    init = world.task(sleeping)["pid"]
    for fd in (1, 2):
        flags = next(line for line in open(f"/proc/{init}/fdinfo/{fd}") if line.startswith("flags:")).split()[1]
        assert int(flags, 8) & 3 == 1, f"descriptor {fd} has flags {flags}"


def test_records_are_as_the_architecture_page_says(world, sleeping):
    task = world.task(sleeping)
    pid = world.record(world.bundle(sleeping) / "pid")
    assert int(pid["pid"]) == task["pid"] and int(pid["start_time"]) == task["start_time"] == events.start_time(task["pid"])
    assert pid["started"] == "1" and pid["boot_id"] == open("/proc/sys/kernel/random/boot_id").read().strip()
    intent = world.record(world.incarnation(sleeping) / "intent")
    assert (intent["id"], intent["namespace"], intent["incarnation"]) == (sleeping, "default", "1")
    assert not (world.incarnation(sleeping) / "exit").exists()


def test_the_exit_record_is_there_before_the_exit_is_announced(world):
    identifier = world.background("exit 9")
    with Client(world.shim_socket(identifier)) as client:
        answer = client.call("containerd.task.v2.Task", "Wait", (1, identifier))
        record = world.record(world.incarnation(identifier) / "exit")
    assert one(answer, 1, 0) == 9 and record["code"] == "9" and record["source"] == "reaped"
    world.ctrctl("rm", identifier)


@pytest.mark.parametrize("manager", [True, False], ids=["with the manager", "without a manager"])
def test_a_killed_shim_is_replaced_and_the_container_runs_on(alone, manager):
    identifier = alone.background(COUNTER)
    shim, keeper = alone.guards(identifier)
    init = Pid(alone.task(identifier)["pid"])
    if not manager:
        alone.kill9()
    shim.kill_and_wait()
    answer = info(alone, identifier)
    assert one(answer, 1) != shim.pid and one(answer, 4) == init.pid and one(answer, 2) == keeper.pid
    assert one(answer, 12, 0) == 1
    assert init.alive() and parent(init.pid) == keeper.pid
    if not manager:
        alone.start()
    follower = alone.client("logs", "-f", identifier)
    follower.out.until_line(500)
    alone.ctrctl("kill", identifier)
    assert alone.wait(identifier) == 137
    checks.reaped(alone.task(identifier), 137)
    follower.wait()
    checks.numbered_lines(follower.out.data[:follower.out.data.rfind(b"\n") + 1])


def test_a_container_that_ends_while_its_shim_is_dead_keeps_its_status(alone):
    """The keeper reaps it and writes it down; the next shim turns that into the exit record."""
    go = alone.directory / "go"
    identifier = alone.background("while [ ! -e /go/now ]; do usleep 1000; done; exit 43", "-v", f"{go}:/go")
    shim, keeper = alone.guards(identifier)
    init = Pid(alone.task(identifier)["pid"])
    keeper.kill(signal.SIGSTOP)
    shim.kill_and_wait()
    (go / "now").touch()
    init.wait()
    keeper.kill(signal.SIGCONT)
    assert alone.wait(identifier) == 43
    checks.reaped(alone.task(identifier), 43)


@pytest.mark.parametrize("manager", [True, False], ids=["with the manager", "without a manager"])
def test_no_line_is_lost_when_the_shim_is_killed_many_times(alone, manager):
    total = 40000
    identifier = alone.background(f"i=0; while [ $i -lt {total} ]; do i=$((i+1)); echo $i; done; exit 7")
    if not manager:
        alone.kill9()
    for _ in range(12):
        answer = info(alone, identifier)
        if one(answer, 6, 0):
            break
        try:
            shim = Pid(one(answer, 1))
        except ProcessLookupError:
            continue
        shim.kill_and_wait()
    if not manager:
        alone.start()
    assert alone.wait(identifier, 120) == 7
    checks.reaped(alone.task(identifier), 7)
    checks.numbered_lines(alone.ctrctl("logs", identifier).raw, last=total)


def test_with_the_keeper_gone_the_shim_is_the_parent_and_reaps(alone):
    identifier = alone.background("trap 'echo bye; exit 17' TERM; echo ready; while :; do usleep 20000; done")
    follower = alone.client("logs", "-f", identifier)
    follower.out.until(b"ready")
    shim, keeper = alone.guards(identifier)
    init = Pid(alone.task(identifier)["pid"])
    keeper.kill_and_wait()
    assert shim.alive() and init.alive() and parent(init.pid) == shim.pid
    assert one(info(alone, identifier), 2, 0) == 0
    alone.restart()
    assert alone.task(identifier)["guards"] == "shim_only"
    alone.ctrctl("tasks", "kill", identifier)
    assert alone.wait(identifier) == 17
    checks.reaped(alone.task(identifier), 17)
    follower.wait()
    assert follower.out.data == b"ready\nbye\n"


def test_a_second_start_prints_the_same_address_and_starts_nothing(world, sleeping):
    shim, keeper = world.guards(sleeping)
    done = subprocess.run([str(BIN / "ctr-shim"), "-namespace", "default", "-id", sleeping, "-address", world.address, "-bundle", str(world.bundle(sleeping)),
                           "start"], capture_output=True, text=True, cwd=world.bundle(sleeping), env=world.env, timeout=20)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, f"unix://{world.shim_socket(sleeping)}", "")
    assert shim.alive() and keeper.alive() and len(children(keeper.pid)) == 1


def test_the_guards_of_an_ended_container_go_with_it(world):
    identifier = world.background("exec sleep 600")
    shim, keeper = world.guards(identifier)
    world.ctrctl("rm", "-f", identifier)
    shim.wait()
    keeper.wait()


def test_the_shim_speaks_the_task_service(world, sleeping):
    with Client(world.shim_socket(sleeping)) as client:
        state = client.call("containerd.task.v2.Task", "State", (1, sleeping))
        assert text(state, 1) == sleeping and one(state, 4) == 2 and one(state, 3) == world.task(sleeping)["pid"]
        connected = client.call("containerd.task.v2.Task", "Connect", (1, sleeping))
        assert one(connected, 1) == world.guards(sleeping)[0].pid
        assert client.call("containerd.task.v2.Task", "Pids", (1, sleeping))[1]


def test_output_after_inits_end_does_not_hold_the_container(world):
    """A process that was left behind keeps the pipe open; the end does not wait for it."""
    identifier = world.run("-d", IMAGE, "/bin/sh", "-c", "sleep 600 & echo done; exit 4")
    assert world.wait(identifier, 15) == 4
    assert world.ctrctl("logs", identifier).out == "done\n"
    world.ctrctl("rm", identifier)
