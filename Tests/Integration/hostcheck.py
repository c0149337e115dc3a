"""What a test has on the host: processes, mounts, cgroups, namespaces, sockets and files. Two snapshots that differ show a leak."""
import os
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

KINDS = ("process", "mount", "cgroup", "namespace", "socket", "file")
OUR_PROGRAMS = ("ctrd", "ctr-shim", "ctr-keeper", "ctrun", "ctrctl")
NAMESPACES = ("mnt", "pid", "net", "uts", "ipc", "cgroup", "user")
# Rows are in the database, not in files of their own, and its side files come and go; compiled seccomp programs are kept for the next container.
DATABASE = re.compile(r"(^|/)(ctrd\.db(-\w+)?|ctrd\.lock|runtime/[^/]+/\.seccomp/[0-9a-f]+)$")
# Directories that hold one directory for each namespace or container, and stay when they are empty.
NAME = r"[a-z0-9][a-z0-9_.-]*"
SHELF = re.compile(rf"root|state|root/(snapshots|content)(/(layers|ingest|blobs|blobs/sha256))?|root/(containers|snapshots/containers)(/{NAME})?"
                   rf"|state/(s|runtime|runtime/{NAME}|runtime/{NAME}/\.seccomp|{NAME})")


@dataclass
class Scope:
    """One test's part of the host: its directory, its cgroup, its mark in the environment."""
    directory: str
    cgroup_parent: str
    mark: str
    ignore: set = field(default_factory=set)  # pids of the test itself
    own_mount: str = "\0"  # a mount of the test itself, which is copied into every mount namespace that anybody makes

    def mentions(self, text):
        return self.directory in text

    def in_cgroup(self, path):
        return f"/{self.cgroup_parent}/" in path + "/"


def pids():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def read(path):
    try:
        return Path(path).read_bytes().decode(errors="replace")
    except OSError:
        return ""


def link(path):
    try:
        return os.readlink(path)
    except OSError:
        return ""


def belongs(pid, scope):
    base = f"/proc/{pid}"
    if scope.mentions(read(f"{base}/cmdline")) or scope.mark in read(f"{base}/environ"):
        return True
    if any(scope.in_cgroup(line.split(":", 2)[2]) for line in read(f"{base}/cgroup").splitlines() if line.count(":") >= 2):
        return True
    if any(scope.mentions(link(f"{base}/{name}")) for name in ("cwd", "exe", "root")):
        return True
    try:
        return any(scope.mentions(link(f"{base}/fd/{fd}")) for fd in os.listdir(f"{base}/fd"))
    except OSError:
        return False


def is_zombie(pid):
    text = read(f"/proc/{pid}/stat")
    return text[text.rfind(")") + 2:text.rfind(")") + 3] == "Z"


def is_left_to_init(pid):
    text = read(f"/proc/{pid}/stat")
    return text[text.rfind(")") + 2:].split()[:2] == ["Z", "1"]


def own_processes(scope):
    """A zombie that only pid 1 has still to collect is not the test's; one of a parent of ours is."""
    ours = {os.getpid(), os.getppid()} | scope.ignore
    found = [pid for pid in pids() if pid not in ours and belongs(pid, scope)]
    return [pid for pid in found if not is_zombie(pid) or parent(pid) in found]


def parent(pid):
    text = read(f"/proc/{pid}/stat")
    return int(text[text.rfind(")") + 4:].split()[0]) if text else 0


def describe(pid):
    stat = read(f"/proc/{pid}/stat")
    started = stat[stat.rfind(")") + 2:].split()[19:20]
    return f"{pid}@{started[0] if started else '?'} {read(f'/proc/{pid}/comm').strip()}: {read(f'/proc/{pid}/cmdline')[:160]!r}"


def mounts(scope):
    found, seen = set(), set()
    for pid in [os.getpid()] + pids():
        namespace = link(f"/proc/{pid}/ns/mnt")
        if not namespace or namespace in seen:
            continue
        seen.add(namespace)
        for line in read(f"/proc/{pid}/mountinfo").splitlines():
            if scope.mentions(line) and scope.own_mount not in line:
                fields = line.split(" ")
                found.add(f"{namespace} {fields[4]} {line.split(' - ', 1)[1][:160]}")
    return found


def hierarchies():
    for line in read("/proc/self/mountinfo").splitlines():
        if " - cgroup" in line:
            yield line.split(" ")[4]


def cgroups(scope):
    found = set()
    for hierarchy in hierarchies():
        for directory, names, _ in os.walk(hierarchy):
            for name in names:
                path = os.path.join(directory, name)
                if scope.in_cgroup(path):
                    found.add(path)
    return found


def is_shelf(path, scope):
    """The engine's own directory and those of namespaces below it, which hold containers and go with the last that was not removed by itself, or
    with the manager; what is in them is told by the process or the directory below."""
    return os.path.basename(path) == scope.cgroup_parent or os.path.basename(os.path.dirname(path)) == scope.cgroup_parent


