"""What needs the capabilities that some hosts take away: scores for the out-of-memory killer, raised limits; and AppArmor, which Debian's kernel has."""
import re
import subprocess
from pathlib import Path

import pytest

from ctrun_bundle import Bundle
from guest import KernelLog

PROFILE = """
profile ctrd-test-deny flags=(attach_disconnected,mediate_deleted) {
  file,
  capability,
  network,
  signal,
  deny /etc/denied rw,
}
"""


@pytest.fixture
def bundle():
    made = Bundle("/bin/true")
    yield made
    made.close()


def score(pid):
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


def test_the_guards_are_the_last_to_be_killed_for_memory_and_the_container_is_not(world):
    identifier = world.background("exec sleep 600")
    shim, keeper = world.guards(identifier)
    assert (score(keeper.pid), score(shim.pid), score(world.task(identifier)["pid"])) == (-998, -998, 0)
    shim.kill_and_wait()
    world.ctrctl("tasks", "list")
    again = world.guards(identifier)[0] if world.guards(identifier)[0].pid != shim.pid else None
    assert again and score(again.pid) == -998
    world.ctrctl("rm", "-f", identifier)


@pytest.mark.parametrize("value", [-500, 0, 700])
def test_the_score_of_a_document(bundle, value):
    bundle.process["oomScoreAdj"] = value
    assert bundle.output("cat /proc/self/oom_score_adj") == f"{value}\n"


def test_limits_above_our_own_are_raised(bundle):
    own = int(re.search(r"Max open files +(\d+) +(\d+)", Path("/proc/self/limits").read_text()).group(2))
    bundle.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": own + 1000, "hard": own + 2000}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 2**64 - 1}]
    assert bundle.output("ulimit -Sn; ulimit -Hn; ulimit -Hc").split() == [str(own + 1000), str(own + 2000), "unlimited"]


def test_every_capability_of_the_host_can_be_given(bundle):
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    names = "CHOWN DAC_OVERRIDE DAC_READ_SEARCH SYS_RESOURCE SYS_ADMIN SYS_TIME BPF PERFMON CHECKPOINT_RESTORE".split()
    bundle.process["capabilities"] = {kind: [f"CAP_{name}" for name in names] for kind in ("bounding", "effective", "permitted", "inheritable", "ambient")}
    result = bundle.shell("grep Cap /proc/self/status").run()
    numbers = [0, 1, 2, 24, 21, 25, 39, 38, 40]
    assert max(numbers) <= last and result.stderr == "", result
    assert {line.split()[1] for line in result.stdout.splitlines()} == {f"{sum(1 << number for number in numbers):016x}"}


# --- AppArmor

@pytest.fixture
def profile(tmp_path):
    assert Path("/sys/module/apparmor/parameters/enabled").read_text() == "Y\n"
    path = tmp_path / "profile"
    path.write_text(PROFILE)
    subprocess.run(["/sbin/apparmor_parser", "-r", "--skip-cache", "-K", path], check=True, capture_output=True)
    yield "ctrd-test-deny"
    subprocess.run(["/sbin/apparmor_parser", "-R", path], check=True, capture_output=True)


def test_a_profile_is_in_force(bundle, profile):
    bundle.process["apparmorProfile"] = profile
    (bundle.rootfs / "etc/denied").write_text("secret")
    (bundle.rootfs / "etc/open").write_text("open")
    result = bundle.shell("cat /proc/self/attr/current /etc/open; cat /etc/denied").run()
    assert result.stdout == f"{profile} (enforce)\nopen" and "Permission denied" in result.stderr, result


def test_further_processes_are_under_the_profile_too(bundle, profile):
    bundle.process["apparmorProfile"] = profile
    (bundle.rootfs / "etc/denied").write_text("secret")
    bundle.shell("exec sleep 600").create()
    bundle.ok("start", "c1")
    result = bundle.ctrun("exec", "c1", "sh", "-c", "cat /proc/self/attr/current /proc/1/attr/current; cat /etc/denied; echo x > /etc/denied")
    assert result.stdout == f"{profile} (enforce)\n" * 2 and result.stderr.count("Permission denied") == 2, result
    assert (bundle.rootfs / "etc/denied").read_text() == "secret"


def test_a_profile_that_is_not_loaded_is_one_clear_line(bundle):
    bundle.process["apparmorProfile"] = "ctrd-no-such-profile"
    message = bundle.fails("run", "-b", bundle.path, "c1")
    assert "ctrd-no-such-profile" in message and "not loaded" in message, message


def test_without_a_profile_a_container_is_unconfined_and_nothing_is_logged(bundle):
    log = KernelLog()
    assert bundle.output("cat /proc/self/attr/current") == "unconfined\n"
    assert "apparmor=" not in log.text()
    log.close()
