"""Terminals and standard input: ctrctl behind a pseudo-terminal or a pipe, with managers that die meanwhile."""
import os
import random
import re
import signal
import subprocess
import threading

import pytest

import events
from harness import BIN, IMAGE
from terminal import Terminal

# Waits in the shell, so that traps run at once.
IDLE = "while :; do sleep 1000 & wait $!; done"


def position(text):
    return re.search(rb"attach --since (\S+)", text).group(1).decode()


@pytest.fixture
def named(world):
    """Makes containers by name, which are removed at the end."""
    names = []

    def make(name):
        names.append(name)
        return name
    yield make
    for name in names:
        world.ctrctl("rm", "-f", name, code=None)


# The terminal here

def test_the_terminal_is_raw_meanwhile_and_put_back_at_the_end(world):
    terminal = Terminal(world, "run", "--rm", "-it", IMAGE, "sh", "-c", "echo ready; read x; echo got $x; exit 5")
    terminal.until(rb"ready\r\n")
    assert terminal.is_raw()
    terminal.type(b"word\r")
    assert terminal.wait() == 5
    assert b"got word\r\n" in terminal.out.data
    assert terminal.settings() == terminal.before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_to_the_client_ends_it_with_the_terminal_put_back(world, named, number):
    name = named(f"sig{number}")
    terminal = Terminal(world, "run", "-it", "--name", name, IMAGE, "sh", "-c", f"echo ready; {IDLE}")
    terminal.until(rb"ready")
    terminal.send(number)
    assert terminal.wait() == 128 + number
    assert terminal.settings() == terminal.before
    assert world.task(name)["status"] == "running"


def test_sig_proxy_hands_signals_on_from_behind_a_terminal(world):
    terminal = Terminal(world, "run", "--rm", "-it", "--sig-proxy=true", IMAGE, "sh", "-c", f"trap 'echo got it; exit 9' USR1; echo ready; {IDLE}")
    terminal.until(rb"ready")
    terminal.send(signal.SIGUSR1)
    assert terminal.wait() == 9
    assert b"got it" in terminal.out.data and terminal.settings() == terminal.before


def test_a_stopped_client_gives_the_terminal_back_until_it_goes_on(world):
    terminal = Terminal(world, "run", "--rm", "-it", IMAGE, "sh", "-c", "echo ready; read x; echo got $x")
    terminal.until(rb"ready")
    terminal.send(signal.SIGTSTP)
    terminal.wait_stopped()
    assert terminal.settings() == terminal.before
    terminal.send(signal.SIGCONT)
    # Echoed by the container's terminal: what is typed goes there again.
    terminal.type(b"word\r")
    terminal.until(rb"got word")
    assert terminal.wait() == 0 and terminal.settings() == terminal.before


def test_the_terminal_is_put_back_when_the_reader_of_the_output_goes(world, named):
    out, into = os.pipe()
    terminal = Terminal(world, "run", "-it", "--name", named("pipe"), IMAGE, "sh", "-c", "echo ready; while read x; do echo $x; done", stdout=into)
    os.close(into)
    reader = events.Output(out)
    reader.until(rb"ready")
    os.close(out)
    terminal.type(b"more\r")
    assert terminal.wait() == 128 + signal.SIGPIPE
    assert terminal.settings() == terminal.before


def test_a_terminal_that_vanishes_leaves_the_container(world, named):
    name = named("vanish")
    terminal = Terminal(world, "run", "-it", "--name", name, IMAGE, "sh", "-c", f"echo ready; {IDLE}")
    terminal.until(rb"ready")
    os.close(terminal.slave)
    os.close(terminal.master)
    terminal.master = terminal.slave = -1
    assert terminal.process.wait(20) == 128 + signal.SIGHUP
    assert world.task(name)["status"] == "running"


@pytest.mark.parametrize("command", [("run", "--rm"), ("exec",)], ids=["run", "exec"])
def test_t_without_a_terminal_is_refused(world, named, command):
    name = IMAGE
    if command == ("exec",):
        name = named("notty")
        world.background(IDLE, "--name", name)
    result = world.ctrctl(*command, "-it", name, "true", code=1)
    assert "the input device is not a TTY" in result.err
    # Without standard input nothing has to come from a terminal.
    assert world.ctrctl(*command, "-t", name, "sh", "-c", "test -t 1 && echo terminal").out == "terminal\r\n"


