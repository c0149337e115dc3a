"""Rotation by size and count with readers and kills in its middle, and disks that take nothing."""
import os
import subprocess

import checks
import events
import shim_client
from events import Pid
from harness import BIN
from logclient import STDOUT, Reading, create, index, kill_shim, read, verify
from shim_client import GUARD, field, first
from ttrpc_client import RPCError

LINES = "i=0; while [ $i -lt {total} ]; do i=$((i+1)); echo $i; [ $((i % {burst})) = 0 ] && usleep {pause}; done"


def segments(world, identifier, stream="stdout"):
    return sorted(p.name for p in (world.incarnation(identifier) / "log").glob(f"{stream}.*"))


def numbers(data):
    return [int(line) for line in data.split()]


def test_only_so_many_segments_of_their_size_are_kept(world):
    identifier = create(world, "seq 1 200000; seq 1 100 >&2", options={"max-size": "100k", "max-file": 3})
    assert world.wait(identifier) == 0
    record = world.record(world.bundle(identifier) / "shim.env")
    assert (record["segment_bytes"], record["segment_count"]) == ("100000", "3")
    log = world.incarnation(identifier) / "log"
    kept = segments(world, identifier)
    assert len(kept) == 3 and [(log / name).stat().st_size for name in kept[:2]] == [100_000, 100_000]
    assert segments(world, identifier, "stderr") == ["stderr.000001"]
    pieces, out, err = read(world, identifier)
    assert not any(p.gap for p in pieces)
    assert out == b"".join((log / name).read_bytes() for name in kept) and out.endswith(b"\n199999\n200000\n")
    assert numbers(err) == list(range(1, 101))
    report, = verify(world, identifier)
    total = len("".join(f"{i}\n" for i in range(1, 200001)))
    assert report["problems"] == [] and report["rotated_bytes"] + report["bytes"] == total + len(err) and report["ended"]
    assert len(index(log)) < 200
    world.ctrctl("rm", identifier)


def test_a_follower_gets_every_line_over_rotations(world):
    identifier = create(world, LINES.format(total=4000, burst=20, pause=4000), options={"max-size": "2k", "max-file": 3})
    pieces, out, _ = read(world, identifier, follow=True)
    assert not any(p.gap for p in pieces), [(p.segment, p.gap_bytes) for p in pieces if p.gap]
    assert numbers(out) == list(range(1, 4001))
    assert len({p.segment for p in pieces if p.data}) > 5
    world.wait(identifier)
    world.ctrctl("rm", identifier)


def test_a_reader_that_rotation_overtakes_is_told_how_much_it_lost(world):
    """It stops reading while the container writes ten times what is kept, and then goes on."""
    identifier = create(world, "seq 1 100000; read line < /gate/fifo; seq 100001 600000; echo end", options={"max-size": "300k", "max-file": 2},
                        fields=[gate(world, "overtaken")])
    data, lost, gaps = b"", 0, 0
    with Reading(world, identifier, follow=True) as reading:
        for piece in reading:
            data += piece.data
            lost += piece.gap_bytes
            gaps += piece.gap
            if data.endswith(b"\n100000\n") and gaps == 0:
                with open(world.directory / "overtaken" / "fifo", "w") as fifo:
                    fifo.write("go\n")
                assert world.wait(identifier, 120) == 0
                gaps = -1
    total = len("".join(f"{i}\n" for i in range(1, 600001))) + 4
    assert data.endswith(b"600000\nend\n")
    assert len(data) + lost == total
    world.ctrctl("rm", identifier)


def gate(world, name):
    from ttrpc_client import encode
    directory = world.directory / name
    directory.mkdir()
    os.mkfifo(directory / "fifo")
    return 5, encode((1, str(directory)), (2, "/gate"))


def test_a_place_that_rotation_took_is_a_gap(world):
    identifier = create(world, "seq 1 50000", options={"max-size": "20k", "max-file": 2})
    assert world.wait(identifier) == 0
    pieces = read(world, identifier, cursors=[(STDOUT, 1, 100)])[0]
    assert pieces[0].gap and not any(p.gap for p in pieces[1:])
    assert read(world, identifier, tail=1)[1] == b"50000\n"
    world.ctrctl("rm", identifier)


