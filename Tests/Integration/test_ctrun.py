"""The OCI runtime alone: what a container is, may do and leaves behind, through the command line that runc has too."""
import contextlib
import ctypes
import hashlib
import json
import os
import signal
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from ctrun_bundle import BIN, CAPABILITIES, MASKED, Bundle, become_subreaper, hierarchies

pytestmark = pytest.mark.skipif(not (BIN / "ctrun").exists(), reason="ctrun is not built")


@pytest.fixture(scope="module", autouse=True)
def reaper():
    become_subreaper()
    yield


@pytest.fixture
def bundle():
    made = Bundle("/bin/true")
    yield made
    made.close()


@pytest.fixture(scope="module")
def probe(tmp_path_factory):
    """A static program that tries what no applet does: argv[1] names it; prints the errno's number or 0."""
    directory = tmp_path_factory.mktemp("probe")
    (directory / "probe.c").write_text(r"""
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(int argc, char **argv) {
    long r = -1;
    const char *what = argc > 1 ? argv[1] : "";
    if (!strcmp(what, "handle")) { struct { struct file_handle h; char c[128]; } f = {.h = {.handle_bytes = 8, .handle_type = 1}}; f.c[0] = 2; r = open_by_handle_at(AT_FDCWD, &f.h, O_RDONLY); }
    if (!strcmp(what, "unshare")) r = unshare(CLONE_NEWUSER);
    if (!strcmp(what, "future")) r = syscall(5000);
    if (!strcmp(what, "fchmodat2")) r = syscall(452, AT_FDCWD, "/tmp", 0755, 0);
    if (!strcmp(what, "block")) { r = mknod("/tmp/block", S_IFBLK | 0600, makedev(8, 0)); }
    if (!strcmp(what, "open-device")) r = open(argv[2], O_RDWR);
    if (!strcmp(what, "sigpipe")) { struct sigaction a; sigaction(SIGPIPE, NULL, &a); printf("%d\n", a.sa_handler == SIG_IGN); return 0; }
    printf("%d\n", r < 0 ? errno : 0);
    return 0;
}
""")
    built = subprocess.run(["cc", "-static", "-o", directory / "probe", directory / "probe.c"], capture_output=True, text=True)
    assert built.returncode == 0, "the probe does not compile (make deps installs gcc): " + built.stderr[-200:]
    return directory / "probe"


def docker_profile():
    """Docker's default profile from its list in Fixtures."""
    operators = {"==": "SCMP_CMP_EQ", "&==": "SCMP_CMP_MASKED_EQ", "!=": "SCMP_CMP_NE"}
    profile = {"syscalls": []}
    for line in (Path(__file__).parents[1] / "Fixtures/docker28-seccomp.txt").read_text().splitlines():
        words = line.split()
        if line.startswith("default "):
            profile.update(defaultAction=words[1], defaultErrnoRet=int(words[2]))
        elif line.startswith("architectures "):
            profile["architectures"] = words[1:]
        elif line.startswith("SCMP_"):
            action, errno, arguments, names = line.split("|")
            rule = {"names": names.split(), "action": action, "args": []}
            if errno:
                rule["errnoRet"] = int(errno)
            for argument in filter(None, arguments.split(",")):
                index, operator, value, second = argument.split()
                rule["args"].append({"index": int(index), "op": operators.get(operator, operator), "value": int(value), "valueTwo": int(second)})
            profile["syscalls"].append(rule)
    return profile


def with_probe(bundle, probe):
    target = bundle.rootfs / "bin/probe"
    target.write_bytes(probe.read_bytes())
    target.chmod(0o755)
    return bundle


def reap(pid, timeout=20):
    """The exit status of a first process, as its subreaper sees it."""
    pidfd = os.pidfd_open(pid)
    try:
        import select
        assert select.select([pidfd], [], [], timeout)[0], f"{pid} has not ended"
    finally:
        os.close(pidfd)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


# --- isolation

@pytest.mark.parametrize("kind", ["mnt", "pid", "uts", "ipc", "net", "cgroup"])
def test_namespace_of_its_own(bundle, kind):
    inside = bundle.output(f"readlink /proc/self/ns/{kind}").strip()
    assert inside.startswith(kind) and inside != os.readlink(f"/proc/self/ns/{kind}")


def test_first_process_and_its_view(bundle):
    out = bundle.output("echo $$; hostname; readlink /proc/self; cat /proc/1/cgroup; ls /proc/1/fd; umask").split()
    assert out[0] == "1" and out[1] == "inside"
    assert all(word.endswith(":/") for word in out if ":" in word)
    assert out[-4:] == ["0", "1", "2", "0022"]


def test_no_mount_of_the_host(bundle):
    mounts = bundle.output("cat /proc/self/mountinfo").splitlines()
    places = {line.split()[4]: line for line in mounts}
    assert set(p for p in places if p.count("/") == 1) == {"/", "/proc", "/dev", "/sys"}
    assert all(" ro," in places[p] for p in places if p.startswith("/sys"))
    assert [line for line in mounts if "shared:" in line or "master:" in line] == []
    assert len([line for line in mounts if line.split()[4] == "/"]) == 1


