"""ctr-shim under Debian 12's own containerd where version 2 is all there is: one task with all that is different there."""
import json
import re

import pytest

import events
from containerd_world import Containerd, Events
from guest import CGROUPS, processes, value
from shim_client import Client, decode, field, first

LIMIT = 32 << 20


@pytest.fixture
def containerd():
    made = Containerd("/usr/bin")
    try:
        made.start(timeout=120).import_image()
        before = made.snapshot()
        yield made
        made.assert_no_leaks(before)
    finally:
        made.close()


@pytest.fixture
def told(containerd):
    made = Events(containerd)
    yield made
    made.close()


def test_a_task_from_its_start_to_its_end(containerd, told):
    containerd.background("c1", "sh", "-c", "sleep 600; exit 9", options=("--memory-limit", LIMIT))
    own = CGROUPS / containerd.namespace / "c1"
    pid = containerd.tasks()["c1"][0]
    assert pid in processes(own) and (own / "memory.max").read_text() == f"{LIMIT}\n"
    shim, keeper = containerd.guards("c1")
    assert not {shim.pid, keeper.pid} & set(processes(own))

    # Further processes, in groups of their own that go with them.
    done = containerd.ctr("tasks", "exec", "--exec-id", "e1", "c1", "sh", "-c", "cat /proc/self/cgroup; cat; exit 3", code=3, stdin=b"in")
    assert re.fullmatch(r"0::/\S*exec-e1\nin", done.out), done

    # What is used: the message of version 2, and containerd's own tool shows it.
    with Client(containerd.socket("c1")) as client:
        stats = decode(first(client.call("Stats", field(1, "c1")), 1))
        assert first(stats, 1) == b"io.containerd.cgroups.v2.Metrics", stats
        shown = json.loads(containerd.ctr("tasks", "metrics", "--format", "json", "c1").out)
        assert shown["memory"]["usage_limit"] == LIMIT and 0 < shown["memory"]["usage"] <= LIMIT and shown["pids"]["current"] >= 1, shown
        assert shown["cpu"]["usage_usec"] > 0, shown
        assert re.search(rf"^memory\.usage_limit\s+{LIMIT}\s*$", containerd.ctr("tasks", "metrics", "c1").out, re.M)

        # Other limits.
        resources = json.dumps({"memory": {"limit": LIMIT + (1 << 20), "swap": LIMIT + (1 << 20)}, "pids": {"limit": 50}})
        client.call("Update", field(1, "c1") + field(2, field(1, "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources") + field(2, resources)))
    assert [(own / name).read_text() for name in ("memory.max", "memory.swap.max", "pids.max")] == [f"{LIMIT + (1 << 20)}\n", "0\n", "50\n"]

    containerd.ctr("tasks", "pause", "c1")
    assert value(own / "cgroup.events", "frozen") == 1 and containerd.tasks()["c1"] == (pid, "PAUSED")
    containerd.ctr("tasks", "resume", "c1")
    assert value(own / "cgroup.events", "frozen") == 0 and containerd.tasks()["c1"] == (pid, "RUNNING")

    # SIGKILL to an exec takes all of its group, and nothing else.
    client = containerd.client("tasks", "exec", "--exec-id", "e2", "c1", "sh", "-c", "setsid sleep 600 & echo up; wait")
    client.out.until(rb"up\n")
    crowd = [events.Pid(process) for process in processes(own / "exec-e2")]
    assert len(crowd) == 2
    containerd.ctr("tasks", "kill", "--exec-id", "e2", "-s", "KILL", "c1")
    for process in crowd:
        process.wait()
    assert client.wait() == 137 and containerd.tasks()["c1"] == (pid, "RUNNING")
    assert [path.name for path in own.iterdir() if path.is_dir()] == []

    # The shim may die meanwhile, and the kernel may kill for memory; what happened is told in its order when the container ends.
    containerd.ctr("tasks", "exec", "--exec-id", "e3", "c1", "dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1", code=137)
    assert value(own / "memory.events", "oom_kill") == 1 and containerd.tasks()["c1"] == (pid, "RUNNING")
    shim.kill_and_wait()
    init = events.Pid(pid)
    containerd.ctr("tasks", "kill", "-s", "KILL", "c1")
    init.wait()
    containerd.remove("c1")
    seen = [(topic, message.get("id", "c1")) for topic, message in told.until("c1", "/tasks/delete")]
    assert [topic for topic, process in seen if process == "c1" and "exec" not in topic] == [
        "/tasks/create", "/tasks/start", "/tasks/paused", "/tasks/resumed", "/tasks/oom", "/tasks/exit", "/tasks/delete"], seen
    assert not own.exists()