def test_kills_of_the_shim_in_the_middle_of_rotations(alone):
    """Small segments and much output: nearly every kill falls beside a rotation. No line is torn, doubled or lost, for a reader that follows."""
    total = 30000
    identifier = create(alone, LINES.format(total=total, burst=200, pause=3000), options={"max-size": "10k", "max-file": 200})
    got, cursors, killed = b"", [], 0
    ended = False
    while not ended:
        try:
            with Reading(alone, identifier, follow=True, cursors=cursors) as reading:
                for piece in reading:
                    assert not piece.gap
                    got += piece.data
                    if piece.data:
                        cursors = [piece.cursor()]
                    if got.count(b"\n") > 2500 * (killed + 1) and killed < 10:
                        killed += 1
                        kill_shim(alone, identifier)
                    ended = piece.ended
        except (ConnectionError, RPCError):
            pass
    assert killed == 10
    checks.numbered_lines(got, last=total)
    report, = verify(alone, identifier)
    assert report["problems"] == [] and report["gaps"] == 0


def test_kills_while_the_oldest_go(alone):
    """The same with only two segments: what is left afterwards is whole, and the count of what went is right."""
    total = 30000
    identifier = create(alone, LINES.format(total=total, burst=200, pause=3000), options={"max-size": "4k", "max-file": 2})
    log = alone.incarnation(identifier) / "log"
    for number in range(1, 11):
        events.wait_file(log / "index", lambda _: newest(log) >= number * 3)
        kill_shim(alone, identifier)
        assert len(segments(alone, identifier)) <= 4
    assert alone.wait(identifier, 120) == 0
    assert len(segments(alone, identifier)) == 2
    out = read(alone, identifier)[1]
    kept = numbers(out[out.index(b"\n") + 1:])
    assert kept == list(range(kept[0], total + 1))
    report, = verify(alone, identifier)
    assert report["problems"] == []
    assert report["rotated_bytes"] + report["bytes"] + report["gap_bytes"] == len("".join(f"{i}\n" for i in range(1, total + 1)))
    assert not (log / "index.new").exists()


def newest(log):
    return max((int(p.name.split(".")[1]) for p in log.glob("stdout.*")), default=0)


# Disks

def small_disk(world, identifier):
    """The container's own directory on a file system of 256 KiB, before its first start."""
    directory = world.root / "containers" / "default" / identifier
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k,mode=700", "tmpfs", directory], check=True)
    return directory