def test_masked_and_read_only_paths(bundle):
    script = "; ".join(f"[ -e {p} ] && {{ [ -d {p} ] && ls -A {p} || head -c 1 {p}; }}" for p in MASKED)
    assert bundle.output(script + "; true") == ""
    script = "; ".join(f"(echo x > {p}) 2>/dev/null && echo {p}" for p in ("/proc/sys/kernel/domainname", "/proc/sysrq-trigger", "/proc/acpi/x", "/sys/x"))
    assert bundle.output(script + "; true") == ""


def test_capabilities_equal_the_document(bundle):
    bundle.process["capabilities"] = {"bounding": CAPABILITIES, "effective": CAPABILITIES[:3], "permitted": CAPABILITIES[:4], "inheritable": []}
    lines = dict(line.split(":\t") for line in bundle.output("grep ^Cap /proc/self/status").splitlines())
    assert lines["CapBnd"] == "00000000a80425fb" and lines["CapInh"] == lines["CapAmb"] == "0" * 16


@pytest.mark.parametrize("uid", [0, 1000])
def test_nothing_inheritable_or_ambient(bundle, uid):
    bundle.process["user"] = {"uid": uid, "gid": uid, "additionalGids": [uid, 7]}
    out = bundle.output("grep -E '^(Cap|Groups|Uid)' /proc/self/status")
    lines = dict(line.split(":\t") for line in out.splitlines())
    assert lines["CapInh"] == lines["CapAmb"] == "0" * 16 and lines["CapBnd"] == "00000000a80425fb"
    assert lines["CapEff"] == ("0" * 16 if uid else "00000000a80425fb")
    assert lines["Uid"].split() == [str(uid)] * 4 and lines["Groups"].split() == sorted([str(uid), "7"], key=int)


def test_ambient_when_asked_for(bundle):
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    bundle.process["capabilities"] = {name: ["CAP_NET_BIND_SERVICE"] for name in ("bounding", "effective", "permitted", "inheritable", "ambient")}
    lines = dict(line.split(":\t") for line in bundle.output("grep ^Cap /proc/self/status").splitlines())
    assert set(lines.values()) == {"0000000000000400"}


@pytest.mark.parametrize("nnp", [False, True])
def test_seccomp(bundle, probe, nnp):
    bundle.process["noNewPrivileges"] = nnp
    with_probe(bundle, probe)
    out = bundle.output("grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status; probe unshare; probe handle; mount -t tmpfs x /tmp 2>/dev/null || echo refused")
    assert out.split() == ["NoNewPrivs:", str(int(nnp)), "Seccomp:", "2", "1", "1", "refused"]


def test_calls_younger_than_the_profile_are_unknown_and_young_ones_allowed(bundle, probe):
    with_probe(bundle, probe)
    bundle.linux["seccomp"] = docker_profile()
    # Linux 6.6 brought fchmodat2.
    young = "0" if tuple(int(part) for part in os.uname().release.split(".")[:2]) >= (6, 6) else "38"
    assert bundle.output("probe future; probe fchmodat2; probe unshare").split() == ["38", young, "1"]


