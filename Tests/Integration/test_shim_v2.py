"""The shim protocol as containerd speaks it, spoken by hand: the helpers start, delete, -info and -v, the event service, streams, and the wire."""
import contextlib
import json
import os
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
import zlib

import events
import hostcheck
import pytest
import shim_client
from exec_client import PTY_MOUNT, Exec
from harness import BIN
from shim_client import DEADLINE, EXHAUSTED, GUARD, INVALID, NOT_FOUND, TASK2, TASK3, UNIMPLEMENTED, Client, Failure, decode, field, first

TOPICS = "containerd.services.events.ttrpc.v1.Events"


class EventService:
    """What containerd serves at TTRPC_ADDRESS. `answer` says what to answer an event with: None for nothing, else a status code."""

    def __init__(self, path, answer=lambda topic: 0):
        self.path, self.answer = path, answer
        self.seen, self.changed, self.connections = [], threading.Condition(), []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(16)
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        reader = connection.makefile("rb")
        while len(header := reader.read(10)) == 10:
            length, stream, kind, _ = struct.unpack(">IIBB", header)
            request = decode(reader.read(length))
            envelope = decode(first(decode(first(request, 3, b"")), 1, b""))
            event = decode(first(envelope, 4, b""))
            topic = first(envelope, 3, b"").decode()
            metadata = {first(decode(pair), 1): first(decode(pair), 2) for pair in request.get(5, [])}
            with self.changed:
                self.seen.append((topic, first(event, 1).decode(), decode(first(event, 2, b"")), first(envelope, 2).decode(), metadata,
                                  first(request, 1).decode(), first(request, 2).decode()))
                self.changed.notify_all()
            code = self.answer(topic)
            if code is None:
                continue
            payload = field(1, field(1, code) + field(2, "no")) if code else b""
            self.answered(connection, struct.pack(">IIBB", len(payload), stream, 2, 0) + payload)

    def answered(self, connection, frame):
        connection.sendall(frame)

    def until(self, count, timeout=20):
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.seen) >= count, timeout), f"{len(self.seen)} of {count}: {self.seen}"
            return [entry[0] for entry in self.seen]

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for connection in self.connections:
            connection.close()
        os.unlink(self.path)


class Caller:
    """Calls the shim's helpers as containerd does, in a bundle as containerd makes it."""

    def __init__(self):
        self.base = tempfile.mkdtemp(prefix="ctrd-v2-", dir="/tmp")
        self.token = self.base.rsplit("-", 1)[1].replace("_", "u")
        self.namespace, self.id = f"ctrd-test-{self.token}", "c1"
        self.address = f"{self.base}/c.sock"
        self.bundle = f"{self.base}/state/{self.namespace}/{self.id}"
        self.program = f"{self.base}/bin/containerd-shim-ctr-v2"
        os.makedirs(f"{self.base}/bin")
        os.makedirs(self.bundle, 0o700)
        os.symlink(BIN / "ctr-shim", self.program)
        os.mkdir(f"{self.bundle}/rootfs")
        shim_client.make_rootfs(f"{self.base}/layer")
        self.scope = hostcheck.Scope(self.base, self.namespace, f"CTRD_TEST_SCOPE={self.token}")
        self.env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "TTRPC_ADDRESS": self.address + ".ttrpc", "CTRD_TEST_SCOPE": self.token}
        self.config(["/bin/sh", "-c", "sleep 1000"])

    def config(self, args, **process):
        caps = ["CAP_KILL", "CAP_SETUID", "CAP_SETGID"]
        document = {
            "ociVersion": "1.0.2", "process": {"user": {"uid": 0, "gid": 0}, "args": args, "cwd": "/", "env": ["PATH=/bin"],
                                               "capabilities": {name: caps for name in ("bounding", "effective", "permitted")}, **process},
            "root": {"path": "rootfs"}, "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"},
                                                      {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]}, PTY_MOUNT],
            "linux": {"cgroupsPath": f"/{self.namespace}/{self.id}", "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")]}}
        with open(f"{self.bundle}/config.json", "w") as file:
            json.dump(document, file)

    def helper(self, *action, stdin=b"", bundle=True, env=None, timeout=20):
        more = ["-bundle", self.bundle] if bundle and action[-1] == "delete" else []
        return subprocess.run([self.program, "-namespace", self.namespace, "-address", self.address, "-publish-binary", "/usr/bin/containerd", "-id", self.id,
                               *more, *action], input=stdin, capture_output=True, env={**self.env, **(env or {})}, timeout=timeout,
                              cwd=self.bundle if os.path.isdir(self.bundle) else "/")

    def start(self, stdin=b""):
        done = self.helper("start", stdin=stdin)
        assert done.returncode == 0 and done.stderr == b"", done
        assert done.stdout.startswith(f"unix://{self.base}/s/".encode()) and b"\n" not in done.stdout, done
        return Client(done.stdout.decode()[7:])

    def mounts(self):
        return field(3, field(1, "bind") + field(2, f"{self.base}/layer") + field(4, "rbind"))

    def create(self, client, mounts=None, extra=b""):
        return first(client.call("Create", field(1, self.id) + field(2, self.bundle) + (self.mounts() if mounts is None else mounts) + extra), 1)

    def run(self, client, **more):
        pid = self.create(client, **more)
        client.call("Start", self.target)
        return pid

    @property
    def target(self):
        return field(1, self.id)

    @property
    def keeper(self):
        return int(shim_client.read_record(f"{self.bundle}/guards")["keeper_pid"])

    @property
    def shim(self):
        return shim_client.eventually(lambda: next((p for p in events.children(self.keeper) if events.comm(p) == "ctr-shim"), None), "a shim")

    def delete(self):
        """status, pid of the helper's answer."""
        began = time.monotonic()
        done = self.helper("delete")
        assert time.monotonic() - began < 5
        assert done.returncode == 0 and done.stderr == b"", done
        fields = decode(done.stdout)
        return first(fields, 2), first(fields, 1)

    def close(self):
        for _ in range(20):
            left = [p for p in hostcheck.own_processes(self.scope) if not hostcheck.is_zombie(p)]
            for pid in sorted(left, key=lambda p: events.comm(p) != "ctr-keeper"):
                try:
                    process = events.Pid(pid)
                except OSError:
                    continue
                process.kill()
                events.readable([process.fd], 5)
            if not left:
                break
        for path in sorted(hostcheck.cgroups(self.scope), key=len, reverse=True):
            try:
                os.rmdir(path)
            except OSError:
                pass
        shutil.rmtree(self.base)


