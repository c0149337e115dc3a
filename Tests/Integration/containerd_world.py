"""A containerd of its own, unmodified, that runs containers on ctr-shim: own root, state, socket, namespace and cgroups, driven by its own ctr."""
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import events
import hostcheck
import imagemaker
from harness import BIN, REPOSITORY, Client, Result

IMAGE = "docker.io/library/box:latest"
RUNTIME = "io.containerd.ctr.v2"
RUNC = "io.containerd.runc.v2"
TIMEOUT = 60
PEERS = REPOSITORY / ".build" / "peers"
# What needs hardware, a network or another service to come up, and is none of a shim's business.
DISABLED = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.nri.v1.nri",
            "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper",
            "io.containerd.snapshotter.v1.aufs", "io.containerd.internal.v1.opt", "io.containerd.podsandbox.controller.v1.podsandbox",
            "io.containerd.grpc.v1.sandbox-controllers", "io.containerd.service.v1.sandbox-controllers"]


def installations():
    """Name to directory of programs: Debian's own, and what `make deps-peers` unpacked of its later suites."""
    found = {"bookworm": Path("/usr/bin")}
    for suite in ("trixie", "sid"):
        if (PEERS / suite / "usr/bin/containerd").exists():
            found[suite] = PEERS / suite / "usr/bin"
    return found


class Containerd:
    def __init__(self, programs):
        self.programs = Path(programs)
        self.token = secrets.token_hex(4)
        self.directory = Path(tempfile.mkdtemp(prefix=f"ctrd-{self.token}-", dir="/tmp"))
        self.root, self.state = self.directory / "root", self.directory / "state"
        self.address = str(self.directory / "c.sock")
        # ctr puts a container's cgroup at /NAMESPACE/ID.
        self.namespace = f"ctrd-test-{self.token}"
        self.log = self.directory / "containerd.log"
        path = self.directory / "bin"
        path.mkdir()
        self.shim_program = path / "containerd-shim-ctr-v2"
        self.shim_program.symlink_to(BIN / "ctr-shim")
        for name in ("containerd-shim-runc-v2", "ctr", "containerd"):
            (path / name).symlink_to(self.programs / name)
        self.env = {"PATH": f"{path}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8",
                    "CTRD_TEST_SCOPE": self.token}
        self.scope = hostcheck.Scope(str(self.directory), self.namespace, f"CTRD_TEST_SCOPE={self.token}")
        self.clients, self.process = [], None
        self.config = self.directory / "config.toml"
        # A service without a manager: none of it outlives this.
        self.config.write_text(f"""version = 2
root = "{self.root}"
state = "{self.state}"
disabled_plugins = {json.dumps(DISABLED)}
[grpc]
  address = "{self.address}"
[ttrpc]
  address = "{self.address}.ttrpc"
""")

    # containerd

    def start(self, timeout=30):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen([str(self.directory / "bin/containerd"), "-c", str(self.config), "-l", "trace"], stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log, env=self.env, start_new_session=True, cwd=self.directory)
        watched = events.Pid(self.process.pid)
        marks = self.log_text().count("containerd successfully booted")
        events.wait_file(self.log, lambda _: self.log_text().count("containerd successfully booted") > max(marks - 1, self.booted), timeout, watched.fd)
        self.booted = self.log_text().count("containerd successfully booted")
        return self

    booted = 0

    def kill9(self):
        self.process.kill()
        self.process.wait()
        return self

    def log_text(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def import_image(self):
        path = imagemaker.Image().oci_archive(self.directory / "box.tar", names=(IMAGE,))
        self.ctr("image", "import", "--snapshotter", "overlayfs", path)
        path.unlink()
        return self

    # ctr

    def command(self, *args):
        return [str(self.directory / "bin/ctr"), "-a", self.address, "-n", self.namespace, *map(str, args)]

    def ctr(self, *args, code=0, timeout=TIMEOUT, stdin=None):
        done = subprocess.run(self.command(*args), capture_output=True, timeout=timeout, env=self.env, cwd=self.directory,
                              **({"input": stdin} if stdin is not None else {"stdin": subprocess.DEVNULL}))
        result = Result(["ctr", *args], done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))
        if code is not None:
            assert result.code == code, f"expected exit code {code}: {result}\n{self.log_text()[-3000:]}"
        return result

    def client(self, *args, stdin=subprocess.DEVNULL):
        return Client(self, self.command(*args), stdin=stdin)

    def run(self, identifier, *command, options=(), runtime=RUNTIME, code=0, stdin=None):
        return self.ctr("run", "--rm", "--fifo-dir", self.directory / "fifos", "--runtime", runtime, *options, IMAGE, identifier, *command, code=code,
                        stdin=stdin)

    def background(self, identifier, *command, options=(), runtime=RUNTIME):
        # ctr run -d leaves its FIFOs behind, and so does one that fails.
        return self.ctr("run", "-d", "--fifo-dir", self.directory / "fifos", "--runtime", runtime, *options, IMAGE, identifier, *command)

    def tasks(self):
        """Id to (pid, status)."""
        lines = self.ctr("tasks", "ls").out.splitlines()[1:]
        return {line.split()[0]: (int(line.split()[1]), line.split()[2]) for line in lines if line.strip()}

    def remove(self, identifier, runtime=RUNTIME):
        self.ctr("tasks", "kill", "-s", "KILL", "-a", identifier, code=None)
        self.ctr("tasks", "rm", "-f", identifier, code=None)
        self.ctr("containers", "rm", identifier)

    # Places and processes

    def bundle(self, identifier):
        return self.state / "io.containerd.runtime.v2.task" / self.namespace / identifier

    def record(self, path):
        lines = Path(path).read_text().splitlines()
        assert lines[0].startswith("ctr-record 1 "), lines
        return dict(line.split(" ", 1) if " " in line else (line, "") for line in lines[1:-1])

    def socket(self, identifier):
        address = (self.bundle(identifier) / "address").read_text()
        assert address.startswith("unix://") and not address.endswith("\n")
        return address[7:]

    def guards(self, identifier):
        """(shim, keeper) of a task as processes."""
        keeper = int(self.record(self.bundle(identifier) / "guards")["keeper_pid"])
        shims = [child for child in events.children(keeper) if events.comm(child) == "ctr-shim"]
        assert len(shims) == 1, f"keeper {keeper} has the children {[(c, events.comm(c)) for c in events.children(keeper)]}"
        return events.Pid(shims[0]), events.Pid(keeper)

    def shim_starts(self, identifier):
        """How many shims the container has had: its lock file counts them."""
        return int((self.bundle(identifier) / "lock").read_text().split()[0])

    # The end

    def snapshot(self):
        found = hostcheck.snapshot(self.scope)
        # containerd's own files are its own; what shims leave is a bundle, a socket or the runtime's state.
        found["file"] = set()
        for top in (self.state / "io.containerd.runtime.v2.task", self.root / "io.containerd.runtime.v2.task", self.directory / "s",
                    self.directory / "ctrun", self.directory / "runc"):
            for directory, subdirectories, names in os.walk(top):
                if ".seccomp" in subdirectories:
                    subdirectories.remove(".seccomp")
                found["file"] |= {os.path.join(directory, name) for name in names}
                found["file"] |= {os.path.join(directory, name) + "/" for name in subdirectories if name != self.namespace}
        own = {item for item in found["process"] if self.process and item.startswith(f"{self.process.pid}@")}
        found["process"] -= own
        found["namespace"] = {item for item in found["namespace"] if self.process is None or f"process {self.process.pid}" not in item}
        found["socket"] = {item for item in found["socket"] if self.address not in item and "/root/" not in item and "/state/" not in item}
        return found

    def assert_no_leaks(self, before):
        """Guards end when their shim has answered; they are given a moment."""
        deadline = events.Deadline(10)
        while True:
            found = hostcheck.leaks(before, self.snapshot())
            if not found:
                return
            try:
                deadline.left("nothing is left")
            except events.Late:
                raise AssertionError("left behind:\n" + "\n".join(f"  {kind}: {item}" for kind, items in found.items() for item in items)) from None
            events.readable([], 0.02)

    def close(self):
        """Ends and removes whatever is left, without asking the programs."""
        for client in self.clients:
            client.close()
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        for attempt in range(50):
            left = [pid for pid in hostcheck.own_processes(self.scope) if not hostcheck.is_zombie(pid)]
            if not left:
                break
            for pid in sorted(left, key=lambda p: events.comm(p) != "ctr-keeper"):
                try:
                    process = events.Pid(pid)
                except OSError:
                    continue
                if hostcheck.belongs(pid, self.scope):
                    process.kill()
                    events.readable([process.fd], 5)
                process.close()
        for line in reversed(hostcheck.read("/proc/self/mountinfo").splitlines()):
            if self.scope.mentions(line):
                subprocess.run(["umount", "-l", line.split(" ")[4]], check=False)
        for path in sorted(hostcheck.cgroups(self.scope), key=len, reverse=True):
            try:
                os.rmdir(path)
            except OSError:
                pass
        shutil.rmtree(self.directory, ignore_errors=True)


