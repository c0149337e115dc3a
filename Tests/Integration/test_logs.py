"""Output: the foreground client and `logs -f` across the manager's death, without a gap and without a double."""
import os

import pytest

import checks
import events
import harness
from events import Pid
from harness import IMAGE

WRITER = "i=0; while [ $i -lt {total} ]; do i=$((i+1)); echo $i; [ $((i % {burst})) = 0 ] && usleep {pause}; done; exit {code}"


def writer(total=3000, burst=20, pause=2000, code=5):
    return ("/bin/sh", "-c", WRITER.format(total=total, burst=burst, pause=pause, code=code))


def test_a_foreground_run_goes_on_across_restarts(alone):
    client = alone.client("run", "--rm", IMAGE, *writer(4000))
    for lines in (100, 600, 1500):
        client.out.until_line(lines)
        alone.restart()
    assert client.wait() == 5, client
    checks.numbered_lines(client.out.data, last=4000)
    assert client.err.data == b"" or b"\n" in client.err.data


def test_a_foreground_run_whose_container_ends_while_the_manager_is_away(alone):
    client = alone.client("run", "--name", "away", IMAGE, *writer(1500))
    client.out.until_line(50)
    init = Pid(alone.task("away")["pid"])
    alone.kill9()
    init.wait()
    alone.start()
    assert client.wait() == 5
    checks.numbered_lines(client.out.data, last=1500)


def test_rm_of_a_foreground_run_is_done_after_a_restart(alone):
    client = alone.client("run", "--rm", IMAGE, *writer(1000, code=0))
    client.out.until_line(10)
    alone.restart()
    assert client.wait() == 0
    assert alone.containers() == {}


def test_logs_f_goes_on_across_restarts(alone):
    identifier = alone.run("-d", IMAGE, *writer(4000))
    follower = alone.client("logs", "-f", identifier)
    for lines in (100, 600, 1500):
        follower.out.until_line(lines)
        alone.restart()
    assert follower.wait() == 0
    checks.numbered_lines(follower.out.data, last=4000)


def test_logs_f_from_a_late_start_has_everything(alone):
    identifier = alone.run("-d", IMAGE, *writer(2000))
    assert alone.wait(identifier) == 5
    follower = alone.client("logs", "-f", identifier)
    assert follower.wait() == 0
    checks.numbered_lines(follower.out.data, last=2000)


def test_logs_without_f_ends_at_once(alone):
    client = alone.client("run", IMAGE, "/bin/sh", "-c", "echo one; exec sleep 600")
    client.out.until(b"one\n")
    assert alone.ctrctl("logs", alone.ctrctl("ps", "-q").out.strip(), timeout=10).out == "one\n"


def test_streams_are_kept_apart(alone):
    result = alone.ctrctl("run", "--name", "apart", IMAGE, "/bin/sh", "-c", "for i in 1 2 3; do echo o$i; echo e$i >&2; done")
    assert (result.out, result.err) == ("o1\no2\no3\n", "e1\ne2\ne3\n")
    result = alone.ctrctl("logs", "apart")
    assert (result.out, result.err) == ("o1\no2\no3\n", "e1\ne2\ne3\n")


def test_bytes_are_kept_as_they_are(alone):
    blob = alone.directory / "blob"
    blob.mkdir()
    (blob / "data").write_bytes(os.urandom(3 << 20) + b"no newline at the end")
    result = alone.ctrctl("run", "-v", f"{blob}:/blob:ro", "--rm", IMAGE, "/bin/cat", "/blob/data")
    assert result.raw == (blob / "data").read_bytes()


def test_much_output_is_whole_and_rotated(alone):
    total = 3_000_000
    identifier = alone.run("-d", IMAGE, "/bin/seq", "1", str(total))
    assert alone.wait(identifier, 120) == 0
    checks.numbered_lines(alone.ctrctl("logs", identifier, timeout=120).raw, last=total)
    segments = sorted(p.name for p in (alone.incarnation(identifier) / "log").glob("stdout.*"))
    assert segments[:2] == ["stdout.000001", "stdout.000002"]


def test_a_container_never_waits_for_a_reader(alone):
    """Neither a client that does not read nor an absent manager holds it up."""
    client = alone.client("run", "--name", "busy", IMAGE, "/bin/sh", "-c", "seq 1 500000; echo end >&2; exec sleep 600")
    client.out.until_line(1)
    init = Pid(alone.task("busy")["pid"])
    alone.kill9()
    events.wait_file(alone.root / "containers" / "default", lambda p: os.listdir(p))
    log = next((alone.root / "containers" / "default").iterdir()) / "1" / "log" / "stderr.000001"
    events.wait_file(log, events.has_text("end\n"), 60)
    assert init.alive()
    alone.start()
    client.out.until_line(500000, 60)
    alone.ctrctl("kill", "busy")
    assert client.wait() == 137
    checks.numbered_lines(client.out.data, last=500000)


def test_output_of_each_start_is_its_own(alone):
    identifier = alone.run("-d", "--name", "twice", IMAGE, "/bin/sh", "-c", "echo x >> /n; echo start $(wc -l < /n)")
    alone.wait(identifier)
    alone.ctrctl("tasks", "start", "twice")
    alone.wait(identifier)
    assert alone.ctrctl("logs", "twice").out.endswith("start 2\n")
    assert (alone.incarnation(identifier, 1) / "log" / "stdout.000001").read_text() == "start 1\n"
    assert (alone.incarnation(identifier, 2) / "log" / "stdout.000001").read_text() == "start 2\n"


def test_a_signal_to_the_foreground_client_reaches_the_container(alone):
    import signal
    client = alone.client("run", "--rm", IMAGE, "/bin/sh", "-c", "trap 'echo got; exit 3' INT; echo ready; while :; do usleep 10000; done")
    client.out.until(b"ready")
    client.kill(signal.SIGINT)
    assert client.wait() == 3 and client.out.data == b"ready\ngot\n"


def test_a_client_that_is_killed_leaves_the_container_running(alone):
    client = alone.client("run", "--name", "orphan", IMAGE, "/bin/sh", "-c", "echo ready; exec sleep 600")
    client.out.until(b"ready")
    client.kill()
    client.wait()
    assert alone.task("orphan")["status"] == "running"


def test_a_closed_stdout_ends_the_client(alone):
    import subprocess
    done = subprocess.run(f"{harness.BIN}/ctrctl run --rm {IMAGE} /bin/seq 1 200000 | head -1", shell=True, capture_output=True, text=True, env=alone.env,
                          timeout=harness.TIMEOUT)
    assert done.stdout == "1\n"


@pytest.mark.parametrize("nothing", ["stdout", "stderr"])
def test_a_silent_stream_ends_too(alone, nothing):
    redirect = {"stdout": "echo x >&2", "stderr": "echo x"}[nothing]
    client = alone.client("run", "--rm", IMAGE, "/bin/sh", "-c", redirect)
    assert client.wait() == 0
