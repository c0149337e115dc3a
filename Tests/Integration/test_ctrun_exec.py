"""Further processes in a container, and what is known of one that runs: exec, ps, update, events. What runc does the same way is held against runc."""
import contextlib
import hashlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest

import events
from ctrun_bundle import BIN, CAPABILITIES, Bundle, become_subreaper, hierarchies

RUNC = shutil.which("runc")
V1 = {name.rsplit("/", 1)[1] for name in hierarchies()} - {"unified", "cgroup"}
UNIFIED = next((line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines() if " - cgroup2 " in line), None)


@pytest.fixture(scope="module", autouse=True)
def reaper():
    become_subreaper()
    yield


class Container(Bundle):
    """A bundle whose container runs, with ctrun or with runc."""

    def __init__(self, runtime="ctrun"):
        super().__init__("/bin/sleep", "100000")
        self.runtime, self.pid = runtime, None
        (self.rootfs / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n")

    def command(self, *words, flags=()):
        command = super().command(*words, flags=flags)
        return command if self.runtime == "ctrun" else [RUNC, *command[1:]]

    def start(self):
        self.pid = self.create()
        self.ok("start", self.id)
        return self

    def stop(self):
        self.ok("kill", self.id, "KILL")
        return reap(self.pid)

    def exec(self, *words, flags=(), **options):
        return self.ctrun("exec", *flags, self.id, *words, **options)

    def out(self, *words, flags=(), **options):
        result = self.exec(*words, flags=flags, **options)
        assert result.returncode == 0, result
        return result.stdout

    def sh(self, script, flags=(), **options):
        return self.out("sh", "-c", script, flags=flags, **options)

    def refused(self, *words, flags=()):
        """What exec says when it could not, without the program's name."""
        result = self.exec(*words, flags=flags)
        assert result.returncode == 255 and result.stderr.count("\n") == 1 and result.stdout == "", result
        return result.stderr.removeprefix("ctrun: ").rstrip("\n")

    def file(self, **process):
        path = self.base / f"process-{secrets.token_hex(4)}.json"
        path.write_text(json.dumps({"user": {"uid": 0, "gid": 0}, "env": ["PATH=/bin"], "cwd": "/", **process}))
        return path

    def sh_file(self, script, **process):
        result = self.ctrun("exec", "--process", self.file(args=["/bin/sh", "-c", script], **process), self.id)
        assert result.returncode == 0, result
        return result.stdout

    def members(self):
        return set(json.loads(self.ok("ps", "--format", "json", self.id)))


def reap(pid, timeout=20):
    with contextlib.closing(events.Pid(pid)) as process:
        assert events.readable([process.fd], timeout), f"{pid} has not ended"
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.fixture(scope="module", params=["ctrun"] + (["runc"] if RUNC else []))
def either(request):
    """One running container of each runtime for all tests that leave it as it is."""
    made = Container(request.param)
    yield made.start()
    made.close()


@pytest.fixture(scope="module")
def shared():
    made = Container()
    yield made.start()
    made.close()


@pytest.fixture
def container():
    made = Container()
    yield made
    made.close()


# --- what exec gives, as runc does

def test_exit_codes(either):
    for code in range(256) if either.runtime == "ctrun" else (0, 1, 125, 126, 127, 128, 255):
        assert either.exec("sh", "-c", f"exit {code}").returncode == code


@pytest.mark.parametrize("number", [1, 2, 9, 15])
def test_death_by_signal(either, number):
    assert either.exec("sh", "-c", f"kill -{number} $$").returncode == 128 + number


@pytest.mark.parametrize("flags, ids", [
    ([], "0 0 0"), (["-u", "1000"], "1000 0 0"), (["--user", "1000:1001"], "1000 1001 1001 0"), (["-u", "7:8", "-g", "5", "-g", "6"], "7 8 8 0 5 6"),
])
def test_users_and_groups(either, flags, ids):
    uid, gid, *groups = ids.split()
    assert either.sh("id -u; id -g; id -G", flags).split("\n")[:2] == [uid, gid]
    assert set(either.sh("id -G", flags).split()) == set(groups)


def test_environment(either):
    assert either.out("env").split() == ["PATH=/bin", "HOME=/root"]
    assert set(either.out("env", flags=["-e", "A=1", "-e", "PATH=/sbin:/bin", "-e", "A=2", "-u", "1000"]).split()) == {"PATH=/sbin:/bin", "A=2", "HOME=/home/user"}
    assert either.sh("echo $HOME", ["-u", "99"]).strip() == "/"


def test_working_directory(either):
    assert either.out("readlink", "/proc/self/cwd").strip() == "/"
    assert either.out("readlink", "/proc/self/cwd", flags=["--cwd", "/etc"]).strip() == "/etc"
    assert "/nope" in either.refused("true", flags=["--cwd", "/nope"])
    assert not (either.rootfs / "nope").exists()


def test_what_cannot_be_executed(either):
    start = "exec failed: unable to start container process: "
    assert either.refused("nope") == start + 'exec: "nope": executable file not found in $PATH'
    assert either.refused("/nope") == start + 'exec: "/nope": stat /nope: no such file or directory'
    assert either.refused("/etc") == start + 'exec: "/etc": permission denied'


def test_what_the_kernel_cannot_execute_is_told(shared):
    """The file exists and may be executed: only execve finds out."""
    (shared.rootfs / "bin/script").write_text("#!/no/such/interpreter\n")
    (shared.rootfs / "bin/garbage").write_bytes(b"\x7fELFnothing")
    for name, cause in (("script", "no such file or directory"), ("garbage", "exec format error")):
        (shared.rootfs / "bin" / name).chmod(0o755)
        message = shared.refused(name)
        assert message.startswith("exec failed: ") and message.endswith(cause) and "exec" in message[12:]


def test_descriptors(either):
    with open("/etc/passwd") as leaked:
        os.set_inheritable(leaked.fileno(), True)
        assert either.sh("ls /proc/$$/fd; true", close_fds=False).split() == ["0", "1", "2"]


@pytest.mark.parametrize("closed", [(0,), (1,), (0, 1, 2)])
def test_closed_streams_are_taken_by_nothing_of_the_runtime(shared, closed):
    file = shared.base / f"pid-{secrets.token_hex(4)}"
    command = shared.command("exec", "-d", "--pid-file", file, "c1", "sleep", "100")
    assert subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, preexec_fn=lambda: [os.close(n) for n in closed], timeout=20).returncode == 0
    pid = int(file.read_text())
    assert {os.readlink(f"/proc/{pid}/fd/{n}") for n in closed} == {"/dev/null"} and sorted(os.listdir(f"/proc/{pid}/fd")) == ["0", "1", "2"]
    os.kill(pid, signal.SIGKILL)
    assert reap(pid) == -9


