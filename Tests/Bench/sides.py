"""The engines that are compared, each with its own directories, its own socket and its own cgroup."""
import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import events
import hostcheck
import imagemaker
from harness import BIN, World

CPUACCT = Path("/sys/fs/cgroup/cpuacct")
REFERENCE = "docker.io/library/box:latest"


class Side:
    """A cgroup that everything of this side lives in, so that its CPU is one number."""
    name = ""
    daemon = None
    process = None
    inside = False

    def __init__(self, parent):
        self.parent = parent
        self.group = CPUACCT / parent
        (self.group / "bench").mkdir(parents=True)
        self.started = 0

    def cpu(self):
        """Nanoseconds that this side was charged."""
        return int((self.group / "cpuacct.usage").read_text())

    def enter(self):
        (self.group / "bench" / "cgroup.procs").write_text("0")

    @contextlib.contextmanager
    def measured(self):
        """This program itself in the side's cgroup: what is started is in it from its first instruction, and nothing else is charged than that."""
        self.enter()
        self.inside = True
        try:
            yield
        finally:
            self.inside = False
            (CPUACCT / "cgroup.procs").write_text("0")

    def command(self, *args, check=True, env=None, timeout=120):
        done = subprocess.run([str(a) for a in args], stdin=subprocess.DEVNULL, capture_output=True, text=True, preexec_fn=None if self.inside else self.enter,
                              env=env, timeout=timeout)
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(map(str, args))}: {done.returncode}: {done.stderr}")
        return done.stdout

    def background(self, *args, env=None, log=None):
        with open(log or os.devnull, "ab") as output:
            self.process = subprocess.Popen([str(a) for a in args], stdin=subprocess.DEVNULL, stdout=output, stderr=output, preexec_fn=self.enter, env=env,
                                            start_new_session=True)
        self.daemon = events.Pid(self.process.pid)

    def write_lines(self, program, size, chunk):
        """A container that runs `lines`: returns once the last of its output can be read, as the side's own command says."""
        raise NotImplementedError

    def kept(self):
        """Bytes of output that the side has of the last write_lines."""
        raise NotImplementedError

    def forget(self):
        """Removes the container of the last write_lines and its output."""
        raise NotImplementedError

    def counted(self, *args, env=None):
        """Bytes that a command prints."""
        process = subprocess.Popen([str(a) for a in args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, preexec_fn=self.enter, env=env)
        total = 0
        with process.stdout as output:
            while data := output.read1(1 << 20):
                total += len(data)
        if process.wait():
            raise RuntimeError(f"{' '.join(map(str, args))}: {process.returncode}")
        return total

    def settle(self):
        """What still works for the last run has ended."""

    def kill_daemon(self):
        self.daemon.kill()
        self.process.wait()

    def remove_cgroups(self):
        for hierarchy in hostcheck.hierarchies():
            top = Path(hierarchy) / self.parent
            for directory, _, _ in sorted(os.walk(top), key=lambda e: -len(e[0])):
                try:
                    os.rmdir(directory)
                except OSError:
                    pass


def on_tmpfs():
    """Every side's state directory, which on a user's machine lies below /run: a file system in memory, for all alike."""
    return Path(tempfile.mkdtemp(prefix="ctrd-bench-", dir="/dev/shm"))


class Ctrd(Side):
    name = "ctrd"

    def __init__(self):
        self.world = World()
        self.memory = on_tmpfs()
        self.world.state = self.memory / "state"
        self.world.write_config(state=str(self.world.state))
        super().__init__(self.world.cgroup_parent)

    def prepare(self):
        self.start_daemon()
        path = imagemaker.Image(imagemaker.base_layers(3), cmd=("/bin/true",)).docker_archive(self.world.directory / "box.tar", tags=(REFERENCE,))
        self.ctrctl("images", "import", path)

    def ctrctl(self, *args, check=True):
        return self.command(BIN / "ctrctl", *args, env=self.world.env, check=check)

    def start_daemon(self):
        self.background(BIN / "ctrd", "--config", self.world.config, env=self.world.env, log=self.world.log)
        self.world.process, self.world.manager = self.process, self.daemon
        self.world.wait_ready()

    def run_true(self):
        self.ctrctl("run", "--rm", "--network", "none", REFERENCE, "/bin/true")

    def exec_true(self, name="bench-1"):
        self.ctrctl("exec", name, "/bin/true")

    def write_lines(self, program, size, chunk):
        self.ctrctl("run", "-d", "--name", "lines", "-v", f"{program.parent}:/lines:ro", REFERENCE, f"/lines/{program.name}", str(size), str(chunk))
        self.ctrctl("tasks", "wait", "lines")
        if not self.ctrctl("logs", "--tail", "1", "lines"):
            raise RuntimeError("no last line")

    def kept(self):
        return self.counted(BIN / "ctrctl", "logs", "lines", env=self.world.env)

    def forget(self):
        self.ctrctl("rm", "lines")

    def settle(self):
        """The guards of the last run are gone."""
        for name in os.listdir("/proc"):
            if name.isdigit() and events.comm(int(name)) in ("ctr-shim", "ctr-keeper") and str(self.world.directory) in " ".join(events.cmdline(int(name))):
                try:
                    events.Pid(int(name)).wait(5)
                except (OSError, AssertionError):
                    pass

    def start_many(self, count, script):
        while self.started < count:
            self.started += 1
            self.ctrctl("run", "-d", "--name", f"bench-{self.started}", REFERENCE, "/bin/sh", "-c", script)

    def guards(self):
        return [(int(t["shim_pid"]), int(t["keeper_pid"])) for t in self.tasks() if t["status"] == "running"]

    def tasks(self):
        import json
        return json.loads(self.ctrctl("tasks", "list", "--output", "json"))

    def list_tasks(self):
        self.ctrctl("tasks", "list")

    def true_running(self):
        return sum(t["status"] == "running" and t["guards"] == "both" and t["pid"] > 0 for t in self.tasks())

    def remove_all(self):
        identifiers = self.ctrctl("ps", "-aq").split()
        if identifiers:
            self.ctrctl("rm", "-f", *identifiers)
        self.started = 0

    def close(self):
        if self.daemon is not None and self.process.poll() is None:
            try:
                self.remove_all()
            except (RuntimeError, subprocess.TimeoutExpired):
                pass
        self.world.close()
        remove_tree(self.memory)
        self.remove_cgroups()


class Containerd(Side):
    name = "containerd"

    def __init__(self):
        super().__init__(f"ctrd-bench-cd-{secrets.token_hex(3)}")
        self.directory = Path(tempfile.mkdtemp(prefix="ctrd-bench-cd-", dir="/tmp"))
        self.socket = self.directory / "cd.sock"
        self.memory = on_tmpfs()
        (self.directory / "config.toml").write_text(
            f'version = 2\nroot = "{self.directory}/root"\nstate = "{self.memory}/state"\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
            f'[grpc]\n  address = "{self.socket}"\n')
        self.count = 0

    def prepare(self):
        self.start_daemon()
        path = imagemaker.Image(imagemaker.base_layers(3), cmd=("/bin/true",)).docker_archive(self.directory / "box.tar", tags=(REFERENCE,))
        self.ctr("images", "import", path)

    def start_daemon(self):
        self.background("containerd", "-c", self.directory / "config.toml", log=self.directory / "log")
        deadline = events.Deadline(60)
        with events.Inotify(self.directory) as watch:
            while subprocess.run(["ctr", "-a", str(self.socket), "version"], capture_output=True, preexec_fn=self.enter).returncode:
                events.readable([watch.fd, self.daemon.fd], min(0.05, deadline.left("containerd")))
                watch.drain()

    def ctr(self, *args, check=True):
        return self.command("ctr", "-a", self.socket, *args, check=check)

    def run_true(self):
        self.count += 1
        name = f"once-{self.count}"
        self.ctr("run", "--rm", "--seccomp", "--cgroup", f"/{self.parent}/{name}", REFERENCE, name, "/bin/true")

    def exec_true(self, name="bench-1"):
        self.count += 1
        self.ctr("tasks", "exec", "--exec-id", f"e{self.count}", name, "/bin/true")

    def write_lines(self, program, size, chunk):
        self.ctr("run", "--rm", "--seccomp", "--cgroup", f"/{self.parent}/lines", "--log-uri", f"file://{self.directory}/lines", "--mount",
                 f"type=bind,src={program.parent},dst=/lines,options=rbind:ro", REFERENCE, "lines", f"/lines/{program.name}", size, chunk)

    def kept(self):
        return (self.directory / "lines").stat().st_size

    def forget(self):
        (self.directory / "lines").unlink()

    def start_many(self, count, script):
        while self.started < count:
            self.started += 1
            name = f"bench-{self.started}"
            self.ctr("run", "-d", "--seccomp", "--cgroup", f"/{self.parent}/{name}", "--log-uri", f"file://{self.directory}/out", REFERENCE, name, "/bin/sh", "-c", script)

    def shims(self):
        return [int(p) for p in os.listdir("/proc") if p.isdigit() and events.comm(int(p)).startswith("containerd-shim")
                and str(self.socket) in " ".join(events.cmdline(int(p)))]

    def guards(self):
        return [(pid,) for pid in self.shims()]

    def list_tasks(self):
        return self.ctr("tasks", "ls")

    def true_running(self):
        return self.ctr("tasks", "ls", check=False).count("RUNNING")

    def remove_all(self):
        for _ in range(2):
            for name in self.ctr("tasks", "ls", "-q").split():
                self.ctr("tasks", "delete", "-f", name, check=False)
        for name in self.ctr("containers", "ls", "-q").split():
            self.ctr("containers", "delete", name, check=False)
        self.started = 0

    def close(self):
        if self.daemon is not None:
            if self.process.poll() is None:
                try:
                    self.remove_all()
                except (RuntimeError, subprocess.TimeoutExpired):
                    pass
                self.daemon.kill(signal.SIGTERM)
                self.process.wait()
            for pid in self.shims():
                events.Pid(pid).kill_and_wait()
        end_in(self.group)
        remove_tree(self.directory)
        remove_tree(self.memory)
        self.remove_cgroups()


class Podman(Side):
    """Its runtime here is runc: crun of Debian 12 refuses a host whose cgroup v2 hierarchy has controllers beside v1."""
    name = "podman"

    def __init__(self):
        super().__init__(f"ctrd-bench-pm-{secrets.token_hex(3)}")
        self.directory, self.memory = Path(tempfile.mkdtemp(prefix="ctrd-bench-pm-", dir="/tmp")), on_tmpfs()
        self.podman = ["podman", "--root", self.directory / "root", "--runroot", self.memory / "run", "--cgroup-manager", "cgroupfs", "--events-backend",
                       "none", "--runtime", "runc", "--tmpdir", self.memory / "tmp"]

    def options(self):
        # Its default limits are higher than this host lets anybody set.
        return ["--network", "none", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096", "--cgroup-parent", f"/{self.parent}"]

    def prepare(self):
        path = imagemaker.Image(imagemaker.base_layers(3), cmd=("/bin/true",)).docker_archive(self.directory / "box.tar", tags=(REFERENCE,))
        self.command(*self.podman, "load", "-i", path)

    def write_lines(self, program, size, chunk):
        self.command(*self.podman, "run", "-d", "--name", "lines", "--log-driver", "k8s-file", "-v", f"{program.parent}:/lines:ro", *self.options(), REFERENCE,
                     f"/lines/{program.name}", size, chunk)
        self.command(*self.podman, "wait", "lines", timeout=600)
        self.command(*self.podman, "logs", "--tail", "1", "lines", timeout=600)

    def kept(self):
        return self.counted(*self.podman, "logs", "lines")

    def forget(self):
        self.command(*self.podman, "rm", "lines")

    def exec_true(self, name="bench-1"):
        self.command(*self.podman, "exec", name, "/bin/true")

    def run_true(self):
        self.command(*self.podman, "run", "--rm", *self.options(), REFERENCE, "/bin/true")

    def start_many(self, count, script):
        while self.started < count:
            self.started += 1
            self.command(*self.podman, "run", "-d", "--name", f"bench-{self.started}", *self.options(), REFERENCE, "/bin/sh", "-c", script)

    def guards(self):
        return [(int(p),) for p in os.listdir("/proc") if p.isdigit() and events.comm(int(p)) == "conmon"
                and str(self.directory) in " ".join(events.cmdline(int(p)))]

    def remove_all(self):
        self.command(*self.podman, "rm", "-a", "-f", "-t", "0", check=False)
        self.started = 0

    def close(self):
        if self.started:
            self.remove_all()
        end_in(self.group)
        remove_tree(self.directory)
        remove_tree(self.memory)
        self.remove_cgroups()


class Docker(Side):
    """Its engine with a containerd of its own, unpacked and not installed; without bridge and firewall, which no figure needs."""
    name = "docker"
    programs = Path(__file__).resolve().parents[2] / ".build" / "peers" / "docker" / "usr"

    def __init__(self):
        super().__init__(f"ctrd-bench-dk-{secrets.token_hex(3)}")
        self.directory, self.memory = Path(tempfile.mkdtemp(prefix="ctrd-bench-dk-", dir="/tmp")), on_tmpfs()
        self.socket = self.directory / "docker.sock"

    def prepare(self):
        self.start_daemon()
        path = imagemaker.Image(imagemaker.base_layers(3), cmd=("/bin/true",)).docker_archive(self.directory / "box.tar", tags=(REFERENCE,))
        self.docker("load", "-i", path)

    def start_daemon(self):
        self.background(self.programs / "sbin/dockerd", "--data-root", self.directory / "root", "--exec-root", self.memory / "exec", "--pidfile",
                        self.directory / "pid", "-H", f"unix://{self.socket}", "--bridge", "none", "--iptables=false", "--ip6tables=false",
                        "--storage-driver", "overlay2", "--cgroup-parent", f"/{self.parent}", log=self.directory / "log")
        deadline = events.Deadline(60)
        with events.Inotify(self.directory) as watch:
            while subprocess.run([self.programs / "bin/docker", "-H", f"unix://{self.socket}", "version"], capture_output=True,
                                 preexec_fn=self.enter).returncode:
                events.readable([watch.fd, self.daemon.fd], min(0.05, deadline.left("dockerd")))
                watch.drain()

    def docker(self, *args, check=True, timeout=120):
        # DOCKER_CONFIG: the user's own configuration is none of its business.
        return self.command(self.programs / "bin/docker", "-H", f"unix://{self.socket}", *args, check=check, timeout=timeout,
                            env=os.environ | {"DOCKER_CONFIG": str(self.directory)})

    def run_true(self):
        self.docker("run", "--rm", "--network", "none", REFERENCE, "/bin/true")

    def exec_true(self, name="bench-1"):
        self.docker("exec", name, "/bin/true")

    def write_lines(self, program, size, chunk):
        self.docker("run", "-d", "--name", "lines", "--network", "none", "--log-driver", "json-file", "-v", f"{program.parent}:/lines:ro", REFERENCE,
                    f"/lines/{program.name}", size, chunk)
        self.docker("wait", "lines", timeout=900)
        self.docker("logs", "--tail", "1", "lines", timeout=900)

    def kept(self):
        return self.counted(self.programs / "bin/docker", "-H", f"unix://{self.socket}", "logs", "lines")

    def forget(self):
        self.docker("rm", "lines")

    def start_many(self, count, script):
        while self.started < count:
            self.started += 1
            self.docker("run", "-d", "--name", f"bench-{self.started}", "--network", "none", REFERENCE, "/bin/sh", "-c", script)

    def guards(self):
        return [(int(p),) for p in os.listdir("/proc") if p.isdigit() and events.comm(int(p)).startswith("containerd-shim")
                and str(self.memory) in " ".join(events.cmdline(int(p)))]

    def remove_all(self):
        identifiers = self.docker("ps", "-aq").split()
        if identifiers:
            self.docker("rm", "-f", *identifiers)
        self.started = 0

    def close(self):
        if self.daemon is not None and self.process.poll() is None:
            try:
                self.remove_all()
            except (RuntimeError, subprocess.TimeoutExpired):
                pass
            self.daemon.kill(signal.SIGTERM)
            self.process.wait()
        end_in(self.group)
        remove_tree(self.directory)
        remove_tree(self.memory)
        self.remove_cgroups()


def end_in(group):
    """What is still in a side's cgroup was started by it."""
    for directory, _, _ in os.walk(group):
        for pid in (Path(directory) / "cgroup.procs").read_text().split():
            try:
                events.Pid(int(pid)).kill_and_wait(10)
            except (OSError, AssertionError):
                pass


def remove_tree(directory):
    for text in reversed(hostcheck.read("/proc/self/mountinfo").splitlines()):
        if f"{directory}/" in text.split(" ")[4]:
            subprocess.run(["umount", "-l", text.split(" ")[4]], check=False)
    shutil.rmtree(directory, ignore_errors=True)
