"""Containers that the previous release has started, under the manager of this one: all that their guards can do works, and the rest says what helps."""
import signal

import pytest

import checks
import events
from harness import one_line_error
from skew import COUNTING


def test_they_are_listed_read_and_stopped_as_before(old):
    box = old.background(COUNTING, "--name", "box", "--label", "a=b")
    before = old.task(box)
    # The client is of the previous release too, and goes on with the newer manager.
    follower = old.client("logs", "-f", box)
    follower.out.until_line(20)
    old.take_over()
    assert old.is_as(box, before) and before["status"] == "running"
    assert old.containers()[box]["name"] == "box" and old.containers()[box]["config"]["labels"] == {"a": "b"}
    inspected = old.ctrctl("inspect", "box").json()[0]
    assert inspected["id"] == box and inspected["task"]["pid"] == before["pid"]
    lines = follower.out.data.count(b"\n")
    follower.out.until_line(lines + 200)
    old.ctrctl("stop", box)
    assert follower.wait() == 0
    checks.reaped(old.task(box), 3)
    last = checks.numbered_lines(follower.out.data, prefix=b"line ")
    checks.numbered_lines(old.ctrctl("logs", box).raw, prefix=b"line ", last=last)


def test_pause_resume_wait_and_kill(old):
    box = old.patient()
    old.take_over()
    waiting = old.client("wait", box)
    old.ctrctl("pause", box)
    assert old.task(box)["status"] == "paused"
    old.ctrctl("unpause", box)
    assert old.task(box)["status"] == "running"
    old.ctrctl("kill", "-s", "TERM", box)
    assert waiting.wait() == 0 and waiting.out.data.strip() == b"3"
    checks.reaped(old.task(box), 3)


def test_an_end_while_no_manager_ran_is_the_true_one(old):
    box = old.patient()
    init = events.Pid(old.task(box)["pid"])
    old.kill9()
    init.kill(signal.SIGTERM)
    init.wait()
    old.take_over()
    assert old.wait(box) == 3
    checks.reaped(old.task(box), 3)
    assert old.ctrctl("logs", box).out == "ready\nbye\n"


def test_one_that_had_ended_is_still_there_and_starts_again_with_new_guards(old):
    box = old.patient()
    old.ctrctl("stop", box)
    old.take_over()
    checks.reaped(old.task(box), 3)
    assert old.ctrctl("logs", box).out == "ready\nbye\n"
    old.ctrctl("start", box)
    assert old.task(box)["incarnation"] == 2 and not old.shims()[box]["outdated"]
    assert old.ctrctl("exec", box, "echo", "in it").out == "in it\n"


@pytest.mark.parametrize("command", [("exec", "{}", "true"), ("exec", "-d", "{}", "true"), ("update", "--memory", "64m", "{}")], ids=["exec", "exec -d", "update"])
def test_what_their_guards_cannot_do_says_what_helps(old, command):
    box = old.patient()
    old.take_over()
    before = old.task(box)
    result = old.ctrctl(*(word.format(box) for word in command), code=None)
    assert result.code != 0 and "older release" in one_line_error(result) and "stop and start the container" in one_line_error(result)
    assert old.is_as(box, before)
    # And that is what helps.
    old.ctrctl("stop", box)
    old.ctrctl("start", box)
    old.ctrctl(*(word.format(box) for word in command))


def test_attach_shows_what_is_written_and_how_it_ends(old):
    box = old.background(COUNTING)
    old.take_over()
    attached = old.client("attach", box)
    attached.out.until_line(50)
    assert old.ctrctl("top", box).out.count("\n") >= 2
    assert box[:12] in old.ctrctl("stats", "--no-stream", box).out
    old.ctrctl("kill", "-s", "TERM", box)
    assert attached.wait() == 3
    first = int(attached.out.data.split(b"\n")[0].split()[1])
    checks.numbered_lines(attached.out.data, prefix=b"line ", first=first)


def test_the_list_names_their_release_and_an_upgrade_in_place_is_refused(old):
    box = old.patient()
    shim, keeper = old.guards(box)
    old.take_over()
    before = old.task(box)
    assert (old.shims()[box]["version"], old.shims()[box]["outdated"]) == ("0.1.0", True)
    assert "outdated" in old.ctrctl("shims", "list").out
    for target in (box, "--all"):
        result = old.ctrctl("shims", "upgrade", target, code=1)
        assert "too old to be upgraded in place" in one_line_error(result)
    assert old.is_as(box, before)
    again = old.guards(box)
    assert [(guard.pid, guard.start_time) for guard in again] == [(guard.pid, guard.start_time) for guard in (shim, keeper)]
    old.ctrctl("stop", box)
    checks.reaped(old.task(box), 3)


def test_one_that_runs_is_removed_by_force(old):
    box = old.patient()
    old.take_over()
    old.ctrctl("rm", box, code=1)
    old.ctrctl("rm", "-f", box)
    assert not old.containers() and not old.bundle(box).exists()


def test_a_killed_shim_is_replaced_by_its_keeper_whichever_manager_runs(old):
    box = old.background(COUNTING)
    old.take_over()
    shim, keeper = old.guards(box)
    shim.kill_and_wait()
    follower = old.client("logs", "-f", box)
    follower.out.until_line(500)
    assert old.guards(box)[0].pid != shim.pid and old.guards(box)[1].pid == keeper.pid
    old.ctrctl("stop", box)
    follower.wait()
    checks.reaped(old.task(box), 3)
    checks.numbered_lines(follower.out.data, prefix=b"line ")


def test_lost_guards_are_made_anew_of_this_release(old):
    box = old.patient()
    pid = old.task(box)["pid"]
    shim, keeper = old.guards(box)
    old.kill9().install().start()
    for guard in (keeper, shim):
        guard.kill_and_wait()
    deadline = events.Deadline(30)
    while not (old.task(box)["guards"] == "both" and old.task(box)["keeper_pid"] not in (0, keeper.pid)):
        deadline.left(old.task(box))
    assert old.task(box)["pid"] == pid and not old.shims()[box]["outdated"]
    # The guards could, but the previous release's runtime has kept nothing for it.
    error = one_line_error(old.ctrctl("exec", box, "true", code=125))
    assert "older release" in error and "stop and start the container" in error
    old.ctrctl("kill", "-s", "TERM", box)
    old.ctrctl("wait", box, code=None)
    checks.true_exit(old.task(box), 3)