def test_preserved_descriptors(either):
    reader, writer = os.pipe()
    saved = os.dup(3) if Path("/proc/self/fd/3").exists() else None
    os.dup2(writer, 3, inheritable=True)
    try:
        result = either.exec("sh", "-c", "echo through >&3; ls /proc/$$/fd; true", flags=["--preserve-fds", "1"], pass_fds=(3,))
    finally:
        os.close(3) if saved is None else os.dup2(saved, 3, inheritable=False)
        if saved is not None:
            os.close(saved)
    assert result.returncode == 0 and result.stdout.split() == ["0", "1", "2", "3"]
    assert os.read(reader, 100) == b"through\n"
    os.close(reader)
    os.close(writer)


def test_namespaces_and_control_groups_of_the_container(either):
    names = sorted(os.listdir(f"/proc/{either.pid}/ns"))
    links = either.sh("for n in " + " ".join(names) + "; do readlink /proc/self/ns/$n; done").split()
    assert links == [os.readlink(f"/proc/{either.pid}/ns/{name}") for name in names]
    groups = either.out("cat", "/proc/self/cgroup").split()
    mine = {"0::" + ("/" if either.runtime == "ctrun" else line.split(":", 2)[2]) for line in groups if line.startswith("0:")}
    assert set(groups) == {line.split(":", 2)[0] + ":" + line.split(":", 2)[1] + ":/" for line in groups if line[0] != "0"} | mine


def test_security_of_a_process_by_flags(either):
    def status(*flags):
        return dict(line.split(":\t", 1) for line in either.out("cat", "/proc/self/status", flags=flags).splitlines() if ":\t" in line)
    plain = status()
    assert (plain["Seccomp"], plain["NoNewPrivs"], plain["CapInh"], plain["CapAmb"]) == ("2", "0", "0" * 16, "0" * 16)
    assert int(plain["CapBnd"], 16) == int(plain["CapEff"], 16) == bits(CAPABILITIES)
    assert status("--no-new-privs")["NoNewPrivs"] == "1" and status("--no-new-privs")["Seccomp"] == "2"
    assert int(status("-c", "CAP_SYS_ADMIN", "-c", "CAP_SYS_TIME")["CapEff"], 16) == bits(CAPABILITIES + ["CAP_SYS_ADMIN", "CAP_SYS_TIME"])
    user = status("-u", "1000")
    assert user["CapEff"] == user["CapPrm"] == user["CapInh"] == user["CapAmb"] == "0" * 16


NUMBERS = {"CAP_CHOWN": 0, "CAP_DAC_OVERRIDE": 1, "CAP_FOWNER": 3, "CAP_FSETID": 4, "CAP_KILL": 5, "CAP_SETGID": 6, "CAP_SETUID": 7, "CAP_SETPCAP": 8,
           "CAP_NET_BIND_SERVICE": 10, "CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13, "CAP_SYS_CHROOT": 18, "CAP_SYS_PTRACE": 19, "CAP_SYS_ADMIN": 21, "CAP_SYS_TIME": 25,
           "CAP_MKNOD": 27, "CAP_AUDIT_WRITE": 29, "CAP_SETFCAP": 31}


def bits(names):
    return sum(1 << NUMBERS[name] for name in set(names))


@pytest.mark.parametrize("uid", [0, 1000])
def test_capabilities_are_those_of_the_process_object(either, uid):
    sets = {"bounding": ["CAP_KILL", "CAP_CHOWN", "CAP_NET_RAW"], "permitted": ["CAP_KILL", "CAP_CHOWN"], "effective": ["CAP_KILL"], "inheritable": ["CAP_CHOWN"],
            "ambient": ["CAP_CHOWN"]}
    text = either.sh_file("cat /proc/self/status", capabilities=sets, user={"uid": uid, "gid": uid})
    shown = {line.split()[0]: int(line.split()[1], 16) for line in text.splitlines() if line.startswith("Cap")}
    # Root's sets are computed anew by execve: all that is bounded or inheritable.
    held = bits(sets["bounding"]) if uid == 0 else bits(["CAP_CHOWN"])
    assert shown == {"CapInh:": bits(["CAP_CHOWN"]), "CapPrm:": held, "CapEff:": held, "CapBnd:": bits(sets["bounding"]), "CapAmb:": bits(["CAP_CHOWN"])}


def test_a_process_object(either):
    text = either.sh_file("id -u; id -g; pwd; echo $A; umask; ulimit -Hn; ulimit -n; cat /proc/self/oom_score_adj; grep NoNew /proc/self/status",
                          user={"uid": 1000, "gid": 1001, "umask": 0o27}, cwd="/etc", env=["PATH=/bin", "A=b c"], noNewPrivileges=True,
                          rlimits=[{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}])
    lines = text.split("\n")
    assert lines[:4] == ["1000", "1001", "/etc", "b c"] and lines[5] == "200" and text.rstrip().endswith("NoNewPrivs:\t1")
    # runc 1.1 passes over the umask of a further process, and its soft limit of descriptors.
    assert either.runtime == "runc" or (lines[4], lines[6]) == ("0027", "100")