def namespaces(scope, processes):
    """Namespaces of the test's processes, or held by their descriptors, or pinned by a mount, that no other process lives in."""
    inside, outside, device = {}, set(), os.stat("/proc/self/ns/net").st_dev
    for pid in pids():
        for kind in NAMESPACES:
            name = link(f"/proc/{pid}/ns/{kind}")
            if name and pid in processes:
                inside.setdefault(inode_of(name), f"{name} of process {pid}")
            elif name:
                outside.add(inode_of(name))
        if pid in processes:
            for fd, stat in descriptors(pid):
                if stat.st_dev == device:
                    inside.setdefault(stat.st_ino, f"ns:[{stat.st_ino}] held by descriptor {fd} of process {pid}")
    for line in read("/proc/self/mountinfo").splitlines():
        fields = line.split(" ")
        if " - nsfs " in line and scope.mentions(line):
            inside.setdefault(inode_of(fields[3]), f"{fields[3]} pinned by mount {fields[4]}")
    return {text for inode, text in inside.items() if inode not in outside}


def inode_of(name):
    return int(name[name.index("[") + 1:-1])


def descriptors(pid):
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return
    for fd in names:
        try:
            yield fd, os.stat(f"/proc/{pid}/fd/{fd}")
        except OSError:
            pass


def sockets(scope):
    found = set()
    for line in read("/proc/net/unix").splitlines()[1:]:
        fields = line.split(None, 7)
        if len(fields) == 8 and scope.mentions(fields[7]) and fields[3] == "00010000":
            found.add(f"listening {fields[7]}")
    for directory, _, names in os.walk(scope.directory):
        for name in names:
            path = os.path.join(directory, name)
            try:
                if (os.lstat(path).st_mode & 0o170000) == 0o140000:
                    found.add(f"file {path}")
            except OSError:
                pass
    return found


def files(scope):
    found = set()
    for part in ("root", "state"):
        top = os.path.join(scope.directory, part)
        for directory, subdirectories, names in os.walk(top):
            relative = os.path.relpath(directory, scope.directory)
            if relative.startswith("root/snapshots/layers/") and relative.count("/") >= 3:
                found.add(relative)
                subdirectories.clear()  # a layer is one thing
                continue
            if not subdirectories and not names and not SHELF.fullmatch(relative):
                found.add(relative + "/")
            found |= {f"{relative}/{name}" for name in names if not DATABASE.search(f"{relative}/{name}")}
    return found


def snapshot(scope):
    processes = own_processes(scope)
    living = [pid for pid in processes if os.path.exists(f"/proc/{pid}")]
    return {
        "process": {describe(pid) for pid in living},
        "mount": mounts(scope),
        "cgroup": {path for path in cgroups(scope) if not is_shelf(path, scope)},
        "namespace": namespaces(scope, set(living)),
        "socket": sockets(scope),
        "file": files(scope),
    }


def leaks(before, after):
    """Kind to what is there now and was not; empty when nothing leaked."""
    return {kind: sorted(after[kind] - before[kind]) for kind in KINDS if after[kind] - before[kind]}


def assert_no_leaks(before, scope):
    after = snapshot(scope)
    found = leaks(before, after)
    assert not found, "left behind:\n" + "\n".join(f"  {kind}: {item}" for kind, items in found.items() for item in items)


def host_state():
    """The whole host, for a run that has the machine to itself: our programs anywhere, all mounts, all test cgroups, nsfs pins."""
    # What only pid 1 has still to collect is not ours; an unreaped child of anybody else is.
    programs = {describe(pid) for pid in pids() if read(f"/proc/{pid}/comm").strip() in OUR_PROGRAMS and not is_left_to_init(pid)}
    seen, all_mounts = set(), set()
    for pid in [os.getpid()] + pids():
        namespace = link(f"/proc/{pid}/ns/mnt")
        if namespace and namespace not in seen:
            seen.add(namespace)
            all_mounts |= {" ".join(line.split(" ")[3:5]) + " " + line.split(" - ", 1)[1]
                           for line in read(f"/proc/{pid}/mountinfo").splitlines() if "/ctrd-" in line or " - nsfs " in line}
    groups = set()
    for hierarchy in hierarchies():
        groups |= {os.path.join(hierarchy, name) for name in os.listdir(hierarchy) if name.startswith(("ctrd-", "ctr-shim-test-"))}
    sockets_found = {line.split(None, 7)[7] for line in read("/proc/net/unix").splitlines()[1:]
                     if len(line.split(None, 7)) == 8 and "/ctrd-" in line}
    left = {os.path.join("/tmp", name) for name in os.listdir("/tmp") if name.startswith("ctrd-")}
    named = {line for line in subprocess.run(["find", "/run/netns", "-type", "f"], capture_output=True, text=True).stdout.split()
             if "ctrd" in line}
    return {"process": programs, "mount": all_mounts, "cgroup": groups, "namespace": named, "socket": sockets_found, "file": left}
