"""Logs.Read with since, until, tail and streams; Logs.Verify; and the public format, read by the reader that its page shows."""
import re
import subprocess
import sys
import threading
import time

import pytest

import events
import harness
from logclient import STDERR, STDOUT, Reading, create, kill_shim, read, verify
from ttrpc_client import RPCError

NUMBERS = "for i in 1 2 3 4 5 6 7 8 9; do echo o$i; usleep 20000; echo e$i >&2; usleep 20000; done"


@pytest.fixture(scope="module")
def numbers(world):
    """A container that wrote o1 e1 … o9 e9 with time between them."""
    identifier = create(world, NUMBERS)
    assert world.wait(identifier) == 0
    return identifier


def lines(pieces):
    return [line for p in pieces for line in p.data.decode().split()]


EVERYTHING = [f"{kind}{i}" for i in range(1, 10) for kind in "oe"]


def test_the_last_lines_of_both_streams_are_those_that_arrived_last(world, numbers):
    for count in (1, 2, 3, 7, 18, 100):
        assert lines(read(world, numbers, tail=count)[0]) == EVERYTHING[-count:]
    assert lines(read(world, numbers, tail=0)[0]) == []


def test_one_stream_alone(world, numbers):
    assert read(world, numbers, streams=[STDERR])[1:] == (b"", b"".join(b"e%d\n" % i for i in range(1, 10)))
    assert lines(read(world, numbers, streams=[STDOUT], tail=2)[0]) == ["o8", "o9"]


def test_since_and_until_cut_by_the_time_of_arrival(world, numbers):
    times = {p.data.decode().strip(): p.time for p in read(world, numbers)[0] if p.data}
    assert list(times) == EVERYTHING and list(times.values()) == sorted(times.values())
    assert lines(read(world, numbers, since=times["o4"])[0]) == EVERYTHING[EVERYTHING.index("o4"):]
    assert lines(read(world, numbers, since=times["o4"] + 1)[0]) == EVERYTHING[EVERYTHING.index("e4"):]
    assert lines(read(world, numbers, until=times["e3"])[0]) == EVERYTHING[:EVERYTHING.index("e3")]
    assert lines(read(world, numbers, since=times["e2"], until=times["o5"], tail=3)[0]) == ["e3", "o4", "e4"]
    assert lines(read(world, numbers, since=times["e9"] + 1)[0]) == []


def test_a_reader_that_follows_ends_at_until(world):
    identifier = create(world, "echo begin; exec sleep 600")
    with Reading(world, identifier, follow=True) as reading:
        reading.until(b"begin\n")
    began = time.time_ns()
    pieces, out, _ = read(world, identifier, follow=True, until=began + 700_000_000)
    assert out == b"begin\n" and pieces[-1].ended
    assert 0.5 < (time.time_ns() - began) / 1e9 < 15
    world.ctrctl("rm", "-f", identifier)


def test_only_what_is_new_and_back_again(world):
    """tail 0 tells where it begins, so that whoever comes back there misses nothing though nothing had come."""
    identifier = create(world, "echo old; echo old >&2; read line < /gate/fifo; echo new; exec sleep 600", fields=[gate(world, "new")])
    with Reading(world, identifier, follow=True) as reading:
        seen = reading.until(b"old\n")
        while seen.count(b"old\n") < 2:
            seen += reading.until(b"old\n")
    with Reading(world, identifier, follow=True, tail=0) as reading:
        places = [next(reading), next(reading)]
    assert [(p.stream, p.data, p.ended) for p in places] == [(STDOUT, b"", False), (STDERR, b"", False)]
    assert places[0].cursor() == (STDOUT, 1, 4) and places[1].cursor() == (STDERR, 1, 4)
    with open(world.directory / "new" / "fifo", "w") as fifo:
        fifo.write("go\n")
    with Reading(world, identifier, follow=True, tail=0, cursors=[p.cursor() for p in places]) as reading:
        assert reading.until(b"new\n") == b"new\n"
    world.ctrctl("rm", "-f", identifier)


