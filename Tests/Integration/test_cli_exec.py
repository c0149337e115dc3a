"""The command line of execs, limits, statistics, processes, logs with filters, and shims."""
import json
import re
import signal
import subprocess
from datetime import datetime, timezone

import pytest

import events
from harness import BIN, IMAGE, one_line_error
from terminal import Terminal

IDLE = "while :; do sleep 1000 & wait $!; done"


@pytest.fixture(scope="module")
def box(world):
    """A container in which things are executed."""
    identifier = world.background(IDLE, "--name", "box", "-e", "GIVEN=container")
    yield identifier
    world.ctrctl("rm", "-f", "box")


def execs(world, name="box"):
    return world.ctrctl("execs", "list", "--output", "json", name).json()


# exec

def test_exec_leads_both_streams_and_the_status_here(world, box):
    result = world.ctrctl("exec", "box", "sh", "-c", "echo out; echo err >&2; exit 7", code=7)
    assert (result.out, result.err) == ("out\n", "err\n")
    # Nobody has to forget it.
    deadline = events.Deadline(20)
    while execs(world):
        deadline.left("an empty list of execs")


@pytest.mark.parametrize("words, status, text", [
    (("box", "nosuch"), 127, "executable file not found"),
    (("box", "/etc/passwd"), 126, "permission denied"),
    (("nosuch", "true"), 1, "no such container"),
    (("box",), 125, "a command is required"),
    ((), 125, "required"),
    (("--nonsense", "box", "true"), 125, "nonsense"),
    (("-w", "relative", "box", "true"), 125, "absolute"),
], ids=["missing", "not-executable", "no-container", "no-command", "nothing", "bad-option", "relative"])
def test_what_exec_ends_with_when_it_fails(world, box, words, status, text):
    assert text in one_line_error(world.ctrctl("exec", *words, code=status))


def test_exec_in_what_does_not_run_is_refused(world, box):
    world.run("--name", "gone", IMAGE, "true")
    assert world.ctrctl("exec", "gone", "true", code=1).err.count("\n") == 1
    world.ctrctl("rm", "gone")


def test_a_signal_is_128_plus_n(world, box):
    world.ctrctl("exec", "box", "sh", "-c", "kill -9 $$", code=137)


def test_environment_directory_and_user_of_an_exec(world, box):
    (world.directory / "vars").write_text("# comment\nFILED=1\nPASSED\n")
    result = world.ctrctl("exec", "-e", "GIVEN=exec", "-eMORE=2", "--env-file", world.directory / "vars", "-w", "/tmp", "-u", "1000:1000", "box",
                          "sh", "-c", "echo $GIVEN $MORE $FILED $PASSED; pwd; id -u; id -g", env={"PASSED": "here"})
    assert result.out == "exec 2 1 here\n/tmp\n1000\n1000\n"
    assert world.ctrctl("exec", "box", "sh", "-c", "echo $GIVEN").out == "container\n"


def test_privileged_is_all_capabilities(world, box):
    show = ("box", "grep", "CapEff", "/proc/self/status")
    usual = int(world.ctrctl("exec", *show).out.split()[1], 16)
    every = int(world.ctrctl("exec", "--privileged", *show).out.split()[1], 16)
    assert every & usual == usual and bin(every).count("1") > bin(usual).count("1")


def test_exec_d_prints_its_id_and_execs_manages_it(world, box):
    identifier = world.ctrctl("exec", "-d", "box", "sleep", "1000").out.strip()
    assert re.fullmatch("[0-9a-f]{64}", identifier)
    listed, = [exec for exec in execs(world) if exec["id"] == identifier]
    assert listed["status"] == "running" and listed["pid"] > 0 and listed["config"]["args"] == ["sleep", "1000"]
    assert world.ctrctl("inspect", "box").json()[0]["exec_count"] >= 1
    assert identifier[:12] in world.ctrctl("execs", "list", "-q", "box").out.split()
    table = world.ctrctl("execs", "list", "box").out
    assert table.startswith("EXEC ID") and "running" in table and '"sleep 1000"' in table
    assert "running" in world.ctrctl("execs", "delete", "box", identifier[:8], code=1).err

    process = events.Pid(listed["pid"])
    assert world.ctrctl("execs", "kill", "-s", "TERM", "box", identifier[:8]).out == identifier[:8] + "\n"
    process.wait()
    deadline = events.Deadline(20)
    while (ended := [exec for exec in execs(world) if exec["id"] == identifier][0])["status"] != "stopped":
        deadline.left("the end of the exec in the list")
    assert ended["exit"]["code"] == 143 and "exited (143)" in world.ctrctl("execs", "list", "box").out
    world.ctrctl("execs", "rm", "box", identifier)
    assert identifier not in [exec["id"] for exec in execs(world)]
    assert "no such exec" in world.ctrctl("execs", "kill", "box", identifier, code=1).err


