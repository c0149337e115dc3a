"""Kills one unmodified program at its N-th call of a kind: strace with inject=…:signal=KILL:when=N, on exactly one process."""
import os
import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "Integration"))

import events  # noqa: E402
from harness import BIN  # noqa: E402

# What is asked for by one name is several calls.
CALLS = {
    "fsync": "fsync,fdatasync",
    "rename": "rename,renameat,renameat2",
    "mkdir": "mkdir,mkdirat",
    "unlink": "unlink,unlinkat,rmdir",
    "mount": "mount,umount2,fsmount,open_tree,mount_setattr,pivot_root",
    "move_mount": "move_mount",
    "clone": "clone,clone3,fork,vfork",
    "record": "write,pwrite64,writev",
}
RECORDS = ("intent", "exit")
BUNDLE_RECORDS = ("config.json", "shim.env", "guards", "pid", "exits")
LOG_FILES = ("log/index",)


def record_paths(world, identifier):
    """Every file that is the truth about a container, under the name it is written by."""
    paths = [world.incarnation(identifier) / name for name in RECORDS] + [world.bundle(identifier) / name for name in BUNDLE_RECORDS]
    both = [p for path in paths for p in (path, path.with_name(path.name + ".tmp"))]
    return [*both, *(world.incarnation(identifier) / name for name in LOG_FILES), world.root / "ctrd.db", world.root / "ctrd.db-wal"]


def inject(world, identifier, kind, number):
    calls = CALLS[kind]
    arguments = ["-e", f"trace={calls}", "-e", f"inject={calls}:signal=KILL:when={number}"]
    if kind == "record":
        for path in record_paths(world, identifier):
            arguments += ["-P", str(path)]
    return arguments


class Traps:
    """Wrappers that the manager runs in the place of its programs. Unarmed they run the program; armed, once, they let strace have it."""

    def __init__(self, world):
        self.world, self.place = world, world.directory / "traps"
        self.place.mkdir()
        self.trace = self.place / "trace"
        self.fifo = self.place / "go"
        os.mkfifo(self.fifo)
        gate = f"if mv {self.place}/arm-$who {self.place}/armed-$who 2>/dev/null; then echo $$ > {self.place}/pid.new; " \
               f"mv {self.place}/pid.new {self.place}/pid; read go < {self.fifo}; fi"
        self.script("keeper", f"who=keeper; {gate}\nprogram=$1; shift\n"
                    f"[ -e {self.place}/arm-shim ] && exec {BIN}/ctr-keeper {self.place}/ctr-shim \"$program\" \"$@\"\n"
                    f"exec {BIN}/ctr-keeper \"$program\" \"$@\"")
        self.script("ctr-shim", f"program=$1; shift; who=shim; {gate}\nexec \"$program\" \"$@\"")
        # From a read-only mount the runtime need not execute itself again: so what strace lets go at exec is the container's program, not it.
        runtime = self.place / "ctrun"
        runtime.touch()
        world.scope.own_mount = str(runtime)
        subprocess.run(["mount", "--bind", BIN / "ctrun", runtime], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", runtime], check=True)
        for name, real, options in (("runtime", runtime, "-f -b execve"), ("shim", BIN / "ctr-shim", "")):
            arm = f"{self.place}/arm-{name}"
            self.script(name, f"[ -e {arm} ] && read action < {arm} && case \" $* \" in *\" $action \"*) mv {arm} {self.place}/armed-{name} 2>/dev/null && "
                        f"eval \"exec strace -D {options} -o {self.trace} $(tail -n +2 {self.place}/armed-{name}) {real} \\\"\\$@\\\"\";; esac\n"
                        f"exec {real} \"$@\"")
        world.write_config(shim=str(self.place / "shim"), runtime=str(self.place / "runtime"), keeper=str(self.place / "keeper"))
        self.tracer = None

    def script(self, name, body):
        path = self.place / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)

    def clear(self):
        for name in list(self.place.glob("arm*")) + [self.place / "pid", self.trace]:
            name.unlink(missing_ok=True)

    def arm(self, name, action, arguments):
        """The runtime or the shim's start helper, at its next run of that action."""
        self.clear()
        quoted = " ".join(f"'{a}'" for a in arguments)
        new = self.place / "new"
        new.write_text(f"{action}\n{quoted}\n")
        new.rename(self.place / f"arm-{name}")

    def gate(self, name):
        """The keeper or the shim, held before its first instruction until attach() has it."""
        self.clear()
        (self.place / f"arm-{name}").touch()

    def attach_gated(self, arguments, timeout=20):
        events.wait_file(self.place / "pid", timeout=timeout, pidfd=self.world.manager.fd)
        self.attach([int((self.place / "pid").read_text())], arguments)
        with open(self.fifo, "w") as fifo:
            fifo.write("go\n")

    def attach(self, tasks, arguments):
        """strace on these tasks, and on none of their children."""
        command = ["strace", "-o", str(self.trace), *arguments]
        for task in tasks:
            command += ["-p", str(task)]
        self.tracer = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=self.world.env)
        said, deadline = events.Output(self.tracer.stderr.fileno()), events.Deadline(20)
        while said.data.count(b"attached") < len(tasks):
            if said.closed:
                raise AssertionError(f"strace: {said.data!r}")
            said.pump(deadline.left("strace"))

    def attach_manager(self, arguments):
        self.clear()
        self.attach([int(t) for t in os.listdir(f"/proc/{self.world.process.pid}/task")], arguments)

    def release(self):
        """Ends the tracing; whoever still lives goes on."""
        for name in self.place.glob("arm-*"):
            name.unlink(missing_ok=True)
        if self.tracer is not None:
            self.tracer.terminate()
            try:
                self.tracer.wait(5)
            except subprocess.TimeoutExpired:
                # A tracer that waits for a stop which never comes; its end lets every task go.
                self.tracer.kill()
                self.tracer.wait(5)
            self.tracer.stderr.close()
            self.tracer = None
        for pid in (p for p in map(int, filter(str.isdigit, os.listdir("/proc"))) if events.comm(p) == "strace"):
            if str(self.trace) in events.cmdline(pid):
                try:
                    tracer = events.Pid(pid)
                except OSError:
                    continue
                if not events.readable([tracer.fd], 0.5):
                    tracer.kill(15)
                    tracer.wait(10)

    def landed(self, number):
        """The name of the call that killed, or None: some task made N calls of the kind and did not come back from its last."""
        try:
            lines = self.trace.read_text(errors="replace").splitlines()
        except OSError:
            return None
        calls, cut, killed = {}, {}, None
        for line in lines:
            match = re.match(r"(?:(\d+)\s+)?(?:(\w+)\(|\+\+\+ killed by SIGKILL)", line)
            if not match:
                continue
            task = match.group(1)
            if match.group(2):
                calls.setdefault(task, []).append(match.group(2))
                cut[task] = line.endswith(("= ?", "<unfinished ...>"))
            elif len(calls.get(task, [])) >= number and cut[task]:
                killed = calls[task][-1]
        return killed
