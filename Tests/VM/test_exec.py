"""Further processes, changes of limits and statistics where version 2 is all there is."""
import json
import signal
import subprocess

import pytest

import events
from ctrun_bundle import Bundle
from guest import CGROUPS, group, processes, value


@pytest.fixture
def bundle():
    made = Bundle("/bin/true")
    yield made
    made.close()


@pytest.fixture
def running(bundle):
    bundle.linux["resources"].update({"memory": {"limit": 32 << 20, "swap": 32 << 20}, "pids": {"limit": 20}})
    bundle.shell("exec sleep 600").create()
    bundle.ok("start", "c1")
    return bundle


def detached(bundle, *words):
    """exec --detach, whose process would hold the pipes of a caller that captures output; it is the first process's of the machine to collect."""
    path = bundle.base / "pid"
    subprocess.run(bundle.command("exec", "--detach", "--pid-file", path, *words), check=True, timeout=60, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)
    return events.Pid(int(path.read_text()))


def own(bundle):
    return CGROUPS / bundle.linux["cgroupsPath"].lstrip("/")


def test_a_further_process_lives_below_the_container_and_its_limits_are_the_containers(running):
    """The group of the first process is not empty, and a group below it works as long as no controller is turned on for it."""
    (own(running) / "exec-1").mkdir()
    assert running.ok("exec", "--cgroup", "exec-1", "c1", "cat", "/proc/self/cgroup") == "0::/exec-1\n"
    result = running.ctrun("exec", "--cgroup", "exec-1", "c1", "dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1")
    assert result.returncode == 128 + signal.SIGKILL, result
    assert value(own(running) / "memory.events", "oom_kill") == 1 and running.status() == "running"
    # What is killed below goes alone.
    further = detached(running, "--cgroup", "exec-1", "c1", "sleep", "600")
    assert processes(own(running) / "exec-1") == [further.pid]
    (own(running) / "exec-1" / "cgroup.kill").write_text("1")
    further.wait()
    assert running.status() == "running"


def test_a_further_process_in_a_container_that_divided_its_group_goes_where_the_first_is(bundle):
    next(entry for entry in bundle.spec["mounts"] if entry["type"] == "cgroup")["options"].remove("ro")
    bundle.linux["resources"]["pids"] = {"limit": 20}
    bundle.shell("cd /sys/fs/cgroup && mkdir a && echo 1 > a/cgroup.procs && echo +pids > cgroup.subtree_control && echo divided && exec sleep 600").create()
    bundle.ok("start", "c1")
    events.wait_file(bundle.base / "out", events.has_text("divided"))
    assert bundle.ok("exec", "c1", "cat", "/proc/self/cgroup") == "0::/a\n"


def test_a_paused_container_takes_no_further_process_and_dies_with_those_it_has(running):
    further = detached(running, "c1", "sleep", "600")
    running.ok("pause", "c1")
    result = running.ctrun("exec", "c1", "true")
    assert result.returncode == 255 and "paused" in result.stderr, result
    running.ok("delete", "-f", "c1")
    further.wait()


def test_limits_are_changed_while_it_runs(running):
    running.ok("update", "--memory", "64m", "--memory-swap", "96m", "--cpu-quota", "20000", "--cpu-period", "100000", "--pids-limit", "7", "c1")
    files = {"memory.max": f"{64 << 20}", "memory.swap.max": f"{32 << 20}", "cpu.max": "20000 100000", "pids.max": "7"}
    assert {name: (own(running) / name).read_text().strip() for name in files} == files
    running.ok("update", "--memory", "-1", "--memory-swap", "-1", "--pids-limit", "-1", "c1")
    assert [(own(running) / name).read_text().strip() for name in ("memory.max", "pids.max")] == ["max", "max"]


def controllers(running):
    """What is turned on in each directory above the container's, the lowest first."""
    return [(parent / "cgroup.subtree_control").read_text() for parent in own(running).parents if parent.is_relative_to(CGROUPS)]