@pytest.fixture
def caller():
    made = Caller()
    try:
        yield made
    finally:
        made.close()


def leftovers(caller):
    found = hostcheck.snapshot(caller.scope)
    return {kind: items for kind, items in found.items() if kind in ("process", "mount", "cgroup", "socket") and items}


# --- helpers

def test_start_prints_the_address_alone_and_leaves_it_in_the_bundle(caller):
    client = caller.start()
    address = open(f"{caller.bundle}/address").read()
    assert address == f"unix://{client.socket.getpeername()}" and os.stat(address[7:]).st_mode & 0o777 == 0o600
    assert os.stat(f"{caller.base}/s").st_mode & 0o777 == 0o700
    again = caller.helper("start")
    assert again.returncode == 0 and again.stdout.decode() == address
    client.call("Shutdown", caller.target)


@pytest.mark.parametrize("stdin", [b"\xff\xff\xff", b"x" * (2 << 20)], ids=["garbage", "too much"])
def test_start_refuses_what_is_no_message_in_one_line(caller, stdin):
    done = caller.helper("start", stdin=stdin)
    assert done.returncode == 1 and done.stderr == b"" and done.stdout.count(b"\n") == 1 and b"standard input" in done.stdout
    assert leftovers(caller) == {}


def test_start_takes_the_parameters_of_newer_containerds(caller):
    other = f"{caller.base}/other.ttrpc"
    service = EventService(other)
    options = field(1, "containerd.runc.v1.Options") + field(2, field(6, "/usr/sbin/runc"))
    params = (field(1, caller.id) + field(2, caller.namespace) + field(4, "2.3.4") + field(5, "unix://" + other)
              + field(8, field(1, options)))
    client = caller.start(stdin=params)
    caller.create(client)
    assert service.until(1) == ["/tasks/create"]
    assert os.path.exists(f"{caller.base}/runc/{caller.namespace}/{caller.id}/state.json")
    caller.delete()
    service.close()


def test_parameters_of_another_container_are_none_of_ours(caller):
    params = field(1, "other") + field(2, caller.namespace)
    done = caller.helper("start", stdin=params)
    assert done.returncode == 1 and b"options of the kind other" in done.stdout


def test_create_may_name_another_runtime_than_start(caller):
    client = caller.start()
    options = field(10, field(1, "containerd.runc.v1.Options") + field(2, field(6, "runc")))
    caller.create(client, extra=options)
    assert os.path.exists(f"{caller.base}/runc/{caller.namespace}/{caller.id}/state.json")
    shim = events.Pid(caller.shim)
    shim.kill_and_wait()
    client = shim_client.eventually(lambda: connected(client), "a new shim")
    client.call("Start", caller.target)
    assert caller.delete()[0] == 137
    assert leftovers(caller) == {}


