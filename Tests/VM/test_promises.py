"""The demo, and samples of the crash walk and of the rounds of SIGKILL, as a user runs them; at the end nothing may be left on the machine."""
import re
import subprocess
import sys
from pathlib import Path

import hostcheck
from guest import CGROUPS

PROJECT = Path(__file__).resolve().parents[2]


def test_the_demo_keeps_every_promise():
    done = subprocess.run([sys.executable, PROJECT / "tools/demo.py"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "Every promise was kept." in done.stdout, done.stdout[-2000:] + done.stderr[-2000:]


def test_a_sample_of_the_crash_walk():
    done = subprocess.run([sys.executable, PROJECT / "Tests/Chaos/crashwalk.py", "--bounded", "--kills", "8", "--seconds", "30"],
                          capture_output=True, text=True, timeout=240)
    found = re.search(r"^crashwalk: (\d+) passed, (?:.*, )?(\d+) failed", done.stdout, re.M)
    assert done.returncode == 0 and found and int(found.group(1)) > 0 and found.group(2) == "0", done.stdout[-3000:] + done.stderr[-1000:]


def test_some_rounds_of_kills_under_a_writer():
    done = subprocess.run([sys.executable, PROJECT / "Tests/Chaos/rounds.py", "--rounds", "10", "--lines", "40000", "--least", "5"],
                          capture_output=True, text=True, timeout=240)
    assert done.returncode == 0 and "rounds: 10 passed, 0 failed" in done.stdout, done.stdout[-3000:] + done.stderr[-1000:]


def test_nothing_is_left_on_the_machine():
    """What all tests before this one left: processes of ours (the ended ones are this program's to collect), groups, mounts."""
    living = [pid for pid in hostcheck.pids() if not hostcheck.is_zombie(pid)]
    ours = [hostcheck.describe(pid) for pid in living if hostcheck.read(f"/proc/{pid}/comm").strip() in hostcheck.OUR_PROGRAMS]
    groups = [str(path) for path in CGROUPS.iterdir() if path.is_dir()]
    mounts = [line for line in hostcheck.read("/proc/self/mountinfo").splitlines() if "/tmp/" in line.split(" ")[4]]
    assert (ours, groups, mounts) == ([], [], [])