def test_detached_with_pid_file(either):
    file = either.base / f"pid-{secrets.token_hex(4)}"
    with open("/dev/null", "r+b") as null:
        command = either.command("exec", "--detach", "--pid-file", file, either.id, "sleep", "100")
        assert subprocess.run(command, stdin=null, stdout=null, stderr=null, timeout=20).returncode == 0
    pid = int(file.read_text())
    # A child of the nearest subreaper, which this process is.
    assert events.parent(pid) == os.getpid() and pid in either.members() and either.pid in either.members()
    os.kill(pid, signal.SIGKILL)
    assert reap(pid) == -9
    file.unlink()


def test_signals_are_handed_on(either):
    # The shell itself waits for its input: a child left behind would stay as a zombie of a first process that never looks.
    script = "trap 'echo got; exit 5' USR1; echo ready; read line; echo woke"
    process = subprocess.Popen(either.command("exec", either.id, "sh", "-c", script), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with process.stdout, process.stdin:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGUSR1)
        assert process.stdout.read() == b"got\n" and process.wait(20) == 5


def test_standard_input(either):
    result = subprocess.run(either.command("exec", either.id, "cat"), input=b"x" * 300_000, stdout=subprocess.PIPE, timeout=20)
    assert result.returncode == 0 and result.stdout == b"x" * 300_000


def read_to_end(master):
    text = b""
    try:
        while chunk := os.read(master, 1000):
            text += chunk
    except OSError:
        pass
    os.close(master)
    return text.decode()


def test_terminal_by_console_socket(either):
    path, pid_file = either.base / "console", either.base / "console.pid"
    process = either.file(args=["/bin/sh", "-c", "stty size; readlink /proc/self/fd/0; [ -t 1 ] && echo terminal"], terminal=True, consoleSize={"width": 91, "height": 33},
                          user={"uid": 1000, "gid": 1000})
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen(1)
        with open("/dev/null", "r+b") as null:
            command = either.command("exec", "--detach", "--pid-file", pid_file, "--console-socket", path, "--process", process, either.id)
            assert subprocess.run(command, stdin=null, stdout=null, stderr=null, timeout=20).returncode == 0
        connection, _ = server.accept()
        with connection:
            _, (master,), _, _ = socket.recv_fds(connection, 100, 1)
    size, tty, terminal = read_to_end(master).split("\r\n")[:3]
    assert (size, terminal) == ("33 91", "terminal") and tty.startswith("/dev/pts/")
    assert reap(int(pid_file.read_text())) == 0
    path.unlink()
    pid_file.unlink()


def test_terminal_in_the_foreground(either):
    master, slave = os.openpty()
    process = subprocess.Popen(either.command("exec", "-t", either.id, "sh", "-c", "read line; [ -t 0 ] && echo got $line; exit 4"), stdin=slave, stdout=slave, stderr=slave,
                               start_new_session=True)
    os.close(slave)
    os.write(master, b"typed\n")
    assert process.wait(20) == 4
    assert "got typed" in read_to_end(master)


def test_terminals_that_make_no_sense(either):
    assert "console" in either.refused("true", flags=["-d", "-t"])
    for flags in (["--console-socket", "/nope"], ["-d", "--console-socket", "/nope"]):
        assert "console" in either.refused("true", flags=flags)


@pytest.mark.parametrize("runtime", ["ctrun"] + (["runc"] if RUNC else []))
def test_states(runtime):
    made = Container(runtime)
    try:
        assert made.refused("true") == "exec failed: container does not exist"
        made.pid = made.create()
        assert made.out("echo", "in a created one") == "in a created one\n"
        made.ok("start", made.id)
        made.ok("pause", made.id)
        assert made.refused("true") == "exec failed: cannot exec in a paused container (use --ignore-paused to override)"
        made.ok("resume", made.id)
        assert made.stop() == -9
        assert made.refused("true") == "exec failed: cannot exec in a stopped container"
        assert made.ctrun("ps", "-f", "json", made.id).returncode in (0, 1)
    finally:
        made.close()


# --- what only ctrun promises