def connected(client):
    try:
        return Client(client.socket.getpeername())
    except OSError:
        return None


def test_info_and_version(caller):
    done = subprocess.run([caller.program, "-info"], input=field(1, "containerd.runc.v1.Options") + field(2, field(6, "runc")), capture_output=True, env=caller.env)
    info = decode(done.stdout)
    assert done.returncode == 0 and done.stderr == b"" and first(info, 1) == b"io.containerd.ctr.v2"
    features = decode(first(info, 4))
    assert first(features, 1).endswith(b"/features/Features") and "ociVersionMax" in json.loads(first(features, 2))
    assert first(decode(first(info, 3)), 1) == b"containerd.runc.v1.Options"
    done = subprocess.run([caller.program, "-v"], capture_output=True, env=caller.env)
    assert done.returncode == 0 and re.search(rb"^ctr-shim \d+\.\d+", done.stdout)


def test_delete_of_a_running_container_kills_it_and_leaves_nothing(caller):
    client = caller.start()
    pid = caller.create(client)
    client.call("Start", caller.target)
    assert caller.delete() == (137, pid)
    assert leftovers(caller) == {}
    # Everything may be asked for again.
    assert caller.delete()[0] == 137


def test_delete_knows_the_true_status_of_one_that_had_ended(caller):
    caller.config(["/bin/sh", "-c", "exit 42"])
    client = caller.start()
    pid = caller.create(client)
    client.call("Start", caller.target)
    assert first(client.call("Wait", caller.target), 1) == 42
    shim, keeper = events.Pid(caller.shim), events.Pid(caller.keeper)
    keeper.kill_and_wait()
    shim.kill_and_wait()
    assert caller.delete() == (42, pid)


def test_delete_says_unknown_where_nobody_knows(caller):
    client = caller.start()
    pid = caller.create(client)
    client.call("Start", caller.target)
    shim, keeper, init = events.Pid(caller.shim), events.Pid(caller.keeper), events.Pid(pid)
    keeper.kill_and_wait()
    shim.kill_and_wait()
    init.kill_and_wait()
    assert caller.delete() == (255, pid)


@pytest.mark.parametrize("gone", ["shim.env", "guards", "pid", "config.json", "everything", "bundle"])
def test_delete_copes_with_a_bundle_that_is_half_gone(caller, gone):
    client = caller.start()
    pid = caller.create(client)
    client.call("Start", caller.target)
    init = events.Pid(pid)
    shim, keeper = events.Pid(caller.shim), events.Pid(caller.keeper)
    keeper.kill_and_wait()
    shim.kill_and_wait()
    if gone == "bundle":
        shutil.rmtree(caller.bundle)
    elif gone == "everything":
        for name in os.listdir(caller.bundle):
            path = f"{caller.bundle}/{name}"
            shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
    else:
        os.unlink(f"{caller.bundle}/{gone}")
    status, _ = caller.delete()
    assert status == (255 if gone in ("pid", "everything", "bundle") else 137)
    init.wait()
    assert leftovers(caller) == {}


def test_delete_does_not_wait_for_a_shim_that_hangs(caller):
    client = caller.start()
    pid = caller.create(client)
    client.call("Start", caller.target)
    os.kill(caller.shim, signal.SIGSTOP)
    assert caller.delete() == (137, pid)
    assert leftovers(caller) == {}


# --- events

RUNNING, PAUSED = 2, 4
LIFE = ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]


def live(caller, client):
    caller.create(client)
    client.call("Start", caller.target)
    client.call("Kill", caller.target + field(3, 9))
    client.call("Wait", caller.target)
    client.call("Delete", caller.target)


def test_events_say_what_happened(caller):
    service = EventService(caller.address + ".ttrpc")
    client = caller.start()
    live(caller, client)
    assert service.until(4) == LIFE
    for topic, kind, body, namespace, metadata, called, method in service.seen:
        assert namespace == caller.namespace and metadata == {b"containerd-namespace-ttrpc": caller.namespace.encode()}
        assert (called, method) == (TOPICS, "Forward") and first(body, 1) == caller.id.encode()
    kinds = [entry[1] for entry in service.seen]
    assert kinds == ["containerd.events." + name for name in ("TaskCreate", "TaskStart", "TaskExit", "TaskDelete")]
    exit = service.seen[2][2]
    assert first(exit, 2) == caller.id.encode() and first(exit, 4) == 137
    client.call("Shutdown", caller.target)
    caller.delete()
    service.close()