def test_d_takes_a_terminal_from_anywhere(world, named):
    name = named("detached")
    world.ctrctl("run", "-dit", "--name", name, IMAGE, "sh")
    assert world.task(name)["status"] == "running"
    config = world.ctrctl("inspect", name).json()[0]["config"]
    assert config["terminal"] and config["open_stdin"]


# The terminal there

def test_the_container_has_the_size_of_the_terminal_and_follows_it(world):
    terminal = Terminal(world, "run", "--rm", "-it", IMAGE, "sh", "-c", f"trap 'stty size' WINCH; trap 'exit 0' INT; stty size; {IDLE}", rows=31, columns=97)
    terminal.until(rb"31 97\r\n")
    terminal.resize(40, 120)
    terminal.until(rb"40 120\r\n")
    terminal.resize(25, 80)
    terminal.until(rb"25 80\r\n")
    terminal.type(b"\x03")
    assert terminal.wait() == 0


def test_ctrl_c_is_for_the_process_and_not_for_the_client(world):
    terminal = Terminal(world, "run", "--rm", "-it", IMAGE, "sh", "-c", f"trap 'echo interrupted; exit 3' INT; echo ready; {IDLE}")
    terminal.until(rb"ready")
    terminal.type(b"\x03")
    assert terminal.wait() == 3
    assert b"interrupted\r\n" in terminal.out.data


def test_ctrl_d_is_the_end_of_a_terminals_input(world):
    terminal = Terminal(world, "run", "--rm", "-it", IMAGE, "sh", "-c", "echo ready; cat; echo end")
    terminal.until(rb"ready")
    terminal.type(b"line\r")
    terminal.until(rb"line\r\nline\r\n")
    terminal.type(b"\x04")
    assert terminal.wait() == 0 and b"end\r\n" in terminal.out.data


def test_an_interactive_shell(world):
    terminal = Terminal(world, "run", "--rm", "-it", IMAGE, "sh")
    terminal.until(rb"# ")
    terminal.type(b"echo $((6 * 7)) $TERM\r")
    terminal.until(rb"42 xterm\r\n")
    terminal.type(b"exit 4\r")
    assert terminal.wait() == 4


# Letting go and coming back

def test_the_detach_keys_leave_the_container_and_attach_comes_back(world, named):
    name = named("keys")
    terminal = Terminal(world, "run", "-it", "--name", name, IMAGE, "sh", "-c", "echo ready; while read x; do echo \"<$x>\"; done; exit 6")
    terminal.until(rb"ready")
    terminal.type(b"one\r")
    terminal.until(rb"<one>\r\n")
    terminal.type(b"\x10\x11")
    assert terminal.wait() == 0
    assert terminal.settings() == terminal.before and world.task(name)["status"] == "running"

    again = Terminal(world, "attach", "--since", position(terminal.out.data), name)
    again.type(b"two\r")
    again.until(rb"<two>\r\n")
    assert b"one" not in again.out.data
    again.type(b"\x04")
    assert again.wait() == 6
    assert again.settings() == again.before


def test_attach_begins_with_what_comes_from_now_on(world, named):
    name = named("fromnow")
    world.ctrctl("run", "-dit", "--name", name, IMAGE, "sh", "-c", "echo before; while read x; do echo \"<$x>\"; done")
    reader = world.client("logs", "-f", name)
    reader.out.until(rb"before")
    reader.close()
    terminal = Terminal(world, "attach", name)
    terminal.type(b"now\r")
    terminal.until(rb"<now>")
    assert b"before" not in terminal.out.data
    terminal.type(b"\x10\x11")
    assert terminal.wait() == 0


def test_other_detach_keys_and_their_beginning_alone(world, named):
    name = named("otherkeys")
    terminal = Terminal(world, "run", "-it", "--detach-keys", "ctrl-x,y", "--name", name, IMAGE, "sh", "-c", "stty -echo; echo ready; cat -v")
    terminal.until(rb"ready")
    terminal.type(b"\x10\x11\x18z\r")
    terminal.until(rb"\^P\^Q\^Xz\r\n|\^P\^Xz\r\n")
    terminal.type(b"\x18y")
    assert terminal.wait() == 0
    assert world.task(name)["status"] == "running"
    assert "invalid detach key" in world.ctrctl("attach", "--detach-keys", "ctrl-1", name, code=125).err


