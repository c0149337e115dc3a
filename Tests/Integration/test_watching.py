"""Statistics, process lists, and the list of guards: read from the kernel, whatever a shim does."""
import os
import re
import signal
from pathlib import Path

import pytest

import events
from harness import IMAGE
from ttrpc_client import Client, RPCError, decode, one, text

INVALID_ARGUMENT, NOT_FOUND, FAILED_PRECONDITION = 3, 5, 9
MIB = 1 << 20
BURN = "while :; do :; done"
# Numbers of the fields of ctr.v1.TaskStats.
IDENTIFIER, NAME, CPU, MEMORY, WORKING_SET, MEMORY_LIMIT, PIDS, PIDS_LIMIT, NETWORKS, CPUS = 1, 2, 4, 10, 11, 12, 15, 16, 21, 24


@pytest.fixture
def client(world):
    with Client(world.address) as made:
        yield made


def samples(client, *identifiers, interval=0):
    """Each message of Stats: the samples by container."""
    fields = [(1, "default"), *[(2, i) for i in identifiers], *([(3, interval)] if interval else [])]
    for message in client.stream("ctr.v1.Tasks", "Stats", *fields):
        decoded = [decode(each) for each in message.get(1, [])]
        yield {text(each, IDENTIFIER): each for each in decoded}


def test_one_sample_says_what_the_kernel_says(world, client):
    identifier = world.background("sleep 600 & exec sleep 600", "--memory", "64m", "--pids-limit", "50", "--name", "sampled")
    (sample,) = [message[identifier] for message in samples(client, identifier)]
    assert text(sample, NAME) == "sampled"
    assert 0 < one(sample, MEMORY, 0) < 64 * MIB and one(sample, WORKING_SET, 0) <= one(sample, MEMORY, 0)
    assert one(sample, MEMORY_LIMIT, 0) == 64 * MIB
    assert (one(sample, PIDS, 0), one(sample, PIDS_LIMIT, 0)) == (2, 50)
    assert one(sample, CPU, 0) > 0 and one(sample, CPUS, 0) == os.cpu_count()
    assert NETWORKS not in sample  # only the loopback
    world.ctrctl("rm", "-f", identifier)


def test_a_limit_that_is_none_is_absent(world, client):
    identifier = world.background("exec sleep 600")
    (sample,) = [message[identifier] for message in samples(client, identifier)]
    assert MEMORY_LIMIT not in sample and PIDS_LIMIT not in sample
    world.ctrctl("rm", "-f", identifier)


def test_used_time_grows_and_one_that_ends_drops_out(world, client):
    idle, busy = world.background("exec sleep 600"), world.background(BURN)
    stream = samples(client, idle, busy, interval=100)
    first, later = next(stream), next(stream)
    for _ in range(5):
        later = next(stream)
    assert one(later[busy], CPU, 0) - one(first[busy], CPU, 0) > 20_000_000
    assert one(later[idle], CPU, 0) - one(first[idle], CPU, 0) < 20_000_000
    world.ctrctl("rm", "-f", busy)
    deadline = events.Deadline(20)
    while busy in next(stream):
        deadline.left("the ended container is still sampled")
    world.ctrctl("rm", "-f", idle)
    assert all(idle not in message for message in list(stream)[-1:])  # and with the last one the stream ends


def test_without_a_name_all_running_ones_are_sampled(world, client):
    first = world.background("exec sleep 600")
    world.wait(world.run("-d", IMAGE, "/bin/true"))
    stream = samples(client, interval=100)
    assert set(next(stream)) == {first}
    second = world.background("exec sleep 600")
    deadline = events.Deadline(20)
    while set(next(stream)) != {first, second}:
        deadline.left("a new container is not sampled")
    world.remove_all()