def test_exec_it_is_a_terminal(world, box):
    terminal = Terminal(world, "exec", "-it", "box", "sh", "-c", "stty size; tty; read x; exit $x", rows=33, columns=99)
    terminal.until(rb"33 99\r\n/dev/pts/\d+\r\n")
    assert terminal.is_raw()
    terminal.type(b"9\r")
    assert terminal.wait() == 9 and terminal.settings() == terminal.before


def test_an_exec_is_detached_and_attached_again(world, box):
    terminal = Terminal(world, "exec", "-it", "box", "sh", "-c", "echo ready; while read x; do echo \"<$x>\"; done; exit 5")
    terminal.until(rb"ready")
    terminal.type(b"\x10\x11")
    assert terminal.wait() == 0
    words = re.search(rb"ctrctl (attach [^)\r]*)\)", terminal.out.data).group(1).decode().split()
    again = Terminal(world, *words)
    again.type(b"word\r")
    again.until(rb"<word>")
    again.type(b"\x04")
    assert again.wait() == 5


def test_an_interrupt_ends_what_exec_started(world, box):
    client = world.client("exec", "box", "sh", "-c", f"trap 'echo interrupted; exit 3' INT; echo ready; {IDLE}")
    client.out.until(b"ready")
    client.kill(signal.SIGINT)
    assert client.wait() == 3 and client.out.data == b"ready\ninterrupted\n"


def test_without_sig_proxy_the_signal_ends_the_client_alone(world, box):
    client = world.client("exec", "--sig-proxy=false", "box", "sh", "-c", f"echo ready; {IDLE}")
    client.out.until(b"ready")
    client.kill(signal.SIGINT)
    assert client.wait() == 130
    listed, = [exec for exec in execs(world) if exec["status"] == "running"]
    world.ctrctl("execs", "delete", "-f", "box", listed["id"])


def test_a_lot_of_output_comes_whole(world, box):
    done = subprocess.run([str(BIN / "ctrctl"), "exec", "box", "seq", "300000"], capture_output=True, env=world.env, timeout=60)
    assert done.returncode == 0 and done.stdout == b"".join(b"%d\n" % n for n in range(1, 300001))


def test_an_exec_goes_on_after_a_new_manager(alone):
    alone.background(IDLE, "--name", "box")
    script = "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo $i; [ $((i % 20)) = 0 ] && sleep 0.01; done; exit 4"
    client = alone.client("exec", "box", "sh", "-c", script)
    client.out.until_line(50)
    alone.restart()
    client.out.until_line(1500)
    alone.restart()
    assert client.wait() == 4
    assert client.out.data == b"".join(b"%d\n" % n for n in range(1, 3001))


# update, stats, top, shims

def test_update_changes_limits_of_a_running_container(world, box):
    assert world.ctrctl("update", "-m", "64m", "--pids-limit", "50", "--cpus", "0.5", "box").out == "box\n"
    stats, = [json.loads(line) for line in world.ctrctl("stats", "--no-stream", "--output", "json", "box").out.splitlines()]
    assert stats["memory_limit_bytes"] == 64 << 20 and stats["pids_limit"] == 50
    assert "at least one" in world.ctrctl("update", "box", code=125).err
    assert "invalid" in world.ctrctl("update", "-m", "x", "box", code=125).err
    assert world.ctrctl("update", "-m", "64m", "nosuch", code=1).err.count("\n") == 1
    world.ctrctl("update", "-m", "0", "--pids-limit", "-1", "--cpus", "0", "box")