def gate(world, name):
    """A bind mount of a directory with a FIFO that the test opens: the script goes on when it is told."""
    import os

    from ttrpc_client import encode
    directory = world.directory / name
    directory.mkdir()
    os.mkfifo(directory / "fifo")
    return 5, encode((1, str(directory)), (2, "/gate"))


def test_a_follower_goes_on_across_restarts_of_manager_and_shim(alone):
    import checks
    identifier = create(alone, "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo $i; [ $((i % 20)) = 0 ] && usleep 2000; done")
    got, cursors, cuts = b"", [], 0
    while True:
        try:
            with Reading(alone, identifier, follow=True, cursors=cursors, timeout=60) as reading:
                for piece in reading:
                    got += piece.data
                    assert not piece.gap
                    if piece.data:
                        cursors = [piece.cursor()]
                    if piece.ended:
                        checks.numbered_lines(got, last=3000)
                        assert cuts == 4
                        return
                    if got.count(b"\n") > 500 * (cuts + 1) and cuts < 4:
                        cuts += 1
                        if cuts % 2:
                            kill_shim(alone, identifier)
                        else:
                            alone.kill9().start()
        except (ConnectionError, RPCError):
            pass


def test_the_tail_of_a_long_log_does_not_read_all_of_it(world):
    identifier = create(world, "seq 1 4000000; echo last")
    assert world.wait(identifier, 120) == 0
    io = f"/proc/{world.manager.pid}/io"

    def read_so_far():
        return int(re.search(r"rchar: (\d+)", open(io).read()).group(1))
    before = read_so_far()
    assert lines(read(world, identifier, tail=2)[0]) == ["4000000", "last"]
    assert read_so_far() - before < 4 << 20
    world.ctrctl("rm", identifier)


def test_a_slow_reader_slows_nobody(world):
    """A client that reads nothing: the container ends all the same, and the manager holds no more than two messages for it."""
    identifier = create(world, "seq 1 3000000")
    with Reading(world, identifier, follow=True) as reading:
        next(reading)
        assert world.wait(identifier, 120) == 0
        resident = int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{world.manager.pid}/status").read()).group(1))
        assert resident < 150_000
        import checks
        rest = b"".join(p.data for p in reading)
    assert rest.endswith(b"3000000\n")
    checks.numbered_lines(read(world, identifier)[1], last=3000000)
    world.ctrctl("rm", identifier)


def test_binary_output_comes_back_as_it_was(world):
    import os
    blob = world.directory / "blob"
    blob.mkdir()
    data = os.urandom(2 << 20) + b"\0" * 300_000 + b"\xff\xfe" + b"x" * 500_000
    (blob / "data").write_bytes(data)
    result = world.ctrctl("run", "-v", f"{blob}:/blob:ro", "--name", "binary", harness.IMAGE, "/bin/cat", "/blob/data")
    assert result.raw == data
    assert read(world, "binary")[1] == data
    world.ctrctl("rm", "binary")


# Verification

def test_a_whole_log_verifies(world, numbers):
    report, = verify(world, numbers)
    assert report == {"incarnation": 1, "entries": 20, "bytes": 54, "gap_bytes": 0, "gaps": 0, "recovered_bytes": 0, "rotated_bytes": 0, "ended": True,
                      "problems": []}


def damage_flip(log):
    data = bytearray((log / "index").read_bytes())
    data[85] ^= 1
    (log / "index").write_bytes(data)


def damage_cut(log):
    data = (log / "index").read_bytes()
    (log / "index").write_bytes(data[:-100])


def damage_overlap(log):
    data = (log / "index").read_bytes()
    (log / "index").write_bytes(data[:40] + data[:40] + data[40:])