def test_seccomp_cache_is_used_and_not_trusted(bundle):
    bundle.output("true")
    cache = bundle.root / ".seccomp"
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    file, = cache.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    good = file.read_bytes()
    broken = bytearray(good)
    broken[-3] ^= 0xff
    for content, owner, mode in ((bytes(broken), 0, 0o600), (b"", 0, 0o600), (good[:-8], 0, 0o600), (b"\0" * 64 + good, 1000, 0o600), (b"x" * 99, 0, 0o666)):
        file.write_bytes(content)
        os.chown(file, owner, owner)
        file.chmod(mode)
        assert "Seccomp:\t2" in bundle.output("cat /proc/self/status")
        assert file.read_bytes() == good and file.stat().st_uid == 0 and stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("change", [{"defaultAction": "SCMP_ACT_NO"}, {"architectures": ["SCMP_ARCH_PDP11"]}, {"flags": ["X"]},
                                    {"syscalls": [{"names": [], "action": "SCMP_ACT_ALLOW"}]},
                                    {"syscalls": [{"names": ["open"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}]}])
def test_bad_seccomp_profile(bundle, change):
    bundle.linux["seccomp"].update(change)
    assert "seccomp" in bundle.fails("create", "-b", bundle.path, "c1")


def test_descriptors_do_not_leak(bundle):
    with open("/etc/hostname") as leaked:
        os.set_inheritable(leaked.fileno(), True)
        assert bundle.output("ls /proc/1/fd; true", close_fds=False).split() == ["0", "1", "2"]


@contextlib.contextmanager
def as_descriptor_3(number):
    """The test runner has a descriptor 3 of its own: it gets it back."""
    saved = os.dup(3) if Path("/proc/self/fd/3").exists() else None
    os.dup2(number, 3, inheritable=True)
    try:
        yield
    finally:
        os.close(3) if saved is None else os.dup2(saved, 3, inheritable=False)
        if saved is not None:
            os.close(saved)


def test_preserved_descriptors(bundle):
    reader, writer = os.pipe()
    with as_descriptor_3(writer):
        bundle.shell("echo through >&3; ls /proc/1/fd; true")
        result = bundle.ctrun("run", "-b", bundle.path, "--preserve-fds", "1", "c1", pass_fds=(3,))
    assert result.returncode == 0 and result.stdout.split() == ["0", "1", "2", "3"]
    assert os.read(reader, 100) == b"through\n"
    os.close(reader)
    os.close(writer)
    assert "descriptor" in bundle.fails("run", "-b", bundle.path, "--preserve-fds", "40", "c1")


def test_signals_are_not_ignored(bundle, probe):
    with_probe(bundle, probe)
    assert bundle.output("probe sigpipe") == "0\n"


def test_detached_root_as_descriptor_3(bundle):
    libc = ctypes.CDLL(None, use_errno=True)
    tree = libc.syscall(428, -100, str(bundle.rootfs).encode(), 1 | 0o2000000)
    assert tree >= 0, os.strerror(ctypes.get_errno())
    with as_descriptor_3(tree):
        bundle.spec["annotations"] = {"org.ctrd.rootfs.fd": "3"}
        bundle.spec["root"] = {"path": "/nonexistent", "readonly": True}
        bundle.shell("ls / > /dev/null && ls /proc/1/fd; touch /x 2>/dev/null || echo read-only")
        result = bundle.run(pass_fds=(3,))
        assert (result.returncode, result.stdout.split()) == (0, ["0", "1", "2", "read-only"]), result
    os.close(tree)
    assert "descriptor 3" in bundle.fails("run", "-b", bundle.path, "c1")


# --- hostile root file systems

@pytest.mark.parametrize("name", ["dev", "proc", "sys"])
@pytest.mark.parametrize("target", ["/tmp/p", "../../../../tmp/ctrun-canary", "/"])
def test_a_link_in_place_of_a_mount_point_is_refused(bundle, name, target):
    os.rmdir(bundle.rootfs / name)
    (bundle.rootfs / "tmp/p").mkdir()
    (bundle.rootfs / name).symlink_to(target)
    assert "symbolic link" in bundle.fails("create", "-b", bundle.path, "c1")
    assert not os.path.exists("/tmp/ctrun-canary") and os.listdir(bundle.rootfs / "tmp/p") == []


def test_dev_as_link_without_a_mount(bundle):
    os.rmdir(bundle.rootfs / "dev")
    canary = bundle.base / "canary"
    canary.mkdir()
    (bundle.rootfs / "dev").symlink_to(canary)
    bundle.spec["mounts"] = [m for m in bundle.spec["mounts"] if not m["destination"].startswith("/dev")]
    assert "symbolic link" in bundle.fails("create", "-b", bundle.path, "c1")
    assert os.listdir(canary) == []


@pytest.mark.parametrize("destination,kind", [("/proc", "tmpfs"), ("/proc/self", "tmpfs"), ("/proc/self/attr", "tmpfs"), ("/tmp/../proc/sys", "tmpfs"), ("/link", "tmpfs"),
                                              ("/proc", "bind"), ("/", "tmpfs")])
def test_nothing_is_mounted_over_procfs(bundle, destination, kind):
    (bundle.rootfs / "link").symlink_to("/proc/self/attr")
    source = bundle.base / "volume"
    source.mkdir()
    bundle.spec["mounts"].append({"destination": destination, "type": kind, "source": str(source)})
    assert "mounted" in bundle.fails("create", "-b", bundle.path, "c1")


def test_mount_points_are_not_made_through_links(bundle):
    canary = bundle.base / "canary"
    canary.mkdir()
    (bundle.rootfs / "out").symlink_to(canary)
    bundle.spec["mounts"].append({"destination": "/out/new/dir", "type": "tmpfs", "source": "t"})
    bundle.run()
    assert os.listdir(canary) == []


def test_swapped_mount_points_never_lead_outside(bundle):
    """Two containers share a volume, and one of them swaps a component of the other's mount point for a link, all the time."""
    canary, volume = bundle.base / "canary", bundle.base / "volume"
    canary.mkdir()
    (volume / "a").mkdir(parents=True)
    (volume / "b").symlink_to(canary)
    bundle.spec["mounts"] += [{"destination": "/v", "type": "bind", "source": str(volume), "options": ["rbind", "rprivate"]},
                              {"destination": "/v/a", "type": "tmpfs", "source": "tmpfs"}, {"destination": "/v/a/new/file", "type": "bind", "source": "/etc/hostname"},
                              {"destination": "/v/a/deep/er", "type": "tmpfs", "source": "tmpfs"}]
    bundle.linux["readonlyPaths"] += ["/v/a"]
    bundle.linux["maskedPaths"] += ["/v/b"]
    before = Path("/proc/self/mountinfo").read_text()
    swapper = subprocess.Popen(["/usr/bin/python3", "-c", "import ctypes, sys\nc = ctypes.CDLL(None)\nprint(flush=True)\n"
                                "while True: c.renameat2(-100, sys.argv[1].encode(), -100, sys.argv[2].encode(), 2)", volume / "a", volume / "b"], stdout=subprocess.PIPE)
    try:
        swapper.stdout.readline()
        ended = {bundle.run().returncode for _ in range(200)}
    finally:
        swapper.kill()
        swapper.wait()
        swapper.stdout.close()
    assert ended <= {0, 1} and 0 in ended
    assert list(canary.iterdir()) == [] and Path("/proc/self/mountinfo").read_text() == before


@pytest.mark.parametrize("propagation", ["", "private", "rslave", "shared", "rshared", "unbindable"])
def test_propagation_of_the_root_leaves_the_host_alone(bundle, propagation):
    """On a host, as a mount namespace of the test, where every mount is shared."""
    bundle.linux["rootfsPropagation"] = propagation
    bundle.shell("echo run").write()
    script = 'mount --make-rshared / && cat /proc/self/mountinfo > $0/before && "$@"; echo $?; cat /proc/self/mountinfo > $0/after'
    result = subprocess.run(["unshare", "-m", "sh", "-c", script, bundle.base, *bundle.command("run", "-b", bundle.path, "c1")], capture_output=True, text=True,
                            stdin=subprocess.DEVNULL)
    assert result.stdout == "run\n0\n", result
    assert (bundle.base / "before").read_text() == (bundle.base / "after").read_text()


def test_without_pivot_root(bundle):
    bundle.shell("ls /; cd ..; pwd")
    result = bundle.ctrun("run", "--no-pivot", "-b", bundle.path, "c1")
    assert result.returncode == 0 and result.stdout.splitlines()[-1] == "/"


def test_dev_null_of_the_image_is_not_the_mask(bundle):
    (bundle.rootfs / "dev/null").symlink_to("/proc/sys/kernel/core_pattern")
    assert bundle.output("head -c 5 /proc/keys; head -c 5 /proc/timer_list") == ""


def test_dev_null_of_the_image_in_the_way(bundle):
    (bundle.rootfs / "dev/null").symlink_to("/proc/sys/kernel/core_pattern")
    bundle.spec["mounts"] = [m for m in bundle.spec["mounts"] if not m["destination"].startswith("/dev")]
    assert "null" in bundle.fails("create", "-b", bundle.path, "c1")


@pytest.mark.parametrize("number", range(3, 20))
def test_working_directory_outside_of_the_root(bundle, number):
    bundle.process["cwd"] = f"/proc/self/fd/{number}"
    result = bundle.shell("cat /proc/self/mountinfo | wc -l; ls /etc/shadow ../../etc/shadow 2>/dev/null; true").run()
    assert result.returncode != 0 or "shadow" not in result.stdout


def test_the_program_itself_cannot_be_overwritten(bundle):
    """CVE-2019-5736: the entry point leads back to the runtime's own file."""
    digest = hashlib.sha256((BIN / "ctrun").read_bytes()).hexdigest()
    (bundle.rootfs / "entry").symlink_to("/proc/self/exe")
    bundle.process["args"] = ["/entry", "--version"]
    assert bundle.run().returncode == 0
    # The same file, running inside as something that stays: no way to it is writable.
    bundle.process["args"] = ["/entry", "run", "x"]
    bundle.linux["namespaces"] = [n for n in bundle.linux["namespaces"] if n["type"] != "pid"] + [{"type": "pid"}]
    (bundle.rootfs / "bin/attack").write_text("#!/proc/self/exe\n")
    (bundle.rootfs / "bin/attack").chmod(0o755)
    bundle.process["args"] = ["/bin/attack"]
    bundle.run()
    pid = bundle.shell("exec sleep 600").create()
    with pytest.raises(OSError) as failure:
        os.open(f"/proc/{pid}/exe", os.O_RDWR)
    assert failure.value.errno in (30, 26), failure.value
    # Busy (26) only hides the question until it ends; a copy of the mount says what the mount allows.
    assert "ro" in Path(f"/proc/{pid}/fdinfo").parent.joinpath("mountinfo").read_text() and os.statvfs(f"/proc/{pid}/exe").f_flag & os.ST_RDONLY
    assert hashlib.sha256((BIN / "ctrun").read_bytes()).hexdigest() == digest
    bundle.ok("delete", "-f", "c1")


def test_while_it_waits_it_cannot_be_looked_into(bundle):
    pid = bundle.shell("exec sleep 600").create()
    user = subprocess.run(["setpriv", "--reuid=65534", "--clear-groups", "--bounding-set=-all", "ls", f"/proc/{pid}/fd"], capture_output=True)
    assert user.returncode != 0
    assert os.stat(f"/proc/{pid}/maps").st_uid == 0
    bundle.ok("start", "c1")


# --- devices

def test_devices_are_denied_by_default(bundle, probe):
    with_probe(bundle, probe)
    assert bundle.output("probe block").strip() == "1"
    bundle.linux["resources"]["devices"] = []
    assert bundle.output("probe block; probe open-device /dev/null; probe open-device /dev/zero").split() == ["1", "0", "0"]


def test_a_device_of_the_document(bundle):
    bundle.linux["devices"] = [{"path": "/dev/deep/mine", "type": "c", "major": 1, "minor": 7, "fileMode": 0o620, "uid": 5, "gid": 6}]
    bundle.linux["resources"]["devices"].append({"allow": True, "type": "c", "major": 1, "minor": 7, "access": "r"})
    assert bundle.output("stat -c '%t:%T %a %u:%g' /dev/deep/mine").split() == ["1:7", "620", "5:6"]


# --- limits

def v1(controller):
    return any(path.endswith("/" + controller) for path in hierarchies())


@pytest.mark.skipif(not v1("memory"), reason="control groups of this host are not version 1")
def test_limits_are_written(bundle):
    bundle.linux["resources"].update({"memory": {"limit": 64 << 20, "swap": 64 << 20, "reservation": 32 << 20}, "pids": {"limit": 11},
                                      "cpu": {"shares": 512, "quota": 50000, "period": 100000, "cpus": "0"}})
    bundle.shell("exec sleep 600").create()
    expected = {"memory/memory.limit_in_bytes": str(64 << 20), "memory/memory.soft_limit_in_bytes": str(32 << 20), "pids/pids.max": "11", "cpu/cpu.shares": "512",
                "cpu/cpu.cfs_quota_us": "50000", "cpuset/cpuset.cpus": "0"}
    if (bundle.cgroup("memory") / "memory.memsw.limit_in_bytes").exists():
        expected["memory/memory.memsw.limit_in_bytes"] = str(64 << 20)
    assert {name: (bundle.cgroup(name.split("/")[0]) / name.split("/")[1]).read_text().strip() for name in expected} == expected


def test_memory_limit_kills(bundle):
    bundle.linux["resources"]["memory"] = {"limit": 16 << 20, "swap": 16 << 20}
    bundle.process["args"] = ["/bin/dd", "if=/dev/zero", "of=/dev/null", "bs=100M", "count=1"]
    assert bundle.run().returncode == 137


def test_pids_limit_holds(bundle):
    bundle.linux["resources"]["pids"] = {"limit": 4}
    result = bundle.shell("for i in 1 2 3 4 5 6; do sleep 600 & done; echo made").run()
    assert "made" not in result.stdout and "fork" in result.stderr


def test_resource_limits(bundle):
    bundle.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]
    assert bundle.output("ulimit -Sn; ulimit -Hn").split() == ["100", "200"]
    bundle.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 200, "hard": 100}]
    assert "soft is above hard" in bundle.fails("run", "-b", bundle.path, "c1")


