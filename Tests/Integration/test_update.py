"""Limits that change while a container runs: all of a change or nothing, now and at the next start."""
import sqlite3

import pytest

from harness import IMAGE
from ttrpc_client import Client, RPCError, decode, encode, one, text

INVALID_ARGUMENT, FAILED_PRECONDITION = 3, 9
MIB = 1 << 20
MEMORY, SWAP, RESERVATION, CPUS, SHARES, CPUSET, PIDS = 1, 2, 3, 4, 5, 6, 8


@pytest.fixture
def client(world):
    with Client(world.address) as made:
        yield made


def update(client, box, *limits):
    client.call("ctr.v1.Tasks", "Update", (1, "default"), (2, box), (3, encode(*limits)))


def sample(client, box):
    """What the kernel says: (memory limit, process limit)"""
    message = next(client.stream("ctr.v1.Tasks", "Stats", (1, "default"), (2, box)))
    stats = decode(one(message, 1))
    return one(stats, 12, None), one(stats, 16, None)


def limits(world, box):
    with Client(world.address) as client:
        return sample(client, box)


def allowed_processors(world, box):
    with open(f"/proc/{world.task(box)['pid']}/status") as status:
        return next(line.split()[1] for line in status if line.startswith("Cpus_allowed_list"))


def test_limits_change_at_once_and_stay_for_the_next_start(world, client):
    box = world.background("exec sleep 600", "--memory", "64m")
    assert limits(world, box) == (64 * MIB, None)
    update(client, box, (MEMORY, 96 * MIB), (PIDS, 40))
    assert limits(world, box) == (96 * MIB, 40)
    update(client, box, (MEMORY, 48 * MIB), (CPUSET, "0"))
    assert limits(world, box) == (48 * MIB, 40) and allowed_processors(world, box) == "0"
    world.restart()
    assert limits(world, box) == (48 * MIB, 40)
    world.ctrctl("stop", "-t", "0", box)
    world.ctrctl("start", box)
    assert limits(world, box) == (48 * MIB, 40) and allowed_processors(world, box) == "0"
    with Client(world.address) as other:
        update(other, box, (MEMORY, 0), (PIDS, 0))
    assert limits(world, box) == (None, None)
    world.ctrctl("rm", "-f", box)


@pytest.mark.parametrize("change, said", [
    ([(PIDS, 7), (MEMORY, MIB)], "6 MiB"), ([(PIDS, 7), (SWAP, 32 * MIB)], "swap"), ([(PIDS, 7), (CPUS, 1)], "0.01"),
    ([(PIDS, 7), (CPUSET, "0-9999")], "does"), ([(PIDS, 7), (CPUSET, "x")], "no list"), ([(PIDS, 7), (RESERVATION, 65 * MIB)], "reservation"),
    ([], "no limit"),
])
def test_bad_input_changes_nothing(world, client, change, said):
    box = world.background("exec sleep 600", "--memory", "64m", "--pids-limit", "30")
    with pytest.raises(RPCError) as error:
        update(client, box, *change)
    assert error.value.code == INVALID_ARGUMENT and said in error.value.message and "\n" not in error.value.message
    assert limits(world, box) == (64 * MIB, 30)
    world.ctrctl("rm", "-f", box)


def test_what_the_kernel_refuses_is_not_kept(world, client):
    """Less memory than the container holds and cannot give back."""
    box = world.background("head -c 40000000 /dev/zero > /dev/shm/held; echo held; exec sleep 600", "--memory", "64m", "--pids-limit", "30")
    with Client(world.address) as reader:
        next(reader.stream("ctr.v1.Logs", "Read", (1, "default"), (2, box), (4, True)))
    try:
        update(client, box, (PIDS, 12), (MEMORY, 8 * MIB))
    except RPCError:
        assert limits(world, box) == (64 * MIB, 30)
        kept = decode(one(decode(one(client.call("ctr.v1.Containers", "Get", (1, "default"), (2, box)), 1)), 10))
        assert kept == {}
    else:
        assert limits(world, box) == (8 * MIB, 12)  # a kernel that takes it keeps what it can
    world.ctrctl("rm", "-f", box)


def test_only_of_one_that_runs_and_told_in_the_events(world, client):
    box = world.background("exec sleep 600")
    update(client, box, (PIDS, 11))
    rows = sqlite3.connect(f"file:{world.root}/ctrd.db?mode=ro", uri=True).execute(
        "SELECT payload FROM events WHERE object = ? AND topic = '/tasks/update'", (box,)).fetchall()
    assert [one(decode(one(decode(payload), 10)), 8, 0) for (payload,) in rows] == [11]
    world.ctrctl("stop", "-t", "0", box)
    with pytest.raises(RPCError) as error:
        update(client, box, (PIDS, 12))
    assert error.value.code == FAILED_PRECONDITION and "is not running" in error.value.message
    world.ctrctl("rm", box)


def test_an_oom_kill_is_shown_and_told(world, client):
    box = world.run("-d", "--memory", "16m", IMAGE, "/bin/sh", "-c", "tail /dev/zero")
    world.wait(box)
    shown = decode(one(decode(one(decode(one(client.call("ctr.v1.Containers", "Get", (1, "default"), (2, box)), 1)), 8)), 8))
    assert one(shown, 5, 0) == 1 and text(shown, 2) == "reaped"
    rows = sqlite3.connect(f"file:{world.root}/ctrd.db?mode=ro", uri=True).execute(
        "SELECT topic FROM events WHERE object = ? ORDER BY sequence", (box,)).fetchall()
    assert [topic for (topic,) in rows][-2:] == ["/tasks/oom", "/tasks/exit"]
    world.ctrctl("rm", box)
