"""Limits of version 2 control groups, and that the kernel keeps them: what a user gives to ctrctl, and what an OCI document gives to ctrun."""
import errno
import json
import os
import stat

import pytest

from ctrun_bundle import Bundle
from guest import CGROUPS, group, value
from harness import IMAGE


@pytest.fixture
def bundle():
    made = Bundle("/bin/true")
    yield made
    made.close()


def own(bundle):
    return CGROUPS / bundle.linux["cgroupsPath"].lstrip("/")


def test_the_host_is_what_these_tests_are_for(world):
    info = world.ctrctl("info", "--output", "json").json()
    assert info["cgroup_version"] == "v2" and {"cpu", "io", "memory", "pids"} <= set(info["cgroup_controllers"]), info
    assert os.uname().release.startswith("6.1.") and not info.get("warnings"), info


def test_limits_are_in_the_files(world):
    identifier = world.background("exec sleep 600", "--memory", "32m", "--cpus", "0.5", "--pids-limit", "10")
    files = {"memory.max": f"{32 << 20}", "memory.swap.max": "0", "cpu.max": "50000 100000", "pids.max": "10"}
    assert {name: (group(world, identifier) / name).read_text().strip() for name in files} == files
    # The container sees the same at the place where programs look, and cannot change it.
    seen = world.sh("cat /sys/fs/cgroup/memory.max /proc/self/cgroup; echo 1 > /sys/fs/cgroup/memory.max", "--memory", "48m", code=1)
    assert seen.splitlines() == [f"{48 << 20}", "0::/"]
    world.ctrctl("rm", "-f", identifier)


def test_every_limit_of_a_document(bundle):
    disk = os.stat("/dev/vda").st_rdev
    major, minor = os.major(disk), os.minor(disk)
    bundle.linux["resources"].update({
        "memory": {"limit": 64 << 20, "swap": 96 << 20, "reservation": 32 << 20}, "pids": {"limit": 11},
        "cpu": {"shares": 512, "quota": 50000, "period": 100000, "burst": 10000, "cpus": "1", "mems": "0"},
        "blockIO": {"weight": 500, "throttleReadBpsDevice": [{"major": major, "minor": minor, "rate": 1 << 20}],
                    "throttleWriteIOPSDevice": [{"major": major, "minor": minor, "rate": 100}]},
        "unified": {"memory.high": f"{60 << 20}", "pids.max": "12"}})
    bundle.shell("exec sleep 600").create()
    expected = {"memory.max": f"{64 << 20}", "memory.swap.max": f"{32 << 20}", "memory.low": f"{32 << 20}", "memory.high": f"{60 << 20}", "pids.max": "12",
                "cpu.weight": "20", "cpu.max": "50000 100000", "cpu.max.burst": "10000", "cpuset.cpus": "1", "cpuset.mems": "0", "io.weight": "default 4950",
                "io.max": f"{major}:{minor} rbps={1 << 20} wbps=max riops=max wiops=100"}
    found = {}
    for name in expected:
        path = own(bundle) / name
        found[name] = path.read_text().strip() if path.exists() else expected[name] if name == "io.weight" else "no such file"
    assert found == expected


def test_a_container_without_limits_is_counted_all_the_same(world):
    """Out-of-memory kills, memory and processes of a container are known whether it has a limit or not."""
    identifier = world.background("exec sleep 600")
    assert value(group(world, identifier) / "memory.events", "oom_kill") == 0
    assert int((group(world, identifier) / "pids.current").read_text()) == 1
    world.ctrctl("kill", identifier)
    world.wait(identifier)
    record = world.record(world.incarnation(identifier) / "exit")
    assert record["oom"] in ("0", "false", "no") and int(record["memory_peak"]) > 0 and int(record["cpu_ns"]) > 0, record
    world.ctrctl("rm", identifier)


def test_memory_over_the_limit_is_killed_and_said_so(world):
    identifier = world.run("-d", "--memory", "32m", IMAGE, "/bin/dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1")
    assert world.wait(identifier) == 137
    end = world.task(identifier)["exit"]
    assert end["oom_killed"] is True and end["source"] == "reaped" and end["code"] == 137, end
    record = world.record(world.incarnation(identifier) / "exit")
    assert int(record["oom_kills"]) >= 1 and int(record["memory_peak"]) <= 32 << 20, record
    world.ctrctl("rm", identifier)


def test_a_child_killed_for_memory_is_told_beside_the_first_ones_own_status(world):
    identifier = world.background("dd if=/dev/zero of=/dev/null bs=200M count=1; exit 7", "--memory", "32m")
    assert world.wait(identifier) == 7
    assert world.task(identifier)["exit"]["oom_killed"] is True
    world.ctrctl("rm", identifier)