def test_paused_and_ignored(container):
    """The process is there and waits for the resume."""
    container.start()
    container.ok("pause", "c1")
    process = subprocess.Popen(container.command("exec", "--ignore-paused", "c1", "echo", "woke"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    with process.stdout:
        assert not events.readable([process.stdout.fileno()], 0.3)
        container.ok("resume", "c1")
        assert process.stdout.read() == b"woke\n" and process.wait(20) == 0


@pytest.mark.parametrize("text", ["", "-1", "+1", " 1", "1 ", "1:", ":1", "root", "4294967295", "4294967296", "18446744073709551616", "0x1", "1:2:3", "1:-1", "1:x"])
def test_users_that_are_no_numbers(shared, text):
    """CVE-2026-30892, CVE-2024-40635, CVE-2016-3697: never root by mistake."""
    result = shared.exec("id", flags=["-u", text])
    assert result.returncode not in (0, 255) and result.stdout == "" and result.stderr.count("\n") == 1


def test_a_numeric_name_of_the_image_is_no_user():
    """CVE-2016-3697: a user database that calls root "1000"."""
    made = Container()
    try:
        (made.rootfs / "etc/passwd").write_text("1000:x:0:0::/:/bin/sh\n")
        made.start()
        assert made.sh("id -u", ["-u", "1000"]).strip() == "1000"
    finally:
        made.close()


@pytest.mark.parametrize("uid", [0, 1000])
@pytest.mark.parametrize("way", ["flags", "object"])
def test_nothing_inheritable_or_ambient(shared, uid, way):
    """CVE-2022-29162: unless it is asked for."""
    script = "grep -E 'CapInh|CapAmb' /proc/self/status"
    text = shared.sh(script, ["-u", uid]) if way == "flags" else shared.sh_file(script, user={"uid": uid, "gid": uid})
    assert [line.split()[1] for line in text.splitlines()] == ["0" * 16] * 2


@pytest.mark.parametrize("number", list(range(3, 32)))
def test_working_directory_by_a_descriptor(shared, number):
    """CVE-2024-21626: a directory of the host that is open somewhere in the runtime."""
    for cwd in (f"/proc/self/fd/{number}", f"/proc/self/fd/{number}/../../..", f"/proc/thread-self/fd/{number}"):
        result = shared.exec("ls", "/proc/self/cwd/", flags=["--cwd", cwd])
        assert result.returncode == 255 and result.stdout == "", result
        assert shared.ctrun("exec", "--process", shared.file(args=["ls"], cwd=cwd), "c1").returncode == 255


def test_working_directory_by_standard_input(shared):
    """A directory of the host that the caller itself hands over."""
    with open_directory("/") as host:
        result = shared.exec("ls", ".", flags=["--cwd", "/proc/self/fd/0"], stdin=host)
    assert result.returncode == 255 and "outside" in result.stderr and result.stdout == ""


@contextlib.contextmanager
def open_directory(path):
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@pytest.fixture(scope="module")
def spy(tmp_path_factory):
    """A static program that looks at each process that appears beside it: prints what of the runtime's it could open for writing, or look into, then its own
    count of looks. It ends with its standard input."""
    directory = tmp_path_factory.mktemp("spy")
    (directory / "spy.c").write_text(r"""
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>
int main(void) {
    long looks = 0, seen = 0, last = 0;
    struct pollfd input = {.fd = 0, .events = POLLIN};
    puts("looking"); fflush(stdout);
    while (poll(&input, 1, 0) == 0) {
        DIR *proc = opendir("/proc");
        struct dirent *entry;
        while ((entry = readdir(proc))) {
            int pid = atoi(entry->d_name);
            char path[64], target[256] = "", name[32] = "";
            if (pid <= 1 || pid == getpid()) continue;
            looks++;
            snprintf(path, sizeof path, "/proc/%d/comm", pid);
            int comm = open(path, O_RDONLY);
            if (comm >= 0) { if (read(comm, name, 31) < 0) name[0] = 0; close(comm); }
            if (strncmp(name, "ctrun", 5)) continue;
            if (pid != last) { seen++; last = pid; }
            snprintf(path, sizeof path, "/proc/%d/exe", pid);
            int file = open(path, O_RDWR);
            if (file >= 0) { puts("exe is writable"); close(file); }
            for (int number = 3; number < 16; number++) {
                snprintf(path, sizeof path, "/proc/%d/fd/%d", pid, number);
                if (readlink(path, target, sizeof target - 1) > 0) printf("descriptor %d is %s\n", number, target);
            }
            if (ptrace(PTRACE_SEIZE, pid, 0, 0) == 0) {
                int status;
                ptrace(PTRACE_INTERRUPT, pid, 0, 0);
                if (waitpid(pid, &status, __WALL) != pid || !WIFSTOPPED(status)) continue;
                snprintf(path, sizeof path, "/proc/%d/comm", pid);
                comm = open(path, O_RDONLY);
                memset(name, 0, sizeof name);
                if (comm >= 0) { if (read(comm, name, 31) < 0) name[0] = 0; close(comm); }
                if (!strncmp(name, "ctrun", 5)) puts("traced");
                ptrace(PTRACE_DETACH, pid, 0, 0);
            }
        }
        closedir(proc);
    }
    printf("seen %ld\n", seen);
    return looks == 0;
}
""")
    built = subprocess.run(["cc", "-O1", "-static", "-o", directory / "spy", directory / "spy.c"], capture_output=True, text=True)
    assert built.returncode == 0, "the spy does not compile (make deps installs gcc): " + built.stderr[-200:]
    return directory / "spy"


def test_on_its_way_in_it_cannot_be_looked_into(container, spy):
    """CVE-2016-9962 and CVE-2019-5736: root inside the container sees the runtime on its way in, and gets no hold of it."""
    shutil.copy(spy, container.rootfs / "bin/spy")
    digest = hashlib.sha256((BIN / "ctrun").read_bytes()).hexdigest()
    del container.linux["seccomp"]
    container.start()
    process = subprocess.Popen(container.command("exec", "c1", "/bin/spy"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process.stdout, process.stdin:
        assert process.stdout.readline() == "looking\n"
        for _ in range(200):
            container.out("true")
        process.stdin.close()
        lines = process.stdout.read().splitlines()
    assert process.wait(20) == 0
    assert len(lines) == 1 and lines[0].startswith("seen ") and int(lines[0].split()[1]) > 0, lines[:20]
    assert hashlib.sha256((BIN / "ctrun").read_bytes()).hexdigest() == digest


def test_the_program_itself_runs_from_a_mount_that_nobody_can_write(container):
    """CVE-2019-5736: also when the entry point leads back to it."""
    (container.rootfs / "entry").symlink_to("/proc/self/exe")
    container.start()
    assert "ctrun version" in container.out("/entry", "--version")
    # Opening a log that nobody reads holds it: then it runs inside, and no way to it is writable.
    os.mkfifo(container.rootfs / "tmp/fifo")
    pid_file = container.base / "pid"
    with open("/dev/null", "r+b") as null:
        command = container.command("exec", "-d", "--pid-file", pid_file, "c1", "/entry", "--log", "/tmp/fifo", "list")
        assert subprocess.run(command, stdin=null, stdout=null, stderr=null, timeout=20).returncode == 0
    pid = int(pid_file.read_text())
    with pytest.raises(OSError) as failure:
        os.open(f"/proc/{pid}/exe", os.O_RDWR)
    # Busy (26) only hides the question until it ends: the mount answers it.
    assert failure.value.errno in (26, 30) and os.statvfs(f"/proc/{pid}/exe").f_flag & os.ST_RDONLY
    os.kill(pid, signal.SIGKILL)
    assert reap(pid) == -9


def test_terminal_of_a_container_that_replaced_its_devpts(container):
    """What is opened for a terminal is devpts, not what the container put there."""
    container.process["capabilities"] = {name: CAPABILITIES + ["CAP_SYS_ADMIN"] for name in ("bounding", "effective", "permitted")}
    del container.linux["seccomp"]
    container.start()
    container.sh("mount -t tmpfs none /dev/pts && ln -s /dev/null /dev/pts/ptmx")
    assert "none of devpts" in container.refused("true", flags=["-t"])
    container.sh("rm /dev/pts/ptmx && mknod /dev/pts/ptmx c 5 2")
    result = container.exec("true", flags=["-t"])
    assert result.returncode == 255 and "/dev/pts" in result.stderr


def test_the_filter_is_that_of_the_container_whatever_became_of_the_bundle(container):
    container.start()
    del container.linux["seccomp"]
    container.process["env"] = ["PATH=/nowhere"]
    container.write()
    assert "Seccomp:\t2" in container.sh("cat /proc/self/status; mount -t tmpfs none /tmp && echo mounted || true") and container.out("env").split()[0] == "PATH=/bin"
    assert "mounted" not in container.sh("mount -t tmpfs none /tmp && echo mounted || true")
    # The cache may go; the container's own copy may not.
    shutil.rmtree(container.root / ".seccomp")
    assert "Seccomp:\t2" in container.sh("cat /proc/self/status")
    saved = container.root / "c1/seccomp"
    damaged = bytearray(saved.read_bytes())
    damaged[-3] ^= 1
    saved.write_bytes(damaged)
    assert "seccomp" in container.refused("true")
    saved.unlink()
    assert "seccomp" in container.refused("true")


@pytest.mark.parametrize("nnp", [False, True])
def test_the_filter_of_a_process_object(shared, nnp):
    text = shared.sh_file("cat /proc/self/status; unshare -m true && echo made || true", noNewPrivileges=nnp)
    assert "Seccomp:\t2" in text and "made" not in text


@pytest.mark.parametrize("change, field", [
    ({"args": []}, "args"), ({"args": [""]}, "args"), ({"cwd": "etc"}, "cwd"), ({"cwd": None}, "cwd"), ({"env": ["novalue"]}, "env"), ({"user": {"uid": -1}}, "uid"),
    ({"user": {"uid": 4294967295}}, "uid"), ({"capabilities": {"bounding": ["CAP_NONE"]}}, "CAP_NONE"), ({"rlimits": [{"type": "RLIMIT_X", "soft": 1, "hard": 1}]}, "rlimits"),
    ({"rlimits": [{"type": "RLIMIT_NOFILE", "soft": 2, "hard": 1}]}, "rlimits"), ({"selinuxLabel": "a:b:c"}, "selinuxLabel"), ({"scheduler": {"policy": "SCHED_IDLE"}}, "scheduler"),
    ({"ioPriority": {"class": "IOPRIO_CLASS_IDLE"}}, "ioPriority"), ({"args": ["a\0b"]}, "args"), ({"terminal": "yes"}, "terminal"), ({"oomScoreAdj": 1001}, "oomScoreAdj"),
])
def test_bad_process_objects(shared, change, field):
    before = shared.members()
    result = shared.ctrun("exec", "--process", shared.file(**{"args": ["true"], **change}), "c1")
    assert result.returncode == 255 and field in result.stderr and result.stderr.count("\n") == 1
    assert shared.members() == before


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b'{"args":["true"],"args":["x"]}', b"\xff", b"{}" + b" " * (5 << 20)],
                         ids=["empty", "open", "list", "null", "twice", "bytes", "large"])
def test_malformed_process_objects(shared, text):
    path = shared.base / "malformed.json"
    path.write_bytes(text)
    assert shared.ctrun("exec", "--process", path, "c1").returncode == 255
    assert shared.ctrun("exec", "--process", shared.base / "missing.json", "c1").returncode == 255


def test_a_large_environment_arrives_whole(shared):
    """CVE-2021-43784: nothing on the way in counts bytes in too small a number."""
    value = "x" * 100_000
    assert shared.sh_file("printf %s \"$LONG\" | wc -c; echo $LAST", env=["PATH=/bin", "LONG=" + value, "LAST=kept"]).split() == ["100000", "kept"]


def test_what_the_object_does_not_say_is_as_for_the_first_process(container):
    container.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 88}]
    container.process["oomScoreAdj"] = 300
    container.start()
    text = container.sh_file("ulimit -n; cat /proc/self/oom_score_adj; grep CapBnd /proc/self/status")
    assert text.split()[:2] == ["77", "300"] and int(text.split()[-1], 16) == bits(CAPABILITIES)
    assert container.sh_file("cat /proc/self/oom_score_adj", oomScoreAdj=400).strip() == "400"


