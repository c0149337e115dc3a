"""Fails on purpose: a run in which this passes, or does not run, has shown nothing."""
from harness import IMAGE


def test_a_false_promise_is_noticed(world):
    world.run("--rm", IMAGE, "/bin/sh", "-c", "exit 3", code=4)
