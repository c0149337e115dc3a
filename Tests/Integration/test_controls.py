"""The checks themselves: each must find the fault that is planted for it, or what it says of the programs is worth nothing."""
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import checks
import events
import hostcheck


@pytest.fixture
def planted(nobody):
    """A world without a manager, its snapshot, and a way to start processes in it."""
    for part in ("root/containers", "state/s"):
        (nobody.directory / part).mkdir(parents=True)
    started = []

    def process(*args, **more):
        child = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env={"PATH": os.environ["PATH"], **more.pop("env", {})}, **more)
        started.append(child)
        events.Output(child.stdout.fileno()).until(b"ready")
        return child

    before = nobody.snapshot()
    yield nobody, before, process
    for child in started:
        child.kill()
        child.wait()
        child.stdout.close()


def found(world, before, kind):
    with pytest.raises(AssertionError, match=f"{kind}: "):
        world.assert_no_leaks(before)
    return hostcheck.leaks(before, world.snapshot())[kind]


def waiting(*lines):
    return ("/bin/busybox", "sh", "-c", "; ".join([*lines, "echo ready", "exec /bin/busybox sleep 600"]))


def test_nothing_planted_nothing_found(planted):
    world, before, _ = planted
    world.assert_no_leaks(before)


def test_a_process_is_found_by_its_environment(planted):
    world, before, process = planted
    child = process(*waiting("true"), env={"CTRD_TEST_SCOPE": world.token})
    assert any(item.startswith(f"{child.pid}@") for item in found(world, before, "process"))


def test_a_process_is_found_by_its_directory(planted):
    world, before, process = planted
    child = process(*waiting("true"), cwd=world.directory)
    assert any(item.startswith(f"{child.pid}@") for item in found(world, before, "process"))


def test_a_process_is_found_by_its_cgroup_alone(planted):
    world, before, process = planted
    hierarchy = next(iter(hostcheck.hierarchies()))
    group = f"{hierarchy}/{world.cgroup_parent}/default/x"
    child = process(*waiting(f"mkdir -p {group}", f"echo $$ > {group}/cgroup.procs"), cwd="/")
    assert any(item.startswith(f"{child.pid}@") for item in found(world, before, "process"))


def test_a_mount_in_another_namespace_is_found(planted):
    world, before, process = planted
    process("/usr/bin/unshare", "-m", *waiting(f"mount -t tmpfs none {world.directory}/root"))
    assert any(f"{world.directory}/root" in item for item in found(world, before, "mount"))
    assert not [line for line in hostcheck.read("/proc/self/mountinfo").splitlines() if str(world.directory) in line]


def test_a_cgroup_is_found_in_every_hierarchy(planted):
    world, before, _ = planted
    for hierarchy in hostcheck.hierarchies():
        path = f"{hierarchy}/{world.cgroup_parent}/default/{'f' * 64}"
        os.makedirs(path)
        assert path in found(world, before, "cgroup")
        for part in (path, os.path.dirname(path), f"{hierarchy}/{world.cgroup_parent}"):
            os.rmdir(part)
    world.assert_no_leaks(before)


def test_a_namespace_with_a_process_is_found(planted):
    world, before, process = planted
    child = process("/usr/bin/unshare", "-n", *waiting("true"), env={"CTRD_TEST_SCOPE": world.token})
    name = os.readlink(f"/proc/{child.pid}/ns/net")
    assert any(item.startswith(name) for item in found(world, before, "namespace"))


def test_a_namespace_pinned_by_a_mount_is_found(planted):
    world, before, _ = planted
    pin = world.directory / "pin"
    pin.touch()
    subprocess.run(["unshare", f"--net={pin}", "true"], check=True)
    try:
        assert any("net:[" in item for item in found(world, before, "namespace"))
    finally:
        subprocess.run(["umount", pin], check=True)


def test_a_namespace_held_by_a_descriptor_is_found(planted):
    world, before, process = planted
    pin = world.directory / "pin"
    pin.touch()
    subprocess.run(["unshare", f"--net={pin}", "true"], check=True)
    process(*waiting(f"exec 7<{pin}", f"umount -l {pin}"), env={"CTRD_TEST_SCOPE": world.token})
    assert any("descriptor 7" in item for item in found(world, before, "namespace"))


def test_a_listening_socket_and_its_file_are_found(planted):
    world, before, _ = planted
    path = f"{world.state}/s/0123456789abcdef"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        assert found(world, before, "socket") == [f"file {path}", f"listening {path}"]
        os.unlink(path)
        assert found(world, before, "socket") == [f"listening {path}"]
    world.assert_no_leaks(before)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(path)
    assert found(world, before, "socket") == [f"file {path}"]


