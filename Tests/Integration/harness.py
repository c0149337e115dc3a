"""One private ctrd: own root, state, socket and cgroup, driven through the programs in bin/ as a user would drive them."""
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

import events
import hostcheck
import imagemaker

REPOSITORY = Path(__file__).resolve().parents[2]
BIN = Path(os.environ.get("CTRD_BIN", REPOSITORY / "bin"))
IMAGE = "docker.io/library/box:latest"
TIMEOUT = 60


class Result:
    def __init__(self, args, code, out, err):
        self.args, self.code, self.out, self.err = args, code, out, err

    def json(self):
        return json.loads(self.out)

    def __repr__(self):
        return f"{' '.join(map(str, self.args))} → {self.code}\n  out: {self.out[-800:]!r}\n  err: {self.err[-800:]!r}"


class Client:
    """A program in the foreground: its output is read as it comes."""

    def __init__(self, world, args, env=None, stdin=subprocess.DEVNULL):
        self.args = [str(a) for a in args]
        self.process = subprocess.Popen(self.args, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        env={**world.env, **(env or {})}, start_new_session=True)
        self.pidfd = os.pidfd_open(self.process.pid)
        self.out, self.err = events.Output(self.process.stdout.fileno()), events.Output(self.process.stderr.fileno())
        world.clients.append(self)

    @property
    def pid(self):
        return self.process.pid

    def wait(self, timeout=TIMEOUT):
        """The exit code, with all output read."""
        deadline = events.Deadline(timeout)
        while not (self.out.closed and self.err.closed):
            pipes = [o.fd for o in (self.out, self.err) if not o.closed]
            if not events.readable(pipes, deadline.left(self)):
                continue
            self.out.pump(0)
            self.err.pump(0)
        return self.process.wait(deadline.left(self))

    def kill(self, number=signal.SIGKILL):
        if self.process.poll() is None:
            self.process.send_signal(number)

    def close(self):
        self.kill()
        self.process.wait()
        for stream in (self.process.stdout, self.process.stderr):
            stream.close()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1

    def __repr__(self):
        return f"{' '.join(self.args)} (out {self.out.data[-300:]!r}, err {self.err.data[-300:]!r})"


