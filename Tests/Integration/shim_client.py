"""A ttrpc client of the shim, its messages encoded by hand, and a container's directories as ctrd would make them."""

import ctypes
import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import time
import zlib

REPO = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TASK2, TASK3, GUARD = "containerd.task.v2.Task", "containerd.task.v3.Task", "ctr.shim.v1.Guard"
OK, CANCELLED, UNKNOWN, INVALID, DEADLINE, NOT_FOUND, EXISTS = 0, 1, 2, 3, 4, 5, 6
EXHAUSTED, PRECONDITION, UNIMPLEMENTED = 8, 9, 12


# --- protobuf -------------------------------------------------------------------------------------------------------

def varint(n):
    n &= (1 << 64) - 1
    out = b""
    while n >= 0x80:
        out += bytes([n & 0x7F | 0x80])
        n >>= 7
    return out + bytes([n])


def field(number, value):
    if isinstance(value, bool):
        value = int(value)
    if isinstance(value, int):
        return varint(number << 3) + varint(value) if value else b""
    if isinstance(value, str):
        value = value.encode()
    return varint(number << 3 | 2) + varint(len(value)) + value if value else b""


def decode(data):
    """Field number -> list of values."""
    fields, at = {}, 0

    def number():
        nonlocal at
        n = shift = 0
        while True:
            byte = data[at]
            at += 1
            n |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return n

    while at < len(data):
        key = number()
        if key & 7 == 0:
            value = number()
        elif key & 7 == 2:
            length = number()
            value, at = data[at:at + length], at + length
        else:
            raise ValueError(f"wire type {key & 7}")
        fields.setdefault(key >> 3, []).append(value)
    return fields


def first(fields, number, default=0):
    return fields.get(number, [default])[0]


def signed(n):
    return n - (1 << 64) if n >= 1 << 63 else n


class Failure(Exception):
    def __init__(self, code, message):
        super().__init__(f"{code}: {message}")
        self.code, self.message = code, message


# --- ttrpc ----------------------------------------------------------------------------------------------------------

class Client:
    def __init__(self, path, timeout=20):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout)
        self.socket.connect(path)
        self.stream, self.answers = 1, {}

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def frame(self, stream, kind, data, flags=0):
        self.socket.sendall(struct.pack(">IIBB", len(data), stream, kind, flags) + data)

    def send(self, service, method, payload=b"", timeout_ns=0):
        stream, self.stream = self.stream, self.stream + 2
        self.frame(stream, 1, field(1, service) + field(2, method) + field(3, payload) + field(4, timeout_ns))
        return stream

    def _exactly(self, count):
        data = b""
        while len(data) < count:
            got = self.socket.recv(count - len(data))
            if not got:
                raise ConnectionError("closed")
            data += got
        return data

    def answer(self, stream):
        while stream not in self.answers:
            length, of, kind, _ = struct.unpack(">IIBB", self._exactly(10))
            assert kind == 2, kind
            self.answers[of] = self._exactly(length)
        fields = decode(self.answers.pop(stream))
        status = decode(first(fields, 1, b""))
        if first(status, 1):
            raise Failure(first(status, 1), first(status, 2, b"").decode())
        return decode(first(fields, 2, b""))

    def call(self, method, payload=b"", service=TASK2, timeout_ns=0):
        return self.answer(self.send(service, method, payload, timeout_ns))


# --- records and logs -----------------------------------------------------------------------------------------------

def write_record(path, kind, **fields):
    text = f"ctr-record 1 {kind}\n" + "".join(f"{k} {v}\n" for k, v in fields.items())
    with open(path, "w") as file:
        file.write(f"{text}crc32 {zlib.crc32(text.encode()):08x}\n")


def read_record(path):
    try:
        data = open(path, "rb").read()
    except FileNotFoundError:
        return None
    body, last = data[:-15], data[-15:]
    assert last == b"crc32 %08x\n" % zlib.crc32(body), path
    lines = body.decode().splitlines()
    assert lines[0].startswith("ctr-record 1 ")
    return dict(line.split(" ", 1) for line in lines[1:])