def test_two_attached_clients_see_the_same_and_both_may_type(world, named):
    name = named("two")
    world.ctrctl("run", "-dit", "--name", name, IMAGE, "sh", "-c", "stty -echo; while read x; do echo \"<$x>\"; done; exit 2")
    first, second = Terminal(world, "attach", name), Terminal(world, "attach", name)
    for each in (first, second):
        # Who sees its own words is attached.
        each.type(b"hello\r")
        each.until(rb"<hello>")
    for terminal, word in ((first, b"one"), (second, b"two")):
        terminal.type(word + b"\r")
        for each in (first, second):
            each.until(b"<" + word + b">")
    first.type(b"\x04")
    assert first.wait() == 2 and second.wait() == 2
    for each in (first, second):
        assert each.settings() == each.before


def test_attach_to_what_does_not_run_is_refused(world, named):
    name = named("ended")
    world.run("--name", name, IMAGE, "true")
    assert "does not run" in world.ctrctl("attach", name, code=1).err
    world.ctrctl("create", "--name", named("made"), IMAGE, "true")
    assert "does not run" in world.ctrctl("attach", "made", code=1).err


def test_start_ai_leads_the_terminal_to_the_next_run(world, named):
    name = named("again")
    world.ctrctl("create", "-it", "--name", name, IMAGE, "sh", "-c", "echo ready; read x; exit $x")
    for status in (7, 8):
        terminal = Terminal(world, "start", "-ai", name)
        terminal.until(rb"ready")
        terminal.type(b"%d\r" % status)
        assert terminal.wait() == status
        assert terminal.settings() == terminal.before


def test_start_a_shows_the_output_of_this_run_alone(world, named):
    name = named("starta")
    world.ctrctl("create", "--name", name, IMAGE, "sh", "-c", "echo out; echo err >&2; exit 3")
    for _ in range(2):
        result = world.ctrctl("start", "-a", name, code=3)
        assert (result.out, result.err) == ("out\n", "err\n")
    assert "several" in world.ctrctl("start", "-a", name, name, code=125).err


def test_attach_without_a_terminal_goes_on_after_a_new_manager(alone):
    name = "counter"
    alone.background(f"trap 'exit 0' TERM; i=0; while [ $i -lt 100000 ]; do i=$((i+1)); echo $i; [ $((i % 50)) = 0 ] && sleep 0.05; done; {IDLE}", "--name", name)
    client = alone.client("attach", name)
    client.out.until_line(100)
    alone.kill9()
    alone.start()
    client.out.until_line(client.out.data.count(b"\n") + 200)
    client.kill(signal.SIGTERM)
    assert client.wait() in (0, 143)
    numbers = [int(line) for line in client.out.data.split()]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert client.err.data.count(b"waiting for it to come back") == 1


# Standard input

def feed(process, data):
    def write():
        try:
            process.stdin.write(data)
            process.stdin.close()
        except BrokenPipeError:
            pass
    thread = threading.Thread(target=write)
    thread.start()
    return thread


@pytest.mark.parametrize("command", ["run", "exec", "start"])
def test_a_megabyte_through_cat_is_the_same(world, named, command):
    data = random.Random(command).randbytes(1 << 20)
    name = named(f"cat{command}")
    words = {"run": ("run", "--rm", "-i", IMAGE, "cat"), "exec": ("exec", "-i", name, "cat"), "start": ("start", "-ai", name)}[command]
    if command == "exec":
        world.background(IDLE, "--name", name)
    if command == "start":
        world.ctrctl("create", "-i", "--name", name, IMAGE, "cat")
    assert world.ctrctl(*words, stdin=data).raw == data


def test_input_ends_where_nobody_reads_it(world):
    result = world.ctrctl("run", "--rm", "-i", IMAGE, "head", "-c", "3", stdin=b"abc" * 500000)
    assert result.out == "abc"


def test_without_i_standard_input_is_empty(world):
    assert world.ctrctl("run", "--rm", IMAGE, "cat", stdin=b"unseen").out == ""


