#!/usr/bin/python3
"""vm.py [FILE ...]: boots Debian's own kernel with version 2 control groups in qemu and runs the tests of Tests/VM there, or the pytest arguments given.

The machine is made of Debian packages, which apt fetches from wherever it fetches packages, and is kept in .build/vm until what it is made of changes. The programs
and the tests travel on a second disk that is written anew each time. qemu emulates in software: /dev/kvm is neither needed nor used.

VM_SECONDS  a machine that has not ended by then is ended, and has failed (default 900)
VM_PLANT    not empty: the control, a test that fails on purpose, counts as what it is; the run must come out red
"""
import fcntl
import hashlib
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
VM = REPOSITORY / ".build" / "vm"
# What ctrd is linked with, what the tests call, for AppArmor the program that loads profiles, and for disks that fail what makes them.
PACKAGES = ["libc6", "libsqlite3-0", "libssl3", "zlib1g", "libstdc++6", "libgcc-s1",
            "python3-pytest", "busybox-static", "util-linux", "mount", "procps", "strace", "binutils", "gcc", "libc6-dev", "apparmor", "runc", "crun", "containerd",
            "dmsetup", "e2fsprogs"]
KERNEL = "linux-image-cloud-amd64"
# In the order in which they need each other; ext4 and the serial lines are built in.
BOOT_MODULES = ["virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci", "virtio_blk"]
PROGRAMS = ["ctrd", "ctrctl", "ctr-shim", "ctr-keeper", "ctrun"]
MEMORY_MIB = 1536
# Integration tests that prove the same on every host, and here with an older kernel and version 2. Without those that want a fast processor; the sample of the
# crash walk stands for the deaths of the runtime.
SHARED = [f"Tests/Integration/test_{name}.py" for name in ("ctrun", "ctrun_exec", "guards", "isolation", "shim", "supervision")]
SLOW = [f"Tests/Integration/test_{name}" for name in ("ctrun.py::test_swapped_mount_points_never_lead_outside", "ctrun.py::test_killed_while_it_creates",
                                                      "ctrun_exec.py::test_a_hundred_at_once", "ctrun_exec.py::test_killed_on_the_way_in")]
# What the kernel is told, and what runs there.
MACHINES = {
    "whole": ("apparmor=1 security=apparmor", ["Tests/VM", "--ignore=Tests/VM/bare", *SHARED, *(f"--deselect={name}" for name in SLOW)]),
    "bare": ("apparmor=0 cgroup_disable=memory,pids psi=0", ["Tests/VM/bare"]),
}
CONTROL = "test_control.py::"


