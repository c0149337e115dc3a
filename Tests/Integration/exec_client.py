"""Execs, terminals and standard input as a manager asks the shim for them: messages by hand, over shim_client."""
import json
import os

from shim_client import GUARD, TASK2, decode, eventually, field, first, log_bytes, log_ended, read_record

PTY_MOUNT = {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]}


def with_terminals(container, terminal=False):
    """A container that has /dev/pts; `terminal`: its first process has one."""
    path = f"{container.bundle}/config.json"
    with open(path) as file:
        config = json.load(file)
    config["mounts"].append(PTY_MOUNT)
    config["process"]["terminal"] = terminal
    with open(path, "w") as file:
        json.dump(config, file)
    return container


class Exec:
    """One exec of a container; `client` is whose connection its calls take."""

    def __init__(self, container, client, name, *args, stdin="", stdout="log:", stderr="log:", terminal=False, **process):
        self.container, self.client, self.name = container, client, name
        self.directory = f"{container.bundle}/exec/{name}"
        self.log = f"{self.directory}/log"
        self.spec = {"terminal": terminal, "user": {"uid": 0, "gid": 0}, "args": list(args), "cwd": "/", "env": ["PATH=/bin", "HOME=/"], **process}
        self.streams = field(3, terminal) + field(4, stdin) + field(5, stdout) + field(6, stderr)

    @property
    def target(self):
        return self.container.target + field(2, self.name)

    def add(self):
        spec = field(1, "types.containerd.io/opencontainers/runtime-spec/1/Process") + field(2, json.dumps(self.spec))
        self.client.call("Exec", self.target + self.streams + field(7, spec))
        return self

    def start(self):
        return first(self.client.call("Start", self.target), 1)

    def run(self):
        self.add().start()
        return self

    def sent_start(self):
        return self.client.send(TASK2, "Start", self.target)

    def wait(self, **options):
        return first(self.client.call("Wait", self.target, **options), 1)

    def state(self):
        return self.client.call("State", self.target)

    def kill(self, number=9, everything=False):
        self.client.call("Kill", self.target + field(3, int(number)) + field(4, everything))

    def delete(self):
        return first(self.client.call("Delete", self.target), 2)

    def resize(self, width, height):
        self.client.call("ResizePty", self.target + field(3, width) + field(4, height))

    def close_io(self):
        self.client.call("CloseIO", self.target + field(3, True))

    # --- Guard

    def input_message(self, data, offset=0, append=False, close=False):
        return (field(1, self.name) if self.name else b"") + field(2, data) + field(3, offset) + field(4, append) + field(5, close)

    def write(self, data, offset=0, append=False, close=False, **options):
        """(offset behind what is held, whether it is closed)"""
        answer = self.client.call("WriteInput", self.input_message(data, offset, append, close), GUARD, **options)
        return first(answer, 1), first(answer, 2)

    def send_write(self, data, **options):
        return self.client.send(GUARD, "WriteInput", self.input_message(data, **options))

    def wait_log(self, size=0, **options):
        """(index size, whether the output has ended)"""
        answer = self.client.call("WaitLog", field(1, size) + field(2, self.name), GUARD, **options)
        return first(answer, 1), first(answer, 2)

    def output(self, stream=1):
        """What it has written, once both streams have ended."""
        size, ended = 0, 0
        while not ended:
            size, ended = self.wait_log(size)
        assert log_ended(self.log)
        return log_bytes(self.log, stream)

    def until(self, text, stream=1):
        """What it has written, once that has `text` in it."""
        size, ended = 0, 0
        while True:
            data = log_bytes(self.log, stream) if size else b""
            if text in data:
                return data
            assert not ended, data[-300:]
            size, ended = self.wait_log(size)

    @property
    def record(self):
        return read_record(f"{self.directory}/exec")

    @property
    def exit(self):
        return read_record(f"{self.directory}/exit")

    @property
    def pid(self):
        return int(read_record(f"{self.directory}/pid")["pid"])


def processes(client):
    """Guard.Processes as dictionaries."""
    names = {1: "exec_id", 2: "pid", 3: "start_time", 4: "terminal", 5: "input_open", 6: "exited", 7: "exit_status", 8: "exit_source",
             9: "exited_at_ns", 10: "created_at_ns", 11: "stdout"}
    found = []
    for message in client.call("Processes", service=GUARD).get(1, []):
        fields = decode(message)
        entry = {name: first(fields, number) for number, name in names.items()}
        found.append({key: value.decode() if isinstance(value, bytes) else value for key, value in entry.items()})
    return found


def descriptors(pid):
    """What a process has open; pipes by their kind, and without sockets, which are its clients' matter, and /dev/null, which keeps numbers taken."""
    links = [os.readlink(f"/proc/{pid}/fd/{number}") for number in os.listdir(f"/proc/{pid}/fd")]
    return sorted(link.partition("[")[0] for link in links if not link.startswith(("socket:", "/dev/null")))


def restarted(container, old):
    """A client of the shim that follows a killed one."""
    eventually(lambda: container.shim not in (None, old), "keeper starts a shim")
    return container.connect()