def test_a_child_control_group(container):
    """Tracked on its own in version 2, limited with the container, and gone with it."""
    assert UNIFIED, "this host has no version 2 hierarchy"
    container.start()
    directory = Path(UNIFIED) / container.linux["cgroupsPath"].lstrip("/")
    assert "nope" in container.refused("true", flags=["--cgroup", "nope"])
    (directory / "exec-1").mkdir()
    pid_file = container.base / "pid"
    with open("/dev/null", "r+b") as null:
        command = container.command("exec", "-d", "--pid-file", pid_file, "--cgroup", "exec-1", "c1", "sleep", "1000")
        assert subprocess.run(command, stdin=null, stdout=null, stderr=null, timeout=20).returncode == 0
    pid = int(pid_file.read_text())
    assert (directory / "exec-1/cgroup.procs").read_text().split() == [str(pid)]
    groups = dict(line.split(":", 2)[1:] for line in Path(f"/proc/{pid}/cgroup").read_text().split())
    first = dict(line.split(":", 2)[1:] for line in Path(f"/proc/{container.pid}/cgroup").read_text().split())
    assert groups.pop("") == first.pop("") + "/exec-1" and groups == first
    # Seen from inside it is below the container's root.
    assert container.members() == {pid, container.pid}
    # kill --all reaches it, pause stops it, delete removes the directory.
    container.ok("pause", "c1")
    container.ok("resume", "c1")
    container.ok("kill", "--all", "c1", "KILL")
    assert reap(pid) == -9 and reap(container.pid) == -9
    container.ok("delete", "c1")
    assert not directory.exists()