@pytest.mark.parametrize("bad", [
    {"cpu": {"cpus": "0-77"}}, {"cpu": {"cpus": "1-0"}}, {"cpu": {"mems": "5"}}, {"cpu": {"cpus": "0", "quota": 1}}, {"hugepageLimits": [{"pageSize": "3KB", "limit": 4096}]},
    {"cpu": {"cpus": "0"}, "unified": {"no.such.file": "1"}}, {"cpu": {"cpus": "0"}, "unified": {"pids.max": "many"}},
    {"cpu": {"cpus": "0"}, "blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 77, "rate": 4096}]}},
], ids=["processors", "list", "nodes", "quota", "page size", "file", "value", "device"])
def test_a_refused_change_turns_nothing_on(running, bad):
    """A controller that the container does not have yet is turned on in directories that are not only its own."""
    before, path = controllers(running), running.base / "resources.json"
    assert "cpuset" not in before[0] and "hugetlb" not in before[0]
    path.write_text(json.dumps({"pids": {"limit": 9}, **bad}))
    running.fails("update", "-r", path, "c1")
    assert controllers(running) == before and (own(running) / "pids.max").read_text() == "20\n"


def test_a_controller_is_turned_on_when_a_change_needs_it(running):
    running.ok("update", "--cpuset-cpus", "1", "c1")
    assert (own(running) / "cpuset.cpus").read_text() == "1\n" and "cpuset" in controllers(running)[0]
    assert running.ok("exec", "c1", "grep", "Cpus_allowed_list", "/proc/1/status").split()[1] == "1"


def test_a_changed_limit_is_in_force(running):
    running.ok("update", "--pids-limit", "3", "c1")
    result = running.ctrun("exec", "c1", "sh", "-c", "for i in 1 2 3 4 5; do sleep 600 > /dev/null 2>&1 & done; echo all")
    assert "all" not in result.stdout and "fork" in result.stderr, result


def test_statistics(running):
    further = detached(running, "c1", "sleep", "600")
    data = json.loads(running.ok("events", "--stats", "c1").splitlines()[-1])["data"]
    assert data["memory"]["usage"]["limit"] == 32 << 20 and 0 < data["memory"]["usage"]["usage"] <= 32 << 20, data["memory"]
    assert data["pids"] == {"current": 2, "limit": 20} and data["cpu"]["usage"]["total"] > 0 and further.alive(), data


def test_processes_are_listed(running):
    further = detached(running, "c1", "sleep", "601")
    assert set(json.loads(running.ok("ps", "--format", "json", "c1"))) == {running.state()["pid"], further.pid}


# --- the same through the manager

def test_the_managers_exec_limits_and_statistics(world):
    identifier = world.background("exec sleep 600", "--memory", "32m")
    place = world.ctrctl("exec", identifier, "cat", "/proc/self/cgroup").out
    assert place.startswith("0::/exec-"), place
    assert world.ctrctl("exec", identifier, "dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1", code=137).out == ""
    assert value(group(world, identifier) / "memory.events", "oom_kill") == 1 and world.task(identifier)["status"] == "running"
    # Groups of ended execs are gone.
    assert [path.name for path in group(world, identifier).iterdir() if path.is_dir()] == []
    world.ctrctl("update", "--memory", "64m", "--memory-swap", "64m", "--pids-limit", "9", identifier)
    assert [(group(world, identifier) / name).read_text().strip() for name in ("memory.max", "memory.swap.max", "pids.max")] == [f"{64 << 20}", "0", "9"]
    sample = json.loads(world.ctrctl("stats", "--no-stream", "--output", "json", identifier).out.splitlines()[-1])
    assert sample["memory_limit_bytes"] == 64 << 20 and 0 < sample["memory_usage_bytes"] < 64 << 20 and sample["pids"] == 1, sample
    assert {entry["resource"] for entry in sample["pressure"]} == {"cpu", "memory", "io"}, sample
    world.ctrctl("rm", "-f", identifier)


def test_statistics_of_a_container_without_limits(world):
    identifier = world.background("exec sleep 600")
    sample = json.loads(world.ctrctl("stats", "--no-stream", "--output", "json", identifier).out.splitlines()[-1])
    assert sample["memory_usage_bytes"] > 0 and sample["pids"] == 1, sample
    world.ctrctl("rm", "-f", identifier)