@pytest.mark.parametrize("damage, expected", [
    (damage_flip, "entry 2 of the index is damaged"),
    (damage_cut, "the index ends in "),
    (damage_overlap, "overlaps the entry before it by 3 bytes"),
    (lambda log: (log / "stdout.000001").unlink(), "stdout.000001 is missing, with 27 bytes"),
    (lambda log: open(log / "stderr.000001", "ab").write(b"more"), "stderr.000001 has 4 bytes that the index does not speak of"),
    (lambda log: (log / "stderr.000001").write_bytes(b"less"), "stderr.000001 is 23 bytes shorter than the index says"),
], ids=["flipped", "cut", "overlap", "missing", "longer", "shorter"])
def test_each_kind_of_damage_is_found(world, damage, expected):
    identifier = create(world, NUMBERS.replace("usleep 20000", "usleep 2000"))
    assert world.wait(identifier) == 0
    # The guards go, and with them whoever could still write.
    world.ctrctl("tasks", "delete", identifier)
    assert verify(world, identifier)[0]["problems"] == []
    damage(world.incarnation(identifier) / "log")
    problems = verify(world, identifier)[0]["problems"]
    assert any(expected in p for p in problems), problems
    world.ctrctl("rm", identifier)


def test_every_start_is_verified_and_a_living_log_too(world):
    identifier = create(world, "echo x >> /n; seq 1 1000; [ $(wc -l < /n) = 2 ] || exit 0; read line < /gate/fifo", fields=[gate(world, "living")])
    assert world.wait(identifier) == 0
    world.ctrctl("tasks", "start", identifier)
    with Reading(world, identifier, follow=True) as reading:
        reading.until(b"\n1000\n")
    reports = verify(world, identifier)
    assert [(r["incarnation"], r["bytes"], r["ended"], r["problems"]) for r in reports] == [(1, 3893, True, []), (2, 3893, False, [])]
    world.ctrctl("rm", "-f", identifier)


def test_a_killed_shim_leaves_a_log_without_a_problem(alone):
    identifier = create(alone, "seq 1 300000; echo done >&2; exec sleep 600")
    log = alone.incarnation(identifier) / "log"
    for size in (1, 100_000, 500_000):
        events.wait_file(log / "stdout.000001", lambda p: p.exists() and p.stat().st_size >= size)
        kill_shim(alone, identifier)
    events.wait_file(log / "stderr.000001", events.has_text("done\n"), 60)
    import checks
    with Reading(alone, identifier, follow=True, streams=[STDOUT]) as reading:
        checks.numbered_lines(reading.until(b"\n300000\n"), last=300000)
    report, = verify(alone, identifier)
    assert report["problems"] == [] and report["gaps"] == 0


# The public format

def documented_reader():
    page = (harness.REPOSITORY / "docs" / "logs.md").read_text()
    return re.search(r"<!-- tested -->\n```python\n(.*?)```", page, re.S).group(1)


def test_the_reader_that_the_page_shows_reads_a_log(world, numbers):
    program = world.directory / "reader.py"
    program.write_text(documented_reader())
    log = world.incarnation(numbers) / "log"
    done = subprocess.run([sys.executable, program, log], capture_output=True, check=True)
    assert (done.stdout, done.stderr) == read(world, numbers)[1:]
    both = subprocess.run(f"{sys.executable} {program} {log} 2>&1", shell=True, capture_output=True, check=True, text=True).stdout
    assert both.split() == EVERYTHING


def test_the_reader_that_the_page_shows_reads_what_rotation_left(world):
    identifier = create(world, "for i in $(seq 1 400); do echo line $i; usleep 500; done", options={"max-size": "1k", "max-file": 2})
    assert world.wait(identifier) == 0
    program = world.directory / "reader2.py"
    program.write_text(documented_reader())
    log = world.incarnation(identifier) / "log"
    done = subprocess.run([sys.executable, program, log], capture_output=True, check=True)
    assert done.stdout == b"".join((log / name).read_bytes() for name in sorted(p.name for p in log.glob("stdout.*")))
    assert done.stdout == read(world, identifier)[1] and done.stdout.endswith(b"line 400\n")
    world.ctrctl("rm", identifier)


def test_many_readers_at_once(world):
    identifier = create(world, "for i in $(seq 1 200); do seq 1 500; usleep 1000; done")
    found = []

    def follow():
        found.append(read(world, identifier, follow=True)[1])
    threads = [threading.Thread(target=follow) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    whole = read(world, identifier)[1]
    assert len(whole) == 200 * len("".join(f"{i}\n" for i in range(1, 501))) and found == [whole] * 8
    world.ctrctl("rm", identifier)