# --- exit codes and messages

@pytest.mark.parametrize("code", [0, 1, 42, 255])
def test_exit_code_of_run(bundle, code):
    assert bundle.shell(f"exit {code}").run().returncode == code


def test_death_by_signal(bundle):
    assert bundle.shell("sh -c 'kill -9 $$'; exit $?").run().returncode == 137


def test_signals_are_handed_on(bundle):
    bundle.shell("trap 'exit 5' TERM; echo ready; while :; do sleep 600 & wait; done").write()
    process = subprocess.Popen(bundle.command("run", "-b", bundle.path, "c1"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 5
    process.stdout.close()


@pytest.mark.parametrize("args,message", [(["foo"], 'exec: "foo": executable file not found in $PATH'), (["/nope"], "no such file or directory"),
                                          (["/etc"], 'exec: "/etc": permission denied'), (["/etc/plain"], 'exec: "/etc/plain": permission denied')])
def test_what_cannot_be_executed_is_the_error_of_create(bundle, args, message):
    (bundle.rootfs / "etc/plain").write_text("x")
    bundle.process["args"] = args
    assert message in bundle.fails("create", "-b", bundle.path, "c1")
    line = json.loads(bundle.log.read_text().splitlines()[-1])
    assert line["level"] == "error" and message in line["msg"] and line["time"].endswith("Z")
    assert bundle.traces() == ([], [], [], [])


@pytest.mark.parametrize("change", [
    lambda s: s.pop("process"), lambda s: s.pop("root"), lambda s: s.pop("ociVersion"), lambda s: s["process"].update(args=[]), lambda s: s["process"].update(cwd="tmp"),
    lambda s: s["process"].update(args="sh"), lambda s: s["process"].update(args=["a\0b"]), lambda s: s["process"]["user"].update(uid=1 << 32),
    lambda s: s["process"]["user"].update(uid=-1), lambda s: s["root"].update(path="missing"), lambda s: s["linux"].update(cgroupsPath="/a/../b"),
    lambda s: s["linux"].update(cgroupsPath="system.slice:x:y"), lambda s: s["linux"].update(namespaces=[{"type": "odd"}]),
    lambda s: s["linux"].update(namespaces=[{"type": "pid"}]), lambda s: s["linux"].update(sysctl={"kernel.core_pattern": "|/x"}),
    lambda s: s["linux"].update(sysctl={"kernel.shm_rmid_forced": "1\nkernel.core_pattern=|/x"}), lambda s: s["linux"].update(sysctl={"net..x": "1"}),
    lambda s: s["process"]["capabilities"].update(bounding=["CAP_NOTHING"]), lambda s: s["process"].update(rlimits=[{"type": "RLIMIT_X", "soft": 1, "hard": 1}]),
    lambda s: s["linux"]["namespaces"].append({"type": "user"}), lambda s: s["process"].update(terminal=True), lambda s: s["mounts"].append({"destination": "/x"}),
    lambda s: s["mounts"].append({"destination": "/x", "type": "bind", "source": "/nonexistent"}), lambda s: s["mounts"].append({"destination": "/x", "type": "nofs"}),
    lambda s: s["mounts"].append({"destination": "/x", "type": "tmpfs", "options": ["size=lots"]})])
def test_bad_documents_change_nothing(bundle, change):
    change(bundle.spec)
    bundle.fails("create", "-b", bundle.path, "c1")
    assert bundle.traces() == ([], [], [], [])


def test_host_parameters_need_a_namespace(bundle):
    bundle.linux["sysctl"] = {"net.ipv4.ip_forward": "0"}
    assert bundle.output("cat /proc/sys/net/ipv4/ip_forward") == "0\n"
    bundle.linux["namespaces"] = [n for n in bundle.linux["namespaces"] if n["type"] != "network"]
    assert "network namespace" in bundle.fails("create", "-b", bundle.path, "c1")


@pytest.mark.parametrize("text", ["", "{", "[]", "nul", '{"ociVersion":"1.0.2","ociVersion":"1.0.2"}', "{" + '"a":[' * 100])
def test_malformed_documents(bundle, text):
    bundle.write()
    (bundle.path / "config.json").write_text(text)
    result = subprocess.run(bundle.command("create", "-b", bundle.path, "c1"), capture_output=True, text=True)
    assert result.returncode == 1 and result.stderr.startswith("ctrun: config.json") and bundle.traces() == ([], [], [], [])


@pytest.mark.parametrize("words", [["nonsense"], ["create"], ["state"], ["state", "a", "b"], ["state", "../x"], ["state", ".seccomp"], ["state", "a/b"], ["state", "x" * 300],
                                   ["kill", "c1", "SIGNOTHING"], ["kill", "c1", "0"], ["kill", "c1", "99"], ["list", "-f", "xml"], ["create", "--bundle"], ["run", "--odd", "c1"],
                                   ["--systemd-cgroup", "list"], ["--log-format", "xml", "list"]])
def test_bad_command_lines(bundle, words):
    bundle.fails(*words)


def test_unknown_container(bundle):
    for words in (["state", "c1"], ["start", "c1"], ["kill", "c1"], ["delete", "c1"], ["pause", "c1"], ["resume", "c1"]):
        assert bundle.fails(*words) == "container does not exist"
    assert bundle.ok("delete", "--force", "c1") == ""


# --- life

def test_states(bundle):
    pid = bundle.shell("exec sleep 600").create("--pid-file", bundle.base / "pid")
    assert (bundle.base / "pid").read_text() == str(pid)
    state = bundle.state()
    assert (state["status"], state["ociVersion"], state["id"], state["bundle"]) == ("created", "1.0.2", "c1", str(bundle.path))
    assert bundle.fails("create", "-b", bundle.path, "c1") == "container with given ID already exists"
    bundle.ok("start", "c1")
    assert bundle.status() == "running"
    assert Path(f"/proc/{pid}/comm").read_text() == "sleep\n" or bundle.status() == "running"
    assert bundle.fails("start", "c1") == "cannot start an already running container"
    assert bundle.fails("delete", "c1") == "cannot delete container c1 that is not stopped: running"
    bundle.ok("pause", "c1")
    assert bundle.status() == "paused" and bundle.fails("pause", "c1") == "cannot pause a container that is paused"
    bundle.ok("resume", "c1")
    assert bundle.status() == "running" and "cannot resume" in bundle.fails("resume", "c1")
    assert json.loads(bundle.ok("list", "--format", "json"))[0]["id"] == bundle.ok("list", "-q").strip() == "c1"
    bundle.ok("kill", "c1", "KILL")
    assert reap(pid) == -9
    assert bundle.status() == "stopped" and bundle.state()["pid"] == 0
    assert bundle.fails("kill", "c1") == "container not running"
    assert bundle.fails("start", "c1") == "cannot start a container that has stopped"
    bundle.ok("delete", "c1")
    assert bundle.traces() == ([], [], [], [])


def test_a_zombie_has_stopped(bundle):
    pid = bundle.shell("exit 3").create()
    bundle.ok("start", "c1")
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert bundle.status() == "stopped"
    bundle.ok("delete", "c1")
    assert reap(pid) == 3


@pytest.mark.parametrize("step", ["created", "running", "paused"])
def test_delete_by_force(bundle, step):
    pid = bundle.shell("sleep 600 & sleep 600 & exec sleep 600").create()
    if step != "created":
        bundle.ok("start", "c1")
    if step == "paused":
        bundle.ok("pause", "c1")
    bundle.ok("delete", "--force", "c1")
    assert reap(pid) == -9
    assert bundle.traces() == ([], [], [], [])
    bundle.ok("delete", "--force", "c1")


def test_a_created_container_is_deleted_without_force(bundle):
    pid = bundle.create()
    bundle.ok("delete", "c1")
    assert reap(pid) == -9


def test_kill_a_paused_container(bundle):
    pid = bundle.shell("exec sleep 600").create()
    bundle.ok("start", "c1")
    bundle.ok("pause", "c1")
    bundle.ok("kill", "c1", "9")
    assert reap(pid) == -9


def test_kill_all_reaches_processes_without_a_first_one(bundle):
    """Without a pid namespace what the first process left behind lives on."""
    bundle.linux["namespaces"] = [n for n in bundle.linux["namespaces"] if n["type"] != "pid"]
    pid = bundle.shell("sleep 600 & echo left; exit 0").create()
    bundle.ok("start", "c1")
    assert reap(pid) == 0 and bundle.status() == "stopped"
    left, = [int(line) for line in (bundle.cgroup("unified" if not v1("pids") else "pids") / "cgroup.procs").read_text().split()]
    bundle.ok("kill", "--all", "c1", "KILL")
    assert reap(left) == -9
    bundle.ok("delete", "c1")


def test_two_starts_at_once_run_it_once(bundle):
    pid = bundle.shell("echo once; exec sleep 600").create()
    starts = [subprocess.Popen(bundle.command("start", "c1"), stderr=subprocess.DEVNULL) for _ in range(8)]
    assert 0 in [each.wait(20) for each in starts] and bundle.status() == "running"
    bundle.ok("kill", "c1", "KILL")
    reap(pid)
    assert bundle.created_output().count("once") <= 1


def test_creators_of_one_id_race(bundle):
    bundle.shell("exec sleep 600").write()
    races = [subprocess.Popen(bundle.command("create", "-b", bundle.path, "c1"), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
             for _ in range(6)]
    assert sorted(each.wait(30) for each in races) == [0, 1, 1, 1, 1, 1]
    assert bundle.status() == "created"


def test_detached_run(bundle):
    bundle.shell("exec sleep 600").write()
    subprocess.run(bundle.command("run", "-d", "-b", bundle.path, "c1"), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True, timeout=20)
    assert bundle.status() == "running"


def test_a_record_of_another_boot_is_of_a_dead_container(bundle):
    pid = bundle.shell("exec sleep 600").create()
    bundle.ok("kill", "c1", "KILL")
    reap(pid)
    file = bundle.root / "c1/state.json"
    state = json.loads(file.read_text())
    state["boot_id"] = "0" * 36
    state["init"] = {"pid": os.getpid(), "start_time": state["init"]["start_time"]}
    file.write_text(json.dumps(state))
    assert bundle.status() == "stopped" and bundle.fails("kill", "c1") == "container not running"
    bundle.ok("delete", "c1")


def test_a_pid_that_belongs_to_another_is_not_signalled(bundle):
    pid = bundle.shell("exec sleep 600").create()
    bundle.ok("kill", "c1", "KILL")
    reap(pid)
    other = subprocess.Popen(["sleep", "600"])
    file = bundle.root / "c1/state.json"
    state = json.loads(file.read_text())
    # A number is used again much later than within one tick of the clock.
    state["init"] = {"pid": other.pid, "start_time": state["init"]["start_time"] - 100}
    file.write_text(json.dumps(state))
    assert bundle.fails("kill", "c1", "KILL") == "container not running"
    bundle.ok("delete", "-f", "c1")
    assert other.poll() is None
    other.kill()
    other.wait()


def test_a_damaged_record_is_said_and_not_guessed(bundle):
    bundle.create()
    file = bundle.root / "c1/state.json"
    good = file.read_text()
    file.write_text(good[:-10])
    assert "damaged" in bundle.fails("state", "c1")
    assert "c1: state.json is damaged" in bundle.ctrun("list").stderr
    file.write_text(good)


# --- the death of the runtime itself

CALLS = ["mkdirat", "renameat", "mkdir", "clone3", "sendmsg", "recvfrom", "openat", "mknodat", "write", "move_mount", "pivot_root", "close_range", "capset", "seccomp"]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("number", [1, 2, 5])
def test_killed_while_it_creates(bundle, call, number):
    """Whatever is left, nothing waits at the gate without a record, delete --force removes it all, and the id can be used again."""
    bundle.shell("exec sleep 600").write()
    traced = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={number}"]
    process = subprocess.Popen(traced + bundle.command("create", "-b", bundle.path, "c1"), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL, start_new_session=True)
    # strace stays as long as a created container lives: delete ends it.
    import select
    pidfd = os.pidfd_open(process.pid)
    select.select([pidfd], [], [], 1)
    os.close(pidfd)
    bundle.ok("delete", "--force", "c1")
    process.wait(20)
    assert bundle.traces() == ([], [], [], [])
    assert bundle.shell("exit 0").run().returncode == 0


def test_the_first_process_does_not_outlive_its_creator(bundle):
    """Killed when the first process is ready and before it is written down."""
    bundle.shell("exec sleep 600").write()
    subprocess.run(["strace", "-qq", "-o", "/dev/null", "-e", "trace=recvfrom", "-e", "inject=recvfrom:signal=KILL:when=1", *bundle.command("create", "-b", bundle.path, "c1")],
                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=20)
    events = bundle.cgroup("unified") / "cgroup.procs" if any(p.endswith("unified") for p in hierarchies()) else bundle.cgroup("pids") / "cgroup.procs"
    for pid in [int(line) for line in events.read_text().split()]:
        reap(pid)
    assert bundle.status() == "stopped"
    bundle.ok("delete", "c1")


def test_delete_killed_at_each_step_is_finished_by_the_next(bundle):
    for call in ("unlinkat", "rmdir", "write"):
        for number in (1, 2, 4, 9):
            bundle.shell("exec sleep 600").create()
            subprocess.run(["strace", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={number}",
                            *bundle.command("delete", "-f", "c1")], stderr=subprocess.DEVNULL, timeout=20)
            bundle.ok("delete", "-f", "c1")
            assert bundle.traces()[:3] == ([], [], []), (call, number)


# --- hooks, terminals, spec

def test_hooks(bundle):
    record = bundle.base / "hooks"
    hook = bundle.base / "hook"
    hook.write_text(f"#!/bin/sh\n{{ echo $1 $(pwd) $(tr '\\0' ' ' < /proc/$$/environ); cat; echo; }} >> {record}\n")
    hook.chmod(0o755)
    inside = bundle.rootfs / "hook"
    inside.write_text("#!/bin/sh\necho startContainer >> /hooked\n")
    inside.chmod(0o755)
    kinds = ["prestart", "createRuntime", "createContainer", "poststart", "poststop"]
    bundle.spec["hooks"] = {kind: [{"path": str(hook), "args": ["hook", kind]}] for kind in kinds}
    bundle.spec["hooks"]["startContainer"] = [{"path": "/hook"}]
    bundle.spec["hooks"]["prestart"][0]["env"] = ["A=b"]
    bundle.process["env"] += ["LD_PRELOAD=/evil.so"]
    bundle.spec["annotations"] = {"k": "v"}
    assert bundle.run().returncode == 0
    lines = record.read_text().splitlines()
    assert [line.split()[0] for line in lines[::2]] == kinds
    assert [line.split()[1] for line in lines[::2]] == ["/"] * 5
    assert lines[0].split()[2:] == ["A=b"] and all(line.split()[2:] == [] for line in lines[2::2])
    states = [json.loads(line) for line in lines[1::2]]
    assert all(s["id"] == "c1" and s["bundle"] == str(bundle.path) and s["annotations"] == {"k": "v"} for s in states)
    assert [s["status"] for s in states] == ["creating", "creating", "creating", "running", "stopped"] and states[0]["pid"] == states[2]["pid"] > 1
    assert (bundle.rootfs / "hooked").read_text() == "startContainer\n"


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer"])
@pytest.mark.parametrize("script,message", [("exit 3", "status 3"), ("exec sleep 600", "timeout")])
def test_a_failing_hook_fails_the_creation(bundle, kind, script, message):
    hook = bundle.base / "hook"
    hook.write_text(f"#!/bin/sh\n{script}\n")
    hook.chmod(0o755)
    bundle.spec["hooks"] = {kind: [{"path": str(hook), "timeout": 1}]}
    assert message in bundle.fails("create", "-b", bundle.path, "c1")
    assert bundle.traces() == ([], [], [], [])


def test_terminal_by_console_socket(bundle):
    path = bundle.base / "console"
    bundle.process["terminal"] = True
    bundle.process["consoleSize"] = {"width": 91, "height": 33}
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen(1)
        pid = bundle.shell("stty size; tty=$(readlink /proc/self/fd/0); echo $tty; [ -c /dev/console ] && echo console; echo direct > /dev/console").create("--console-socket", path)
        connection, _ = server.accept()
        with connection:
            _, (master,), _, _ = socket.recv_fds(connection, 100, 1)
        bundle.ok("start", "c1")
        text = b""
        try:
            while chunk := os.read(master, 1000):
                text += chunk
        except OSError:
            pass
        os.close(master)
        assert reap(pid) == 0
    assert text.decode().split() == ["33", "91", "/dev/pts/0", "console", "direct"]


def test_terminal_in_the_foreground(bundle):
    bundle.process["terminal"] = True
    bundle.shell("read line; echo got $line; exit 4").write()
    master, slave = os.openpty()
    process = subprocess.Popen(bundle.command("run", "-b", bundle.path, "c1"), stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
    os.close(slave)
    os.write(master, b"typed\n")
    assert process.wait(20) == 4
    assert b"got typed" in os.read(master, 1000)
    os.close(master)


def test_user_of_the_streams_and_home(bundle):
    (bundle.rootfs / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n")
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    assert bundle.output("echo again > /dev/stdout; echo $HOME") == "again\n/home/alice\n"


def test_working_directory_is_made(bundle):
    bundle.process["cwd"] = "/new/deep"
    assert bundle.output("pwd") == "/new/deep\n"


def test_bind_mounts(bundle):
    source = bundle.base / "volume"
    source.mkdir()
    (source / "file").write_text("content")
    bundle.spec["mounts"] += [{"destination": "/data", "type": "bind", "source": str(source), "options": ["rbind", "ro", "rprivate"]},
                              {"destination": "/etc/one", "type": "bind", "source": str(source / "file"), "options": ["bind"]}]
    assert bundle.output("cat /data/file /etc/one; touch /data/x 2>/dev/null || echo refused; echo new > /etc/one") == "contentcontentrefused\n"
    assert (source / "file").read_text() == "new\n"


def test_read_only_root(bundle):
    bundle.spec["root"]["readonly"] = True
    assert bundle.output("touch /x 2>/dev/null || echo refused; touch /dev/shm/x && echo fine") == "refused\nfine\n"


def test_joined_namespaces(bundle):
    holder = subprocess.Popen(["unshare", "-n", "-u", "sleep", "600"])
    try:
        while os.readlink(f"/proc/{holder.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
            os.sched_yield()
        for kind, name in (("network", "net"), ("uts", "uts")):
            bundle.linux["namespaces"] = [n for n in bundle.linux["namespaces"] if n["type"] != kind] + [{"type": kind, "path": f"/proc/{holder.pid}/ns/{name}"}]
        del bundle.spec["hostname"]
        out = bundle.output("readlink /proc/self/ns/net; readlink /proc/self/ns/uts").split()
        assert out == [os.readlink(f"/proc/{holder.pid}/ns/net"), os.readlink(f"/proc/{holder.pid}/ns/uts")]
    finally:
        holder.kill()
        holder.wait()


def test_spec_writes_a_bundle_that_runs(bundle):
    other = bundle.base / "other"
    other.mkdir()
    bundle.ok("spec", "-b", other)
    assert "exists" in bundle.fails("spec", "-b", other)
    spec = json.loads((other / "config.json").read_text())
    spec["process"].update(terminal=False, args=["/bin/true"])
    spec["linux"]["cgroupsPath"] = f"/{bundle.name}/c1"
    bundle.spec = spec
    assert bundle.run().returncode == 0


def test_help_and_version(bundle):
    assert "Usage: ctrun" in bundle.ok("--help") and "1.0.2" in bundle.ok("--version")
    for command in ("create", "run", "start", "state", "list", "kill", "delete", "pause", "resume", "spec"):
        assert f"ctrun {command}" in bundle.ok(command, "--help")
