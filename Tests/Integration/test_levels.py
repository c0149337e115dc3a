"""A shim that has less than the level of the protocol that it claims, or answers what nobody can read, counts as one of an older level."""
import pytest

import checks
from fake_guard import GUARD, MALFORMED, MISSING, TASK, FakeGuard
from harness import one_line_error

PATIENT = "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 1000 & wait $!; done"


@pytest.fixture
def behind(alone):
    """Puts a guard with such answers before the shim of a new container, under a new manager."""
    fakes = []

    def make(answers):
        box = alone.background(PATIENT)
        follower = alone.client("logs", "-f", box)
        follower.out.until(b"ready\n")
        follower.close()
        alone.kill9()
        fakes.append(FakeGuard(alone.shim_socket(box), alone.directory / "real", answers))
        alone.start()
        return box, fakes[-1]

    yield make
    for fake in fakes:
        fake.close()


@pytest.mark.parametrize("answer", [MISSING, MALFORMED], ids=["missing", "malformed"])
@pytest.mark.parametrize("call", [(GUARD, "Processes"), (GUARD, "Info"), (GUARD, "WaitLog"), (TASK, "State")], ids=lambda call: call[1])
def test_what_it_lacks_keeps_nothing_else_from_working(alone, behind, call, answer):
    box, fake = behind({call: answer})
    task = alone.task(box)
    assert task["status"] == "running" and task["guards"] in ("both", "shim_only")
    follower, waiting = alone.client("logs", "-f", box), alone.client("wait", box)
    if call[1] in ("Processes", "Info"):
        error = one_line_error(alone.ctrctl("exec", box, "true", code=None))
        assert "older release" in error and "stop and start the container" in error
    else:
        assert alone.ctrctl("exec", box, "echo", "in it").out == "in it\n"
    alone.ctrctl("stop", box)
    assert waiting.wait() == 0 and waiting.out.data.strip() == b"3"
    assert follower.wait() == 0 and follower.out.data == b"ready\nbye\n"
    checks.reaped(alone.task(box), 3)
    assert call in fake.asked or call[1] == "State"
    log = alone.log_text()
    assert "Status(" not in log
    if call[1] == "Processes":
        assert log.count("shim claims more than it can") == 1 and ("no such method" in log) == (answer == MISSING)
    alone.ctrctl("rm", box)


def test_one_that_does_not_tell_its_state_stays_paused(alone, behind):
    box, _ = behind({(TASK, "State"): MISSING})
    alone.ctrctl("pause", box)
    alone.restart()
    assert alone.task(box)["status"] == "paused"
    alone.ctrctl("unpause", box)
    assert alone.task(box)["status"] == "running"
    alone.ctrctl("rm", "-f", box)
