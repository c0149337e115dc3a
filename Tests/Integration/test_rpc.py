"""The wire: frames, errors, streams; and that the page that describes it is enough to write a client from."""
import os
import re
import socket
import struct
import threading

import pytest

import checks
import events
from harness import IMAGE, REPOSITORY
from ttrpc_client import DATA, REQUEST, Client, RPCError, decode, encode, one, text

INVALID_ARGUMENT, NOT_FOUND, ALREADY_EXISTS, RESOURCE_EXHAUSTED, UNIMPLEMENTED = 3, 5, 6, 8, 12
RUNNING, STOPPED = 2, 4


@pytest.fixture
def client(world):
    with Client(world.address) as made:
        yield made


def config(*args):
    return encode(*[(1, arg) for arg in args])


def create(client, *args, start=True, name="", identifier=""):
    answer = client.call("ctr.v1.Containers", "Create", (1, "default"), (2, identifier), (3, name), (4, IMAGE), (5, config(*args)), (6, start))
    return text_of(answer, 1, 1)


def text_of(message, *path):
    for number in path[:-1]:
        message = decode(one(message, number))
    return text(message, path[-1])


def nested(message, *path):
    for number in path:
        message = decode(one(message, number))
    return message


def test_the_page_describes_the_wire():
    page = (REPOSITORY / "proto" / "PROTOCOL.md").read_text()
    for word in ("big-endian", "4 MiB", "remote-closed", "RESOURCE_EXHAUSTED", "UNIMPLEMENTED", "ctr.v1.Containers", "ctr.v1.Tasks", "ctr.v1.Images", "ctr.v1.Logs",
                 "ErrorInfo"):
        assert word.lower() in page.lower(), word


def test_a_stranger_creates_starts_waits_and_reads_logs(world, client):
    identifier = create(client, "/bin/sh", "-c", "echo hello; echo oops >&2; exit 7", start=False)
    client.call("ctr.v1.Tasks", "Start", (1, "default"), (2, identifier))
    end = nested(client.call("ctr.v1.Tasks", "Wait", (1, "default"), (2, identifier)), 1)
    assert (one(end, 1), text(end, 2)) == (7, "reaped")
    output = {1: b"", 2: b""}
    with Client(world.address) as reader:
        for message in reader.stream("ctr.v1.Logs", "Read", (1, "default"), (2, identifier), (4, True)):
            output[one(message, 1, 1)] = output.get(one(message, 1, 1), b"") + one(message, 4)
            last = message
    assert output == {1: b"hello\n", 2: b"oops\n"} and one(last, 6, 0) == 1
    client.call("ctr.v1.Containers", "Delete", (1, "default"), (2, identifier))
    with pytest.raises(RPCError) as error:
        client.call("ctr.v1.Containers", "Get", (1, "default"), (2, identifier))
    assert error.value.code == NOT_FOUND
    end = nested(client.call("ctr.v1.Tasks", "Wait", (1, "default"), (2, identifier)), 1)
    assert one(end, 1) == 7  # also long after it was removed


def test_logs_resume_at_a_cursor(world, client):
    identifier = create(client, "/bin/sh", "-c", "seq 1 20000")
    client.call("ctr.v1.Tasks", "Wait", (1, "default"), (2, identifier))
    got, cursor = b"", []
    for _ in range(1000):
        with Client(world.address) as reader:
            stream = reader.stream("ctr.v1.Logs", "Read", (1, "default"), (2, identifier), (4, True), *cursor)
            message = next(stream)
            got += one(message, 4)
            if one(message, 6, 0):
                break
            cursor = [(5, encode((1, 1), (2, one(message, 2, 0)), (3, one(message, 3, 0) + len(one(message, 4)))))]
    checks.numbered_lines(got, last=20000)
    client.call("ctr.v1.Containers", "Delete", (1, "default"), (2, identifier))


def test_an_error_says_operation_object_and_exit_code(client):
    with pytest.raises(RPCError) as error:
        client.call("ctr.v1.Containers", "Get", (1, "default"), (2, "nosuchcontainer"))
    assert error.value.code == NOT_FOUND and "nosuchcontainer" in error.value.message and "\n" not in error.value.message
    detail = decode(error.value.details[0])
    assert text(detail, 1).endswith("ctr.v1.ErrorInfo")
    assert text(decode(one(detail, 2)), 2) == "nosuchcontainer"


