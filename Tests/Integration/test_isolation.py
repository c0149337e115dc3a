"""What a container sees and may do, through `ctrctl run`."""
import os
import re
from pathlib import Path

import pytest

import hostcheck
from harness import IMAGE

DOCKER_CAPABILITIES = "00000000a80425fb"


@pytest.mark.parametrize("kind", ["mnt", "pid", "uts", "ipc", "net", "cgroup"])
def test_it_has_a_namespace_of_its_own(world, kind):
    inside = world.sh(f"readlink /proc/self/ns/{kind}").strip()
    assert re.fullmatch(kind + r":\[\d+\]", inside) and inside != os.readlink(f"/proc/self/ns/{kind}")


def test_its_first_process_is_pid_1_and_sees_only_its_own(world):
    assert world.sh("echo $$; ls -d /proc/[0-9]* | wc -l").split()[0] == "1"
    assert int(world.sh("set -- /proc/[0-9]*; echo $#")) <= 2


def test_the_host_is_not_in_its_root(world):
    canary = world.directory / "canary"
    canary.touch()
    assert world.sh(f"ls {canary} 2>&1; ls /proc/1/root{canary} 2>&1; true").count("No such file") == 2
    names = world.sh("ls /").split()
    assert set(names) == {"bin", "dev", "etc", "home", "proc", "root", "sys", "tmp", "var"}


def test_nothing_of_the_host_is_mounted_in_it(world):
    mounts = world.sh("cat /proc/self/mountinfo")
    assert not [line for line in mounts.splitlines() if " - ext4 " in line or " /old" in line]
    assert mounts.splitlines()[0].split()[4] == "/" or any(line.split()[4] == "/" for line in mounts.splitlines())


def test_it_holds_no_descriptor_but_its_streams(world):
    assert world.sh("ls /proc/1/fd; true").split() == ["0", "1", "2"]


def test_capabilities_are_dockers(world):
    status = dict(line.split(":\t", 1) for line in world.sh("cat /proc/self/status").splitlines() if line.startswith("Cap"))
    assert status == {"CapInh": "0" * 16, "CapPrm": DOCKER_CAPABILITIES, "CapEff": DOCKER_CAPABILITIES, "CapBnd": DOCKER_CAPABILITIES, "CapAmb": "0" * 16}


def test_a_plain_user_has_no_capability_in_effect(world):
    status = dict(line.split(":\t", 1) for line in world.sh("cat /proc/self/status", "-u", "1000").splitlines() if line.startswith("Cap"))
    assert (status["CapEff"], status["CapPrm"], status["CapAmb"], status["CapInh"]) == ("0" * 16,) * 4 and status["CapBnd"] == DOCKER_CAPABILITIES


def test_seccomp_filters(world):
    assert "Seccomp:\t2" in world.sh("cat /proc/self/status")


def test_seccomp_refuses_a_user_namespace(world):
    """The kernel would allow this one to anybody: what refuses is the filter."""
    assert "EPERM" in world.sh("unshare -U true 2>&1 || echo EPERM")


@pytest.mark.parametrize("what", ["mount -t tmpfs none /tmp", "umount /proc", "hostname other", "chroot /proc/1/root mount -t proc none /tmp",
                                  "echo 1 > /proc/sys/kernel/domainname", "echo b > /proc/sysrq-trigger", "swapoff -a", "mknod /dev/mem2 c 1 1 && cat /dev/mem2",
                                  "mknod /sda b 8 0 && dd if=/sda of=/dev/null count=1", "nsenter -t 1 -n true",
                                  "date -s 2000.01.01-00:00 >/dev/null 2>&1; [ $(date +%Y) = 2000 ]"])
def test_it_may_not(world, what):
    assert world.sh(f"({what}) >/dev/null 2>&1 && echo done || echo refused") == "refused\n"


@pytest.mark.parametrize("what", ["chown 1000 /tmp", "chroot / true", "mknod /pipe p", "kill -0 1", "su alice -c true 2>/dev/null || setpriv --reuid 1000 true || true"])
def test_it_may(world, what):
    assert world.sh(f"({what}) >/dev/null 2>&1 && echo done || echo refused") == "done\n"