def test_delete_by_force_reaches_child_control_groups(container):
    container.start()
    directory = Path(UNIFIED) / container.linux["cgroupsPath"].lstrip("/")
    (directory / "a/b").mkdir(parents=True)
    pid_file = container.base / "pid"
    with open("/dev/null", "r+b") as null:
        command = container.command("exec", "-d", "--pid-file", pid_file, "--cgroup", "/a/b", "c1", "sleep", "1000")
        assert subprocess.run(command, stdin=null, stdout=null, stderr=null, timeout=20).returncode == 0
    container.write()
    process = subprocess.Popen(container.command("delete", "-f", "c1"))
    # A pid namespace ends only when all its processes were looked at, and this one's parent is us.
    assert reap(int(pid_file.read_text())) == -9
    assert process.wait(20) == 0 and not directory.exists()


@pytest.mark.parametrize("name", ["", "/", "..", "../x", "a/../b", "a//b", "a/", ".", "x:", ":x", "nothing:x", "a\nb", "memory:../x"])
def test_control_groups_that_are_not_below(shared, name):
    """CVE-2023-6476: the name never leads out of the container's own."""
    result = shared.exec("true", flags=["--cgroup", name])
    assert result.returncode != 0 and result.stderr.count("\n") == 1


@pytest.mark.parametrize("call", ["setns", "clone3", "sendmsg", "recvfrom", "close_range", "capset", "seccomp", "setresuid", "renameat", "rename", "execve", "write", "chdir"])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_killed_on_the_way_in(shared, call, number):
    """Whichever side dies: no process stays that nobody knows of, and the container goes on."""
    pid_file = shared.base / f"killed-{call}-{number}"
    traced = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={number}"]
    process = subprocess.Popen(traced + shared.command("exec", "-d", "--pid-file", str(pid_file), "c1", "sleep", "1000"), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL, start_new_session=True)
    # strace stays as long as what it traces: a process that got through is known by its file.
    with contextlib.closing(events.Pid(process.pid)) as tracer:
        deadline = events.Deadline(20)
        while not events.readable([tracer.fd], 0.05):
            deadline.left(process.args)
            known = int(pid_file.read_text() or 0) if pid_file.exists() else 0
            if known and events.comm(known) == "sleep":
                os.kill(known, signal.SIGKILL)
    process.wait(20)
    collect()
    assert shared.members() == {shared.pid}
    assert shared.exec("true").returncode == 0