def test_the_same_id_twice_joins_the_first(client):
    identifier = os.urandom(32).hex()
    assert create(client, "/bin/sleep", "600", identifier=identifier) == identifier
    assert create(client, "/bin/sleep", "600", identifier=identifier) == identifier
    listed = client.call("ctr.v1.Tasks", "List", (1, "default"))
    assert [text(decode(t), 1) for t in listed[1]].count(identifier) == 1
    client.call("ctr.v1.Containers", "Delete", (1, "default"), (2, identifier), (3, True))


def test_calls_on_one_connection_run_together(world, client):
    identifier = create(client, "/bin/sleep", "600")
    waiting = client.request("ctr.v1.Tasks", "Wait", encode((1, "default"), (2, identifier)))
    client.call("ctr.v1.System", "Version")
    client.call("ctr.v1.Tasks", "Kill", (1, "default"), (2, identifier), (3, 9))
    assert one(nested(client.result(waiting), 1), 1) == 137
    client.call("ctr.v1.Containers", "Delete", (1, "default"), (2, identifier))


def test_a_timeout_ends_the_wait_not_the_work(client):
    identifier = create(client, "/bin/sleep", "600")
    with pytest.raises(RPCError) as error:
        client.call("ctr.v1.Tasks", "Wait", (1, "default"), (2, identifier), timeout_ns=100_000_000)
    assert error.value.code == 4
    assert one(nested(client.call("ctr.v1.Containers", "Get", (1, "default"), (2, identifier)), 1, 8), 4) == RUNNING
    client.call("ctr.v1.Containers", "Delete", (1, "default"), (2, identifier), (3, True))


def test_a_frame_at_the_limit_is_taken(client):
    def body(padding):
        return encode((1, "ctr.v1.System"), (2, "Version"), (15, b"x" * padding))  # field 15 is unknown and skipped
    exact = body((4 << 20) - len(body(4 << 20)) + (4 << 20))
    assert len(exact) == 4 << 20
    client.send(1, REQUEST, 0, exact)
    client.result(1)


def test_a_frame_over_the_limit_is_refused_and_the_connection_goes_on(client):
    client.send(1, REQUEST, 0, b"x" * ((4 << 20) + 1))
    with pytest.raises(RPCError) as error:
        client.result(1)
    assert error.value.code == RESOURCE_EXHAUSTED
    client.next_stream = 3
    client.call("ctr.v1.System", "Version")


def test_a_malformed_envelope_is_an_invalid_argument(client):
    client.send(1, REQUEST, 0, b"\xff\xff\xff\xff")
    with pytest.raises(RPCError) as error:
        client.result(1)
    assert error.value.code == INVALID_ARGUMENT
    client.next_stream = 3
    client.call("ctr.v1.System", "Version")


def test_a_malformed_message_is_an_invalid_argument(client):
    with pytest.raises(RPCError) as error:
        client.result(client.request("ctr.v1.Containers", "Get", b"\x0a\xff\xff\xff\x7f"))
    assert error.value.code == INVALID_ARGUMENT
    client.call("ctr.v1.System", "Version")


@pytest.mark.parametrize("service, method, says", [("ctr.v1.Nonsense", "Get", "ctr.v1.Nonsense"), ("ctr.v1.System", "Nonsense", "Nonsense")])
def test_an_unknown_service_or_method_is_unimplemented(client, service, method, says):
    with pytest.raises(RPCError) as error:
        client.call(service, method)
    assert error.value.code == UNIMPLEMENTED and says in error.value.message
    client.call("ctr.v1.System", "Version")


def test_an_even_stream_id_is_an_invalid_argument(client):
    client.send(2, REQUEST, 0, encode((1, "ctr.v1.System"), (2, "Version")))
    with pytest.raises(RPCError) as error:
        client.result(2)
    assert error.value.code == INVALID_ARGUMENT
    client.call("ctr.v1.System", "Version")


def test_a_stream_id_used_again_is_an_invalid_argument(client):
    client.call("ctr.v1.System", "Version")
    client.send(1, REQUEST, 0, encode((1, "ctr.v1.System"), (2, "Version")))
    with pytest.raises(RPCError) as error:
        client.result(1)
    assert error.value.code == INVALID_ARGUMENT