class World:
    def __init__(self, programs=None, **config):
        # Where its programs are; a test may change that between two managers.
        self.bin = Path(programs or BIN)
        self.token = secrets.token_hex(4)
        self.directory = Path(tempfile.mkdtemp(prefix=f"ctrd-{self.token}-", dir="/tmp"))
        self.root, self.state = self.directory / "root", self.directory / "state"
        self.address = str(self.directory / "ctrd.sock")
        self.cgroup_parent = f"ctrd-test-{self.token}"
        self.config = self.directory / "config.toml"
        self.log = self.directory / "ctrd.log"
        mark = f"CTRD_TEST_SCOPE={self.token}"
        self.env = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8",
                    "CTRD_ADDRESS": self.address, "CTRD_TEST_SCOPE": self.token, "SWIFT_BACKTRACE": "enable=no"}
        self.scope = hostcheck.Scope(str(self.directory), self.cgroup_parent, mark)
        self.clients, self.manager, self.process = [], None, None
        self.write_config(**config)

    # The manager

    def write_config(self, **more):
        values = {"root": str(self.root), "state": str(self.state), "address": self.address, "cgroup_parent": self.cgroup_parent, **more}
        self.config.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items()))

    def launch(self, *args, prefix=(), programs=None):
        """The manager's process, without waiting for its socket."""
        log = open(self.log, "ab")
        with log:
            self.process = subprocess.Popen([*prefix, str((programs or self.bin) / "ctrd"), "--config", str(self.config), *map(str, args)], stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log, env=self.env, start_new_session=True)
        self.manager = events.Pid(self.process.pid)
        return self

    def wait_ready(self, timeout=30):
        def answers(_):
            with socket.socket(socket.AF_UNIX) as probe:
                try:
                    probe.connect(self.address)
                    return True
                except OSError:
                    return False
        try:
            events.wait_file(self.address, answers, timeout, self.manager.fd)
        except ProcessLookupError:
            raise AssertionError(f"ctrd ended with {self.process.wait()}: {self.log_text()[-1500:]}") from None
        return self

    def start(self, *args, prefix=()):
        return self.launch(*args, prefix=prefix).wait_ready()

    def kill9(self):
        """SIGKILL; returns when the process is gone."""
        self.manager.kill()
        self.process.wait()
        return self

    def restart(self):
        """SIGKILL, and a new one."""
        return self.kill9().start()

    def stop(self, timeout=20):
        """SIGTERM, as systemd does. The exit code."""
        if self.process is None:
            return None
        self.manager.kill(signal.SIGTERM)
        return self.process.wait(timeout)

    def running(self):
        return self.process is not None and self.process.poll() is None

    def log_text(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    # The command line

    def ctrctl(self, *args, code=0, timeout=TIMEOUT, env=None, stdin=None):
        """Runs ctrctl. code None accepts any exit code."""
        command = [str(self.bin / "ctrctl"), *map(str, args)]
        done = subprocess.run(command, capture_output=True, timeout=timeout, env={**self.env, **(env or {})},
                              **({"input": stdin} if stdin is not None else {"stdin": subprocess.DEVNULL}))
        result = Result(["ctrctl", *args], done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))
        result.raw = done.stdout
        if code is not None:
            assert result.code == code, f"expected exit code {code}: {result}\n  ctrd: {self.log_text()[-1500:]}"
        return result

    def client(self, *args, env=None):
        return Client(self, [self.bin / "ctrctl", *args], env)

    def run(self, *args, code=0, **more):
        """ctrctl run …; what it printed, stripped."""
        return self.ctrctl("run", *args, code=code, **more).out.strip()

    def sh(self, script, *options, code=0):
        """A script in a container that is removed after it; its output."""
        return self.ctrctl("run", "--rm", *options, IMAGE, "/bin/sh", "-c", script, code=code).out

    def background(self, script, *options):
        """A container in the background; its id."""
        identifier = self.run("-d", *options, IMAGE, "/bin/sh", "-c", script)
        assert len(identifier) == 64, identifier
        return identifier

    def listed(self):
        """What the manager says now. Right after its start a task may be `unknown`: not proved yet."""
        return self.ctrctl("tasks", "list", "--output", "json").json()

    def tasks(self, timeout=20):
        """Every task by its id, once each is proved."""
        deadline = events.Deadline(timeout)
        while True:
            tasks = self.listed()
            open_ones = [t for t in tasks if not proved(t)]
            if not open_ones:
                return {t["container_id"]: t for t in tasks}
            deadline.left(f"not proved: {open_ones}")

    def task(self, identifier, timeout=20):
        """One task by id or name, once it is proved."""
        deadline = events.Deadline(timeout)
        while True:
            found = [t for t in self.listed() if identifier in (t["container_id"], t["container_name"])]
            assert len(found) == 1, f"{identifier}: {found}"
            if proved(found[0]):
                return found[0]
            deadline.left(f"not proved: {found[0]}")

    def containers(self):
        return {c["id"]: c for c in self.ctrctl("containers", "list", "--output", "json").json()}

    def wait(self, identifier, timeout=TIMEOUT):
        """tasks wait: the status it printed."""
        return int(self.ctrctl("tasks", "wait", identifier, code=None, timeout=timeout).out.strip())

    def import_box(self):
        path = imagemaker.Image().docker_archive(self.directory / "box.tar", tags=("box:latest",))
        self.ctrctl("images", "import", path)
        path.unlink()
        return self

    # Places that the architecture page promises

    def bundle(self, identifier, namespace="default"):
        return self.state / namespace / identifier

    def incarnation(self, identifier, number=1, namespace="default"):
        return self.root / "containers" / namespace / identifier / str(number)

    def record(self, path):
        lines = Path(path).read_text().splitlines()
        assert lines[0].startswith("ctr-record 1 "), lines
        return dict(line.split(" ", 1) if " " in line else (line, "") for line in lines[1:-1])

    def shim_socket(self, identifier, number=1, namespace="default"):
        value = 0xCBF29CE484222325
        for byte in f"{namespace}/{identifier}/{number}".encode():
            value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
        return str(self.state / "s" / f"{value:016x}")

    def guards(self, identifier):
        """(shim, keeper) of a running task as processes, found from the keeper's record and parenthood."""
        keeper = int(self.record(self.bundle(identifier) / "guards")["keeper_pid"])
        shims = [child for child in events.children(keeper) if events.comm(child) == "ctr-shim"]
        assert len(shims) == 1, f"keeper {keeper} has the children {[(c, events.comm(c)) for c in events.children(keeper)]}"
        return events.Pid(shims[0]), events.Pid(keeper)

    # The end

    def snapshot(self):
        return hostcheck.snapshot(self.scope)

    def assert_no_leaks(self, before):
        hostcheck.assert_no_leaks(before, self.scope)

    def remove_all(self):
        identifiers = self.ctrctl("ps", "-aq").out.split()
        if identifiers:
            self.ctrctl("rm", "-f", *identifiers)

    def close(self):
        """Ends and removes whatever is left, without asking the programs."""
        for client in self.clients:
            client.close()
        for attempt in range(50):
            left = [pid for pid in hostcheck.own_processes(self.scope) if not hostcheck.is_zombie(pid)]
            if not left:
                break
            # The keeper before the shim, or it starts another.
            for pid in sorted(left, key=lambda p: events.comm(p) != "ctr-keeper"):
                thaw(pid)
                try:
                    process = events.Pid(pid)
                except OSError:
                    continue
                if hostcheck.belongs(pid, self.scope):
                    process.kill()
                    events.readable([process.fd], 5)
                process.close()
        if self.process is not None:
            self.process.wait()
        for line in reversed(hostcheck.read("/proc/self/mountinfo").splitlines()):
            if self.scope.mentions(line):
                subprocess.run(["umount", "-l", line.split(" ")[4]], check=False)
        for path in sorted(hostcheck.cgroups(self.scope), key=len, reverse=True):
            try:
                os.rmdir(path)
            except OSError:
                pass
        shutil.rmtree(self.directory, ignore_errors=True)


def drop_manager(before, world):
    """The manager may be another process now than when the snapshot was taken."""
    return {**before, "process": before["process"] | {item for item in world.snapshot()["process"] if item.startswith(f"{world.process.pid}@")}}


def proved(task):
    return task["status"] != "unknown" or task["exit"] is not None or task["guards"] == "unresponsive" or bool(task["error"])


def thaw(pid):
    for line in hostcheck.read(f"/proc/{pid}/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "freezer":
            try:
                Path(f"/sys/fs/cgroup/freezer{path}/freezer.state").write_text("THAWED")
            except OSError:
                pass


def run_program(world, *args, timeout=30, env=None):
    """Any program of ours with the world's environment."""
    done = subprocess.run([str(a) for a in args], capture_output=True, timeout=timeout, stdin=subprocess.DEVNULL, env={**world.env, **(env or {})})
    return Result(args, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))


def one_line_error(result):
    lines = [line for line in result.err.splitlines() if line.strip()]
    assert len(lines) == 1, f"not one line of error: {result}"
    return lines[0]