def collect():
    """Ends of what this process inherited."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def test_a_hundred_at_once(shared):
    processes = [subprocess.Popen(shared.command("exec", "c1", "sh", "-c", f"exit {number}"), stdin=subprocess.DEVNULL) for number in range(100)]
    assert [process.wait(60) for process in processes] == list(range(100))
    assert shared.members() == {shared.pid}


def test_the_container_ends_while_it_is_entered(container):
    """Either it ran, or a line says why not."""
    container.start()
    processes = [subprocess.Popen(container.command("exec", "c1", "true"), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for _ in range(20)]
    os.kill(container.pid, signal.SIGKILL)
    for process in processes:
        with process.stderr:
            text = process.stderr.read()
        code = process.wait(20)
        assert code in (0, 137) and text == "" or code == 255 and text.count("\n") == 1, (code, text)
    assert reap(container.pid) == -9


def test_without_pivot_root(container):
    (container.rootfs / "mark").touch()
    container.pid = container.create("--no-pivot")
    container.ok("start", "c1")
    assert "mark" in container.out("ls", "/").split()


# --- ps

def test_processes(either):
    process = subprocess.Popen(either.command("exec", either.id, "sh", "-c", "echo ready; read line"), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with process.stdin, process.stdout:
        assert process.stdout.readline() == b"ready\n"
        pids = json.loads(either.ok("ps", "--format", "json", either.id))
        assert len(pids) == 2 and either.pid in pids
        head, *lines = either.ok("ps", either.id).splitlines()
        column = head.split().index("PID")
        assert {int(line.split()[column]) for line in lines} == set(pids)
        head, *lines = either.ok("ps", either.id, "-o", "pid,args").splitlines()
        assert head.split() == ["PID", "COMMAND"] and any("sleep 100000" in line for line in lines)
    assert process.wait(20) == 1
    assert either.ctrun("ps", either.id, "-o", "args").returncode == 1
    assert either.ctrun("ps", "--format", "yaml", either.id).returncode == 1


# --- update

def limit(container, controller, v1, v2):
    """What the kernel holds, from whichever version carries the controller."""
    path = container.linux["cgroupsPath"].lstrip("/")
    mount = next((m for m in hierarchies() if controller in m.rsplit("/", 1)[1].split(",")), None)
    return (Path(mount) / path / v1).read_text().strip() if mount else (Path(UNIFIED) / path / v2).read_text().strip()


MEMORY = ("memory", "memory.limit_in_bytes", "memory.max")
SWAP = ("memory", "memory.memsw.limit_in_bytes", "memory.swap.max")


def test_memory_up_and_down(either):
    """The kernel keeps the limit of memory below that of memory and swap, so the order of the writes has to follow the direction."""
    for megabytes in (64, 256, 32, 128):
        either.ok("update", "--memory", f"{megabytes}m", "--memory-swap", f"{2 * megabytes}m", either.id)
        assert limit(either, *MEMORY) == str(megabytes << 20)
        assert limit(either, *SWAP) == str((2 * megabytes if V1 else megabytes) << 20)
    either.ok("update", "--memory", "-1", "--memory-swap", "-1", either.id)
    assert limit(either, *MEMORY) in ("max", "9223372036854771712")


def test_limits_by_flags_and_by_file(either):
    either.ok("update", "--pids-limit", "55", "--cpu-quota", "50000", "--cpu-period", "100000", "--cpuset-cpus", "0", either.id)
    assert limit(either, "pids", "pids.max", "pids.max") == "55"
    assert limit(either, "cpu", "cpu.cfs_quota_us", "cpu.max").split()[0] == "50000"
    assert limit(either, "cpuset", "cpuset.cpus", "cpuset.cpus") == "0"
    resources = {"pids": {"limit": 66}, "cpu": {"shares": 512, "quota": 20000, "period": 50000, "cpus": "0-1"}, "memory": {"reservation": 8 << 20}}
    result = subprocess.run(either.command("update", "-r", "-", either.id), input=json.dumps(resources).encode(), timeout=20)
    assert result.returncode == 0
    assert limit(either, "pids", "pids.max", "pids.max") == "66"
    assert limit(either, "cpu", "cpu.shares", "cpu.weight") in ("512", "20")
    assert limit(either, "cpu", "cpu.cfs_quota_us", "cpu.max").split()[0] == "20000"
    assert limit(either, "memory", "memory.soft_limit_in_bytes", "memory.low") == str(8 << 20)
    either.ok("update", "--cpu-quota", "-1", "--pids-limit", "-1", "--cpuset-cpus", "0-1", either.id)
    assert limit(either, "cpu", "cpu.cfs_quota_us", "cpu.max").split()[0] in ("-1", "max")
    assert limit(either, "pids", "pids.max", "pids.max") == "max"


def snapshot(container):
    names = ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.max", "memory.swap.max", "pids.max", "cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.max", "cpu.shares",
             "cpu.weight", "cpuset.cpus", "memory.soft_limit_in_bytes", "memory.low", "../cgroup.subtree_control"]
    found = {}
    for mount in hierarchies():
        for name in names:
            path = Path(mount) / container.linux["cgroupsPath"].lstrip("/") / name
            if path.exists():
                found[str(path)] = path.read_text()
    return found


@pytest.mark.parametrize("bad", [
    {"cpu": {"cpus": "4000-4001"}}, {"memory": {"limit": 64 << 20, "swap": 32 << 20}}, {"cpu": {"quota": 1}}, {"unified": {"no.such.file": "1"}}, {"unified": {"../x": "1"}},
    {"cpu": {"realtimeRuntime": 5}}, {"network": {"classID": 1}}, {"memory": {"disableOOMKiller": True}}, {"pids": {"limit": "many"}},
])
def test_what_is_refused_changes_nothing(container, bad):
    container.linux["resources"].update(memory={"limit": 128 << 20, "swap": 256 << 20}, pids={"limit": 40}, cpu={"quota": 30000, "period": 100000})
    container.start()
    before, saved = snapshot(container), (container.root / "c1/config.json").read_bytes()
    good = {"pids": {"limit": 50}, "memory": {"limit": 100 << 20, "swap": 300 << 20}, "cpu": {"quota": 40000, "shares": 300, "cpus": "0"}}
    for section, values in bad.items():
        good[section] = {**good.get(section, {}), **values}
    path = container.base / "resources.json"
    path.write_text(json.dumps(good))
    assert container.fails("update", "-r", path, "c1")
    after = snapshot(container)
    changed = {name: (before.get(name), text) for name, text in after.items() if text != before.get(name)}
    if changed:
        pytest.fail(f"changed, before and after: {changed}")
    assert (container.root / "c1/config.json").read_bytes() == saved


def test_memory_above_the_limit_of_memory_and_swap_says_what_to_do(container):
    container.linux["resources"]["memory"] = {"limit": 64 << 20, "swap": 64 << 20}
    container.start()
    # Version 2 limits swap alone: there memory is never above.
    if V1:
        assert "--memory-swap" in container.fails("update", "--memory", "128m", "c1")
        assert limit(container, *MEMORY) == str(64 << 20)
    container.ok("update", "--memory", "128m", "--memory-swap", "128m", "c1")
    assert limit(container, *MEMORY) == str(128 << 20) and limit(container, *SWAP) == (str(128 << 20) if V1 else "0")
    assert "below" in container.fails("update", "--memory", "128m", "--memory-swap", "64m", "c1")


def test_what_is_as_wanted_is_not_written(container):
    container.linux["resources"].update(memory={"limit": 128 << 20, "swap": 256 << 20}, pids={"limit": 40}, cpu={"quota": 30000, "period": 100000})
    container.start()
    trace = container.base / "trace"
    words = container.command("update", "--memory", str((128 << 20) + 5), "--memory-swap", "256m", "--pids-limit", "40", "--cpu-quota", "30000", "c1")
    assert subprocess.run(["strace", "-qq", "-o", str(trace), "-y", "-e", "trace=write", *words], timeout=20).returncode == 0
    assert "/cgroup/" not in trace.read_text()


def test_new_limits_are_remembered(container):
    container.linux["resources"]["memory"] = {"limit": 64 << 20}
    container.start()
    container.ok("update", "--memory", "128m", "--memory-swap", "-1", "--pids-limit", "9", "c1")
    container.ok("update", "--pids-limit", "8", "c1")
    saved = json.loads((container.root / "c1/config.json").read_text())["linux"]["resources"]
    assert saved["memory"] == {"limit": 128 << 20, "swap": -1} and saved["pids"] == {"limit": 8} and saved["devices"] == [{"allow": False, "access": "rwm"}]


@pytest.mark.parametrize("words", [
    ["--memory", "12q"], ["--memory", ""], ["--memory", "-2"], ["--cpu-quota", "x"], ["--pids-limit", "1.5"], ["--blkio-weight", "1001"], ["--odd", "1"], ["--resources", "/nope"],
    ["--cpu-rt-runtime", "5"], ["--l3-cache-schema", "x"], ["-r"],
])
def test_bad_command_lines_of_update(shared, words):
    before = snapshot(shared)
    shared.fails("update", *words, "c1") if words != ["-r"] else shared.fails("update", "c1", *words)
    assert snapshot(shared) == before


def test_update_of_one_that_does_not_run(container):
    assert container.fails("update", "--pids-limit", "5", "c1") == "container does not exist"
    container.start()
    container.stop()
    assert container.fails("update", "--pids-limit", "5", "c1") == "container not running"


# --- events

def test_statistics(either):
    either.sh("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; dd if=/dev/zero of=/tmp/f bs=1M count=2 2>/dev/null; rm /tmp/f")
    either.ok("update", "--pids-limit", "70", either.id)
    line = json.loads(either.ok("events", "--stats", either.id))
    assert line["type"] == "stats" and line["id"] == either.id
    data = line["data"]
    assert {"cpu", "memory", "pids", "blkio", "hugetlb", "intel_rdt", "network_interfaces"} <= set(data)
    usage = data["cpu"]["usage"]
    assert 10_000_000 < usage["total"] < 600_000_000_000 and 0 <= usage["user"] + usage["kernel"] <= usage["total"] + 40_000_000
    if V1:
        assert len(usage["percpu"]) == os.cpu_count() and 0 < sum(usage["percpu"]) <= usage["total"] + 1_000_000_000
    memory = data["memory"]["usage"]
    # runc tells the peak of version 2 from 1.2 on.
    peak = memory["max"] if V1 or either.runtime == "ctrun" else memory.get("max", memory["usage"])
    assert 4096 <= memory["usage"] <= peak < 1 << 30 and memory["failcnt"] >= 0
    assert data["memory"]["raw"]["inactive_file"] >= 0 and len(data["memory"]["raw"]) > 20
    assert data["pids"] == {"current": 1, "limit": 70}
    either.ok("update", "--pids-limit", "-1", either.id)


# Both leave out what is 0, and so which of these are there depends on what a container happened to do.
LEFT_OUT = {"/cpu/throttling", "/blkio", "/blkio/ioServiceBytesRecursive", "/blkio/ioServicedRecursive", "/memory/cache", "/hugetlb", "/intel_rdt"}


def test_the_same_keys_as_runc():
    if not RUNC:
        return
    def keys(value, path=""):
        if not isinstance(value, dict):
            return {path}
        return {path}.union(*(keys(inner, f"{path}/{key}") for key, inner in value.items())) if value else {path}
    found = []
    for runtime in ("ctrun", "runc"):
        made = Container(runtime)
        if UNIFIED and not V1 and "hugetlb" in Path(UNIFIED, "cgroup.controllers").read_text().split():
            # runc turns every controller on, ctrun those that a limit needs.
            made.linux["resources"]["hugepageLimits"] = [{"pageSize": "2MB", "limit": 64 << 20}]
        try:
            made.start()
            found.append(keys(json.loads(made.ok("events", "--stats", "c1"))["data"]))
        finally:
            made.close()
    ours, theirs = found
    missing = {key for key in theirs if not key.startswith("/cpuset")} - ours - LEFT_OUT
    # The peaks of version 2 are told by runc from 1.2 on.
    more = {key for key in ours - theirs if not key.startswith("/memory/raw/")} - (set() if V1 else {"/memory/usage/max", "/memory/swap/max"})
    assert (missing, more) == (set(), set())


def test_statistics_again_and_again_until_the_end(container):
    container.start()
    process = subprocess.Popen(container.command("events", "--interval", "20ms", "c1"), stdout=subprocess.PIPE, text=True)
    with process.stdout:
        totals = [json.loads(process.stdout.readline())["data"]["cpu"]["usage"]["total"] for _ in range(3)]
        assert totals == sorted(totals)
        container.stop()
        assert process.wait(20) == 0
    assert container.ctrun("events", "--stats", "c1").returncode == 1


def test_out_of_memory_is_an_event(container):
    container.linux["resources"]["memory"] = {"limit": 24 << 20, "swap": 24 << 20}
    container.start()
    process = subprocess.Popen(container.command("events", "--interval", "1h", "c1"), stdout=subprocess.PIPE, text=True)
    with process.stdout:
        # Ready once it is asleep in poll: its watch stands then.
        wchan = Path(f"/proc/{process.pid}/wchan")
        deadline = events.Deadline(20)
        while "poll" not in wchan.read_text():
            deadline.left("the watch")
            os.sched_yield()
        assert container.exec("sh", "-c", "x=$(cat /dev/zero | tr '\\0' a); echo $x").returncode != 0
        assert json.loads(process.stdout.readline()) == {"type": "oom", "id": "c1"}
        container.stop()
        assert process.wait(20) == 0


@pytest.mark.parametrize("words", [["--interval", "0"], ["--interval", "x"], ["--interval", "-1s"], ["--interval", "5"], ["--odd"], ["c2"]])
def test_bad_command_lines_of_events(shared, words):
    assert shared.fails("events", *words, "c1")


# --- what there is not

@pytest.mark.parametrize("name", ["checkpoint", "restore"])
def test_no_checkpoints(shared, name):
    assert "not supported" in shared.fails(name, "--image-path", "/x", "c1")


def test_no_systemd(shared):
    result = subprocess.run(shared.command("exec", "c1", "true", flags=["--systemd-cgroup"]), capture_output=True, text=True, timeout=20)
    assert result.returncode == 1 and "cgroupsPath" in result.stderr


def test_help_names_the_commands(shared):
    text = shared.ok("--help")
    for name in ("exec", "ps", "update", "events"):
        assert f"\n  {name} " in text and f"ctrun {name}" in shared.ok(name, "--help")