def test_events_wait_for_a_listener_and_come_in_order(caller):
    client = caller.start()
    live(caller, client)
    service = EventService(caller.address + ".ttrpc")
    # A client that comes is a sign of life.
    Client(client.socket.getpeername()).close()
    assert service.until(4) == LIFE
    service.close()
    caller.delete()


def test_events_outlive_the_shim_that_saw_them(caller):
    client = caller.start()
    live_until_exit = caller.create(client), client.call("Start", caller.target), client.call("Kill", caller.target + field(3, 9)), client.call("Wait", caller.target)
    assert live_until_exit
    shim = events.Pid(caller.shim)
    shim.kill_and_wait()
    service = EventService(caller.address + ".ttrpc")
    Client(client.socket.getpeername()).close()
    assert service.until(3) == LIFE[:3]
    service.close()
    caller.delete()


def test_a_listener_that_refuses_or_hangs_holds_up_neither_container_nor_later_events(caller):
    service = EventService(caller.address + ".ttrpc", answer=lambda topic: 3 if topic == "/tasks/start" else 0)
    client = caller.start()
    live(caller, client)
    # Three times, with pauses between, and then it is left out.
    assert [t for t in service.until(6, timeout=30)] == ["/tasks/create"] + ["/tasks/start"] * 3 + ["/tasks/exit", "/tasks/delete"]
    service.close()
    caller.delete()


def test_the_pile_of_events_is_bounded_and_keeps_what_matters(caller):
    client = caller.start()
    caller.create(client)
    client.call("Start", caller.target)
    for _ in range(700):
        client.call("Pause", caller.target)
        client.call("Resume", caller.target)
    client.call("Kill", caller.target + field(3, 9))
    client.call("Wait", caller.target)
    assert os.path.getsize(f"{caller.bundle}/events") <= 256 << 10
    service = EventService(caller.address + ".ttrpc")
    Client(client.socket.getpeername()).close()
    with service.changed:
        assert service.changed.wait_for(lambda: any(entry[0] == "/tasks/exit" for entry in service.seen), 20)
    topics = [entry[0] for entry in service.seen]
    assert topics[:2] == LIFE[:2] and topics[-1] == "/tasks/exit" and len(topics) <= 515
    assert [t for t in topics if t not in LIFE] == (["/tasks/paused", "/tasks/resumed"] * 700)[-(len(topics) - 3):]
    service.close()
    caller.delete()


@pytest.mark.parametrize("call, number", [("pwrite64", 1), ("write", 2), ("sendto", 1), ("none", 0)])
def test_the_end_of_an_exec_is_told_once_wherever_its_shim_was_killed(caller, call, number):
    """Between the exit record and the spool; behind the spool; over the sending; after all of it."""
    service = EventService(caller.address + ".ttrpc")
    client = caller.start()
    caller.run(client)
    exec_ = Exec(caller, client, "e1", "/bin/sh", "-c", "until [ -e /tmp/go ]; do sleep 0.01; done; exit 7", stdout="", stderr="").run()
    service.until(4)
    shim = events.Pid(caller.shim)
    tracer = None
    if call != "none":
        # It answers nothing and writes nothing meanwhile: the next of these calls is about the end.
        tracer = subprocess.Popen(["strace", "-p", str(shim.pid), "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={number}"],
                                  stderr=subprocess.PIPE)
        assert b"attached" in tracer.stderr.readline()
    open(f"{caller.base}/layer/tmp/go", "w").close()
    if tracer:
        shim.wait()
        tracer.wait()
        tracer.stderr.close()
    else:
        service.until(5)
        # Its answer has come: the spool is its head alone.
        shim_client.eventually(lambda: os.path.getsize(f"{caller.bundle}/events") == 16, "the event is out of the spool")
        shim.kill_and_wait()
    assert exec_.wait() == 7
    exec_.delete()
    client.call("Kill", caller.target + field(3, 9))
    client.call("Wait", caller.target)
    client.call("Delete", caller.target)
    with service.changed:
        assert service.changed.wait_for(lambda: any(entry[0] == "/tasks/delete" and not first(entry[2], 5, b"") for entry in service.seen), 20)
    seen = [(topic, first(body, 2)) for topic, _, body, *_ in service.seen]
    assert [entry for entry in seen if entry[1] == b"e1"] == [
        ("/tasks/exec-added", b"e1"), ("/tasks/exec-started", b"e1"), ("/tasks/exit", b"e1")]
    exits = [first(body, 4) for topic, _, body, *_ in service.seen if topic == "/tasks/exit"]
    assert exits == [7, 137]
    client.call("Shutdown", caller.target)
    caller.delete()
    service.close()