class Events:
    """What `ctr events` prints of tasks, as it comes: (topic, message)."""

    LINE = re.compile(rb"^\S+ \S+ \S+ \S+ (\S+) (/tasks/\S+) (\{.*\})$", re.M)

    def __init__(self, world):
        self.client = world.client("events")
        self.namespace = world.namespace.encode()
        # Its subscription has no sign of its own: an event of ours shows that it is there.
        for attempt in range(100):
            world.ctr("namespaces", "label", world.namespace, f"probe={attempt}")
            if self.client.out.pump(0.1):
                return
        raise AssertionError("ctr events shows nothing")

    def seen(self):
        return [(m.group(2).decode(), json.loads(m.group(3))) for m in self.LINE.finditer(self.client.out.data) if m.group(1) == self.namespace]

    def of(self, identifier):
        return [(topic, message) for topic, message in self.seen() if message.get("container_id") == identifier]

    def until(self, identifier, topic, timeout=20):
        """All events of the container once one with the topic is there."""
        deadline = events.Deadline(timeout)
        while True:
            found = self.of(identifier)
            if any(t == topic for t, _ in found):
                return found
            self.client.out.pump(deadline.left(f"{topic} of {identifier}; seen: {found}"))

    def close(self):
        self.client.kill(signal.SIGTERM)
        self.client.close()
