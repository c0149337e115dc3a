"""Logs.Read and Logs.Verify, and containers with a log driver, by the wire alone."""
import secrets
import struct

import events
from harness import IMAGE
from ttrpc_client import Client, encode, one, text

STDOUT, STDERR = 1, 2


def create(world, script, driver="", options=None, start=True, name="", **more):
    """The id of a container that runs `script` and logs through `driver`."""
    identifier = secrets.token_hex(32)
    config = [(1, "/bin/sh"), (1, "-c"), (1, script)] + ([(19, driver)] if driver else [])
    config += [(20, encode((1, key), (2, str(value)))) for key, value in (options or {}).items()]
    config += [(field, value) for field, value in more.get("fields", ())]
    with Client(world.address, 60) as client:
        client.call("ctr.v1.Containers", "Create", (1, "default"), (2, identifier), (3, name or f"c-{identifier[:8]}"), (4, IMAGE),
                    (5, encode(*config)), (6, start))
    return identifier


class Piece:
    def __init__(self, fields):
        self.stream, self.segment, self.offset = one(fields, 1, 0), one(fields, 2, 0), one(fields, 3, 0)
        self.data, self.ended = one(fields, 4), bool(one(fields, 6, 0))
        self.incarnation, self.gap, self.gap_bytes = one(fields, 7, 0), bool(one(fields, 8, 0)), one(fields, 9, 0)
        times = [dict_of(v) for v in fields.get(5, [])]
        self.time = times[0][0] * 10**9 + times[0][1] if times else 0

    def cursor(self):
        return (self.stream, self.segment, self.offset + len(self.data))


def dict_of(timestamp):
    from ttrpc_client import decode
    fields = decode(timestamp)
    return one(fields, 1, 0), one(fields, 2, 0)


class Reading:
    """A Logs.Read under way."""

    def __init__(self, world, identifier, follow=False, cursors=(), since=0, until=0, tail=None, streams=(), incarnation=0, timeout=60):
        self.client = Client(world.address, timeout)
        fields = [(1, "default"), (2, identifier), (3, incarnation), (4, follow)]
        fields += [(5, encode((1, s), (2, segment), (3, offset))) for s, segment, offset in cursors]
        fields += [(7, since), (8, until)] + ([(9, tail)] if tail is not None else []) + [(10, s) for s in streams]
        self.pieces = (Piece(f) for f in self.client.stream("ctr.v1.Logs", "Read", *fields))

    def __iter__(self):
        return self.pieces

    def __next__(self):
        return next(self.pieces)

    def until(self, wanted):
        """Output up to and with `wanted`, of both streams together."""
        data = b""
        for piece in self.pieces:
            data += piece.data
            if wanted in data:
                return data
        raise AssertionError(f"the stream ended without {wanted!r}: {data[-200:]!r}")

    def close(self):
        self.client.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def read(world, identifier, **request):
    """Everything of one reading: pieces, and the bytes of each stream."""
    with Reading(world, identifier, **request) as reading:
        pieces = list(reading)
    return pieces, b"".join(p.data for p in pieces if p.stream == STDOUT), b"".join(p.data for p in pieces if p.stream == STDERR)


def verify(world, identifier):
    """One dictionary for each incarnation."""
    from ttrpc_client import decode
    with Client(world.address, 60) as client:
        answer = client.call("ctr.v1.Logs", "Verify", (1, "default"), (2, identifier))
    names = {1: "incarnation", 2: "entries", 3: "bytes", 4: "gap_bytes", 5: "gaps", 6: "recovered_bytes", 7: "rotated_bytes"}
    found = []
    for log in answer.get(1, []):
        fields = decode(log)
        found.append({**{name: one(fields, number, 0) for number, name in names.items()}, "ended": bool(one(fields, 8, 0)),
                      "problems": [p.decode() for p in fields.get(9, [])]})
    return found


def log_path(world, identifier):
    from ttrpc_client import decode
    with Client(world.address) as client:
        answer = client.call("ctr.v1.Containers", "Get", (1, "default"), (2, identifier))
    return text(decode(one(answer, 1)), 11)


def index(directory):
    """Every entry of an index as (stream, flags, segment, length, offset, time ns)."""
    data = (directory / "index").read_bytes()
    return [struct.unpack("<4xBBxxIIQq8x", data[at:at + 40]) for at in range(0, len(data), 40)]


def kill_shim(world, identifier):
    """SIGKILL to the shim; returns when the keeper's next one has taken the container over."""
    lock = world.bundle(identifier) / "lock"
    starts = int(lock.read_text())
    world.guards(identifier)[0].kill_and_wait()
    events.wait_file(lock, lambda p: int(p.read_text() or 0) > starts)