@pytest.mark.parametrize("cut", [0, 4], ids=["before the answer", "in the middle of the answer"])
def test_an_event_under_way_comes_once_when_the_shim_becomes_another_program(caller, cut):
    gate, sent = threading.Event(), threading.Event()

    class Slow(EventService):
        """Answers the first event in two parts: `cut` bytes, and the rest when it is told."""

        def answered(self, connection, frame):
            if len(self.seen) == 1:
                connection.sendall(frame[:cut])
                sent.set()
                gate.wait(20)
                frame = frame[cut:]
            connection.sendall(frame)

    service = Slow(caller.address + ".ttrpc")
    client = caller.start()
    caller.create(client)
    assert sent.wait(20)
    for _ in range(2):
        assert first(client.call("Upgrade", field(1, str(BIN / "ctr-shim")), GUARD), 1)
    assert len(service.connections) == len(service.seen) == 1
    gate.set()
    client.call("Start", caller.target)
    client.call("Kill", caller.target + field(3, 9))
    client.call("Wait", caller.target)
    client.call("Delete", caller.target)
    assert service.until(4) == LIFE
    client.call("Shutdown", caller.target)
    caller.delete()
    assert [entry[0] for entry in service.seen] == LIFE
    service.close()


@pytest.mark.parametrize("how", ["killed", "upgraded"])
def test_a_paused_container_is_never_said_to_run(caller, how):
    client = caller.start()
    caller.run(client)
    client.call("Pause", caller.target)
    try:
        shim = events.Pid(caller.shim)
        if how == "killed":
            # Asked before there is a shim that could ask the runtime.
            shim.kill(signal.SIGSTOP)
            asked = client.send(TASK2, "State", caller.target)
            shim.kill_and_wait()
        else:
            upgraded = client.send(GUARD, "Upgrade", field(1, str(BIN / "ctr-shim")))
            asked = client.send(TASK2, "State", caller.target)
            assert first(client.answer(upgraded), 1)
        assert first(client.answer(asked), 4) == PAUSED
        client.call("Resume", caller.target)
        assert first(client.call("State", caller.target), 4) == RUNNING
    finally:
        # What is frozen does not die of a signal.
        assert caller.delete()[0] == 137


# --- options and mounts

def test_pipes_belong_to_whom_the_options_say(caller):
    """Seen before the runtime runs, which gives them to the container's user and keeps the group; and of an exec."""
    caller.config(["/bin/sleep", "1000"], user={"uid": 1000, "gid": 1000})
    client = caller.start(stdin=field(1, "containerd.runc.v1.Options") + field(2, field(4, 1234) + field(5, 4321)))
    for number in (7, 8, 9, 10):
        status = os.stat(f"/proc/{caller.keeper}/fd/{number}")
        assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (1234, 4321, 0o622)
    path = f"{caller.base}/out"
    pid = caller.run(client, extra=field(5, "") + field(6, f"file://{path}") + field(7, f"file://{path}"))
    exec_ = Exec(caller, client, "e1", "/bin/sleep", "1000", user={"uid": 1000, "gid": 1000}, stdout=f"file://{path}", stderr=f"file://{path}").run()
    for process in (pid, exec_.pid):
        owners = [(s.st_uid, s.st_gid) for s in (os.stat(f"/proc/{process}/fd/{number}") for number in (1, 2))]
        assert owners == [(1000, 4321)] * 2
    caller.delete()


def mount(kind, source, *options, target=""):
    return field(3, field(1, kind) + field(2, source) + field(3, target) + b"".join(field(4, option) for option in options))