def test_stats_of_one_moment(world, box):
    lines = world.ctrctl("stats", "--no-stream").out.splitlines()
    assert re.match(r"CONTAINER ID +NAME +CPU % +MEM USAGE / LIMIT +MEM % +NET I/O +BLOCK I/O +PIDS", lines[0])
    assert any(re.match(rf"{box[:12]} +box +\d+\.\d\d% +[\d.]+[KM]iB / [\d.]+GiB +\d+\.\d\d% ", line) for line in lines[1:])
    stats, = [json.loads(line) for line in world.ctrctl("stats", "--no-stream", "--format", "json", "box").out.splitlines()]
    assert stats["container_id"] == box and stats["pids"] >= 2 and stats["cpu_percent"] >= 0 and stats["memory_usage_bytes"] > 0
    assert world.ctrctl("stats", "--no-stream", "nosuch", code=1).err.count("\n") == 1


def test_stats_count_a_busy_processor(world):
    world.background("while :; do :; done", "--name", "busy", "--cpus", "0.5")
    stats, = [json.loads(line) for line in world.ctrctl("stats", "--no-stream", "--output", "json", "busy").out.splitlines()]
    assert 10 < stats["cpu_percent"] < 80
    world.ctrctl("rm", "-f", "busy")


def test_stats_stream_and_name_what_does_not_run(world, box):
    world.run("--name", "idle", IMAGE, "true")
    assert re.search(r"idle +-- +-- / --", world.ctrctl("stats", "--all", "--no-stream").out)
    world.ctrctl("rm", "idle")
    client = world.client("stats", "--output", "json", "box")
    client.out.until_line(2)
    first, second = [json.loads(line) for line in client.out.data.splitlines()[:2]]
    assert first["time"] < second["time"] and first["cpu_usage_ns"] <= second["cpu_usage_ns"]
    client.kill()
    client.wait()


def test_a_live_table_is_drawn_in_place_on_a_terminal_alone(world, box):
    terminal = Terminal(world, "stats", "box", columns=60)
    terminal.until(rb"\x1b\[2A\rCONTAINER ID[^\n]*\n[^\n]*box")
    plain = re.sub(rb"\x1b\[[0-9]*[A-Z]|\r", b"", terminal.out.data)
    assert all(len(line) <= 60 for line in plain.split(b"\n"))
    terminal.send(signal.SIGINT)
    terminal.wait()
    assert terminal.settings() == terminal.before


def test_top_lists_the_processes(world, box):
    lines = world.ctrctl("top", "box").out.splitlines()
    assert lines[0].split()[:2] == ["UID", "PID"] and any("sleep 1000" in line for line in lines)
    assert world.ctrctl("top", "box", "-o", "pid,comm").out.split()[:2] == ["PID", "COMMAND"]
    rows = world.ctrctl("top", "--output", "json", "box").json()
    assert any("sleep 1000" in row["CMD"] for row in rows)


def test_shims_are_listed(world, box):
    shim, = [s for s in world.ctrctl("shims", "list", "--output", "json").json() if s["container_id"] == box]
    assert shim["guards"] == "both" and shim["shim_pid"] > 0 and shim["keeper_pid"] > 0 and shim["version"] and not shim["outdated"]
    assert re.search(rf"{box[:12]} +box +ctr +{shim['shim_pid']} ", world.ctrctl("shims").out)
    assert "--all" in world.ctrctl("shims", "upgrade", code=125).err
    assert world.ctrctl("inspect", "box").json()[0]["task"]["shim_version"] == shim["version"]


# logs

@pytest.fixture(scope="module")
def spoken(world):
    """A container that wrote two lines, and two more a while later; both moments, on the clock of the host."""
    world.ctrctl("create", "-i", "--name", "spoken", IMAGE, "sh", "-c", "echo one; echo two >&2; read x; printf 'three\\nfour'; exit 0")
    world.ctrctl("start", "spoken")
    reader = world.client("logs", "-f", "spoken")
    reader.out.until(b"one")
    reader.err.until(b"two")
    middle = datetime.now(timezone.utc)
    world.ctrctl("attach", "spoken", stdin=b"go\n")
    assert reader.wait() == 0
    yield middle.isoformat().replace("+00:00", "Z")
    world.ctrctl("rm", "-f", "spoken")


def test_logs_by_stream(world, spoken):
    for words, out, err in ((("--stdout",), "one\nthree\nfour", ""), (("--stderr",), "", "two\n"), ((), "one\nthree\nfour", "two\n")):
        result = world.ctrctl("logs", *words, "spoken")
        assert (result.out, result.err) == (out, err)


