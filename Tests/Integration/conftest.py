import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from harness import World, drop_manager  # noqa: E402


@pytest.fixture(scope="module")
def world():
    """A manager with the image box:latest, shared by the tests of one file; at the end nothing of it may be left."""
    made = World()
    try:
        made.start().import_box()
        made.sh("true")
        before = made.snapshot()
        yield made
        if not made.running():
            made.start()
        made.remove_all()
        made.assert_no_leaks(drop_manager(before, made))
    finally:
        made.close()


@pytest.fixture
def alone():
    """A manager for one test, which may do to it what it likes; at the end nothing of it may be left."""
    made = World()
    try:
        made.start().import_box()
        made.sh("true")
        before = made.snapshot()
        yield made
        if not made.running():
            made.start()
        made.remove_all()
        made.assert_no_leaks(drop_manager(before, made))
    finally:
        made.close()


@pytest.fixture
def nobody():
    """A world in which no manager runs."""
    made = World()
    try:
        yield made
    finally:
        made.close()
