"""A device under a container's log that answers every request with EIO for a while: real errors of the kernel, by the device mapper."""
import fcntl
import os
import re
import struct
import subprocess
import tempfile
from pathlib import Path

import pytest

import events
from harness import IMAGE, one_line_error
from logclient import Reading, kill_shim, verify

SECTORS = 12 << 11
DEVICE = "/dev/ram0"
FIBMAP = 1  # linux/fs.h


class Disk:
    """A file system whose writes wait for the device, so that its errors come at once, and whose device can be told to fail."""

    def __init__(self, name):
        self.name, self.mounted = name, []
        subprocess.run(["modprobe", "brd", "rd_nr=1", f"rd_size={SECTORS // 2}"], check=True)
        subprocess.run(["modprobe", "dm-mod"], check=True)
        self.dmsetup("create", name, table=self.table())
        # By its number: nobody makes nodes by name here.
        number = self.dmsetup("info", "-c", "--noheadings", "-o", "minor", name).strip()
        self.device = f"/dev/dm-{number}"
        # A journal that meets an error makes the file system read-only for good, and nothing could be seen to go on.
        subprocess.run(["mke2fs", "-q", "-t", "ext4", "-b", "4096", "-O", "^has_journal", "-E", "lazy_itable_init=1", self.device], check=True)

    @staticmethod
    def dmsetup(*words, table=""):
        return subprocess.run(["dmsetup", *words], check=True, capture_output=True, text=True, input=table).stdout

    @staticmethod
    def table(*bad):
        """Lines of a table in which the given ranges of sectors fail."""
        lines, at = [], 0
        for start, end in (*bad, (SECTORS, SECTORS)):
            lines += [f"{at} {start - at} linear {DEVICE} {at}"] if start > at else []
            lines += [f"{start} {end - start} error"] if end > start else []
            at = end
        return "".join(f"{line}\n" for line in lines)

    def mount(self, directory):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        subprocess.run(["mount", "-o", "sync,noatime,errors=continue", self.device, directory], check=True)
        self.mounted.append(directory)
        (directory / "lost+found").rmdir()
        directory.chmod(0o700)

    def load(self, table):
        self.dmsetup("suspend", "--nolockfs", self.name)
        self.dmsetup("load", self.name, table=table)
        self.dmsetup("resume", self.name)

    def works(self):
        self.load(self.table())

    def fails(self):
        self.load(self.table((0, SECTORS)))

    def fails_under(self, path):
        """The first block of a file alone."""
        with open(path, "rb") as file:
            block, = struct.unpack("i", fcntl.ioctl(file, FIBMAP, struct.pack("i", 0)))
        assert block > 0
        self.load(self.table((block * 8, block * 8 + 8)))

    def unmount(self):
        while self.mounted:
            subprocess.run(["umount", self.mounted.pop()], check=True)

    def close(self):
        self.works()
        self.unmount()
        self.dmsetup("remove", self.name)
        subprocess.run(["rmmod", "brd"], check=True)


@pytest.fixture
def disk():
    made = Disk("ctrd-test")
    yield made
    made.close()


class Gate:
    """A directory that the container has at /gate, and a FIFO in it at which its script waits for words."""

    def __init__(self, world):
        self.path = Path(tempfile.mkdtemp(dir=world.directory))
        os.mkfifo(self.path / "fifo")
        # Open in both directions: nobody waits for the other to open it.
        self.fifo = os.open(self.path / "fifo", os.O_RDWR)

    def say(self, word):
        """Returns when the script has made a file of this name."""
        os.write(self.fifo, f"{word}\n".encode())
        events.wait_file(self.path / word, timeout=60)