def test_frames_of_unknown_type_are_ignored(client):
    client.send(1, 77, 0, b"whatever")
    client.send(1, DATA, 0, b"to no stream")
    client.next_stream = 3
    client.call("ctr.v1.System", "Version")


def test_a_frame_cut_in_the_middle_harms_nobody(world, client):
    with socket.socket(socket.AF_UNIX) as cut:
        cut.connect(world.address)
        cut.sendall(struct.pack(">IIBB", 1000, 1, REQUEST, 0) + b"half")
    client.call("ctr.v1.System", "Version")


def test_silent_connections_harm_nobody(world, client):
    held = []
    for _ in range(300):
        silent = socket.socket(socket.AF_UNIX)
        silent.connect(world.address)
        held.append(silent)
    client.call("ctr.v1.System", "Version")
    for silent in held:
        silent.close()


def memory(pid):
    return sum(int(value) for value in re.findall(r"^(?:Private_Clean|Private_Dirty|Swap):\s+(\d+)", open(f"/proc/{pid}/smaps_rollup").read(), re.M))


def test_a_slow_reader_slows_nobody_and_costs_no_memory(world, client):
    identifier = create(client, "/bin/sh", "-c", "i=0; while [ $i -lt 32 ]; do dd if=/dev/zero bs=1M count=1 2>/dev/null; i=$((i+1)); done; exec sleep 600")
    with Client(world.address) as follower:
        size = 0
        for message in follower.stream("ctr.v1.Logs", "Read", (1, "default"), (2, identifier), (4, True)):
            size += len(one(message, 4))
            if size == 32 << 20:
                break
    before, lazy = memory(world.process.pid), []
    for _ in range(20):
        reader = Client(world.address)
        reader.request("ctr.v1.Logs", "Read", encode((1, "default"), (2, identifier), (4, True)), 1)
        lazy.append(reader)
    for reader in lazy:
        reader.exactly(1)
    for _ in range(20):
        client.call("ctr.v1.Tasks", "List", (1, "default"))
    grown = memory(world.process.pid) - before
    assert grown < 64 << 10, f"{grown} KiB for 20 readers that do not read"
    for reader in lazy:
        reader.close()
    client.call("ctr.v1.Containers", "Delete", (1, "default"), (2, identifier), (3, True))


def test_a_client_that_does_not_read_its_answers_is_bounded(world, client):
    with socket.socket(socket.AF_UNIX) as mute:
        mute.settimeout(2)
        mute.connect(world.address)
        frame = encode((1, "ctr.v1.System"), (2, "Info"))
        try:
            for stream in range(1, 400001, 2):
                mute.sendall(struct.pack(">IIBB", len(frame), stream, REQUEST, 0) + frame)
        except (TimeoutError, ConnectionError):
            pass
        else:
            pytest.fail("200,000 requests were taken from a client that reads nothing")
        client.call("ctr.v1.System", "Version")


def test_a_dropped_connection_cancels_its_waits(world, client):
    identifier = create(client, "/bin/sleep", "600")
    client.call("ctr.v1.System", "Version")
    before = len(os.listdir(f"/proc/{world.process.pid}/fd"))
    dropped = [Client(world.address) for _ in range(50)]
    for each in dropped:
        each.request("ctr.v1.Tasks", "Wait", encode((1, "default"), (2, identifier)))
    with Client(world.address) as follower:
        follower.request("ctr.v1.Logs", "Read", encode((1, "default"), (2, identifier), (4, True)), 1)
    for each in dropped:
        each.close()
    client.call("ctr.v1.Tasks", "Kill", (1, "default"), (2, identifier), (3, 9))
    client.call("ctr.v1.Tasks", "Wait", (1, "default"), (2, identifier))
    client.call("ctr.v1.Containers", "Delete", (1, "default"), (2, identifier))
    deadline = events.Deadline(10)
    while len(os.listdir(f"/proc/{world.process.pid}/fd")) > before:
        deadline.left("descriptors of dropped connections")
        client.call("ctr.v1.System", "Version")


def test_many_clients_at_once(world):
    failures = []

    def work():
        try:
            with Client(world.address) as own:
                for _ in range(20):
                    own.call("ctr.v1.Tasks", "List", (1, "default"))
        except Exception as error:  # a thread's failure is the test's
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures


def test_other_users_are_kept_out(world):
    assert os.stat(world.address).st_mode & 0o077 == 0