def test_processor_time_is_throttled(world):
    identifier = world.background("i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done", "--cpus", "0.1")
    assert world.wait(identifier) == 0
    assert value(group(world, identifier) / "cpu.stat", "nr_throttled") > 0
    world.ctrctl("rm", identifier)


def test_processes_over_the_limit_are_refused(world):
    identifier = world.background("for i in 1 2 3 4 5 6 7 8; do sleep 600 & done; echo all", "--pids-limit", "5")
    world.wait(identifier)
    assert value(group(world, identifier) / "pids.events", "max") > 0
    assert "all" not in world.ctrctl("logs", identifier).out
    world.ctrctl("rm", identifier)


# --- devices, by the program that the kernel asks

NODES = ("mknod /tmp/made b 8 0; echo $?; dd if=/disk of=/dev/null bs=512 count=1 2>/dev/null; echo $?; "
         "dd if=/dev/zero of=/disk bs=512 count=0 2>/dev/null; echo $?; echo x > /dev/null; echo $?")


def with_disk(bundle):
    """A node of the machine's disk in the root file system: what an image might bring along."""
    os.mknod(bundle.rootfs / "disk", stat.S_IFBLK | 0o600, os.stat("/dev/vdb").st_rdev)
    return os.major(os.stat("/dev/vdb").st_rdev), os.minor(os.stat("/dev/vdb").st_rdev)


def test_devices_that_are_not_allowed_are_denied(bundle):
    with_disk(bundle)
    result = bundle.shell(NODES).run()
    assert result.stdout.split() == ["1", "1", "1", "0"] and os.strerror(errno.EPERM) in result.stderr, result


def test_allowed_devices_work_and_only_as_allowed(bundle):
    major, minor = with_disk(bundle)
    bundle.linux["resources"]["devices"] += [{"allow": True, "type": "b", "major": 8, "minor": 0, "access": "m"},
                                             {"allow": True, "type": "b", "major": major, "minor": minor, "access": "r"}]
    assert bundle.output(NODES).split() == ["0", "0", "1", "0"]


def test_a_later_denial_wins(bundle):
    major, minor = with_disk(bundle)
    bundle.linux["resources"]["devices"] += [{"allow": True, "type": "b", "access": "rwm"},
                                             {"allow": False, "type": "b", "major": major, "minor": minor, "access": "w"}]
    assert bundle.output(NODES).split() == ["0", "0", "1", "0"]


def test_containers_of_the_manager_may_make_nodes_and_not_open_them(world):
    disk = os.stat("/dev/vdb").st_rdev
    out = world.sh(f"mknod /d b {os.major(disk)} {os.minor(disk)} && echo made; dd if=/d of=/dev/null count=1 2>&1; mknod /n c 1 3 && echo y > /n && echo open")
    assert "made" in out and "Operation not permitted" in out and "open\n" in out, out


# --- what cannot be kept

@pytest.mark.parametrize("resources, part", [
    ({"unified": {"no.such.file": "1"}}, "no.such.file"),
    ({"unified": {"../cgroup.procs": "1"}}, "cgroup.procs"),
    ({"cpu": {"cpus": "77"}}, "cpuset.cpus"),
    ({"hugepageLimits": [{"pageSize": "3KB", "limit": 4096}]}, "hugetlb.3KB"),
], ids=["unknown file", "path", "no such cpu", "no such page size"])
def test_a_limit_that_cannot_be_kept_is_one_line_and_leaves_nothing(bundle, resources, part):
    bundle.linux["resources"].update(resources)
    assert part in bundle.fails("run", "-b", bundle.path, "c1")
    assert bundle.cgroups() == []


def test_limits_below_a_group_with_processes_are_refused_by_name(bundle):
    """Version 2 gives controllers only to groups below one without processes of its own."""
    parent = CGROUPS / bundle.name
    parent.mkdir()
    bundle.shell("exec sleep 600")
    bundle.linux["cgroupsPath"] = f"/{bundle.name}/busy"
    pid = bundle.create()
    try:
        inner = Bundle("/bin/true")
        try:
            inner.linux["cgroupsPath"] = f"/{bundle.name}/busy/inner"
            inner.linux["resources"]["memory"] = {"limit": 32 << 20}
            message = inner.fails("run", "-b", inner.path, "c1")
            assert "memory" in message and "busy" in message, message
        finally:
            inner.close()
        assert json.loads(bundle.ok("state", "c1"))["pid"] == pid
    finally:
        bundle.ok("delete", "-f", "c1")
