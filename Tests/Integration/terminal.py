"""ctrctl behind a terminal of its own, as a user has it: a pseudo-terminal whose other end the test types on and reads from."""
import fcntl
import os
import select
import struct
import subprocess
import termios
import threading

import events
from harness import BIN, TIMEOUT


class Terminal:
    def __init__(self, world, *args, rows=24, columns=80, stdout=None):
        self.master, self.slave = os.openpty()
        self.resize(rows, columns)
        self.before = self.settings()
        slave = self.slave
        self.process = subprocess.Popen([str(BIN / "ctrctl"), *map(str, args)], stdin=slave, stdout=stdout if stdout is not None else slave, stderr=slave,
                                        env={**world.env, "TERM": "xterm"}, start_new_session=True,
                                        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        self.pidfd = os.pidfd_open(self.process.pid)
        self.out = events.Output(self.master)
        world.clients.append(self)

    def resize(self, rows, columns):
        """As a window manager would; the kernel sends WINCH."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def settings(self):
        return termios.tcgetattr(self.slave)

    def is_raw(self):
        return not self.settings()[3] & (termios.ICANON | termios.ECHO | termios.ISIG)

    def type(self, data):
        os.write(self.master, data)

    def until(self, pattern, timeout=20, start=0):
        return self.out.until(pattern, timeout, start)

    def send(self, number):
        self.process.send_signal(number)

    def wait(self, timeout=TIMEOUT):
        """The exit code; reads what it writes meanwhile."""
        deadline = events.Deadline(timeout)
        while True:
            poller = select.poll()
            poller.register(self.pidfd, select.POLLIN)
            poller.register(self.master, select.POLLIN)
            ready = {fd for fd, _ in poller.poll(deadline.left(self) * 1000)}
            if self.master in ready:
                self.out.pump(0)
            if self.pidfd in ready:
                while self.out.pump(0):
                    pass
                return self.process.wait(1)

    def wait_stopped(self, timeout=20):
        """Until it is stopped, as by a shell's ctrl-z."""
        waiter = threading.Thread(target=os.waitid, args=(os.P_PIDFD, self.pidfd, os.WSTOPPED), daemon=True)
        waiter.start()
        waiter.join(timeout)
        assert not waiter.is_alive(), f"not stopped: {self}"

    def kill(self, number=9):
        if self.process.poll() is None:
            self.process.send_signal(number)

    def close(self):
        self.kill()
        self.process.wait()
        for descriptor in (self.master, self.slave, self.pidfd):
            if descriptor >= 0:
                os.close(descriptor)
        self.master = self.slave = self.pidfd = -1

    def __repr__(self):
        return f"{' '.join(self.process.args)} (terminal shows {self.out.data[-400:]!r})"
