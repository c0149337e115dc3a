"""What is asked of logs, exit statuses and containers after something was killed. Each check has a control that plants the fault."""
import re

SOURCES = ("reaped", "pidfd", "connector", "zombie")


def numbered_lines(data, prefix=b"", first=1, last=None, whole=True):
    """Lines `<prefix><n>` with n = first, first+1, …: none lost, doubled, reordered or torn. Returns the last number."""
    expected = first
    lines = data.split(b"\n")
    tail = lines.pop()
    if tail and whole:
        raise AssertionError(f"the output ends inside a line: {tail!r}")
    for position, line in enumerate(lines):
        match = re.fullmatch(re.escape(prefix) + rb"(\d+)", line.rstrip(b"\r"))
        if not match:
            raise AssertionError(f"line {position + 1} is torn or foreign: {line[:80]!r}")
        number = int(match.group(1))
        if number < expected:
            raise AssertionError(f"line {number} comes again or too late: expected {expected}")
        if number > expected:
            raise AssertionError(f"lines {expected} to {number - 1} are lost")
        expected += 1
    if last is not None and expected - 1 != last:
        raise AssertionError(f"the last line is {expected - 1}, not {last}")
    return expected - 1


def true_exit(task, code):
    """A known status is the true one and says who saw it; an unknown one has a reason and shows no number."""
    end = task.get("exit")
    if not end:
        raise AssertionError(f"no exit status shown: {task}")
    if end.get("source") == "unknown":
        if not end.get("reason"):
            raise AssertionError(f"an unknown exit without a reason: {task}")
        if end.get("code"):
            raise AssertionError(f"an exit status was invented: {task}")
        return "unknown"
    if end.get("source") not in SOURCES:
        raise AssertionError(f"an exit status without a source: {task}")
    if end.get("code", 0) != code:
        raise AssertionError(f"exit status {end.get('code', 0)} was invented, the true one is {code}: {task}")
    return end["source"]


def reaped(task, code):
    source = true_exit(task, code)
    if source != "reaped":
        raise AssertionError(f"source {source}, expected reaped: {task}")
