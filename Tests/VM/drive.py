"""Runs inside the machine: pytest, with one line a test on the second serial line, where the host reads them."""
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]
sys.path.insert(0, str(HERE.parent / "Integration"))

class Reporter:
    def __init__(self, line):
        self.line = line

    def say(self, text):
        self.line.write(f"{text}\n".encode(errors="replace"))

    def pytest_runtest_logstart(self, nodeid, location):
        self.say(f"run {nodeid.replace(' ', '_')}")

    def pytest_runtest_logreport(self, report):
        name = report.nodeid.replace(" ", "_")
        if report.failed:
            self.say(f"not ok {name} {report.duration:.1f}")
            for text in f"{report.when}: {report.longreprtext}".splitlines()[-60:]:
                self.say(f"# {text[:400]}")
        elif report.when == "call":
            self.say(f"{'ok' if report.passed else 'not ok'} {name} {report.duration:.1f}")

    def pytest_collectreport(self, report):
        if report.failed:
            self.say(f"not ok {report.nodeid or 'collection'} 0.0")
            for text in report.longreprtext.splitlines()[-40:]:
                self.say(f"# {text[:400]}")


def main():
    with open("/dev/ttyS1", "wb", buffering=0) as line:
        arguments = Path("/dev/vdc").read_text().split("\n")[:-1]
        pytest.main(["-q", "--tb=short", "--color=no", "-p", "no:cacheprovider", "-p", "no:faulthandler", "--rootdir", str(PROJECT), *arguments], plugins=[Reporter(line)])
        line.write(b"done\n")


if __name__ == "__main__":
    main()