def test_a_stopped_shim_and_a_slow_client_hold_up_no_sample(world, client):
    identifier = world.background("exec sleep 600")
    shim, _ = world.guards(identifier)
    with Client(world.address) as slow:
        shim.kill(signal.SIGSTOP)
        try:
            slow_stream = samples(slow, interval=100)
            next(slow_stream)  # and reads no more
            stream = samples(client, identifier, interval=100)
            for _ in range(4):
                assert identifier in next(stream)
        finally:
            shim.kill(signal.SIGCONT)
    world.ctrctl("rm", "-f", identifier)


@pytest.mark.parametrize("fields, code, said", [
    (lambda i: [(2, "nosuch")], NOT_FOUND, "nosuch"), (lambda i: [(2, i)], FAILED_PRECONDITION, "is not running"),
    (lambda i: [(3, 10)], INVALID_ARGUMENT, "too short"),
])
def test_what_cannot_be_sampled(world, client, fields, code, said):
    identifier = world.run("-d", IMAGE, "/bin/true")
    world.wait(identifier)
    with pytest.raises(RPCError) as error:
        list(client.stream("ctr.v1.Tasks", "Stats", (1, "default"), *fields(identifier)))
    assert error.value.code == code and said in error.value.message
    world.ctrctl("rm", identifier)


def top(client, identifier, *args):
    answer = client.call("ctr.v1.Tasks", "Top", (1, "default"), (2, identifier), *[(3, a) for a in args])
    return [t.decode() for t in answer[1]], [[cell.decode() for cell in decode(row)[1]] for row in answer.get(2, [])]


def test_top_shows_the_containers_processes_and_no_others(world, client):
    identifier, other = world.background("sleep 601 & exec sleep 602"), world.background("exec sleep 603")
    init = world.task(identifier)["pid"]
    titles, rows = top(client, identifier)
    assert titles[:3] == ["UID", "PID", "PPID"] and all(len(row) == len(titles) for row in rows)
    assert {row[-1] for row in rows} == {"sleep 601", "sleep 602"} and str(init) in {row[1] for row in rows}
    titles, rows = top(client, identifier, "-o", "args,pid")
    assert titles == ["COMMAND", "PID"] or titles[-1] == "PID"
    assert len(rows) == 0 or str(init) in {row[-1] for row in rows}
    titles, rows = top(client, identifier, "-eo", "pid,comm")
    assert titles == ["PID", "COMMAND"] and [row[1] for row in rows] == ["sleep", "sleep"]
    world.ctrctl("rm", "-f", identifier, other)


@pytest.mark.parametrize("args, said", [(["-eo", "comm"], "no column PID"), (["--nosuchoption"], "cannot list the processes")])
def test_top_refuses_arguments_that_show_no_pid(world, client, args, said):
    identifier = world.background("exec sleep 600")
    with pytest.raises(RPCError) as error:
        top(client, identifier, *args)
    assert error.value.code == INVALID_ARGUMENT and said in error.value.message and "\n" not in error.value.message
    world.ctrctl("rm", "-f", identifier)
    with pytest.raises(RPCError) as error:
        top(client, identifier)
    assert error.value.code == NOT_FOUND


def shims(client):
    answer = client.call("ctr.v1.Shims", "List", (1, "default"))
    return {text(each, 1): each for each in map(decode, answer.get(1, []))}


def test_the_list_of_shims(world, client):
    identifier = world.background("exec sleep 600")
    ended = world.run("-d", IMAGE, "/bin/true")
    world.wait(ended)
    world.ctrctl("tasks", "delete", ended)
    listed = shims(client)
    assert set(listed) == {identifier}
    shim, keeper = world.guards(identifier)
    found = listed[identifier]
    assert (one(found, 4, 0), one(found, 5, 0), text(found, 3)) == (shim.pid, keeper.pid, "ctr")
    assert re.fullmatch(r"\d+\.\d+\.\d+", text(found, 6)) and one(found, 10, 0) == 0
    init = Path(f"/proc/{world.task(identifier)['pid']}")
    shim.kill_and_wait()
    deadline = events.Deadline(20)
    while one(shims(client)[identifier], 8, 0) != 1:
        deadline.left("the restart of the shim is not counted")
    assert init.exists()
    world.ctrctl("rm", "-f", identifier, ended)