def test_a_root_file_system_of_several_mounts_is_made_in_their_order(caller):
    """One on the other, and one inside the other; a link in the image leads nowhere outside; all of it goes with the container."""
    base = caller.base
    for name in ("lower/etc", "lower/data", "upper", "work", "data/deep", "deep"):
        os.makedirs(f"{base}/{name}")
    shutil.copytree(f"{base}/layer", f"{base}/lower", symlinks=True, dirs_exist_ok=True)
    for name in ("lower/in-lower", "data/in-data", "deep/in-deep"):
        open(f"{base}/{name}", "w").close()
    os.symlink("/", f"{base}/lower/outside")
    os.makedirs(f"{base}/lower/etc/there")
    overlay = mount("overlay", "overlay", f"lowerdir={base}/lower", f"upperdir={base}/upper", f"workdir={base}/work")
    mounts = (overlay + mount("bind", f"{base}/data", "rbind", "ro", target="/data") + mount("bind", f"{base}/deep", "rbind", target="/data/deep")
              + mount("tmpfs", "tmpfs", "size=1m", target="/outside/etc/there"))
    script = ("ls /in-lower /data/in-data /data/deep/in-deep; echo x > /written; echo x > /data/no; echo x > /data/deep/yes; echo x > /etc/there/yes; "
              "ls /data /etc/there /data/deep")
    caller.config(["/bin/sh", "-c", script])
    client, path = caller.start(), f"{base}/out"
    caller.run(client, mounts=mounts, extra=field(6, f"file://{path}"))
    client.call("Wait", caller.target)
    shown = shim_client.eventually(lambda: (t := open(path).read()).endswith("yes\n") and t, "the output")
    assert shown.split() == "/data/deep/in-deep /data/in-data /in-lower /data: deep in-data /data/deep: in-deep yes /etc/there: yes".split()
    assert os.path.exists(f"{base}/upper/written") and os.path.exists(f"{base}/deep/yes") and not os.path.exists(f"{base}/data/no")
    assert not os.path.exists("/etc/there") and os.listdir(f"{base}/lower/etc/there") == []
    caller.delete()
    assert leftovers(caller) == {}


def test_a_mount_that_cannot_be_made_leaves_none_and_create_can_be_repeated(caller):
    client = caller.start()
    with pytest.raises(Failure) as caught:
        caller.create(client, mounts=caller.mounts() + mount("bind", "/no/such/source", "rbind", target="/tmp"))
    assert "/no/such/source" in caught.value.message
    with pytest.raises(Failure) as caught:
        caller.create(client, mounts=caller.mounts() + mount("bind", caller.base, "rbind", target="/no/such/target"))
    assert "/no/such/target" in caught.value.message
    assert caller.base not in open(f"/proc/{caller.shim}/mountinfo").read().replace(caller.bundle, "")
    caller.run(client)
    assert caller.delete()[0] == 137
    assert leftovers(caller) == {}


# --- streams

def test_delete_waits_for_a_reader_that_is_behind(caller):
    """The process has ended; more is on the way than its FIFO takes, and the shim goes once the task is deleted."""
    path = f"{caller.base}/out"
    os.mkfifo(path)
    caller.config(["/bin/sh", "-c", "seq 1 20000; exit 3"])
    client = caller.start()
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as reader:
        caller.run(client, extra=field(6, path))
        assert first(client.call("Wait", caller.target), 1) == 3
        deleting = client.send(TASK2, "Delete", caller.target)
        assert not events.readable([client.socket], 0.5)
        os.set_blocking(reader.fileno(), True)
        assert reader.readall() == b"".join(b"%d\n" % n for n in range(1, 20001))
        assert first(client.answer(deleting), 2) == 3
    client.call("Shutdown", caller.target)
    assert caller.delete()[0] == 3


# --- terminals with a logger

LOGGER = """#!/usr/bin/python3
import os, sys
out = open(sys.argv[2], "wb", buffering=0)
os.close(5)
open(sys.argv[4]).close()
for fd in (3, 4):
    while data := os.read(fd, 65536):
        out.write(data if fd == 3 else b"on 4: " + data)
out.write(b"end")
"""


@contextlib.contextmanager
def logger(caller, name):
    """Address of a logger that reads once it is told, where it writes to, and how it is told."""
    program, path, gate = f"{caller.base}/logger", f"{caller.base}/{name}.logged", f"{caller.base}/{name}.gate"
    with open(program, "w") as file:
        file.write(LOGGER)
    os.chmod(program, 0o755)
    os.mkfifo(gate)
    yield f"binary://{program}?to={path}&gate={gate}", path, lambda: open(gate, "w").close()


def of_logger(caller):
    """Its process: one that has its program's name, and not any more the shim's."""
    return shim_client.eventually(lambda: next((p for p in hostcheck.pids() if events.cmdline(p)[1:2] == [f"{caller.base}/logger"]), None), "the logger")


def full(pipe):
    """Whether a pipe takes no more."""
    with open(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK), "wb", buffering=0) as end:
        poller = select.poll()
        poller.register(end, select.POLLOUT)
        return not poller.poll(0)


def ticks(pid):
    return sum(int(value) for value in events.stat_fields(pid)[11:13])