def log_entries(directory):
    data = open(f"{directory}/index", "rb").read()
    entries = []
    for at in range(0, len(data) // 40 * 40, 40):
        entry = data[at:at + 40]
        magic, stream, flags, zero, segment, length, offset, when, boot, crc = struct.unpack("<IBBHIIQqII", entry)
        assert magic == 0x4C525443 and zero == 0 and crc == zlib.crc32(entry[:36])
        entries.append((stream, flags, segment, length, offset, when))
    assert len(data) % 40 == 0
    return entries


def log_bytes(directory, stream):
    """What the index says was written; asserts that entries tile the segments."""
    out, ends = b"", {}
    for of, flags, segment, length, offset, _ in log_entries(directory):
        if of != stream or flags & 6:
            continue
        assert offset == ends.get(segment, 0), "entries do not tile the segment"
        ends[segment] = offset + length
        with open(f"{directory}/{'stdout' if stream == 1 else 'stderr'}.{segment:06d}", "rb") as file:
            file.seek(offset)
            data = file.read(length)
        assert len(data) == length
        out += data
    return out


def log_ended(directory):
    return {entry[0] for entry in log_entries(directory) if entry[1] & 4} == {1, 2}


# --- processes ------------------------------------------------------------------------------------------------------

def eventually(check, what, timeout=10):
    end = time.monotonic() + timeout
    while True:
        value = check()
        if value:
            return value
        assert time.monotonic() < end, f"not within {timeout} s: {what}"
        # A change of parent, of a process's state or of a cgroup's members is no event that a stranger can wait for: looked at again, within a bound.
        select.select([], [], [], 0.005)


def stat(pid):
    """State, parent and start time; None when there is no such process."""
    try:
        text = open(f"/proc/{pid}/stat").read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text[text.rindex(")") + 2:].split()
    return fields[0], int(fields[1]), int(fields[19])


def children(pid):
    try:
        return [int(p) for p in open(f"/proc/{pid}/task/{pid}/children").read().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def alive(pid):
    found = stat(pid)
    return found is not None and found[0] not in "ZX"


def argv(pid):
    """The arguments of a process; none when it is gone."""
    try:
        return open(f"/proc/{pid}/cmdline", "rb").read().decode().split("\0")[:-1]
    except (FileNotFoundError, ProcessLookupError):
        return []


# --- a container's directories ----------------------------------------------------------------------------------------

BUSYBOX = "/bin/busybox"


def hierarchies():
    """Where control groups are mounted."""
    return [line.split()[4] for line in open("/proc/self/mountinfo") if " - cgroup" in line]


def make_rootfs(path):
    os.makedirs(f"{path}/bin", exist_ok=True)
    for directory in ("proc", "dev", "sys", "tmp", "etc"):
        os.makedirs(f"{path}/{directory}", exist_ok=True)
    shutil.copy(BUSYBOX, f"{path}/bin/busybox")
    for name in "sh true false echo sleep cat ls kill seq env id dd head yes trap mkdir".split():
        if not os.path.lexists(f"{path}/bin/{name}"):
            os.symlink("busybox", f"{path}/bin/{name}")


class Container:
    """Directories as docs/architecture.md has them, in roots of the test's own."""

    count = 0

    def __init__(self, base, programs, args, runtime="/usr/sbin/runc", mode="mounted", uid=0, segment_bytes=None, mounts=None):
        Container.count += 1
        self.base, self.programs = base, programs
        self.id, self.namespace, self.parent = f"c{os.getpid()}-{Container.count}", "test", f"ctr-shim-test-{os.getpid()}"
        self.state, self.root = f"{base}/state", f"{base}/root"
        self.bundle = f"{self.state}/{self.namespace}/{self.id}"
        self.directory = f"{self.root}/containers/{self.namespace}/{self.id}/1"
        self.log = f"{self.directory}/log"
        self.runtime, self.runtime_root = runtime, f"{self.state}/runtime/{self.namespace}"
        for path in (f"{self.state}/s", f"{self.bundle}/rootfs", self.runtime_root, self.directory):
            os.makedirs(path, 0o700, exist_ok=True)
        self.socket = f"{self.state}/s/{self.id}"
        lower = f"{base}/layer"
        if not os.path.exists(lower):
            make_rootfs(lower)
        snapshot = f"{self.root}/snapshots/{self.id}"
        for name in ("upper", "work"):
            os.makedirs(f"{snapshot}/{name}")
        self.mounts = mounts if mounts is not None else [("overlay", "overlay", [
            f"lowerdir={lower}", f"upperdir={snapshot}/upper", f"workdir={snapshot}/work"])]
        self.config(args, uid, mode)
        extra = {"segment_bytes": segment_bytes} if segment_bytes else {}
        write_record(f"{self.bundle}/shim.env", "start", runtime=runtime, runtime_root=self.runtime_root, rootfs_mode=mode,
                     socket=self.socket, incarnation_dir=self.directory, **extra)
        self.clients = []

    def config(self, args, uid, mode):
        caps = ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_SETGID", "CAP_DAC_OVERRIDE"]
        config = {
            "ociVersion": "1.0.2", "hostname": "test",
            "process": {
                "terminal": False, "user": {"uid": uid, "gid": uid}, "args": args, "cwd": "/", "env": ["PATH=/bin", "HOME=/"],
                "capabilities": {name: caps for name in ("bounding", "effective", "permitted")}, "noNewPrivileges": True},
            "root": {"path": "rootfs", "readonly": False},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"]}],
            "linux": {
                "cgroupsPath": f"/{self.parent}/{self.namespace}/{self.id}",
                "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "network")]},
            "annotations": {"org.ctrd.rootfs.fd": "3"} if mode == "detached" else {}}
        with open(f"{self.bundle}/config.json", "w") as file:
            json.dump(config, file)

    # --- guards

    def helper(self, action="start"):
        return subprocess.run(
            [f"{self.programs}/ctr-shim", "-namespace", self.namespace, "-id", self.id, "-address", f"{self.base}/none.sock",
             "-bundle", self.bundle, action], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            cwd=self.bundle, start_new_session=True, timeout=30)

    def start_guards(self):
        result = self.helper()
        assert result.returncode == 0, result.stdout + result.stderr
        assert result.stdout == f"unix://{self.socket}".encode() and result.stderr == b""
        return self

    @property
    def keeper(self):
        record = read_record(f"{self.bundle}/guards")
        return int(record["keeper_pid"]) if record else None

    @property
    def shim(self):
        return next((p for p in children(self.keeper) if stat(p) and argv(p)[:1] == ["ctr-shim"]), None)

    def client(self):
        client = Client(self.socket)
        self.clients.append(client)
        return client

    def connect(self):
        """A client of a shim that answers: a starting one leaves callers in the listening socket's queue."""
        return eventually(self._try, "shim answers")

    def _try(self):
        try:
            client = self.client()
            client.call("Info", service=GUARD)
            return client
        except (ConnectionError, FileNotFoundError):
            return None

    # --- messages

    @property
    def target(self):
        return field(1, self.id)

    def create_message(self):
        mounts = b"".join(
            field(3, field(1, kind) + field(2, source) + b"".join(field(4, option) for option in options))
            for kind, source, options in self.mounts)
        return self.target + field(2, self.bundle) + mounts

    def create(self, client):
        return first(client.call("Create", self.create_message()), 1)

    def start(self, client):
        return first(client.call("Start", self.target), 1)

    def wait(self, client, **options):
        return first(client.call("Wait", self.target, **options), 1)

    def kill(self, client, number=signal.SIGKILL, everything=False):
        client.call("Kill", self.target + field(3, int(number)) + field(4, everything))

    def delete(self, client):
        return first(client.call("Delete", self.target), 2)

    def shutdown(self, client):
        try:
            client.call("Shutdown", self.target + field(2, True))
        except ConnectionError:
            pass

    def info(self, client):
        names = {1: "shim_pid", 2: "keeper_pid", 3: "version", 4: "task_pid", 5: "task_start_time", 6: "exited", 7: "exit_status",
                 8: "exit_source", 9: "exited_at_ns", 10: "oom_killed", 11: "started", 12: "shim_restarts"}
        fields = client.call("Info", service=GUARD)
        out = {name: first(fields, number) for number, name in names.items()}
        out["exit_source"] = out["exit_source"].decode() if out["exit_source"] else ""
        return out

    def run(self):
        """Guards, Create, Start; returns a client and init's pid."""
        client = self.start_guards().client()
        pid = self.create(client)
        assert self.start(client) == pid
        return client, pid

    @property
    def exit(self):
        return read_record(f"{self.directory}/exit")

    # --- the end

    def clean_up(self):
        """Whatever the test left of it, ended by pid."""
        for client in self.clients:
            client.close()
        guards = [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if self.directory in argv(pid)]
        # Keepers first: they start nothing any more.
        guards.sort(key=lambda pid: "keeper" not in "".join(argv(pid)[:1]))
        init = read_record(f"{self.bundle}/pid")
        if init and stat(int(init["pid"])) and stat(int(init["pid"]))[2] == int(init["start_time"]):
            guards.append(int(init["pid"]))
        for pid in guards:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        subprocess.run([self.runtime, "--root", self.runtime_root, "delete", "--force", self.id], capture_output=True, timeout=20)
        for hierarchy in hierarchies():
            for path in (f"{self.namespace}/{self.id}", f"shims/{self.id}", self.namespace, "shims", ""):
                directory = f"{hierarchy}/{self.parent}/{path}"
                if not os.path.isdir(directory):
                    continue
                # Execs that were killed with their shim leave groups of their own below the container's.
                inside = [os.path.join(directory, name) for name in os.listdir(directory) if path.endswith(self.id) and name.startswith("exec-")]
                for group in (*inside, directory):
                    eventually(lambda: not open(f"{group}/cgroup.procs").read(), f"{group} is empty")
                    try:
                        os.rmdir(group)
                    except OSError:
                        pass


def become_subreaper():
    """So that what guards leave behind comes to the test, which reaps it."""
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
