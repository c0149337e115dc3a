"""Standard input and terminals through the manager."""
import hashlib
import os

import pytest

from exec_api import FAILED_PRECONDITION, INVALID_ARGUMENT, OUT_OF_RANGE, TASKS, Aside, container, read, run, start, target, wait, write
from ttrpc_client import Client, RPCError, one, text


@pytest.fixture
def client(world):
    with Client(world.address) as made:
        yield made


def resize(client, box, identifier, width, height):
    client.call(TASKS, "Resize", *target(box, identifier), (4, width), (5, height))


def end(client, box):
    client.call("ctr.v1.Containers", "Delete", (1, "default"), (2, box), (3, True))


def whole_log(world, box):
    output = b""
    with Client(world.address) as reader:
        for message in reader.stream("ctr.v1.Logs", "Read", (1, "default"), (2, box), (4, True)):
            output += one(message, 4)
    return output


def test_a_container_reads_what_is_written(world, client):
    box = container(client, "/bin/cat", stdin=True)
    assert write(client, box, "", b"hello ") == (6, False)
    assert write(client, box, "", b"lo world\n", offset=3) == (12, False)  # what was taken is passed over
    assert write(client, box, "", b"!\n", append=True) == (14, False)
    with pytest.raises(RPCError) as error:
        write(client, box, "", b"behind a gap", offset=99)
    assert error.value.code == OUT_OF_RANGE
    assert write(client, box, "", b"", offset=14, close=True) == (14, True)
    assert whole_log(world, box) == b"hello world\n!\n"
    assert one(client.call(TASKS, "Wait", (1, "default"), (2, box)), 1)
    with pytest.raises(RPCError) as error:
        write(client, box, "", b"late", offset=14)
    assert error.value.code == FAILED_PRECONDITION
    end(client, box)


def test_an_exec_reads_what_is_written(world, client):
    box = world.background("exec sleep 600")
    identifier = text(start(client, box, "/bin/sh", "-c", "cat; exit 5", stdin=True), 1)
    data = os.urandom(1 << 20)
    reader = Aside(read, world, box, identifier)
    sent = 0
    while sent < len(data):
        sent, _ = write(client, box, identifier, data[sent:sent + 200_000], offset=sent)
    write(client, box, identifier, b"", offset=sent, close=True)
    assert reader.join()[0] == data
    assert wait(client, box, identifier) == (5, "reaped")
    world.ctrctl("rm", "-f", box)


def test_without_input_it_is_at_its_end(world, client):
    box = world.background("exec sleep 600")
    assert run(world, client, box, "/bin/cat") == (0, b"", b"")
    identifier = text(start(client, box, "/bin/sleep", "600", attached=False), 1)
    with pytest.raises(RPCError) as error:
        write(client, box, identifier, b"x")
    assert error.value.code == FAILED_PRECONDITION
    with pytest.raises(RPCError) as error:
        write(client, box, "", b"x" * ((1 << 20) + 1))
    assert error.value.code == INVALID_ARGUMENT
    world.ctrctl("rm", "-f", box)


@pytest.mark.parametrize("victim", ["manager", "shim", "both"])
def test_each_byte_once_whoever_is_killed(alone, victim):
    with Client(alone.address) as client:
        box = container(client, "/bin/sh", "-c", "cat | md5sum", stdin=True)
    data = os.urandom(900_000)
    sent = 0
    while sent < len(data):
        with Client(alone.address) as client:
            # Sent again from before what was answered, as a client does whose connection was cut.
            again = max(0, sent - 50_000)
            sent, _ = write(client, box, "", data[again:again + 200_000], offset=again)
        if victim != "shim":
            alone.kill9()
        if victim != "manager":
            alone.guards(box)[0].kill_and_wait()
        if victim != "shim":
            alone.start()
    with Client(alone.address) as client:
        write(client, box, "", b"", offset=len(data), close=True)
    assert whole_log(alone, box).split()[0].decode() == hashlib.md5(data).hexdigest()
    alone.ctrctl("rm", "-f", box)


def test_a_terminal_of_a_container(world, client):
    box = container(client, "/bin/sh", "-c", "tty; stty size; trap 'stty size; exit 3' WINCH; while :; do sleep 1000 & wait $!; done",
                    terminal=True, stdin=True, size=(91, 33))
    with Client(world.address) as reader:
        seen = b""
        for message in reader.stream("ctr.v1.Logs", "Read", (1, "default"), (2, box), (4, True)):
            assert one(message, 1, 1) == 1
            seen += one(message, 4)
            if b"33 91" in seen:
                break
    assert seen.startswith(b"/dev/pts/0\r\n")
    resize(client, box, "", 120, 40)
    output = whole_log(world, box)
    assert b"40 120" in output
    end(client, box)


def test_a_terminal_of_an_exec(world, client):
    box = world.background("exec sleep 600")
    identifier = text(start(client, box, "/bin/sh", terminal=True, stdin=True, size=(80, 24)), 1)
    reader = Aside(read, world, box, identifier)
    sent, _ = write(client, box, identifier, b"stty size; echo $TERM\n")
    resize(client, box, identifier, 132, 43)
    sent, _ = write(client, box, identifier, b"stty size; exit 4\n", offset=sent)
    assert wait(client, box, identifier) == (4, "reaped")
    out, err = reader.join()
    assert err == b"" and b"43 132" in out and b"xterm" in out
    world.ctrctl("rm", "-f", box)


def test_what_has_no_terminal_has_no_size(world, client):
    box = world.background("exec sleep 600")
    with pytest.raises(RPCError):
        resize(client, box, "", 80, 24)
    with pytest.raises(RPCError) as error:
        resize(client, box, "", 80, 70000)
    assert error.value.code == INVALID_ARGUMENT
    world.ctrctl("rm", "-f", box)
