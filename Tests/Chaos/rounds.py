"""Kills shim, manager or both while a container writes numbered lines to both streams at full speed, round after round.

Every line has to be there once and in order, every exit status true, and nothing may be left. A kill counts when it hit its process while lines were
still unwritten. `--plant` damages what was found before it is checked: the run must then fail."""
import argparse
import os
import random
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "Integration"))

import checks  # noqa: E402
import events  # noqa: E402
import hostcheck  # noqa: E402
from harness import World, drop_manager  # noqa: E402

VICTIMS = ("shim", "manager", "both")
PLANTS = ("lost", "doubled", "status", "missed")


def output_bytes(lines):
    """Bytes of the lines 1 … lines."""
    return sum((min(lines, 10 ** digits - 1) - 10 ** (digits - 1) + 1) * (digits + 1) for digits in range(1, len(str(lines)) + 1))


class Rounds:
    def __init__(self, options):
        self.options = options
        self.random = random.Random(options.seed)
        self.world = World()
        self.landed = {victim: 0 for victim in VICTIMS}
        self.failed = self.passed = 0

    def log_size(self, identifier):
        total = 0
        for path in (self.world.incarnation(identifier) / "log").glob("std*.*"):
            try:
                total += path.stat().st_size
            except OSError:
                pass
        return total

    def kill(self, victim, identifier, init, total):
        """One kill at a random point of the output. Whether it hit its processes while there was still something to write."""
        point = self.random.randrange(total * 7 // 10)
        try:
            events.wait_file(self.world.incarnation(identifier) / "log" / "index", lambda _: self.log_size(identifier) >= point, 60, init.fd)
        except ProcessLookupError:
            return False
        hit = []
        if victim in ("shim", "both"):
            try:
                hit.append(self.world.guards(identifier)[0])
            except (AssertionError, OSError):
                return False
        if victim in ("manager", "both"):
            hit.append(self.world.manager)
        alive = all(process.alive() for process in hit)
        for process in hit:
            process.kill()
        for process in hit:
            process.wait()
        landed = alive and init.alive() and self.log_size(identifier) < total and self.options.plant != "missed"
        if victim in ("manager", "both"):
            self.world.process.wait()
            self.world.start()
        return landed

    def round(self, number):
        lines = self.options.lines
        # Every tenth ends by a signal from outside, the others with one status after the other.
        signalled = number % 10 == 9
        code, last = (137, "exec sleep 600") if signalled else (number % 256, f"exit {number % 256}")
        identifier = self.world.background(f"seq 1 {lines} & seq 1 {lines} >&2; wait; {last}")
        pid = self.world.task(identifier)["pid"]
        try:
            init = events.Pid(pid) if pid else None
        except OSError:
            init = None  # it has ended already: no kill of this round counts
        victim = VICTIMS[number % len(VICTIMS)]
        total = 2 * output_bytes(lines)
        for _ in range(self.random.choice((1, 2)) if init else 0):
            self.landed[victim] += self.kill(victim, identifier, init, total)
        if signalled:
            events.wait_file(self.world.incarnation(identifier) / "log" / "index", lambda _: self.log_size(identifier) >= total, 60)
            self.world.ctrctl("kill", identifier)
        self.world.wait(identifier)
        task = self.world.task(identifier)
        if self.options.plant == "status":
            task["exit"]["code"] = (code + 1) % 256
        source = checks.true_exit(task, code)
        if source == "unknown":
            raise AssertionError(f"the exit status was lost: {task}")
        shown = self.world.ctrctl("logs", identifier)
        for name, data in (("stdout", shown.raw), ("stderr", shown.err.encode())):
            if self.options.plant == "lost":
                data = data.replace(b"\n77\n", b"\n", 1)
            if self.options.plant == "doubled":
                data = data.replace(b"\n77\n", b"\n77\n77\n", 1)
            try:
                checks.numbered_lines(data, last=lines)
            except AssertionError as error:
                raise AssertionError(f"{name}: {error}") from None
        self.world.ctrctl("rm", identifier)
        if init:
            init.close()

    def run(self):
        self.world.start().import_box()
        self.world.sh("true")
        before = self.world.snapshot()
        for number in range(self.options.rounds):
            try:
                self.round(number)
                self.passed += 1
            except AssertionError as error:
                self.failed += 1
                print(f"round {number} ({VICTIMS[number % len(VICTIMS)]}): {str(error)[:2000]}", flush=True)
                if self.failed >= self.options.stop_after:
                    break
        if not self.world.running():
            self.world.start()
        self.world.remove_all()
        try:
            self.world.assert_no_leaks(drop_manager(before, self.world))
        except AssertionError as error:
            self.failed += 1
            print(f"left behind: {error}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--lines", type=int, default=400_000, help="lines of each stream in a round")
    parser.add_argument("--least", type=int, help="fail below this number of kills that landed (default: as many as rounds)")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3)))
    parser.add_argument("--stop-after", type=int, default=5, help="failed rounds after which it stops")
    parser.add_argument("--plant", choices=PLANTS, help="damage what was found: the run must fail")
    options = parser.parse_args()
    least = options.rounds if options.least is None else options.least
    started = time.monotonic()
    print(f"rounds: {options.rounds} rounds of twice {options.lines} lines, seed {options.seed}")
    rounds = Rounds(options)
    try:
        rounds.run()
    finally:
        rounds.world.close()
        left = hostcheck.own_processes(rounds.world.scope)
        if left:
            rounds.failed += 1
            print(f"left behind: {[hostcheck.describe(process) for process in left]}")
    landed = sum(rounds.landed.values())
    print(f"rounds: {landed} kills landed ({', '.join(f'{name} {count}' for name, count in rounds.landed.items())}) in {time.monotonic() - started:.0f} s")
    if landed < least:
        rounds.failed += 1
        print(f"rounds: {landed} kills landed, planned were {least}")
    print(f"rounds: {rounds.passed} passed, {rounds.failed} failed")
    return 1 if rounds.failed else 0


if __name__ == "__main__":
    sys.exit(main())
