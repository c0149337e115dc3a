#!/usr/bin/python3
"""leakcheck.py note FILE | compare FILE: what of this project is on the host, noted before the tests and compared after them.

On a machine that others test on at the same time what they have running cannot be told from a leak: set CTRD_SHARED_HOST=1 there, and
only what carries no living test's directory is counted.
"""
import json
import os
import re
import sys
from pathlib import Path

import hostcheck


def of_a_living_test(item):
    """Whether the item names a test directory whose test still runs: its directory is there, or a process names it."""
    match = re.search(r"ctrd-(?:test-)?([0-9a-f]{8})", item)
    if not match:
        return False
    token = match.group(1)
    return any(token in hostcheck.read(f"/proc/{pid}/environ") or token in hostcheck.read(f"/proc/{pid}/cmdline") for pid in hostcheck.pids())


def main():
    if len(sys.argv) != 3 or sys.argv[1] not in ("note", "compare"):
        print(__doc__, file=sys.stderr)
        return 2
    now, path = hostcheck.host_state(), Path(sys.argv[2])
    if sys.argv[1] == "note":
        path.write_text(json.dumps({kind: sorted(items) for kind, items in now.items()}))
        return 0
    before = {kind: set(items) for kind, items in json.loads(path.read_text()).items()}
    found = hostcheck.leaks(before, now)
    if os.environ.get("CTRD_SHARED_HOST"):
        found = {kind: [i for i in items if kind != "process" and not of_a_living_test(i)] for kind, items in found.items()}
        found = {kind: items for kind, items in found.items() if items}
    for kind, items in found.items():
        for item in items:
            print(f"leaked {kind}: {item}")
    print("leakcheck: " + (", ".join(f"{len(i)} {k}" for k, i in found.items()) + " left behind" if found else "the host is as it was"))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