@pytest.mark.parametrize("which", ["first", "exec"])
def test_the_output_of_a_terminal_goes_to_a_program(caller, which):
    """Slowly: the pipe fills, the process waits, the shim does not; a killed shim and an upgraded one cost and repeat no byte."""
    script = ["/bin/sh", "-c", "seq 1 40000; read x; echo got $x; exit 3"]
    stdin = f"{caller.base}/stdin"
    os.mkfifo(stdin)
    with logger(caller, "t") as (address, path, let_go):
        streams = field(4, True) + field(5, stdin) + field(6, address)
        caller.config(script if which == "first" else ["/bin/sleep", "1000"], terminal=which == "first")
        client = caller.start()
        caller.run(client, extra=streams if which == "first" else b"")
        target = caller.target
        if which == "exec":
            target = Exec(caller, client, "e", *script, stdin=stdin, stdout=address, stderr="", terminal=True).run().target
        status = client.send(TASK2, "Wait", target)
        typed = open(stdin, "w")
        pipe = f"/proc/{of_logger(caller)}/fd/3"
        shim_client.eventually(lambda: full(pipe), "the pipe is full")
        before, shim = ticks(caller.shim), events.Pid(caller.shim)
        assert not events.readable([shim.fd], 0.5) and ticks(caller.shim) - before < 10
        shim.kill_and_wait()
        assert first(client.call("State", target), 4) == 2 and full(pipe)
        assert first(client.call("Upgrade", field(1, str(BIN / "ctr-shim")), GUARD), 1)
        let_go()
        # An echo before that would be in the middle of it.
        shim_client.eventually(lambda: b"\r\n40000\r\n" in open(path, "rb").read(), "the last number")
        typed.write("hello\n")
        typed.close()
        assert first(client.answer(status), 1) == 3
        text = shim_client.eventually(lambda: (t := open(path, "rb").read()).endswith(b"end") and t, "the end of the log")
        lines = text[:-3].decode().replace("\r\n", "\n").split("\n")
        assert lines[:40000] == [str(n) for n in range(1, 40001)] and sorted(lines[40000:]) == ["", "got hello", "hello"]
        if which == "exec":
            assert first(client.call("Delete", target), 2) == 3
        assert caller.delete()[0] == (3 if which == "first" else 137)
    assert leftovers(caller) == {}


def test_what_a_terminal_wrote_last_waits_for_a_slow_program(caller):
    """The container has ended while its logger's pipe was full, and the two seconds are over that a terminal is listened to then."""
    caller.config(["/bin/sh", "-c", "seq 1 40000 & until [ -e /tmp/go ]; do sleep 0.02; done; exit 5"], terminal=True)
    with logger(caller, "t") as (address, path, let_go):
        client = caller.start()
        pid = caller.run(client, extra=field(4, True) + field(6, address))
        pipe = f"/proc/{of_logger(caller)}/fd/3"
        writer = shim_client.eventually(lambda: next((p for p in events.children(pid) if events.comm(p) == "seq"), None), "the writer")
        shim_client.eventually(lambda: full(pipe) and events.stat_fields(writer)[0] == "S", "everything is full")
        written = int(re.search(r"^wchar: (\d+)", open(f"/proc/{writer}/io").read(), re.M).group(1))
        open(f"/proc/{pid}/root/tmp/go", "w").close()
        assert first(client.call("Wait", caller.target), 1) == 5
        shim = events.Pid(caller.shim)
        assert not events.readable([shim.fd], 2.5)
        let_go()
        text = shim_client.eventually(lambda: (t := open(path, "rb").read()).endswith(b"end") and t, "the end of the log")
        text = text[:-3].replace(b"\r\n", b"\n")
        assert len(text) >= written and b"".join(b"%d\n" % n for n in range(1, 40001)).startswith(text)
        assert caller.delete()[0] == 5


def test_an_exec_whose_logger_dies_waits_and_is_not_ended(caller):
    client = caller.start()
    caller.run(client)
    with logger(caller, "t") as (address, path, let_go):
        exec_ = Exec(caller, client, "e", "/bin/sh", "-c", "echo one; read x < /tmp/go; echo two; exit 6", stdout=address, stderr=address)
        os.mkfifo(f"{caller.base}/layer/tmp/go")
        exec_.run()
        running = events.Pid(of_logger(caller))
        running.kill_and_wait()
        events.Pid(caller.shim).kill_and_wait()
        assert first(client.call("State", exec_.target), 4) == 2
        with open(f"/proc/{exec_.pid}/root/tmp/go", "w") as file:
            file.write("x\n")
        assert exec_.wait() == 6
        assert exec_.delete() == 6
    caller.delete()


