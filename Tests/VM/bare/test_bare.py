"""The second machine: booted without AppArmor, without the memory and pids controllers and without pressure accounting."""
import json

import pytest

from ctrun_bundle import Bundle
from guest import CGROUPS, group
from harness import IMAGE, one_line_error


@pytest.fixture
def bundle():
    made = Bundle("/bin/true")
    yield made
    made.close()


def test_what_is_missing_is_said(world):
    assert not {"memory", "pids"} & set((CGROUPS / "cgroup.controllers").read_text().split())
    warnings = "\n".join(world.ctrctl("info", "--output", "json").json()["warnings"])
    assert "no memory controller: --memory is refused" in warnings and "no pids controller: --pids-limit is refused" in warnings


@pytest.mark.parametrize("flag, value, controller", [("--memory", "32m", "memory"), ("--pids-limit", "10", "pids")])
def test_a_limit_without_its_controller_is_refused_by_name(world, flag, value, controller):
    error = one_line_error(world.ctrctl("run", "--rm", flag, value, IMAGE, "/bin/true", code=125))
    assert f"no {controller} cgroup controller" in error, error


def test_the_runtime_refuses_it_too_and_leaves_nothing(bundle):
    bundle.linux["resources"]["memory"] = {"limit": 32 << 20}
    assert "memory" in bundle.fails("run", "-b", bundle.path, "c1")
    assert bundle.cgroups() == []


def test_everything_else_works(world):
    assert world.sh("echo hello; cat /proc/self/cgroup", "--cpus", "0.5") == "hello\n0::/\n"
    identifier = world.background("exec sleep 600")
    world.ctrctl("pause", identifier)
    world.ctrctl("kill", identifier)
    assert world.wait(identifier) == 137
    task = world.task(identifier)
    assert task["exit"]["source"] == "reaped" and not task["exit"].get("oom_killed")
    record = world.record(world.incarnation(identifier) / "exit")
    # Not counted is not zero.
    assert "memory_peak" not in record and "oom_kills" not in record and int(record["cpu_ns"]) > 0, record
    world.ctrctl("rm", identifier)
    assert not group(world, identifier).exists()


def test_a_profile_without_apparmor_is_one_clear_line(bundle):
    bundle.process["apparmorProfile"] = "docker-default"
    message = bundle.fails("run", "-b", bundle.path, "c1")
    assert "docker-default" in message and "no AppArmor" in message, message


def test_statistics_of_what_is_counted(bundle):
    bundle.shell("exec sleep 600").create()
    bundle.ok("start", "c1")
    data = json.loads(bundle.ok("events", "--stats", "c1").splitlines()[-1])["data"]
    assert data["cpu"]["usage"]["total"] > 0 and data["memory"] == {} and data["pids"] == {}, data
    assert "pids" in bundle.fails("update", "--pids-limit", "3", "c1")
