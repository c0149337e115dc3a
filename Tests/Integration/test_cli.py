"""The command line: what each command and flag does, prints and exits with."""
import json
import re
import subprocess

import pytest

import events
import harness
from harness import BIN, IMAGE, one_line_error, run_program

COMMANDS = [
    ("run",), ("containers",), ("containers", "create"), ("containers", "list"), ("containers", "inspect"), ("containers", "delete"), ("tasks",),
    ("tasks", "start"), ("tasks", "kill"), ("tasks", "list"), ("tasks", "wait"), ("tasks", "delete"), ("tasks", "pause"), ("tasks", "resume"),
    ("images",), ("images", "import"), ("images", "list"), ("images", "inspect"), ("images", "delete"), ("logs",), ("version",), ("info",), ("ps",),
    ("rm",), ("rmi",), ("kill",), ("stop",), ("inspect",), ("exec",), ("execs",), ("execs", "list"), ("execs", "kill"), ("execs", "delete"),
    ("attach",), ("stats",), ("top",), ("update",), ("shims",), ("shims", "list"), ("shims", "upgrade"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_says_usage_and_needs_no_manager(nobody, command):
    result = nobody.ctrctl(*command, "--help")
    assert "USAGE" in result.out.upper() and result.err == ""


@pytest.mark.parametrize("command", [("run",), ("tasks", "kill"), ("images", "import"), ("logs",), ("ps",)], ids=" ".join)
def test_help_has_examples(nobody, command):
    assert "ctrctl " + " ".join(command) in nobody.ctrctl(*command, "--help").out.split("USAGE", 1)[-1].split("\n", 1)[-1]


def test_help_of_the_manager(nobody):
    out = run_program(nobody, BIN / "ctrd", "--help").out
    for flag in ("--config", "--root", "--state", "--address", "--log-level", "--log-format"):
        assert flag in out


def test_help_of_run_names_every_flag(nobody):
    out = nobody.ctrctl("run", "--help").out
    for flag in ("-d", "--rm", "--name", "-e", "-w", "-u", "-v", "--read-only", "--memory", "--cpus", "--pids-limit", "--hostname", "--network", "--runtime"):
        assert flag in out, flag


def test_an_unknown_command_is_a_usage_error(nobody):
    assert nobody.ctrctl("frobnicate", code=None).code not in (0, 1)


def test_an_unknown_flag_of_run_exits_125(nobody):
    assert nobody.ctrctl("run", "--frobnicate", "x", code=None).code in (64, 125)


def test_version_shows_client_and_server(world):
    result = world.ctrctl("version")
    assert re.search(r"\d+\.\d+\.\d+", result.out)
    assert isinstance(world.ctrctl("version", "--output", "json").json(), dict)


def test_info_shows_where_things_are(world):
    info = world.ctrctl("info", "--output", "json").json()
    assert info["root"] == str(world.root) and info["state"] == str(world.state) and info["pid"] == world.process.pid
    assert str(world.root) in world.ctrctl("info").out


def test_run_prints_output_and_exits_with_the_status(world):
    result = world.ctrctl("run", "--rm", IMAGE, "/bin/sh", "-c", "echo out; echo err >&2; exit 7", code=7)
    assert (result.out, result.err) == ("out\n", "err\n")


@pytest.mark.parametrize("status", [0, 1, 42, 125, 126, 127, 255])
def test_run_hands_on_every_exit_status(world, status):
    world.ctrctl("run", "--rm", IMAGE, "/bin/sh", "-c", f"exit {status}", code=status)


def test_run_hands_on_a_signal_as_128_plus_n(world):
    world.ctrctl("run", "--rm", IMAGE, "/bin/sh", "-c", "sleep 1000 & kill -9 $!; wait $!; exit $?", code=137)


def test_run_uses_the_images_command(world):
    assert world.ctrctl("run", "--rm", IMAGE).code == 0


def test_run_d_prints_the_id_alone(world):
    identifier = world.run("-d", IMAGE, "/bin/true")
    assert re.fullmatch(r"[0-9a-f]{64}", identifier)
    assert world.wait(identifier) == 0
    world.ctrctl("rm", identifier)


def test_run_rm_leaves_nothing(world):
    before = world.containers()
    world.sh("true")
    assert world.containers() == before


def test_run_without_rm_keeps_the_container(world):
    world.run("--name", "kept", IMAGE, "/bin/true")
    assert world.task("kept")["exit"]["source"] == "reaped"
    world.ctrctl("rm", "kept")


def test_run_d_rm_removes_the_container_at_its_end(world):
    identifier = world.background("exit 3", "--rm")
    assert world.wait(identifier) == 3
    with events.Inotify(world.root / "containers" / "default") as watch:
        deadline = events.Deadline(20)
        while identifier in world.containers():
            events.readable([watch.fd], min(1, deadline.left("removal of a --rm container")))
            watch.drain()


def test_name_is_accepted_wherever_an_id_is(world):
    world.background("exec sleep 600", "--name", "named")
    assert world.task("named")["status"] == "running"
    assert world.ctrctl("inspect", "named").json()
    world.ctrctl("tasks", "pause", "named")
    world.ctrctl("tasks", "resume", "named")
    world.ctrctl("logs", "named")
    world.ctrctl("kill", "named")
    assert world.wait("named") == 137
    world.ctrctl("rm", "named")


def test_an_invented_name_is_shown(world):
    identifier = world.background("exit 0")
    assert re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+", world.containers()[identifier]["name"])
    world.ctrctl("rm", "-f", identifier)


def test_a_unique_prefix_is_accepted(world):
    identifier = world.background("exec sleep 600")
    assert world.ctrctl("inspect", identifier[:12]).json()
    world.ctrctl("rm", "-f", identifier[:12])
    assert identifier not in world.containers()


def test_ps_shows_running_and_ps_a_all(world):
    runs, ended = world.background("exec sleep 600"), world.background("exit 0")
    world.wait(ended)
    assert runs[:12] in world.ctrctl("ps").out and ended[:12] not in world.ctrctl("ps").out
    listed = world.ctrctl("ps", "-aq").out.split()
    assert {i[:12] for i in listed} >= {runs[:12], ended[:12]}
    assert all(re.fullmatch(r"[0-9a-f]{12,64}", line) for line in listed)
    quiet = world.ctrctl("ps", "-q").out.split()
    assert [i for i in quiet if runs.startswith(i)] and not [i for i in quiet if ended.startswith(i)]
    world.ctrctl("rm", "-f", runs, ended)


def test_rm_takes_several_and_goes_on_past_an_unknown_one(world):
    first, last = world.background("exit 0"), world.background("exit 0")
    world.wait(first), world.wait(last)
    result = world.ctrctl("rm", first, "nosuchcontainer", last, code=1)
    assert "nosuchcontainer" in one_line_error(result)
    assert not {first, last} & set(world.containers())


def test_create_then_start(world):
    identifier = world.ctrctl("containers", "create", "--name", "made", IMAGE, "/bin/sh", "-c", "echo started").out.strip()
    assert not (world.containers()[identifier].get("task") or {}).get("pid")
    world.ctrctl("tasks", "start", "made")
    assert world.wait("made") == 0
    assert world.ctrctl("logs", "made").out == "started\n"
    world.ctrctl("containers", "delete", "made")
    assert identifier not in world.containers()


def test_a_stopped_container_starts_again(world):
    identifier = world.run("-d", "--name", "again", IMAGE, "/bin/sh", "-c", "echo x >> /count; exit $(wc -l < /count)")
    assert world.wait(identifier) == 1
    world.ctrctl("tasks", "start", "again")
    assert world.wait(identifier) == 2
    assert world.task(identifier)["incarnation"] == 2
    world.ctrctl("rm", "again")


def test_tasks_kill_defaults_to_term_and_kill_to_kill(world):
    script = "trap 'echo term; exit 5' TERM; echo ready; while :; do sleep 0.02; done"
    client = world.client("run", "--name", "trap", IMAGE, "/bin/sh", "-c", script)
    client.out.until(b"ready")
    world.ctrctl("tasks", "kill", "trap")
    assert client.wait() == 5 and client.out.data == b"ready\nterm\n"
    world.ctrctl("tasks", "start", "trap")
    world.ctrctl("kill", "trap")
    assert world.wait("trap") == 137
    world.ctrctl("rm", "trap")


@pytest.mark.parametrize("signal", ["USR1", "SIGUSR1", "10"])
def test_kill_s_takes_names_and_numbers(world, signal):
    client = world.client("run", "--rm", "--name", "sig", IMAGE, "/bin/sh", "-c", "trap 'exit 9' USR1; echo ready; while :; do sleep 0.02; done")
    client.out.until(b"ready")
    world.ctrctl("kill", "-s", signal, "sig")
    assert client.wait() == 9


def test_stop_sends_term_and_waits(world):
    client = world.client("run", "--name", "polite", IMAGE, "/bin/sh", "-c", "trap 'exit 0' TERM; echo ready; while :; do sleep 0.02; done")
    client.out.until(b"ready")
    world.ctrctl("stop", "polite")
    assert world.task("polite")["status"] == "stopped" and client.wait() == 0
    world.ctrctl("rm", "polite")


def test_stop_kills_after_its_timeout(world):
    client = world.client("run", "--name", "deaf", IMAGE, "/bin/sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.02; done")
    client.out.until(b"ready")
    world.ctrctl("stop", "-t", "1", "deaf")
    assert client.wait() == 137
    world.ctrctl("rm", "deaf")


def test_pause_and_resume(world):
    client = world.client("run", "--name", "frozen", IMAGE, "/bin/sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done")
    client.out.until_line(3)
    world.ctrctl("tasks", "pause", "frozen")
    assert world.task("frozen")["status"] == "paused"
    client.out.pump(0.5)
    count = world.ctrctl("logs", "frozen").out
    assert world.ctrctl("logs", "frozen").out == count
    world.ctrctl("tasks", "resume", "frozen")
    assert world.task("frozen")["status"] == "running"
    client.out.until_line(count.count("\n") + 3)
    world.ctrctl("kill", "frozen")
    assert client.wait() == 137
    world.ctrctl("rm", "frozen")


def test_a_paused_container_can_be_killed(world):
    identifier = world.background("exec sleep 600")
    world.ctrctl("tasks", "pause", identifier)
    world.ctrctl("rm", "-f", identifier)
    assert identifier not in world.containers()


def test_tasks_wait_prints_the_status_alone_and_long_after(world):
    identifier = world.background("exit 23")
    assert world.ctrctl("tasks", "wait", identifier, code=None).out == "23\n"
    assert world.ctrctl("tasks", "wait", identifier, code=None).out == "23\n"
    world.restart()
    assert world.ctrctl("tasks", "wait", identifier, code=None).out == "23\n"
    world.ctrctl("rm", identifier)


def test_tasks_delete_keeps_the_container_and_its_logs(world):
    identifier = world.background("echo kept")
    world.wait(identifier)
    world.ctrctl("tasks", "delete", identifier)
    assert identifier in world.containers() and world.ctrctl("logs", identifier).out == "kept\n"
    world.ctrctl("rm", identifier)


def test_tasks_delete_of_a_running_task_is_refused(world):
    identifier = world.background("exec sleep 600")
    result = world.ctrctl("tasks", "delete", identifier, code=1)
    assert "running" in one_line_error(result)
    world.ctrctl("rm", "-f", identifier)


def test_shapes_of_the_lists(world):
    identifier = world.background("exec sleep 600", "--name", "shapes")
    tasks = world.ctrctl("tasks", "list", "--output", "json").json()
    task = next(t for t in tasks if t["container_id"] == identifier)
    assert task["status"] == "running" and task["pid"] > 1 and task["start_time"] > 0 and task["container_name"] == "shapes"
    assert task["guards"] == "both" and task["shim_pid"] > 1 and task["keeper_pid"] > 1
    container = world.containers()[identifier]
    assert container["name"] == "shapes" and container["image"] == IMAGE and container["task"]["pid"] == task["pid"]
    image = world.ctrctl("images", "list", "--output", "json").json()[0]
    assert image["names"] == [IMAGE] and image["id"].startswith("sha256:") and image["size"] > 0
    for command in (("ps", "-a"), ("containers", "list"), ("tasks", "list"), ("images", "list")):
        plain = world.ctrctl(*command).out.splitlines()
        assert plain[0] == plain[0].upper(), plain[0]  # a heading
        assert isinstance(world.ctrctl(*command, "--output", "json").json(), list)
    world.ctrctl("rm", "-f", "shapes")


def test_lists_say_truth_of_an_empty_namespace(world):
    for command in (("ps", "-a"), ("containers", "list"), ("tasks", "list"), ("images", "list")):
        assert world.ctrctl("--namespace", "empty", *command, "--output", "json").json() == []


def test_inspect_shows_container_task_and_runtime_configuration(world):
    identifier = world.background("exec sleep 600", "-e", "A=b")
    shown = world.ctrctl("inspect", identifier).json()
    shown = shown[0] if isinstance(shown, list) else shown
    assert shown["id"] == identifier and "A=b" in json.dumps(shown) and '"running"' in json.dumps(shown)
    assert world.ctrctl("containers", "inspect", identifier, "--output", "json").json()
    world.ctrctl("rm", "-f", identifier)


def test_images_q_and_inspect(world):
    identifiers = world.ctrctl("images", "-q").out.split()
    assert len(identifiers) == 1
    shown = world.ctrctl("images", "inspect", identifiers[0]).json()
    assert IMAGE in json.dumps(shown)


def test_a_namespace_has_its_own_containers_and_images(world):
    assert world.ctrctl("--namespace", "other", "images", "-q").out == ""
    result = world.ctrctl("--namespace", "other", "run", "--rm", IMAGE, "true", code=125)
    assert IMAGE in one_line_error(result)


def test_address_flag_wins_over_the_environment(world):
    bad = {"CTRD_ADDRESS": "/nonexistent/ctrd.sock"}
    world.ctrctl("--address", world.address, "version", env=bad)
    assert "/nonexistent/ctrd.sock" in one_line_error(world.ctrctl("ps", env=bad, code=1))


def test_the_client_loads_no_libraries(world):
    """What it needs is linked in: nothing is looked for when it starts."""
    trace = world.directory / "trace"
    subprocess.run(["strace", "-f", "-e", "trace=open,openat", "-o", str(trace), str(BIN / "ctrctl"), "version"], capture_output=True, env=world.env,
                   timeout=harness.TIMEOUT, check=True)
    assert ".so" not in trace.read_text()


@pytest.mark.parametrize("program", ["ctrd", "ctrctl", "ctr-shim", "ctr-keeper", "ctrun"])
def test_the_programs_are_built(program):
    assert (BIN / program).stat().st_mode & 0o111


def test_restart_of_the_manager_keeps_names_and_images(world):
    world.background("exec sleep 600", "--name", "survivor")
    before = world.task("survivor")
    world.restart()
    after = world.task("survivor")
    assert (after["pid"], after["start_time"]) == (before["pid"], before["start_time"])
    world.ctrctl("rm", "-f", "survivor")
    world.sh("true")
