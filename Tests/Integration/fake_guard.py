"""Stands between a manager and a shim: passes calls on, and answers some of them itself."""
import os
import socket
import struct
import threading

from ttrpc_client import REQUEST, RESPONSE, decode, encode, text

GUARD, TASK = "ctr.shim.v1.Guard", "containerd.task.v2.Task"
# What a shim answers that has no such method, and one whose message nobody can read: the whole response.
MISSING = encode((1, encode((1, 12), (2, "no such method"))))
MALFORMED = encode((2, b"\x0f\xff\xff"))


class FakeGuard:
    """`answers`: (service, method) to what is answered in the shim's place. `aside`: where the shim's own socket goes meanwhile."""

    def __init__(self, path, aside, answers):
        self.real, self.answers, self.asked = str(aside), answers, []
        os.rename(path, self.real)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        os.chmod(path, 0o600)
        self.listener.listen(16)
        self.open = [self.listener]
        self.threads = []
        self.begin(self.accept)

    def begin(self, *work):
        thread = threading.Thread(target=self.carry_out, args=work)
        self.threads.append(thread)
        thread.start()

    @staticmethod
    def carry_out(work, *args):
        try:
            work(*args)
        except OSError:
            pass

    def accept(self):
        while True:
            manager, _ = self.listener.accept()
            shim = socket.socket(socket.AF_UNIX)
            self.open += [manager, shim]
            try:
                shim.connect(self.real)
            except OSError:
                manager.close()
                continue
            turn = threading.Lock()
            self.begin(self.pass_requests, manager, shim, turn)
            self.begin(self.pass_answers, shim, manager, turn)

    def pass_requests(self, manager, shim, turn):
        for stream, kind, flags, data in frames(manager):
            request = decode(data) if kind == REQUEST else {}
            call = (text(request, 1), text(request, 2)) if request else None
            self.asked.append(call)
            if call in self.answers:
                with turn:
                    send(manager, stream, RESPONSE, 0, self.answers[call])
            else:
                send(shim, stream, kind, flags, data)
        hang_up(shim)

    @staticmethod
    def pass_answers(shim, manager, turn):
        for frame in frames(shim):
            with turn:
                send(manager, *frame)
        hang_up(manager)

    def close(self):
        for each in list(self.open):
            hang_up(each)
        for thread in list(self.threads):
            thread.join(10)
        for each in self.open:
            each.close()
        if os.path.exists(self.real):
            os.unlink(self.real)


def hang_up(connection):
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


def send(connection, stream, kind, flags, data):
    connection.sendall(struct.pack(">IIBB", len(data), stream, kind, flags) + data)


def frames(connection):
    data = b""
    while True:
        while len(data) >= 10:
            length, stream, kind, flags = struct.unpack_from(">IIBB", data)
            if len(data) < 10 + length:
                break
            yield stream, kind, flags, data[10:10 + length]
            data = data[10 + length:]
        chunk = connection.recv(65536)
        if not chunk:
            return
        data += chunk
