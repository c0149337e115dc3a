"""Waiting for things to happen, each with a deadline and none with a sleep: pidfds, inotify, and output as it comes."""
import ctypes
import errno
import os
import re
import select
import signal
import struct
import time
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
IN_MODIFY, IN_MOVED_TO, IN_CREATE, IN_DELETE, IN_DELETE_SELF = 0x2, 0x80, 0x100, 0x200, 0x400


class Late(AssertionError):
    """What was waited for did not happen in time."""


class Deadline:
    def __init__(self, seconds):
        self.end = time.monotonic() + seconds
        self.seconds = seconds

    def left(self, what):
        rest = self.end - time.monotonic()
        if rest <= 0:
            raise Late(f"{what}: not within {self.seconds:g} s")
        return rest


class Inotify:
    def __init__(self, path, mask=IN_MOVED_TO | IN_CREATE | IN_MODIFY | IN_DELETE):
        self.fd = _libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        if _libc.inotify_add_watch(self.fd, os.fsencode(path), mask) < 0:
            code = ctypes.get_errno()
            os.close(self.fd)
            raise OSError(code, os.strerror(code), str(path))

    def drain(self):
        names = []
        while True:
            try:
                data = os.read(self.fd, 65536)
            except BlockingIOError:
                return names
            at = 0
            while at < len(data):
                _, mask, _, length = struct.unpack_from("iIII", data, at)
                names.append((mask, data[at + 16:at + 16 + length].rstrip(b"\0").decode()))
                at += 16 + length

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self.fd)


def readable(fds, seconds):
    poller = select.poll()
    for fd in fds:
        poller.register(fd, select.POLLIN)
    return [fd for fd, _ in poller.poll(max(0, seconds) * 1000)]


def wait_file(path, holds=os.path.exists, timeout=20, pidfd=None):
    """Until holds(path), looked at whenever its directory changes. Ends early with ProcessLookupError when pidfd's process ends first."""
    path, deadline = Path(path), Deadline(timeout)
    while not path.parent.is_dir():
        wait_file(path.parent, timeout=deadline.left(path.parent), pidfd=pidfd)
    with Inotify(path.parent) as watch:
        while True:
            watch.drain()
            value = holds(path)
            if value:
                return value
            ready = readable([watch.fd] + ([pidfd] if pidfd is not None else []), deadline.left(path))
            if pidfd in ready and watch.fd not in ready and not holds(path):
                raise ProcessLookupError(f"the process ended before {path} was there")


def has_text(text):
    def holds(path):
        try:
            return text in Path(path).read_text(errors="replace")
        except OSError:
            return False
    return holds


class Pid:
    """A process by pidfd: what is signalled is what was opened."""

    def __init__(self, pid):
        self.pid, self.fd = pid, -1
        self.fd = os.pidfd_open(pid)
        self.start_time = start_time(pid)

    def alive(self):
        return not readable([self.fd], 0)

    def kill(self, number=signal.SIGKILL):
        try:
            signal.pidfd_send_signal(self.fd, number)
        except ProcessLookupError:
            pass

    def wait(self, timeout=20):
        if not readable([self.fd], timeout):
            raise Late(f"process {self.pid} still lives after {timeout} s")

    def kill_and_wait(self, timeout=20):
        self.kill()
        self.wait(timeout)

    def close(self):
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __del__(self):
        self.close()


def stat_fields(pid):
    text = Path(f"/proc/{pid}/stat").read_text()
    return text[text.rindex(")") + 2:].split()


def start_time(pid):
    try:
        return int(stat_fields(pid)[19])
    except (OSError, ValueError):
        return 0


def parent(pid):
    return int(stat_fields(pid)[1])


def comm(pid):
    try:
        return Path(f"/proc/{pid}/comm").read_text().rstrip("\n")
    except OSError:
        return ""


def cmdline(pid):
    try:
        return [os.fsdecode(a) for a in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]]
    except OSError:
        return []


def threads(pid):
    return len(os.listdir(f"/proc/{pid}/task"))


def children(pid):
    found = []
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            found += [int(c) for c in Path(f"/proc/{pid}/task/{task}/children").read_text().split()]
        except OSError:
            pass
    return found


class Output:
    """A pipe that is read as it comes; everything read is kept."""

    def __init__(self, fd):
        self.fd = fd
        os.set_blocking(fd, False)
        self.data = b""
        self.closed = False

    def pump(self, seconds):
        if self.closed or not readable([self.fd], seconds):
            return False
        try:
            chunk = os.read(self.fd, 1 << 20)
        except OSError as error:
            if error.errno == errno.EAGAIN:
                return False
            raise
        if not chunk:
            self.closed = True
        self.data += chunk
        return True

    def until(self, pattern, timeout=20, start=0):
        """The match of the pattern in what came from start on."""
        deadline = Deadline(timeout)
        pattern = re.compile(pattern) if isinstance(pattern, bytes) else pattern
        while True:
            match = pattern.search(self.data, start)
            if match:
                return match
            if self.closed:
                raise Late(f"output ended without {pattern.pattern!r}: {self.data[-300:]!r}")
            self.pump(deadline.left(f"{pattern.pattern!r} in {self.data[-300:]!r}"))

    def until_line(self, number, timeout=20):
        deadline = Deadline(timeout)
        while self.data.count(b"\n") < number:
            if self.closed:
                raise Late(f"output ended after {self.data.count(10)} of {number} lines")
            self.pump(deadline.left(f"line {number}"))

    def rest(self, timeout=20):
        deadline = Deadline(timeout)
        while not self.closed:
            self.pump(deadline.left(f"end of output, {self.data[-200:]!r}"))
        return self.data
