"""Bundles for the OCI runtime alone: a busybox root file system, a config.json with Docker's restrictions, and ways to run them."""
import ctypes
import json
import os
import secrets
import shutil
import subprocess
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
BIN = Path(os.environ.get("CTRD_BIN", REPOSITORY / "bin"))
APPLETS = ("sh ls cat id mount umount ps sleep true false mkdir touch head wc readlink dd unshare hostname mknod kill echo env grep chmod ln rm "
           "sysctl test stty chroot seq stat expr").split()
CAPABILITIES = ["CAP_" + name for name in ("CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL "
                                           "AUDIT_WRITE").split()]
MASKED = ["/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list",
          "/proc/timer_stats", "/sys/firmware", "/sys/devices/virtual/powercap"]
READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
SECCOMP = {
    "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
    "syscalls": [{"names": ["mount", "umount2", "unshare", "setns", "open_by_handle_at", "fsopen", "move_mount", "open_tree", "ptrace"],
                  "action": "SCMP_ACT_ERRNO"}],
} if os.uname().machine == "x86_64" else {
    "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mount", "umount2", "unshare", "setns", "open_by_handle_at"], "action": "SCMP_ACT_ERRNO"}],
}


def become_subreaper():
    ctypes.CDLL(None, use_errno=True).prctl(36, 1, 0, 0, 0)


def hierarchies():
    return [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines() if " - cgroup" in line]


class Bundle:
    """One container's bundle with a root, a cgroup and a root file system of its own."""

    def __init__(self, *args, directory=None):
        self.base = Path(directory or tempfile.mkdtemp(prefix="ctrun-test-"))
        self.name = "ctrun-test-" + secrets.token_hex(4)
        self.id = "c1"
        self.root, self.path, self.log = self.base / "root", self.base / "bundle", self.base / "log"
        self.rootfs = self.path / "rootfs"
        for name in ("bin", "etc", "proc", "sys", "dev", "tmp"):
            (self.rootfs / name).mkdir(parents=True)
        shutil.copy("/bin/busybox", self.rootfs / "bin/busybox")
        for name in APPLETS:
            (self.rootfs / "bin" / name).symlink_to("busybox")
        self.spec = self.default(list(args))

    def default(self, args):
        capabilities = {name: list(CAPABILITIES) for name in ("bounding", "effective", "permitted")}
        return {
            "ociVersion": "1.0.2",
            "process": {"user": {"uid": 0, "gid": 0, "additionalGids": [0]}, "args": args, "env": ["PATH=/bin"], "cwd": "/", "capabilities": capabilities},
            "root": {"path": "rootfs"}, "hostname": "inside",
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                 "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
                {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
                {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro", "nosuid", "noexec", "nodev"]},
                {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
                {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
            ],
            "linux": {
                "cgroupsPath": f"/{self.name}/c1",
                "resources": {"devices": [{"allow": False, "access": "rwm"}]},
                "namespaces": [{"type": name} for name in ("pid", "network", "ipc", "uts", "mount", "cgroup")],
                "maskedPaths": list(MASKED), "readonlyPaths": list(READ_ONLY), "seccomp": json.loads(json.dumps(SECCOMP)),
            },
        }

    @property
    def process(self):
        return self.spec["process"]

    @property
    def linux(self):
        return self.spec["linux"]

    def shell(self, script):
        self.process["args"] = ["/bin/sh", "-c", script]
        return self

    def command(self, *words, flags=()):
        return [str(BIN / "ctrun"), "--root", str(self.root), "--log", str(self.log), "--log-format", "json", *flags, *map(str, words)]

    def write(self):
        (self.path / "config.json").write_text(json.dumps(self.spec))

    def ctrun(self, *words, **options):
        self.write()
        options.setdefault("timeout", 60)
        return subprocess.run(self.command(*words), stdin=options.pop("stdin", subprocess.DEVNULL), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True, **options)

    def ok(self, *words, **options):
        result = self.ctrun(*words, **options)
        assert result.returncode == 0, f"{words}: {result}"
        return result.stdout

    def fails(self, *words, **options):
        """The one line of error."""
        result = self.ctrun(*words, **options)
        assert result.returncode == 1 and result.stderr.startswith("ctrun: ") and result.stderr.count("\n") == 1, f"{words}: {result}"
        return result.stderr[7:-1]

    def run(self, **options):
        return self.ctrun("run", "-b", self.path, self.id, **options)

    def output(self, script, **options):
        result = self.shell(script).run(**options)
        assert result.returncode == 0, result
        return result.stdout

    def create(self, *flags, **options):
        """Creates with output to files, since the container holds its streams as long as it lives; returns the pid of the first process."""
        with open(self.base / "out", "ab") as out, open(self.base / "err", "ab") as err:
            self.write()
            result = subprocess.run(self.command("create", "-b", self.path, *flags, self.id), stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                                    timeout=60, **options)
        assert result.returncode == 0, (result, (self.base / "err").read_text())
        return self.state()["pid"]

    def created_output(self):
        return (self.base / "out").read_text()

    def state(self):
        return json.loads(self.ok("state", self.id))

    def status(self):
        return self.state()["status"]

    def cgroup(self, hierarchy):
        """The directory in a hierarchy; where version 2 is all there is, the one there is."""
        return Path("/sys/fs/cgroup") / ("" if hierarchies() == ["/sys/fs/cgroup"] else hierarchy) / self.linux["cgroupsPath"].lstrip("/")

    def cgroups(self):
        return [path for mount in hierarchies() for path in Path(mount).glob(f"{self.name}/*") if path.is_dir()]

    def traces(self):
        """What is left of containers: states, cgroups, mounts, processes."""
        states = [entry.name for entry in self.root.iterdir() if not entry.name.startswith(".")] if self.root.exists() else []
        mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(self.base) in line]
        processes = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if self.name in (entry / "cgroup").read_text() and ") Z " not in (entry / "stat").read_text():
                        processes.append(entry.name)
                except OSError:
                    pass
        return states, [str(path) for path in self.cgroups()], mounts, processes

    def close(self):
        if self.root.exists():
            for entry in list(self.root.iterdir()):
                if not entry.name.startswith("."):
                    subprocess.run(self.command("delete", "-f", entry.name), timeout=60, check=False)
        traces = self.traces()
        for mount in hierarchies():
            parent = Path(mount) / self.name
            if parent.is_dir():
                for path in sorted(parent.rglob("*"), reverse=True):
                    if path.is_dir():
                        path.rmdir()
                parent.rmdir()
        shutil.rmtree(self.base)
        assert traces == ([], [], [], []), traces