@pytest.mark.parametrize("command", ["run", "exec"])
def test_a_pipe_goes_on_at_the_byte_after_new_managers(alone, command):
    data = random.Random(1).randbytes(4 << 20)
    name = "pipe"
    if command == "exec":
        alone.background(IDLE, "--name", name)
        words = ["exec", "-i", name, "cat"]
    else:
        words = ["run", "--rm", "-i", IMAGE, "cat"]
    process = subprocess.Popen([str(BIN / "ctrctl"), *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=alone.env)
    out = events.Output(process.stdout.fileno())
    thread = feed(process, data)
    deadline = events.Deadline(60)
    for part in (1, 3):
        while len(out.data) < part << 20:
            out.pump(deadline.left(f"part {part}"))
        alone.restart()
    assert out.rest(60) == data
    thread.join()
    assert process.wait(20) == 0, process.stderr.read()
    process.stderr.close()
    process.stdout.close()


def test_a_terminal_goes_on_after_a_new_manager(alone):
    terminal = Terminal(alone, "run", "--rm", "-it", IMAGE, "sh", "-c", "stty -echo; echo ready; while read x; do echo \"<$x>\"; done")
    terminal.until(rb"ready")
    alone.kill9()
    terminal.until(rb"waiting for it to come back")
    terminal.type(b"typed meanwhile\r")
    alone.start()
    terminal.until(rb"<typed meanwhile>\r\n")
    terminal.type(b"\x04")
    assert terminal.wait() == 0
    assert terminal.out.data.count(b"typed meanwhile") == 1 and terminal.settings() == terminal.before


@pytest.mark.parametrize("command", ["run", "exec"])
def test_a_terminal_goes_on_after_manager_and_shim(alone, command):
    """Both killed at once, twice: size, output and input go on at the byte."""
    script = "stty -echo; echo ready; while read x; do echo \"<$x>\"; stty size; done; exit 5"
    name, words = "seat", ("run", "--rm", "-it", "--name", "seat", IMAGE)
    if command == "exec":
        alone.background(IDLE, "--name", name)
        words = ("exec", "-it", name)
    terminal = Terminal(alone, *words, "sh", "-c", script)
    terminal.until(rb"ready")
    identifier = alone.task(name)["container_id"]
    for turn in (1, 2):
        shim, _ = alone.guards(identifier)
        seen = len(terminal.out.data)
        alone.manager.kill()
        shim.kill()
        alone.process.wait()
        shim.wait()
        terminal.until(rb"waiting for it to come back", start=seen)
        terminal.type(b"typed %d\r" % turn)
        alone.start()
        terminal.until(rb"<typed %d>\r\n" % turn)
        terminal.resize(30 + turn, 100)
        # The size comes by a call of its own, typing by another.
        deadline = events.Deadline(20)
        while b"%d 100\r\n" % (30 + turn) not in terminal.out.data:
            seen = len(terminal.out.data)
            terminal.type(b"more %d\r" % turn)
            terminal.until(rb"<more %d>\r\n\d+ \d+\r\n" % turn, deadline.left("the size"), seen)
    terminal.type(b"\x04")
    assert terminal.wait() == 5 and terminal.settings() == terminal.before
    assert [terminal.out.data.count(b"<typed %d>" % turn) for turn in (1, 2)] == [1, 1]


def test_the_detach_keys_work_while_no_manager_is_there(alone):
    terminal = Terminal(alone, "run", "-it", "--name", "left", IMAGE, "sh", "-c", f"echo ready; {IDLE}")
    terminal.until(rb"ready")
    alone.kill9()
    terminal.until(rb"waiting")
    terminal.type(b"\x10\x11")
    assert terminal.wait() == 0 and terminal.settings() == terminal.before
    alone.start()
    assert alone.task("left")["status"] == "running"


def test_attached_input_is_appended_and_stays_open(world, named):
    name = named("shared")
    world.ctrctl("run", "-di", "--name", name, IMAGE, "sh", "-c", "while read x; do echo \"<$x>\"; done; echo end")
    reader = world.client("logs", "-f", name)
    for word in ("one", "two"):
        process = subprocess.Popen([str(BIN / "ctrctl"), "attach", name], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=world.env)
        process.stdin.write(word.encode() + b"\n")
        process.stdin.close()
        reader.out.until(f"<{word}>".encode())
        process.kill()
        process.wait()
    world.ctrctl("attach", "--close-stdin", name, stdin=b"three\n")
    assert reader.wait() == 0
    assert reader.out.data.endswith(b"<three>\nend\n")
