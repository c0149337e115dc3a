"""Log drivers: json-file, cri, journald and none, with managers that are killed in their middle."""
import json
import os
import re
import socket
import struct
import subprocess
import threading

import pytest

import events
from logclient import Reading, create, kill_shim, log_path, read
from ttrpc_client import RPCError

LINES = "i=0; while [ $i -lt {total} ]; do i=$((i+1)); echo $i; [ $((i % {burst})) = 0 ] && usleep {pause}; done"


def records(path):
    return [json.loads(line) for line in open(path, encoding="utf-8")]


def text(path):
    return "".join(r["log"] for r in records(path))


def wait_for(path, holds, timeout=30):
    def check(p):
        try:
            return holds(p)
        except (OSError, ValueError):
            return False
    return events.wait_file(path, check, timeout)


def test_json_file_is_dockers(world):
    identifier = create(world, "echo out; echo err >&2; printf '\"<é>\\t\\\\'; head -c 20000 /dev/zero | tr '\\0' x", driver="json-file")
    assert world.wait(identifier) == 0
    path = log_path(world, identifier)
    assert path == f"{world.root}/containers/default/{identifier}/{identifier}-json.log"
    wait_for(path, lambda p: "".join(r["log"] for r in records(p)).count("x") == 20000)
    found = records(path)
    assert [(r["log"], r["stream"]) for r in found if r["stream"] == "stderr" or r["log"] == "out\n"] in (
        [("out\n", "stdout"), ("err\n", "stderr")], [("err\n", "stderr"), ("out\n", "stdout")])
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z", r["time"]) and list(r) == ["log", "stream", "time"] for r in found)
    long = [r["log"] for r in found if "x" in r["log"]]
    assert long[0].startswith("\"<é>\t\\xxx") and len(long[0].encode()) == 16384 and long[1].endswith("x")
    # The command line reads the segments.
    assert read(world, identifier)[1].startswith(b"out\n\"")
    world.ctrctl("rm", identifier)
    assert not os.path.exists(path)


@pytest.mark.parametrize("driver", ["json-file", "cri"])
def test_each_line_is_in_the_file_once_whoever_is_killed(alone, driver):
    path = alone.directory / "out.log"
    total = 6000
    identifier = create(alone, LINES.format(total=total, burst=20, pause=2000), driver=driver, options={"path": path})

    def lines(p):
        data = p.read_bytes()
        if data and not data.endswith(b"\n"):
            raise ValueError("a line is being written")
        if driver == "cri":
            return [int(line.rsplit(b" ", 1)[1]) for line in data.splitlines()]
        return [int(json.loads(line)["log"]) for line in data.splitlines()]
    for number in range(1, 9):
        wait_for(path, lambda p: p.read_bytes().count(b"\n") > 600 * number)
        alone.kill9()
        if number % 3 == 0:
            alone.start()
            kill_shim(alone, identifier)
            alone.kill9()
        alone.start()
    assert alone.wait(identifier, 60) == 0
    assert wait_for(path, lambda p: lines(p)[-1] == total)
    assert lines(path) == list(range(1, total + 1))
    alone.ctrctl("rm", identifier)
    assert path.exists(), "a file of the user's own stays"


def test_what_was_written_while_the_manager_was_away_is_caught_up(alone):
    identifier = create(alone, "echo one; read line < /gate/fifo; seq 1 5000; exit 0", driver="json-file", fields=[gate(alone, "away")])
    path = log_path(alone, identifier)
    wait_for(path, lambda p: text(p) == "one\n")
    init = events.Pid(alone.task(identifier)["pid"])
    alone.kill9()
    with open(alone.directory / "away" / "fifo", "w") as fifo:
        fifo.write("go\n")
    init.wait()
    alone.start()
    wait_for(path, lambda p: text(p) == "one\n" + "".join(f"{i}\n" for i in range(1, 5001)))
    alone.ctrctl("tasks", "start", identifier)
    wait_for(path, lambda p: text(p).endswith("5000\none\n"))
    alone.ctrctl("rm", "-f", identifier)


def gate(world, name):
    from ttrpc_client import encode
    directory = world.directory / name
    directory.mkdir()
    os.mkfifo(directory / "fifo")
    return 5, encode((1, str(directory)), (2, "/gate"))