@pytest.mark.parametrize("path", ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/acpi", "/proc/scsi", "/sys/firmware"])
def test_masked(world, path):
    assert world.sh(f"[ -e {path} ] || exit 0; if [ -d {path} ]; then ls -A {path}; else head -c 1 {path} 2>/dev/null; fi") == ""


@pytest.mark.parametrize("path", ["/proc/sys/kernel/hostname", "/proc/sys/vm/swappiness", "/proc/irq/default_smp_affinity", "/sys/kernel/mm/ksm/run"])
def test_read_only_parts_of_proc_and_sys(world, path):
    assert world.sh(f"[ -e {path} ] || {{ echo refused; exit; }}; (cat {path} > {path}) 2>/dev/null && echo written || echo refused") == "refused\n"


def test_devices(world):
    assert world.sh("cd /dev; for d in null zero full random urandom tty; do [ -c $d ] || echo $d missing; done; echo x > null; head -c 3 zero | wc -c; "
                    "[ -d pts ] && [ -d shm ] && [ -d mqueue ] && [ -e ptmx ] && for l in fd stdin stdout stderr; do readlink $l; done") == \
        "3\n/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\n"


def test_dev_stdout_can_be_opened_again_after_a_privilege_drop(world):
    assert world.sh("echo through > /dev/stdout", "-u", "1000") == "through\n"
    assert world.sh("su alice -c 'echo through > /dev/stdout'") == "through\n"


def cgroup(controller, world, identifier):
    return Path(f"/sys/fs/cgroup/{controller}/{world.cgroup_parent}/default/{identifier}")


@pytest.fixture
def limited(world):
    identifier = world.background("exec sleep 600", "--memory", "32m", "--cpus", "0.5", "--pids-limit", "10")
    yield identifier
    world.ctrctl("rm", "-f", identifier)


def v1():
    return any(h.endswith("/memory") for h in hostcheck.hierarchies())


@pytest.mark.skipif(not v1(), reason="no cgroup v1 memory hierarchy on this host")
def test_limits_are_set(world, limited):
    assert (cgroup("memory", world, limited) / "memory.limit_in_bytes").read_text() == f"{32 << 20}\n"
    quota, period = ((cgroup("cpu", world, limited) / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
    assert int(quota) / int(period) == 0.5
    assert (cgroup("pids", world, limited) / "pids.max").read_text() == "10\n"


def test_memory_over_the_limit_is_killed_and_said_so(world):
    identifier = world.run("-d", "--memory", "32m", IMAGE, "/bin/dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1")
    assert world.wait(identifier) == 137
    end = world.task(identifier)["exit"]
    assert end["oom_killed"] is True and end["source"] == "reaped"
    world.ctrctl("rm", identifier)


def test_a_kill_by_hand_is_not_called_out_of_memory(world):
    identifier = world.background("exec sleep 600", "--memory", "32m")
    world.ctrctl("kill", identifier)
    assert world.wait(identifier) == 137 and not world.task(identifier)["exit"].get("oom_killed")
    world.ctrctl("rm", identifier)


def test_processes_over_the_limit_are_refused(world):
    out = world.ctrctl("run", "--rm", "--pids-limit", "10", IMAGE, "/bin/sh", "-c", "for i in $(seq 30); do sleep 600 & done; echo all", code=None)
    assert "all" not in out.out or "fork" in out.err


def test_read_only(world):
    assert world.sh("touch /x 2>&1; touch /etc/x 2>&1; touch /dev/shm/y && echo shm", "--read-only").count("Read-only") == 2
    assert "shm" in world.sh("touch /dev/shm/y && echo shm", "--read-only")


def test_writes_go_to_the_container_alone(world):
    world.sh("echo changed > /etc/passwd; rm -f /bin/ls")
    assert "root:x:0:0" in world.sh("cat /etc/passwd; ls / >/dev/null")


def test_hostname(world):
    assert world.sh("hostname", "--hostname", "given") == "given\n"
    identifier = world.run("-d", IMAGE, "/bin/hostname")
    world.wait(identifier)
    assert world.ctrctl("logs", identifier).out == identifier[:12] + "\n"
    world.ctrctl("rm", identifier)


@pytest.mark.parametrize("flags", [(), ("--network", "none")], ids=["default", "none"])
def test_network_none_has_a_loopback_alone(world, flags):
    assert re.findall(r"^\s*(\w+):", world.sh("cat /proc/net/dev", *flags), re.M) == ["lo"]
    assert "UP" in world.sh("ip link show lo || ifconfig lo", *flags)


def test_network_host_is_the_hosts(world):
    assert world.sh("readlink /proc/self/ns/net", "--network", "host").strip() == os.readlink("/proc/self/ns/net")


def test_volume(world):
    source = world.directory / "volume"
    source.mkdir()
    (source / "from-host").write_text("host")
    assert world.sh("cat /data/from-host; echo inside > /data/from-container", "-v", f"{source}:/data") == "host"
    assert (source / "from-container").read_text() == "inside\n"


def test_read_only_volume(world):
    source = world.directory / "ro-volume"
    source.mkdir()
    assert "Read-only" in world.sh("touch /data/x 2>&1", "-v", f"{source}:/data:ro", code=1)
    assert not list(source.iterdir())


def test_a_file_as_a_volume(world):
    source = world.directory / "one-file"
    source.write_text("only this")
    assert world.sh("cat /etc/only", "-v", f"{source}:/etc/only:ro") == "only this"


def test_volume_in_a_read_only_container_can_be_written(world):
    source = world.directory / "rw-volume"
    source.mkdir()
    world.sh("touch /data/x", "--read-only", "-v", f"{source}:/data")
    assert (source / "x").exists()


def test_a_volume_does_not_follow_a_link_of_the_image_to_the_host(world):
    """A destination is resolved below the container's root, whatever links the image holds."""
    import imagemaker
    layer = imagemaker.Layer().symlink("escape", "/../../../../../../tmp")
    image = imagemaker.Image(imagemaker.base_layers(1) + [layer.bytes()])
    path = image.docker_archive(world.directory / "link.tar", tags=("link:latest",))
    world.ctrctl("images", "import", path)
    source = world.directory / "linked"
    source.mkdir()
    before = set(os.listdir("/tmp"))
    world.ctrctl("run", "--rm", "-v", f"{source}:/escape/made-by-escape", "link", "/bin/true", code=None)
    assert "made-by-escape" not in set(os.listdir("/tmp")) - before
    world.ctrctl("rmi", "link")


def test_environment_and_directory(world):
    assert world.sh("echo $A:$B; pwd", "-e", "A=1", "-e", "B=two words", "-w", "/tmp") == "1:two words\n/tmp\n"
    assert "PATH=/bin:/usr/bin" in world.sh("env")


def test_a_working_directory_that_is_missing_is_made(world):
    assert world.sh("pwd", "-w", "/made/for/me") == "/made/for/me\n"


@pytest.mark.parametrize("directory", ["/proc/self/fd/3", "/proc/self/fd/7/../../..", "/proc/thread-self/fd/4"])
def test_a_working_directory_through_a_descriptor_is_no_way_out(world, directory):
    result = world.ctrctl("run", "--rm", "-w", directory, IMAGE, "/bin/sh", "-c", "ls -d $PWD/../../../../usr/../etc/debian_version 2>/dev/null; true", code=None)
    assert "debian_version" not in result.out


@pytest.mark.parametrize("runtime", ["/usr/sbin/runc", "/usr/bin/crun"])
def test_another_runtime_runs_the_same_container(world, runtime):
    assert os.path.exists(runtime), f"{runtime} is not installed: make deps"
    if runtime.endswith("crun") and os.path.isdir("/sys/fs/cgroup/unified"):
        # crun 1.8 runs nothing on a host with both versions of control groups: its own words reach the user, and nothing stays.
        result = world.ctrctl("run", "--rm", "--runtime", runtime, IMAGE, "true", code=125)
        assert "hybrid" in result.err
        return
    assert world.sh("echo $$; cat /etc/group | head -1; exit 6", "--runtime", runtime, code=6) == "1\nroot:x:0:\n"
    identifier = world.background("exec sleep 600", "--runtime", runtime)
    before = world.task(identifier)
    world.restart()
    assert world.task(identifier)["pid"] == before["pid"]
    world.ctrctl("rm", "-f", identifier)


def test_the_runtimes_own_binary_is_not_reachable_from_inside(world):
    """CVE-2019-5736: while the container starts, /proc/PID/exe of the runtime must not be writable from it."""
    import hashlib

    import harness
    digest = hashlib.sha256((harness.BIN / "ctrun").read_bytes()).hexdigest()
    script = "for i in $(seq 200); do for p in /proc/[0-9]*; do (exec 9<>$p/exe) 2>/dev/null && readlink $p/exe; done; done; true"
    assert "ctrun" not in world.sh(script)
    assert hashlib.sha256((harness.BIN / "ctrun").read_bytes()).hexdigest() == digest