# --- the wire

def failure(client, stream):
    with pytest.raises(Failure) as caught:
        client.answer(stream)
    return caught.value


@pytest.mark.parametrize("service", [TASK2, TASK3])
def test_both_services_answer_and_what_is_missing_is_unimplemented(caller, service):
    client = caller.start()
    assert first(client.call("Connect", caller.target, service=service), 1) == caller.shim
    for name, method in ((service, "Checkpoint"), (service, "NoSuch"), ("containerd.task.v9.Task", "State")):
        assert failure(client, client.send(name, method, caller.target)).code == UNIMPLEMENTED
    assert failure(client, client.send(service, "State", caller.target)).code == NOT_FOUND
    client.call("Shutdown", caller.target, service=service)


def test_bad_frames_are_answered_and_the_connection_goes_on(caller):
    client = caller.start()
    request = field(1, TASK2) + field(2, "Connect") + field(3, caller.target)
    client.frame(2, 1, request)
    assert failure(client, 2).code == INVALID
    client.frame(5, 1, b"\xff\xff")
    assert failure(client, 5).code == INVALID
    client.frame(5, 1, request)
    assert failure(client, 5).code == INVALID
    client.frame(7, 3, b"data nobody asked for")
    client.frame(9, 9, b"a type of the future")
    client.stream = 11
    assert first(client.call("Connect", caller.target), 1) == caller.shim
    client.frame(client.stream, 1, b"\0" * ((4 << 20) + 1))
    assert failure(client, client.stream).code == EXHAUSTED
    client.stream += 2
    assert first(client.call("Connect", caller.target), 1) == caller.shim
    # A request in crumbs.
    raw = struct.pack(">IIBB", len(request), client.stream, 1, 0) + request
    for at in range(len(raw)):
        client.socket.sendall(raw[at:at + 1])
    assert first(client.answer(client.stream), 1) == caller.shim
    client.stream += 2
    client.call("Shutdown", caller.target)


def test_a_deadline_ends_the_wait_and_nothing_else(caller):
    client = caller.start()
    caller.create(client)
    client.call("Start", caller.target)
    assert failure(client, client.send(TASK2, "Wait", caller.target, timeout_ns=200_000_000)).code == DEADLINE
    wait = client.send(TASK2, "Wait", caller.target)
    client.call("Kill", caller.target + field(3, 9))
    assert first(client.answer(wait), 1) == 137
    caller.delete()


def test_a_call_is_answered_once_through_any_number_of_shims(caller):
    client = caller.start()
    pid = caller.create(client)
    client.call("Start", caller.target)
    waits = [client.send(TASK2, "Wait", caller.target) for _ in range(20)]
    other = Client(client.socket.getpeername())
    for _ in range(5):
        events.Pid(caller.shim).kill_and_wait()
        assert first(other.call("State", caller.target), 4) == 2
    assert first(client.call("Connect", caller.target), 2) == pid
    client.call("Kill", caller.target + field(3, 9))
    assert [first(client.answer(wait), 1) for wait in waits] == [137] * 20
    client.socket.settimeout(0.3)
    with pytest.raises(TimeoutError):
        client.socket.recv(1)
    assert os.path.getsize(f"{caller.bundle}/calls") == 0
    caller.delete()


def test_a_large_request_works_and_its_connection_is_an_ordinary_one(caller):
    client = caller.start()
    caller.create(client, extra=field(99, b"x" * 300_000))
    other = Client(client.socket.getpeername())
    assert first(other.call("State", caller.target), 4) == 1
    events.Pid(caller.shim).kill_and_wait()
    assert client.socket.recv(1) == b""
    assert first(other.call("State", caller.target), 4) == 1
    assert GUARD and zlib
    caller.delete()


@pytest.mark.parametrize("damage", [b"", b"\0" * 7, b"\xff" * 64, os.urandom(300)], ids=["empty", "torn", "ones", "noise"])
@pytest.mark.parametrize("name", ["calls", "events"])
def test_a_damaged_journal_costs_its_content_and_no_container(caller, name, damage):
    client = caller.start()
    pid = caller.create(client)
    client.call("Start", caller.target)
    shim = events.Pid(caller.shim)
    shim.kill(signal.SIGSTOP)
    with open(f"{caller.bundle}/{name}", "r+b") as file:
        file.truncate(0)
        file.write(damage)
    shim.kill_and_wait()
    assert first(client.call("Connect", caller.target), 2) == pid
    caller.delete()