def forget_caches():
    """What was read stays in memory otherwise, and nobody asks the device."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")


def test_errors_of_the_device_hold_up_nobody_and_what_is_lost_is_counted(alone, disk):
    script = ("echo begin >&2; seq 1 1000; read word < /gate/fifo; seq 1001 100000; echo > /gate/$word; read word < /gate/fifo; echo works; echo > /gate/$word; "
              "read word < /gate/fifo; seq 1 1000 >&2; echo > /gate/$word; read word < /gate/fifo; echo again; echo > /gate/$word; exec sleep 600")
    gate = Gate(alone)
    other = alone.background("i=0; while :; do i=$((i+1)); echo $i; usleep 50000; done")
    other_log = alone.incarnation(other) / "log" / "stdout.000001"
    identifier = alone.ctrctl("create", "-v", f"{gate.path}:/gate", IMAGE, "/bin/sh", "-c", script).out.strip()
    disk.mount(alone.root / "containers" / "default" / identifier)
    try:
        alone.ctrctl("tasks", "start", identifier)
        init = events.Pid(alone.task(identifier)["pid"])
        with Reading(alone, identifier, follow=True) as reading:
            data = reading.until(b"\n1000\n")
            disk.fails()
            size = other_log.stat().st_size
            # More than half a megabyte, and nobody waits for the device.
            gate.say("much")
            assert alone.task(identifier)["status"] == "running" and alone.ctrctl("exec", identifier, "echo", "inside").out == "inside\n"
            events.wait_file(other_log, lambda path: path.stat().st_size > size)
            disk.works()
            gate.say("works")
            lost = 0
            for piece in reading:
                data += piece.data
                lost += piece.gap_bytes
                if data.endswith(b"works\n"):
                    break
            total = len("".join(f"{number}\n" for number in range(1, 100001))) + len("begin\nworks\n")
            assert lost > 0 and len(data) + lost == total
            # A shim that starts while the device fails goes on all the same.
            disk.fails()
            kill_shim(alone, identifier)
            gate.say("errors")
            disk.works()
            gate.say("again")
            # Between the streams there is no order.
            while not data.endswith(b"again\n"):
                piece = next(reading)
                data, lost = data + piece.data, lost + piece.gap_bytes
        report, = verify(alone, identifier)
        assert report["problems"] == [] and report["gap_bytes"] == lost
        assert alone.ctrctl("logs", "--verify", identifier).code == 0
        # The same once nothing of it is in memory: what is on the device is what was said to be.
        forget_caches()
        shown = alone.ctrctl("logs", identifier)
        assert shown.out == "".join(f"{number}\n" for number in range(1, 1001)) + "works\nagain\n"
        assert shown.err.startswith("begin\n") and sum(map(int, re.findall(r"(\d+) bytes of standard \w+ missing", shown.err))) == lost, shown.err
        assert alone.ctrctl("logs", "--verify", identifier).code == 0
        # And errors while it is read are told, in one line, and are over with the device's.
        forget_caches()
        disk.fails()
        assert "nput/output error" in one_line_error(alone.ctrctl("logs", identifier, code=1))
        assert re.fullmatch(r"(\d+\n)+", alone.ctrctl("logs", "--tail", "5", other).out)
        disk.works()
        assert alone.ctrctl("logs", identifier).out == shown.out
        alone.ctrctl("kill", identifier)
        assert alone.wait(identifier) == 137 and not init.alive()
        numbers = [int(line) for line in alone.ctrctl("logs", other).out.split()]
        assert numbers == list(range(1, len(numbers) + 1))
    finally:
        disk.works()
        alone.ctrctl("rm", "-f", identifier, code=None)
        disk.unmount()
        alone.ctrctl("rm", "-f", identifier, code=None)


def test_an_entry_that_readers_saw_before_the_error_stands(alone, disk):
    """The index is in memory and cannot be written: who begins to read then gets every byte once, now and when the device works again."""
    gate = Gate(alone)
    script = "echo begin; while read word < /gate/fifo; do echo $word; echo > /gate/$word; done"
    identifier = alone.ctrctl("create", "-v", f"{gate.path}:/gate", IMAGE, "/bin/sh", "-c", script).out.strip()
    disk.mount(alone.root / "containers" / "default" / identifier)
    try:
        alone.ctrctl("tasks", "start", identifier)
        with Reading(alone, identifier, follow=True) as reading:
            reading.until(b"begin\n")
        disk.fails_under(alone.incarnation(identifier) / "log" / "index")
        gate.say("one")
        with Reading(alone, identifier, follow=True, timeout=20) as reading:
            data = reading.until(b"one\n")
            gate.say("two")
            disk.works()
            gate.say("three")
            data += reading.until(b"three\n")
        assert data == b"begin\none\ntwo\nthree\n"
        report, = verify(alone, identifier)
        assert report["problems"] == [] and report["gap_bytes"] == 0
    finally:
        disk.works()
        alone.ctrctl("rm", "-f", identifier, code=None)
        disk.unmount()
        alone.ctrctl("rm", "-f", identifier, code=None)