def test_a_full_disk_holds_up_nobody_and_what_is_lost_is_counted(alone):
    script = "seq 1 1000; read line < /gate/fifo; seq 1001 200000; echo full > /gate/done; read line < /gate/fifo; echo again; exec sleep 600"
    identifier = create(alone, script, start=False, fields=[gate(alone, "disk")])
    directory = small_disk(alone, identifier)
    try:
        alone.ctrctl("tasks", "start", identifier)
        fifo = alone.directory / "disk" / "fifo"
        with Reading(alone, identifier, follow=True) as reading:
            data = reading.until(b"\n1000\n")
            with open(directory / "filler", "wb", buffering=0) as filler:
                try:
                    while True:
                        filler.write(b"x" * 4096)
                except OSError:
                    pass
            with open(fifo, "w") as gate_end:
                gate_end.write("go\n")
            # The container wrote a megabyte and was not held up.
            events.wait_file(alone.directory / "disk" / "done", timeout=60)
            (directory / "filler").unlink()
            with open(fifo, "w") as gate_end:
                gate_end.write("go\n")
            lost = 0
            for piece in reading:
                data += piece.data
                lost += piece.gap_bytes
                if data.endswith(b"again\n"):
                    break
        total = len("".join(f"{i}\n" for i in range(1, 200001))) + 6
        assert lost > 0 and len(data) + lost == total
        report, = verify(alone, identifier)
        assert report["problems"] == [] and report["gap_bytes"] == lost
        # And a shim that starts while the disk is full goes on all the same.
        with open(directory / "filler", "wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(b"x" * 4096)
            except OSError:
                pass
        init = Pid(alone.task(identifier)["pid"])
        kill_shim(alone, identifier)
        (directory / "filler").unlink()
        alone.ctrctl("kill", identifier)
        assert alone.wait(identifier) == 137 and not init.alive()
    finally:
        alone.ctrctl("rm", "-f", identifier, code=None)
        subprocess.run(["umount", "-l", directory], check=False)
        alone.ctrctl("rm", "-f", identifier, code=None)


def fill(path):
    with open(path, "wb", buffering=0) as filler:
        try:
            while True:
                filler.write(b"x" * 4096)
        except OSError:
            pass


def test_what_was_dropped_is_counted_to_the_byte_through_kills_and_upgrades_of_the_shim(alone):
    """The shim is killed, or becomes another program, while it drops both streams; no byte is missing without a number."""
    script = ("seq 1 1000; read line < /gate/fifo; n=0; until [ -e /gate/stop ]; do seq 1 5000; seq 1 5000 >&2; n=$((n+1)); done; "
              "echo $n > /gate/count; echo full > /gate/done; read line < /gate/fifo; echo again; exec sleep 600")
    identifier = create(alone, script, start=False, fields=[gate(alone, "dropped")])
    directory, gates = small_disk(alone, identifier), alone.directory / "dropped"
    try:
        alone.ctrctl("tasks", "start", identifier)
        with Reading(alone, identifier, follow=True) as reading:
            reading.until(b"\n1000\n")
        fill(directory / "filler")
        (gates / "fifo").write_text("go\n")
        socket = alone.record(alone.bundle(identifier) / "shim.env")["socket"]
        for number in range(12):
            # It drops: its count grows.
            shim = alone.guards(identifier)[0]
            before = dropped(shim.pid)
            shim_client.eventually(lambda: dropped(shim.pid) > before, "more is dropped")
            if number % 3 == 2:
                with shim_client.Client(socket) as client:
                    assert first(client.call("Upgrade", field(1, str(BIN / "ctr-shim")), GUARD), 1)
            else:
                kill_shim(alone, identifier)
        (gates / "stop").touch()
        events.wait_file(gates / "done", timeout=60)
        (directory / "filler").unlink()
        (gates / "fifo").write_text("go\n")
        with Reading(alone, identifier, follow=True) as reading:
            reading.until(b"again\n")
        alone.ctrctl("kill", identifier)
        assert alone.wait(identifier) == 137
        pieces, out, err = read(alone, identifier)
        assert out.endswith(b"again\n") and all(piece.gap_bytes for piece in pieces if piece.gap)
        rounds, one = int((gates / "count").read_text()), len("".join(f"{i}\n" for i in range(1, 5001)))
        start = len("".join(f"{i}\n" for i in range(1, 1001)))
        lost = {stream: sum(piece.gap_bytes for piece in pieces if piece.stream == stream) for stream in (1, 2)}
        assert (len(out) + lost[1], len(err) + lost[2]) == (start + rounds * one + len("again\n"), rounds * one)
        assert lost[1] > 0 and lost[2] > 0
        report, = verify(alone, identifier)
        assert report["problems"] == [] and report["gap_bytes"] == lost[1] + lost[2]
    finally:
        alone.ctrctl("rm", "-f", identifier, code=None)
        subprocess.run(["umount", "-l", directory], check=False)
        alone.ctrctl("rm", "-f", identifier, code=None)


def dropped(pid):
    """What a shim's files in memory have counted."""
    total = 0
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            if os.readlink(f"/proc/{pid}/fd/{name}").startswith("/memfd:dropped"):
                total += os.stat(f"/proc/{pid}/fd/{name}").st_size - 4096
        except FileNotFoundError:
            pass
    return total


def test_a_file_that_nobody_may_write_drops_output_and_the_container_ends(alone):
    """Immutable segments: EPERM for every byte, as EIO would be."""
    identifier = create(alone, "echo first; read line < /gate/fifo; seq 1 100000; exit 3", fields=[gate(alone, "immutable")])
    with Reading(alone, identifier, follow=True) as reading:
        reading.until(b"first\n")
    log = alone.incarnation(identifier) / "log"
    # Behind the open descriptors: a shim that starts now may not open them.
    files = [log / "stdout.000001", log / "index"]
    subprocess.run(["chattr", "+i", *files], check=True)
    try:
        kill_shim(alone, identifier)
        with open(alone.directory / "immutable" / "fifo", "w") as fifo:
            fifo.write("go\n")
        assert alone.wait(identifier, 60) == 3
    finally:
        subprocess.run(["chattr", "-i", *files], check=True)
    assert (log / "stdout.000001").read_bytes() == b"first\n"