def test_logs_by_time(world, spoken):
    assert world.ctrctl("logs", "--since", spoken, "spoken").out == "three\nfour"
    before = world.ctrctl("logs", "--until", spoken, "spoken")
    assert (before.out, before.err) == ("one\n", "two\n")
    assert world.ctrctl("logs", "--since", "1h", "spoken").out == "one\nthree\nfour"
    assert world.ctrctl("logs", "--until", "1h", "spoken").out == ""
    assert "invalid time" in world.ctrctl("logs", "--since", "yesterday", "spoken", code=125).err


def test_logs_by_lines(world, spoken):
    assert world.ctrctl("logs", "--tail", "1", "spoken").out == "four"
    assert world.ctrctl("logs", "-n", "2", "--stdout", "spoken").out == "three\nfour"
    assert world.ctrctl("logs", "--tail", "0", "spoken").out == ""
    assert world.ctrctl("logs", "--tail", "all", "spoken").out == "one\nthree\nfour"


def test_logs_with_times(world, spoken):
    lines = world.ctrctl("logs", "-t", "--stdout", "spoken").out.splitlines()
    matches = [re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z) (.*)", line) for line in lines]
    assert [m.group(2) for m in matches] == ["one", "three", "four"]
    assert [m.group(1) for m in matches] == sorted(m.group(1) for m in matches)
    assert matches[0].group(1)[:26] < spoken[:26] < matches[1].group(1)[:26]


def test_logs_go_on_at_a_position(world, spoken):
    result = world.ctrctl("logs", "--until", spoken, "--cursor", "spoken")
    position = re.search(r"position (\S+)", result.err).group(1)
    assert re.fullmatch(r"1/stdout:1:4,stderr:1:4", position)
    rest = world.ctrctl("logs", "--since", position, "spoken")
    assert (rest.out, rest.err) == ("three\nfour", "")
    assert "invalid position" in world.ctrctl("logs", "--since", "1/x", "spoken", code=125).err


def test_logs_are_binary_safe(world):
    world.run("--name", "binary", IMAGE, "sh", "-c", "head -c 300000 /dev/urandom | tee /proc/self/fd/2", code=0)
    done = subprocess.run([str(BIN / "ctrctl"), "logs", "binary"], capture_output=True, env=world.env, timeout=60)
    assert len(done.stdout) == 300000 and done.stdout == done.stderr
    world.ctrctl("rm", "binary")


def test_verify_says_whether_log_and_index_agree(world, spoken):
    result = world.ctrctl("logs", "--verify", "spoken")
    assert result.out.startswith("RUN ") and result.out.rstrip().endswith("ok")
    world.run("--name", "torn", IMAGE, "echo", "hello")
    identifier = world.task("torn")["container_id"]
    with open(world.incarnation(identifier) / "log" / "stdout.000001", "r+b") as segment:
        segment.truncate(2)
    result = world.ctrctl("logs", "--verify", "--output", "json", "torn", code=1)
    assert result.json()[0]["problems"]
    assert world.ctrctl("logs", "--verify", "torn", code=1).err
    world.ctrctl("rm", "torn")


# flags of run that came with these

def test_run_leads_only_the_streams_that_are_asked_for(world):
    script = ("sh", "-c", "echo out; echo err >&2")
    for words, out, err in ((("-a", "stdout"), "out\n", ""), (("-a", "STDERR"), "", "err\n"), (("-a", "stdout", "-a", "stderr"), "out\n", "err\n")):
        result = world.ctrctl("run", "--rm", *words, IMAGE, *script)
        assert (result.out, result.err) == (out, err)
    assert "conflicting" in world.ctrctl("run", "-d", "-a", "stdout", IMAGE, code=125).err


def test_inspect_shows_terminal_input_and_log_driver(world):
    world.ctrctl("create", "-it", "--name", "shown", "--log-opt", "max-size=1m", "--log-opt", "max-file=3", IMAGE)
    found, = world.ctrctl("inspect", "shown").json()
    assert found["config"]["terminal"] and found["config"]["open_stdin"] and found["config"]["log_options"] == {"max-size": "1m", "max-file": "3"}
    assert found["exec_count"] == 0
    world.ctrctl("rm", "shown")
