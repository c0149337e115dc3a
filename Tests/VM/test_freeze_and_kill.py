"""cgroup.freeze and cgroup.kill of version 2, through the command line."""
import os

import pytest

import events
from ctrun_bundle import Bundle
from guest import CGROUPS, group, processes, value
from harness import IMAGE


@pytest.fixture
def bundle():
    made = Bundle("/bin/true")
    yield made
    made.close()


CROWD = "for i in 1 2 3 4 5 6 7 8; do sh -c 'sleep 600 & sleep 600 & wait' & done; echo ready; wait"


@pytest.fixture
def crowd(world):
    identifier = world.background(CROWD)
    client = world.client("logs", "-f", identifier)
    client.out.until(rb"ready")
    client.close()
    yield identifier
    world.ctrctl("rm", "-f", identifier, code=None)


def test_a_paused_container_is_frozen_as_a_whole(world, crowd):
    world.ctrctl("pause", crowd)
    assert value(group(world, crowd) / "cgroup.events", "frozen") == 1 and world.task(crowd)["status"] == "paused"
    assert "aused" in world.ctrctl("ps").out
    world.ctrctl("unpause", crowd)
    assert value(group(world, crowd) / "cgroup.events", "frozen") == 0 and world.task(crowd)["status"] == "running"


def test_a_paused_container_writes_nothing_and_goes_on_at_the_line(world):
    identifier = world.background("i=0; while :; do i=$((i+1)); echo $i; done")
    log = world.incarnation(identifier) / "log" / "stdout.000001"
    events.wait_file(log, lambda path: path.exists() and os.stat(path).st_size > 1000)
    world.ctrctl("pause", identifier)
    # What was in the pipe is drained by the time a second command is through.
    world.ctrctl("ps")
    size = os.stat(log).st_size
    world.ctrctl("ps")
    assert os.stat(log).st_size == size
    world.ctrctl("unpause", identifier)
    events.wait_file(log, lambda path: os.stat(path).st_size > size)
    world.ctrctl("rm", "-f", identifier)


@pytest.mark.parametrize("command", [("kill",), ("stop", "-t", "1"), ("rm", "-f")], ids=["kill", "stop", "rm"])
def test_a_paused_container_can_be_ended(world, crowd, command):
    world.ctrctl("pause", crowd)
    living = [events.Pid(pid) for pid in processes(group(world, crowd))]
    assert len(living) > 8
    world.ctrctl(*command, crowd)
    for process in living:
        process.wait()
    if command[0] != "rm":
        assert world.wait(crowd) == 137
        assert world.task(crowd)["exit"]["source"] == "reaped"


def test_a_paused_container_is_found_paused_by_the_next_manager_and_can_be_killed(world, crowd):
    world.ctrctl("pause", crowd)
    world.restart()
    assert world.task(crowd)["status"] == "paused"
    world.ctrctl("kill", crowd)
    assert world.wait(crowd) == 137


def test_a_container_that_forks_without_end_goes_at_once(world):
    identifier = world.background("f() { while :; do sleep 600 & done; }; f & f & f & wait", "--pids-limit", "60")
    def full(_):
        return value(group(world, identifier) / "pids.events", "max") > 0
    events.wait_file(group(world, identifier) / "pids.events", full)
    world.ctrctl("rm", "-f", identifier)
    assert not group(world, identifier).exists()


def test_what_the_first_process_left_behind_goes_with_it(world):
    identifier = world.run("-d", IMAGE, "/bin/sh", "-c", "setsid sleep 600 & exit 5")
    assert world.wait(identifier) == 5
    world.ctrctl("rm", identifier)
    assert not group(world, identifier).exists()


# --- whose group a process is in

def test_the_end_of_the_managers_unit_takes_the_manager_alone(alone):
    """What a service manager does to a unit that it stops: everything in its group is killed."""
    unit = CGROUPS / f"{alone.cgroup_parent}.service"
    unit.mkdir()
    try:
        (unit / "cgroup.procs").write_text(str(alone.process.pid))
        identifier = alone.background("i=0; while :; do i=$((i+1)); echo $i; usleep 20000; done")
        shim, keeper = alone.guards(identifier)
        init = events.Pid(alone.task(identifier)["pid"])
        assert processes(unit) == [alone.process.pid]
        (unit / "cgroup.kill").write_text("1")
        alone.manager.wait()
        alone.process.wait()
        assert shim.alive() and keeper.alive() and init.alive()
        alone.start()
        assert alone.task(identifier)["pid"] == init.pid
        alone.ctrctl("rm", "-f", identifier)
    finally:
        unit.rmdir()


def test_a_container_may_divide_its_own_group_and_all_of_it_goes(bundle):
    """As service managers in containers do: the group is theirs to write below."""
    mount = next(entry for entry in bundle.spec["mounts"] if entry["type"] == "cgroup")
    mount["options"].remove("ro")
    pid = bundle.shell("mkdir -p /sys/fs/cgroup/a/b && echo 1 > /sys/fs/cgroup/a/b/cgroup.procs && cat /proc/self/cgroup && exec sleep 600").create()
    bundle.ok("start", "c1")
    events.wait_file(bundle.base / "out", events.has_text("/a/b"))
    own = CGROUPS / bundle.linux["cgroupsPath"].lstrip("/")
    assert pid in processes(own / "a/b") and processes(own) == []
    bundle.ok("pause", "c1")
    assert bundle.status() == "paused"
    bundle.ok("delete", "-f", "c1")
    assert not own.exists()
