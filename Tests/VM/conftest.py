"""The fixtures of the integration tests, for tests that run inside the machine only (tools/vm.py)."""
import importlib.util
import sys
from pathlib import Path

INTEGRATION = Path(__file__).resolve().parents[1] / "Integration"
sys.path.insert(0, str(INTEGRATION))
_spec = importlib.util.spec_from_file_location("integration_fixtures", INTEGRATION / "conftest.py")
_fixtures = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_fixtures)
world, alone, nobody = _fixtures.world, _fixtures.alone, _fixtures.nobody


def pytest_collection_modifyitems(items):
    """What looks at everything that was left comes after everything."""
    items.sort(key=lambda item: item.name == "test_nothing_is_left_on_the_machine")
