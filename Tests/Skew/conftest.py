import sys
from pathlib import Path

import pytest

for place in (Path(__file__).resolve().parent, Path(__file__).resolve().parents[1] / "Integration"):
    sys.path.insert(0, str(place))

from harness import drop_manager  # noqa: E402
from skew import PREVIOUS, PROGRAMS, SkewWorld  # noqa: E402


def pytest_sessionstart(session):
    missing = [name for name in PROGRAMS if not (PREVIOUS / name).exists()]
    if missing:
        pytest.exit(f"no {', '.join(missing)} in {PREVIOUS}: `make skew-test` builds the previous release", returncode=1)


@pytest.fixture
def old():
    """A manager of the previous release; at the end the one that then is installed removes everything, and nothing may be left."""
    made = SkewWorld()
    try:
        made.start().import_box()
        made.sh("true")
        before = made.snapshot()
        yield made
        if not made.running():
            made.start()
        made.remove_all()
        before = drop_manager(before, made)
        # The previous release has no such socket.
        before["socket"] |= {item for item in made.snapshot()["socket"] if item.endswith(f"{made.address}.ttrpc")}
        made.assert_no_leaks(before)
    finally:
        made.close()
