"""What Linux 6.1 does not have: each newer call's fallback, and that it neither fails nor fills the kernel's log."""
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

import checks
import events
from ctrun_bundle import Bundle
from guest import KernelLog
from harness import IMAGE, one_line_error
from imagemaker import Image, Layer, base_layers


@pytest.fixture
def bundle():
    made = Bundle("/bin/true")
    yield made
    made.close()


@pytest.fixture
def kernel_log():
    log = KernelLog()
    yield log
    log.close()


# --- overlay without lowerdir+, fsconfig strings of at most 255 bytes

def layered(world, count):
    """An image of that many layers, each with a file of its own and one that all have."""
    layers = base_layers(1) + [Layer().file(f"layer{number}", str(number)).file("last", str(number)).bytes() for number in range(1, count)]
    path = Image(layers).docker_archive(world.directory / "layers.tar", tags=(f"layers:{count}",))
    world.ctrctl("images", "import", path)
    path.unlink()
    return f"docker.io/library/layers:{count}"


@pytest.mark.parametrize("count", [2, 40, 127])
def test_many_layers(world, kernel_log, count):
    image = layered(world, count)
    out = world.run("--rm", image, "/bin/sh", "-c", f"ls / | grep -c layer; cat /last /layer1 /layer{count - 1}; echo mine > /last; rm /layer1; cat /last; test -e /layer1 || echo gone")
    assert out.split() == [str(count - 1), f"{count - 1}1{count - 1}mine", "gone"]
    # Nothing was written into a layer.
    assert world.run("--rm", image, "/bin/sh", "-c", "cat /last /layer1") == f"{count - 1}1"
    world.ctrctl("rmi", image)
    assert "overlay" not in kernel_log.text()


@pytest.mark.parametrize("name", ["x" * 200, "two words"], ids=["long", "space"])
def test_a_long_and_a_strange_root(nobody, name):
    nobody.root = nobody.directory / name / "root"
    nobody.write_config()
    nobody.start().import_box()
    assert nobody.sh("echo x > /etc/passwd; cat /etc/passwd; ls /bin/busybox") == "x\n/bin/busybox\n"
    assert nobody.sh("grep -c root /etc/passwd") == "1\n"


def test_a_root_that_cannot_carry_containers_is_one_line_and_leaves_nothing(nobody):
    """ROOT on an overlay, as in a container: the kernel refuses such an upper directory, in a process that the shim made for the mount."""
    place = nobody.directory / ("x" * 200)
    for name in ("lower", "upper", "work", "merged"):
        (place / name).mkdir(parents=True)
    subprocess.run(["mount", "-t", "overlay", "-o", "lowerdir=lower,upperdir=upper,workdir=work", "overlay", "merged"], cwd=place, check=True)
    try:
        nobody.root = place / "merged" / "root"
        nobody.write_config()
        nobody.start().import_box()
        error = one_line_error(nobody.ctrctl("run", "--rm", IMAGE, "/bin/true", code=125))
        assert "mount overlay" in error and "Invalid argument" in error, error
        assert nobody.ctrctl("ps", "-aq").out == ""
        assert nobody.stop() == 0
    finally:
        subprocess.run(["umount", place / "merged"], check=True)


# --- no PIDFD_GET_INFO: what nobody saw is unknown

@pytest.mark.parametrize("ends", ["exit", "signal"])
def test_with_both_guards_gone_the_end_is_not_invented(alone, ends):
    fifo = alone.directory / "go"
    os.mkfifo(fifo)
    identifier = alone.background("read x < /go; exit 42", "-v", f"{fifo}:/go")
    shim, keeper = alone.guards(identifier)
    init = events.Pid(alone.task(identifier)["pid"])
    keeper.kill_and_wait()
    shim.kill_and_wait()
    if ends == "exit":
        fifo.write_text("go\n")
    else:
        init.kill()
    init.wait()
    alone.ctrctl("tasks", "wait", identifier, code=None)
    task = alone.task(identifier)
    # True by another witness, or unknown with its reason; this kernel tells nothing to whoever holds a pidfd.
    assert checks.true_exit(task, 42 if ends == "exit" else 137) in ("unknown", "connector", "zombie"), task
    alone.ctrctl("rm", identifier)


def test_one_guard_is_enough_for_the_true_status(alone):
    for killed in (0, 1):
        fifo = alone.directory / f"go{killed}"
        os.mkfifo(fifo)
        identifier = alone.background("read x < /go; exit 42", "-v", f"{fifo}:/go")
        alone.guards(identifier)[killed].kill_and_wait()
        fifo.write_text("go\n")
        assert alone.wait(identifier) == 42
        checks.reaped(alone.task(identifier), 42)
        alone.ctrctl("rm", identifier)


# --- the rest of a container's set-up on an older kernel

def test_the_runtime_alone_runs_a_bundle(bundle, kernel_log):
    bundle.spec["root"]["readonly"] = True
    bundle.spec["mounts"].append({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["size=64k", "noexec", "nosuid"]})
    bundle.spec["mounts"].append({"destination": "/host", "type": "bind", "source": "/etc", "options": ["rbind", "ro", "rprivate"]})
    out = bundle.output("touch /x 2>&1; touch /host/x 2>&1; touch /tmp/x && echo written; cat /proc/self/cgroup")
    assert out.count("Read-only file system") == 2 and out.splitlines()[-2:] == ["written", "0::/"], out
    assert kernel_log.text() == ""


def test_the_program_itself_runs_from_a_read_only_mount(bundle):
    """Cloned from the mount of its file, which before Linux 6.15 must be attached."""
    pid = bundle.shell("exec sleep 600").create()
    with pytest.raises(OSError):
        os.open(f"/proc/{pid}/exe", os.O_WRONLY)
    bundle.ok("start", "c1")


def test_a_report_of_the_manager_names_the_kernel(world):
    info = json.loads(world.ctrctl("info", "--output", "json").out)
    assert info["kernel"].startswith("6.1.")


def test_a_root_in_memory(nobody):
    """tmpfs as an upper directory, where a directory that was made anew must not show the image's."""
    nobody.root = Path("/dev/shm") / nobody.directory.name
    nobody.write_config()
    try:
        nobody.start().import_box()
        assert nobody.sh("rm -r /etc; mkdir /etc; ls -A /etc; echo done") == "done\n"
        assert nobody.stop() == 0
    finally:
        shutil.rmtree(nobody.root)
