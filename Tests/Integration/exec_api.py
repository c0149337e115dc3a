"""Execs by ctr.v1 as a client in another language makes them."""
import os
import threading

from harness import IMAGE
from ttrpc_client import Client, decode, encode, one, text

CREATED, RUNNING, PAUSED, STOPPED = 1, 2, 3, 4
INVALID_ARGUMENT, NOT_FOUND, ALREADY_EXISTS, FAILED_PRECONDITION, OUT_OF_RANGE = 3, 5, 6, 9, 11
TASKS = "ctr.v1.Tasks"


def config(*args, env=(), cwd="", user="", privileged=False, terminal=False, stdin=False, attached=True, size=(0, 0)):
    return encode(*[(1, a) for a in args], *[(2, e) for e in env], (3, cwd), (4, user), (5, privileged), (6, terminal), (7, stdin),
                  (8, attached), (9, size[0]), (10, size[1]))


def target(container, identifier):
    return [(1, "default"), (2, container), (3, identifier)]


def start(client, container, *args, identifier="", **options):
    """The exec as the manager answers it; its id in field 1."""
    identifier = identifier or os.urandom(32).hex()
    answer = client.call(TASKS, "Exec", *target(container, identifier), (4, config(*args, **options)))
    return decode(one(answer, 1))


def wait(client, container, identifier):
    """(code, source)"""
    end = decode(one(client.call(TASKS, "Wait", *target(container, identifier)), 1))
    return one(end, 1, 0), text(end, 2)


def read(world, container, identifier, follow=True):
    """What it wrote: stdout, stderr."""
    output = {1: b"", 2: b""}
    with Client(world.address) as reader:
        for message in reader.stream("ctr.v1.Logs", "Read", (1, "default"), (2, container), (4, follow), (6, identifier)):
            output[one(message, 1, 1)] += one(message, 4)
    return output[1], output[2]


def run(world, client, container, *args, **options):
    """Attached, to its end: code, stdout, stderr."""
    identifier = text(start(client, container, *args, **options), 1)
    output = read(world, container, identifier)
    code, source = wait(client, container, identifier)
    assert source == "reaped"
    return (code, *output)


def listed(client, container):
    answer = client.call(TASKS, "ListExecs", (1, "default"), (2, container))
    return [decode(each) for each in answer.get(1, [])]


def kill(client, container, identifier, number=9, everything=False):
    client.call(TASKS, "Kill", (1, "default"), (2, container), (3, int(number)), (4, everything), (5, identifier))


def write(client, container, identifier, data, offset=0, append=False, close=False):
    """(offset behind what was taken, whether it is closed)"""
    answer = client.call(TASKS, "WriteInput", *target(container, identifier), (4, data), (5, offset), (6, append), (7, close))
    return one(answer, 1, 0), bool(one(answer, 2, 0))


def container(client, *args, **options):
    """A running container made by Create with ContainerConfig's terminal and open_stdin."""
    fields = [(1, a) for a in args] + [(17, options.get("terminal", False)), (18, options.get("stdin", False)),
                                       (21, options.get("size", (0, 0))[0]), (22, options.get("size", (0, 0))[1])]
    answer = client.call("ctr.v1.Containers", "Create", (1, "default"), (4, IMAGE), (5, encode(*fields)), (6, True))
    return text(decode(one(answer, 1)), 1)


class Aside:
    """A call in a thread of its own; its result, or what it raised, when asked for."""

    def __init__(self, body, *args):
        self.result = self.error = None

        def run_body():
            try:
                self.result = body(*args)
            except BaseException as error:  # handed to whoever asks
                self.error = error
        self.thread = threading.Thread(target=run_body, daemon=True)
        self.thread.start()

    def join(self, timeout=30):
        self.thread.join(timeout)
        assert not self.thread.is_alive(), "the call does not end"
        if self.error:
            raise self.error
        return self.result
