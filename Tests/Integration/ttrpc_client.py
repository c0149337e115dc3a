"""A client of ctrd in a hundred lines, written from proto/PROTOCOL.md alone: no generated code, no library beside Python's own."""
import socket
import struct

REQUEST, RESPONSE, DATA = 1, 2, 3
REMOTE_CLOSED, REMOTE_OPEN, NO_DATA = 1, 2, 4


# Protocol buffers by hand: a message is a list of (field number, value); bool and int are varints, str and bytes are length-delimited.

def varint(value):
    out, value = bytearray(), value & 0xFFFFFFFFFFFFFFFF
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def encode(*fields):
    out = b""
    for number, value in fields:
        if isinstance(value, (bool, int)):
            out += varint(number << 3) + varint(int(value))
        else:
            data = value.encode() if isinstance(value, str) else value
            out += varint(number << 3 | 2) + varint(len(data)) + data
    return out


def read_varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def decode(data):
    """Field number to the list of its values, ints or bytes."""
    fields, at = {}, 0
    while at < len(data):
        key, at = read_varint(data, at)
        if key & 7 == 0:
            value, at = read_varint(data, at)
        elif key & 7 == 2:
            length, at = read_varint(data, at)
            value, at = data[at:at + length], at + length
        else:
            size = {1: 8, 5: 4}[key & 7]
            value, at = data[at:at + size], at + size
        fields.setdefault(key >> 3, []).append(value)
    return fields


def one(fields, number, default=b""):
    return fields.get(number, [default])[-1]


def text(fields, number):
    return one(fields, number).decode()


class RPCError(Exception):
    def __init__(self, status):
        fields = decode(status)
        self.code, self.message, self.details = one(fields, 1, 0), text(fields, 2), fields.get(3, [])
        super().__init__(f"code {self.code}: {self.message}")


class Client:
    """One connection. Calls are made one after another; a streaming call has the connection for itself."""

    def __init__(self, path, timeout=20):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout)
        self.socket.connect(path)
        self.next_stream = 1

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def send(self, stream, kind, flags, data):
        self.socket.sendall(struct.pack(">IIBB", len(data), stream, kind, flags) + data)

    def exactly(self, count):
        data = b""
        while len(data) < count:
            chunk = self.socket.recv(count - len(data))
            if not chunk:
                raise ConnectionError("the connection was closed")
            data += chunk
        return data

    def receive(self):
        length, stream, kind, flags = struct.unpack(">IIBB", self.exactly(10))
        return stream, kind, flags, self.exactly(length)

    def request(self, service, method, payload, flags=0, timeout_ns=0):
        stream, self.next_stream = self.next_stream, self.next_stream + 2
        self.send(stream, REQUEST, flags, encode((1, service), (2, method), (3, payload), *([(4, timeout_ns)] if timeout_ns else [])))
        return stream

    def requests(self, count, service, method, payload):
        """The same call so many times in one write; their streams."""
        data = encode((1, service), (2, method), (3, payload))
        streams = set(range(self.next_stream, self.next_stream + 2 * count, 2))
        self.next_stream += 2 * count
        self.socket.sendall(b"".join(struct.pack(">IIBB", len(data), stream, REQUEST, 0) + data for stream in sorted(streams)))
        return streams

    def result(self, stream):
        answered, kind, _, data = self.receive()
        assert (answered, kind) == (stream, RESPONSE), (answered, kind)
        fields = decode(data)
        if one(decode(one(fields, 1)), 1, 0):
            raise RPCError(one(fields, 1))
        return decode(one(fields, 2))

    def call(self, service, method, *fields, timeout_ns=0):
        return self.result(self.request(service, method, encode(*fields), timeout_ns=timeout_ns))

    def stream(self, service, method, *fields):
        """Each message of a server-streaming call."""
        stream = self.request(service, method, encode(*fields), REMOTE_CLOSED)
        while True:
            answered, kind, flags, data = self.receive()
            if kind == RESPONSE:
                status = one(decode(data), 1)
                if one(decode(status), 1, 0):
                    raise RPCError(status)
                return
            assert (answered, kind) == (stream, DATA), (answered, kind)
            if not flags & NO_DATA:
                yield decode(data)
            if flags & REMOTE_CLOSED:
                return