def test_files_rotate_by_size_and_count(world):
    identifier = create(world, LINES.format(total=2000, burst=10, pause=500), driver="json-file", options={"max-size": "20k", "max-file": "3"})
    assert world.wait(identifier) == 0
    path = log_path(world, identifier)
    wait_for(path, lambda p: text(p).endswith("\n2000\n") or text(p) == "2000\n")
    names = sorted(p.name for p in (world.root / "containers" / "default" / identifier).glob("*-json.log*"))
    assert names == [f"{identifier}-json.log{s}" for s in ("", ".1", ".2")]
    kept = [int(n) for s in (".2", ".1", "") for n in text(path + s).split()]
    assert kept == list(range(kept[0], 2001)) and len(kept) > 500
    world.ctrctl("rm", identifier)


def test_a_cri_file_is_begun_anew_when_it_is_renamed(world):
    path = world.directory / "pod" / "0.log"
    path.parent.mkdir()
    identifier = create(world, LINES.format(total=3000, burst=10, pause=2000), driver="cri", options={"path": path})
    for number in (1, 2, 3):
        wait_for(path, lambda p: p.read_bytes().count(b"\n") > 200)
        path.rename(path.parent / f"0.log.2026010{number}-000000")
    assert world.wait(identifier, 60) == 0
    wait_for(path, lambda p: p.read_bytes().endswith(b" 3000\n"))
    found = [line for p in sorted(path.parent.iterdir(), key=lambda p: (p == path, p.name)) for line in p.read_text().splitlines()]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z stdout F \d+", line) for line in found)
    assert [int(line.rsplit(" ", 1)[1]) for line in found] == list(range(1, 3001))
    world.ctrctl("rm", identifier)


def test_a_full_disk_of_the_driver_holds_up_neither_container_nor_manager(alone):
    disk = alone.directory / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], check=True)
    try:
        identifier = create(alone, "seq 1 20000; echo end", driver="json-file", options={"path": disk / "out"})
        assert alone.wait(identifier) == 0
        # How much of it is in the file meanwhile depends on how much was there to be written at once.
        wait_for(alone.log, events.has_text("log driver waits"))
        assert alone.sh("echo fine") == "fine\n"
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
        wait_for(disk / "out", lambda p: text(p) == "".join(f"{i}\n" for i in range(1, 20001)) + "end\n")
        alone.ctrctl("rm", identifier)
    finally:
        subprocess.run(["umount", "-l", disk], check=False)


def test_removal_waits_until_the_driver_has_everything(world):
    path = world.directory / "rest.json"
    create(world, "seq 1 100000", driver="json-file", options={"path": path}, name="rest", fields=[(13, True)])
    wait_for(path, lambda p: text(p).endswith("\n100000\n"), 60)
    assert text(path) == "".join(f"{i}\n" for i in range(1, 100001))


# journald