def command(*words, **options):
    """Runs a tool; its output is shown only when it fails."""
    done = subprocess.run([str(word) for word in words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    if done.returncode != 0:
        raise SystemExit(f"vm: {' '.join(map(str, words))[:200]} ended with {done.returncode}:\n{done.stdout[-3000:]}")
    return done.stdout


# Packages

def fetch():
    """The closure of PACKAGES over an empty system, and the kernel that KERNEL stands for; a list of files."""
    debs = VM / "debs"
    shutil.rmtree(debs, ignore_errors=True)
    (debs / "partial").mkdir(parents=True)
    nothing = VM / "no-packages-installed"
    nothing.write_text("")
    apt = ["apt-get", "-q", "-y", "-o", "APT::Sandbox::User=root"]
    resolve = [*apt, "-o", f"Dir::State::Status={nothing}", "-o", f"Dir::Cache::Archives={debs}", "-o", "APT::Install-Recommends=0", "-o", "Debug::NoLocking=1",
               "--download-only", "install", *PACKAGES]
    if subprocess.run(resolve, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode != 0:
        command("apt-get", "update")
        command(*resolve)
    found = re.search(r"Depends: (linux-image-\S+)", command("apt-cache", "depends", KERNEL))
    if not found:
        raise SystemExit(f"vm: {KERNEL} names no kernel")
    command(*apt, "download", found.group(1), cwd=debs)
    return sorted(debs.glob("*.deb"))


def unpack(packages):
    root = VM / "root"
    shutil.rmtree(root, ignore_errors=True)
    for name in ("proc", "sys", "dev", "run", "tmp", "root", "project", "bin", "sbin", "etc", "usr/bin"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for package in packages:
        command("dpkg-deb", "-x", package, root)
    for name in ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info"):
        shutil.rmtree(root / name, ignore_errors=True)
    for name in command(root / "bin/busybox", "--list").split():
        if not any((root / where / name).exists() or (root / where / name).is_symlink() for where in ("bin", "sbin", "usr/bin", "usr/sbin")):
            (root / "bin" / name).symlink_to("busybox")
    # The kernel asks for this one by its path.
    if not (root / "sbin/modprobe").exists():
        (root / "sbin/modprobe").symlink_to("/bin/busybox")
    # What maintainer scripts would have made.
    (root / "usr/bin/cc").symlink_to("gcc")
    (root / "etc/hostname").write_text("vm\n")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")
    (root / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")
    (root / "tmp").chmod(0o1777)
    version = next((root / "lib/modules").iterdir()).name
    command(root / "bin/busybox", "depmod", "-b", root, version)
    # Compiled here, where it takes seconds and not minutes.
    compile_python(root / "usr/lib/python3")
    compile_python(root / "usr/lib/python3.11", ok=True)
    return root, version


def compile_python(directory, ok=False):
    done = subprocess.run(["/usr/bin/python3", "-m", "compileall", "-q", "-j", "2", "--invalidation-mode", "unchecked-hash", str(directory)],
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if done.returncode != 0 and not ok:
        raise SystemExit(f"vm: cannot compile {directory}")


def disk(path, directory, mebibytes):
    """An ext4 file system with the content of a directory."""
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    command("mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-E", "lazy_itable_init=1,root_owner=0:0", "-d", directory, temporary, f"{mebibytes}M")
    temporary.rename(path)


def initramfs(root, version):
    """busybox, the driver of the disk, and Tests/VM/boot, which mounts the disk and goes there."""
    tree = VM / "initramfs"
    shutil.rmtree(tree, ignore_errors=True)
    for name in ("bin", "dev", "proc", "sys", "root", "modules"):
        (tree / name).mkdir(parents=True)
    shutil.copy(root / "bin/busybox", tree / "bin/busybox")
    modules = {path.stem: path for path in (root / "lib/modules" / version).rglob("*.ko")}
    for number, name in enumerate(BOOT_MODULES):
        shutil.copy(modules[name], tree / "modules" / f"{number}-{name}.ko")
    shutil.copy(REPOSITORY / "Tests/VM/boot", tree / "init")
    (tree / "init").chmod(0o755)
    names = "\n".join(sorted(str(path.relative_to(tree)) for path in tree.rglob("*")))
    with open(VM / "initramfs.cpio", "wb") as out:
        subprocess.run(["cpio", "-o", "-H", "newc", "-R", "0:0", "--quiet"], input=names.encode(), cwd=tree, stdout=out, check=True)


def machine():
    """Makes kernel, initramfs and base disk when they are not there or are made of something else."""
    made_of = hashlib.sha256(b"".join(path.read_bytes() for path in (Path(__file__), REPOSITORY / "Tests/VM/boot"))).hexdigest()
    stamp = VM / "made-of"
    if stamp.exists() and stamp.read_text() == made_of:
        return
    started = time.monotonic()
    stamp.unlink(missing_ok=True)
    root, version = unpack(fetch())
    shutil.copy(root / f"boot/vmlinuz-{version}", VM / "vmlinuz")
    initramfs(root, version)
    shutil.rmtree(root / "boot")
    disk(VM / "base.ext4", root, 2048)
    shutil.rmtree(root)
    stamp.write_text(made_of)
    print(f"vm: made a machine with {version} in {time.monotonic() - started:.0f} s", flush=True)


def project():
    """The disk with the programs and the tests."""
    tree = VM / "project"
    shutil.rmtree(tree, ignore_errors=True)
    (tree / "bin").mkdir(parents=True)
    for name in PROGRAMS:
        if not (REPOSITORY / "bin" / name).exists():
            raise SystemExit(f"vm: no bin/{name}: run make build first")
        shutil.copy2(REPOSITORY / "bin" / name, tree / "bin" / name)
    for name in ("Integration", "VM", "Chaos", "Fixtures"):
        shutil.copytree(REPOSITORY / "Tests" / name, tree / "Tests" / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    shutil.copytree(REPOSITORY / "tools", tree / "tools", ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    compile_python(tree / "Tests")
    disk(VM / "project.ext4", tree, 256)
    shutil.rmtree(tree)


# The run

def qemu(name, parameters, arguments):
    def drive(disk, number):
        return ["-drive", f"file={VM / disk},if=none,id=d{number},format=raw,snapshot=on,cache=unsafe", "-device", f"virtio-blk-pci,drive=d{number}"]
    words = VM / f"{name}.arguments"
    words.write_text("".join(f"{word}\n" for word in arguments).ljust(512))
    return ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", str(MEMORY_MIB), "-display", "none", "-nodefaults", "-no-reboot",
            "-kernel", str(VM / "vmlinuz"), "-initrd", str(VM / "initramfs.cpio"), "-append", f"console=ttyS0 panic=-1 quiet mitigations=off no_timer_check nowatchdog {parameters}",
            *drive("base.ext4", 0), *drive("project.ext4", 1), *drive(words.name, 2), "-device", "virtio-rng-pci",
            "-serial", f"file:{console(name)}", "-serial", "stdio"]


def console(name):
    return VM / f"{name}.console"


class Results:
    """Lines of the second serial line: `run NAME`, `ok NAME SECONDS`, `not ok NAME SECONDS`, `# text`, `done`."""

    def __init__(self, planted):
        self.planted, self.running, self.done = planted, None, False
        self.passed, self.failed, self.control = 0, 0, False

    def line(self, text):
        words = text.split(" ")
        if words[0] == "run":
            self.running = words[1]
            return
        if text == "done":
            self.done = True
            return
        verdict = "ok" if words[0] == "ok" else "not ok" if words[:2] == ["not", "ok"] else None
        if verdict is None:
            print(text, flush=True)
            return
        self.running = None
        name = words[-2]
        if name.startswith(CONTROL) or f"/{CONTROL}" in name:
            self.control = True
            if not self.planted:
                verdict = "ok" if verdict == "not ok" else "not ok"
                text = f"{verdict} {name} (fails on purpose)"
        if verdict == "ok":
            self.passed += 1
        else:
            self.failed += 1
        print(text, flush=True)

    def begin(self):
        self.running, self.done = None, False

    def problem(self, text):
        self.failed += 1
        print(f"not ok {text}", flush=True)


def run(name, parameters, arguments, deadline, results):
    """One machine, from its start to its end."""
    results.begin()
    process = subprocess.Popen(qemu(name, parameters, arguments), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    buffer = b""
    try:
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                return results.problem(f"machine {name} had not ended in time{f', in {results.running}' if results.running else ''}: see {console(name)}")
            if not select.select([process.stdout], [], [], left)[0]:
                continue
            chunk = os.read(process.stdout.fileno(), 1 << 16)
            if not chunk:
                break
            *lines, buffer = (buffer + chunk).split(b"\n")
            for line in lines:
                results.line(line.rstrip(b"\r").decode(errors="replace"))
        if not results.done:
            results.problem(f"machine {name} ended before its tests did; the end of its console:\n{console(name).read_text(errors='replace')[-3000:]}")
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()


def main():
    if os.geteuid() != 0:
        print("vm: the machine's disk is made of root's files: run as root", file=sys.stderr)
        return 1
    started = time.monotonic()
    VM.mkdir(parents=True, exist_ok=True)
    with open(VM / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        machine()
        project()
        results = Results(bool(os.environ.get("VM_PLANT")))
        machines = {"whole": (MACHINES["whole"][0], sys.argv[1:])} if len(sys.argv) > 1 else MACHINES
        deadline = started + int(os.environ.get("VM_SECONDS") or 900)
        for name, (parameters, arguments) in machines.items():
            run(name, parameters, arguments, deadline, results)
        if machines is MACHINES and not results.control:
            results.problem("the control, a test that fails on purpose, did not run")
    print(f"vm: {time.monotonic() - started:.0f} s")
    print(f"{results.passed} passed, {results.failed} failed")
    return 0 if results.failed == 0 and results.passed > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