@pytest.mark.parametrize("path", ["state/default/abc/pid", "root/containers/default/abc/1/exit", "root/snapshots/containers/default/abc/upper/x",
                                  "root/content/ingest/half", "state/default/abc/rootfs/", "root/snapshots/layers/0123/fs/bin"])
def test_a_file_is_found(planted, path):
    world, before, _ = planted
    where = world.directory / path
    if path.endswith("/"):
        where.mkdir(parents=True)
    else:
        where.parent.mkdir(parents=True)
        where.touch()
    assert found(world, before, "file")
    shutil.rmtree(world.directory / path.split("/")[0])
    world.assert_no_leaks(before)


def test_the_whole_host_check_finds_what_a_test_left():
    before = hostcheck.host_state()
    os.mkdir("/tmp/ctrd-planted")
    try:
        assert hostcheck.leaks(before, hostcheck.host_state()).get("file") == ["/tmp/ctrd-planted"]
    finally:
        os.rmdir("/tmp/ctrd-planted")


LINES = b"".join(b"line %d\n" % n for n in range(1, 101))


def test_a_whole_log_passes():
    assert checks.numbered_lines(LINES, b"line ", last=100) == 100


@pytest.mark.parametrize("fault, data, says", [
    ("lost", LINES.replace(b"line 50\n", b""), "lines 50 to 50 are lost"),
    ("lost at the end", LINES.replace(b"line 100\n", b""), "the last line is 99"),
    ("doubled", LINES.replace(b"line 50\n", b"line 50\nline 50\n"), "line 50 comes again"),
    ("reordered", LINES.replace(b"line 50\nline 51\n", b"line 51\nline 50\n"), "lines 50 to 50 are lost"),
    ("torn", LINES.replace(b"line 50\n", b"line 5"), "torn"),
    ("cut", LINES[:-2], "ends inside a line"),
])
def test_a_faulty_log_is_found(fault, data, says):
    with pytest.raises(AssertionError, match=says):
        checks.numbered_lines(data, b"line ", last=100)


def test_a_true_exit_status_passes():
    checks.reaped({"exit": {"code": 7, "source": "reaped"}}, 7)
    assert checks.true_exit({"exit": {"source": "unknown", "reason": "shim and keeper died"}}, 7) == "unknown"


@pytest.mark.parametrize("end", [
    {"code": 0, "source": "reaped"}, {"code": 137, "source": "reaped"}, {"code": 7}, {"code": 137, "source": "unknown", "reason": "lost"},
    {"source": "unknown"}, {"code": 7, "source": "guess"}, None,
])
def test_an_invented_exit_status_is_found(end):
    with pytest.raises(AssertionError):
        checks.true_exit({"exit": end}, 7)


def test_a_weaker_source_is_not_taken_for_reaped():
    with pytest.raises(AssertionError):
        checks.reaped({"exit": {"code": 7, "source": "pidfd"}}, 7)


def test_a_kill_counts_only_when_its_call_was_reached(nobody):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "Chaos"))
    from victims import Traps
    traps = Traps(nobody)
    for text, number, call in [
        ("fsync(3) = 0\nfsync(4 <unfinished ...>\n+++ killed by SIGKILL +++\n", 2, "fsync"),
        ("fsync(3) = 0\n+++ killed by SIGKILL +++\n", 2, None),
        ("fsync(3) = 0\nfsync(4) = 0\n+++ exited with 0 +++\n", 2, None),
        ("10 mkdir(\"x\") = 0\n11 mount(\"a\") = ?\n10 +++ exited with 0 +++\n11 +++ killed by SIGKILL +++\n", 1, "mount"),
        ("10 mkdir(\"x\") = 0\n11 +++ killed by SIGKILL +++\n", 1, None),
    ]:
        traps.trace.write_text(text)
        assert traps.landed(number) == call, text



@pytest.mark.parametrize("plant", ["lost", "doubled", "status", "missed"])
def test_the_kill_rounds_find_what_is_planted(plant):
    """A lost line, a doubled one, an invented status, and kills that hit nothing each turn the run red."""
    done = subprocess.run([sys.executable, Path(__file__).resolve().parents[1] / "Chaos/rounds.py", "--rounds", "2", "--lines", "20000", "--plant", plant,
                           *(() if plant == "missed" else ("--least", "0"))], capture_output=True, text=True, timeout=120)
    expected = {"lost": "lines 77 to 77 are lost", "doubled": "line 77 comes again", "status": "was invented", "missed": "0 kills landed, planned were 2"}
    assert done.returncode == 1 and expected[plant] in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["ctrd-planted", "ctr-shim-test-planted"])
def test_the_whole_host_check_finds_a_control_group(name):
    before = hostcheck.host_state()
    path = Path(list(hostcheck.hierarchies())[-1]) / name
    path.mkdir()
    try:
        assert hostcheck.leaks(before, hostcheck.host_state()).get("cgroup") == [str(path)]
    finally:
        path.rmdir()