class Journal:
    """A journal of the test's own."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(30)

    def entry(self):
        data, descriptors, _, _ = socket.recv_fds(self.socket, 1 << 20, 4)
        for descriptor in descriptors:
            with os.fdopen(descriptor, "rb") as file:
                file.seek(0)
                data = file.read()
        fields, at = {}, 0
        while at < len(data):
            end = min(i for i in (data.find(b"=", at), data.find(b"\n", at)) if i >= 0)
            if data[end:end + 1] == b"=":
                stop = data.index(b"\n", end)
                fields[data[at:end].decode()] = data[end + 1:stop]
            else:
                length, = struct.unpack_from("<Q", data, end + 1)
                stop = end + 9 + length
                fields[data[at:end].decode()] = data[end + 9:stop]
            at = stop + 1
        return fields

    def close(self):
        self.socket.close()


def test_the_journal_gets_what_docker_sends(world):
    path = world.directory / "journal"
    journal = Journal(path)
    identifier = create(world, "echo out; usleep 50000; echo err >&2; usleep 50000; head -c 250000 /dev/zero | tr '\\0' y; echo", driver="journald",
                        options={"socket": path, "tag": "t-{{.Name}}"}, name="journaled")
    out, err, large = journal.entry(), journal.entry(), journal.entry()
    short = identifier[:12].encode()
    assert out.items() >= {"MESSAGE": b"out", "PRIORITY": b"6", "CONTAINER_ID": short, "CONTAINER_ID_FULL": identifier.encode(), "CONTAINER_NAME": b"journaled",
                           "CONTAINER_TAG": b"t-journaled", "SYSLOG_IDENTIFIER": b"t-journaled"}.items()
    assert (err["MESSAGE"], err["PRIORITY"]) == (b"err", b"3")
    assert large["MESSAGE"] == b"y" * 250_000
    assert world.wait(identifier) == 0
    world.ctrctl("rm", identifier)
    journal.close()
    path.unlink()


def test_a_journal_that_is_slow_or_away_holds_up_nobody(alone):
    path = alone.directory / "journal"
    journal = Journal(path)
    identifier = create(alone, "seq 1 3000", driver="journald", options={"socket": path})
    assert alone.wait(identifier) == 0
    assert alone.sh("echo fine") == "fine\n"
    got = [int(journal.entry()["MESSAGE"]) for _ in range(1000)]
    alone.kill9()
    journal.close()
    path.unlink()
    journal = Journal(path)
    alone.start()
    seen = {}
    while 3000 not in seen:
        entry = journal.entry()
        seen.setdefault(int(entry["MESSAGE"]), set()).add(entry["CONTAINER_LOG_POSITION"])
    # What was in the old journal's queue is lost with it, and what came twice says so by its position.
    assert got == list(range(1, 1001))
    assert list(seen) == list(range(min(seen), 3001)) and all(len(positions) == 1 for positions in seen.values())
    alone.ctrctl("rm", identifier)
    journal.close()
    path.unlink()


def test_without_a_journal_create_says_so(world):
    with pytest.raises(RPCError) as failure:
        create(world, "true", driver="journald", options={"socket": world.directory / "nowhere"})
    assert f"log driver journald: there is no journal at {world.directory}/nowhere" in failure.value.message


# none, and what is refused

def test_none_has_no_log_to_read_and_says_so(world):
    identifier = create(world, "seq 1 100000; echo done > /gate/done; read line < /gate/fifo", driver="none", fields=[gate(world, "none")])
    events.wait_file(world.directory / "none" / "done", timeout=30)
    with pytest.raises(RPCError) as failure:
        with Reading(world, identifier) as reading:
            list(reading)
    assert "created with the log driver none, which does not support reading" in failure.value.message
    world.ctrctl("rm", "-f", identifier)


@pytest.mark.parametrize("driver, options, expected", [
    ("syslog", {}, 'unknown log driver "syslog"'),
    ("json-file", {"max-size": "ten"}, 'log option max-size "ten"'),
    ("json-file", {"max-file": "0"}, 'log option max-file "0"'),
    ("segments", {"path": "/x"}, 'unknown log option "path" for log driver segments'),
    ("cri", {"path": "relative"}, 'log option path "relative" is not an absolute path'),
    ("cri", {"path": "/nonexistent/dir/0.log"}, "/nonexistent/dir is not a directory"),
    ("cri", {"path": "/dev/full"}, "/dev/full is not a regular file"),
])
def test_options_that_cannot_be_are_refused_in_one_line(world, driver, options, expected):
    with pytest.raises(RPCError) as failure:
        create(world, "true", driver=driver, options=options)
    assert expected in failure.value.message and "\n" not in failure.value.message


def test_two_containers_do_not_share_a_file(world):
    path = world.directory / "shared.json"
    identifier = create(world, "true", driver="json-file", options={"path": path}, name="owner")
    with pytest.raises(RPCError) as failure:
        create(world, "true", driver="json-file", options={"path": path})
    assert "is the log file of container owner" in failure.value.message
    world.ctrctl("rm", "-f", identifier)


def test_many_containers_with_drivers_at_once(world):
    directory = world.directory / "many"
    directory.mkdir()
    identifiers = []

    def one(number):
        identifiers.append(create(world, f"seq 1 2000; echo {number}", driver="json-file", options={"path": directory / str(number)}))
    threads = [threading.Thread(target=one, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(10):
        wait_for(directory / str(number), lambda p: text(p) == "".join(f"{i}\n" for i in range(1, 2001)) + f"{number}\n")
    world.ctrctl("rm", "-f", *identifiers)
