"""What the tests of the machine share: places in the version 2 hierarchy and what the kernel said."""
import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def group(world, identifier, namespace="default"):
    """The control group of a container of the manager."""
    return CGROUPS / world.cgroup_parent / namespace / identifier


def value(path, key):
    """The number behind a key of a file of lines `key number`."""
    return int(dict(line.split() for line in Path(path).read_text().splitlines())[key])


def processes(path):
    return [int(word) for word in (Path(path) / "cgroup.procs").read_text().split()]


class KernelLog:
    """What the kernel logs from here on."""

    def __init__(self):
        self.fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        os.lseek(self.fd, 0, os.SEEK_END)

    def text(self):
        lines = []
        while True:
            try:
                lines.append(os.read(self.fd, 8192).decode(errors="replace"))
            except BlockingIOError:
                return "".join(lines)

    def close(self):
        os.close(self.fd)
