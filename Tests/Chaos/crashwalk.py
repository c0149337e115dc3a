#!/usr/bin/python3
"""Walks through a container's life and kills one program at each of its calls: N = 1, 2, 3 … of every kind, until the N-th is not reached.

After each kill the promises are checked: the container is wholly present or absent, its status is the true one, its output has no gap and
no double, it can be removed, and nothing of it is left on the host. `--bounded` takes a sample chosen by a printed seed.
"""
import argparse
import os
import random
import socket
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "Integration"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import checks  # noqa: E402
import events  # noqa: E402
import hostcheck  # noqa: E402
from harness import IMAGE, World  # noqa: E402
from ttrpc_client import Client, RPCError, encode  # noqa: E402
from victims import CALLS, Traps, inject  # noqa: E402

LINES, CODE = 200, 7
# The container of every walk: it writes, waits to be told, writes again and ends.
SCRIPT = f"seq 1 {LINES // 2}; while [ ! -e /go/now ]; do usleep 2000; done; seq {LINES // 2 + 1} {LINES}; exit {CODE}"
KINDS = {
    "ctrd": ("fsync", "rename", "mkdir", "unlink", "clone", "record", "mount", "move_mount"),
    "ctr-shim": ("fsync", "rename", "mkdir", "unlink", "clone", "record", "mount", "move_mount"),
    "ctr-shim start": ("fsync", "rename", "mkdir", "unlink", "clone", "record"),
    "ctr-keeper": ("clone", "record"),
    "ctrun": ("fsync", "rename", "mkdir", "unlink", "clone", "mount", "move_mount"),
}
# One of each program that is sure to be reached: what a sample begins with.
SURE = [("ctrd", "run", "record"), ("ctr-shim", "exit", "fsync"), ("ctr-shim start", "run", "clone"), ("ctr-keeper", "run", "clone"),
        ("ctr-keeper", "orphan", "record"), ("ctrun", "create", "clone")]
STAGES = {"ctrd": ("run", "exit", "delete", "boot"), "ctr-shim": ("run", "exit", "delete"), "ctr-shim start": ("run",),
          "ctr-keeper": ("run", "orphan"), "ctrun": ("create",)}
WALKS = [(program, stage, kind) for program in STAGES for stage in STAGES[program] for kind in KINDS[program]]


class Walker:
    def __init__(self):
        self.world = World()
        self.traps = Traps(self.world)
        self.world.start().import_box()
        self.world.sh("true")
        self.start = self.world.snapshot()
        self.kills, self.outcomes = defaultdict(Counter), Counter()
        self.number = 0

    # One container

    def request(self, identifier):
        go = self.world.directory / f"go-{identifier[:8]}"
        mount = encode((1, str(go)), (2, "/go"), (3, True))
        config = encode((1, "/bin/sh"), (1, "-c"), (1, SCRIPT), (5, mount))
        return ((1, "default"), (2, identifier), (4, IMAGE), (5, config), (6, True))

    def create(self, identifier, meanwhile=lambda: None):
        """Asks for the container. "done", "refused" with the reason, or "lost" when the manager died on the way."""
        try:
            with Client(self.world.address, timeout=60) as client:
                stream = client.request("ctr.v1.Containers", "Create", encode(*self.request(identifier)))
                meanwhile()
                client.result(stream)
                return "done", ""
        except RPCError as error:
            return "refused", error.message
        except (ConnectionError, BrokenPipeError, ProcessLookupError) as error:
            return "lost", str(error)
        except socket.timeout:
            raise AssertionError("create did not answer within 60 s") from None

    def recover(self):
        """The manager is started again when it was the victim."""
        self.traps.release()
        died = not self.world.running()
        if died:
            self.world.start()
        return died

    def finish(self, identifier, strict):
        """The container is told to end; its status and output are looked at, and it is removed."""
        world = self.world
        task = world.containers()[identifier].get("task") or {}
        if task.get("status") in ("running", "paused") or (strict and task):
            (world.directory / f"go-{identifier[:8]}" / "now").touch()
            world.ctrctl("tasks", "wait", identifier, code=None, timeout=30)
            task = world.task(identifier)
        end = task.get("exit")
        if end and end.get("source") != "unknown":
            if end.get("code") == CODE:
                checks.reaped(task, CODE)
                assert checks.numbered_lines(world.ctrctl("logs", identifier).raw, last=LINES) == LINES
                return "ran to its end"
            assert task.get("error") or end.get("code") == 137, f"neither the true status nor a reason: {task}"
            return "killed or failed, and said so"
        assert not strict or not task, f"started, and its status is not known: {task}"
        if end:
            checks.true_exit(task, CODE)
            return "unknown, with a reason"
        return "present, not started"

    def remove(self, identifier):
        world = self.world
        world.ctrctl("rm", "-f", identifier, code=None, timeout=30)
        assert identifier not in world.containers(), f"rm -f left the container: {world.log_text()[-800:]}"
        known = {**self.start, "process": {p for p in world.snapshot()["process"] if p.startswith(f"{world.process.pid}@")}}
        world.assert_no_leaks(known)

    # The stages at which somebody is killed

    def walk(self, program, stage, kind, number):
        """One kill, or None when the N-th call was not reached."""
        self.number += 1
        identifier = os.urandom(32).hex()
        arguments = inject(self.world, identifier, kind, number)
        go = self.world.directory / f"go-{identifier[:8]}"
        go.mkdir()
        try:
            outcome = getattr(self, "walk_" + {"create": "run", "start": "run"}.get(stage, stage))(program, stage, identifier, arguments)
            call = self.traps.landed(number)
            if call:
                self.kills[program, stage][call] += 1
                self.outcomes[outcome] += 1
            return call
        finally:
            self.traps.release()
            for path in go.iterdir():
                path.unlink()
            go.rmdir()

    def walk_run(self, program, stage, identifier, arguments):
        meanwhile = lambda: None  # noqa: E731
        if program == "ctrd":
            self.traps.attach_manager(arguments)
        elif program == "ctrun":
            self.traps.arm("runtime", stage, arguments)
        elif program == "ctr-shim start":
            self.traps.arm("shim", "start", arguments)
        else:
            self.traps.gate(program.removeprefix("ctr-"))
            meanwhile = lambda: self.traps.attach_gated(arguments)  # noqa: E731
        answer, reason = self.create(identifier, meanwhile)
        died = self.recover()
        assert (answer == "lost") <= died, f"the connection was lost and the manager lives: {reason}"
        if answer == "refused":
            assert reason and "\n" not in reason, f"not a reason of one line: {reason!r}"
        present = identifier in self.world.containers()
        assert present or answer != "done", "created, and gone after the restart"
        if answer == "lost":
            answer, reason = self.create(identifier)  # as a client does: asked again, it joins or does it now
            assert answer == "done", f"asked again: {reason}"
            present = True
        outcome = f"{answer}: " + (self.finish(identifier, strict=answer == "done") if present else "absent")
        self.remove(identifier)
        return outcome

    def prepared(self, identifier):
        self.traps.clear()
        answer, reason = self.create(identifier)
        assert answer == "done", reason

    def aim(self, program, identifier, arguments):
        self.traps.clear()
        if program == "ctrd":
            self.traps.attach_manager(arguments)
        elif program == "ctrun":
            self.traps.arm("runtime", "delete", arguments)
        else:
            shim, keeper = self.world.guards(identifier)
            self.traps.attach([(shim if program == "ctr-shim" else keeper).pid], arguments)

    def walk_exit(self, program, _, identifier, arguments):
        """It ends by itself while one of its guards, or the manager, is killed."""
        self.prepared(identifier)
        init = events.Pid(self.world.task(identifier)["pid"])
        self.aim(program, identifier, arguments)
        (self.world.directory / f"go-{identifier[:8]}" / "now").touch()
        init.wait()
        self.world.ctrctl("tasks", "wait", identifier, code=None, timeout=30) if program != "ctrd" else events.readable([self.world.manager.fd], 0.3)
        self.recover()
        self.world.ctrctl("tasks", "wait", identifier, code=None, timeout=30)
        checks.reaped(self.world.task(identifier), CODE)
        checks.numbered_lines(self.world.ctrctl("logs", identifier).raw, last=LINES)
        self.remove(identifier)
        return "true status, whole log"

    def walk_orphan(self, program, _, identifier, arguments):
        """Its shim was killed, so the keeper is its parent; now the keeper dies while it starts another shim, or while it writes down the end."""
        self.prepared(identifier)
        init, (shim, _) = events.Pid(self.world.task(identifier)["pid"]), self.world.guards(identifier)
        self.aim(program, identifier, arguments)
        shim.kill_and_wait()
        (self.world.directory / f"go-{identifier[:8]}" / "now").touch()
        init.wait()
        self.world.ctrctl("tasks", "wait", identifier, code=None, timeout=30)
        self.recover()
        source = checks.true_exit(self.world.task(identifier), CODE)
        self.remove(identifier)
        return f"true status, source {source}" if source != "unknown" else "unknown, with a reason"

    def walk_delete(self, program, _, identifier, arguments):
        """It is removed while it runs."""
        self.prepared(identifier)
        self.aim(program, identifier, arguments)
        removal = self.world.client("rm", "-f", identifier)
        deadline = events.Deadline(40)
        while removal.process.poll() is None and self.world.running():
            events.readable([removal.pidfd, self.world.manager.fd], deadline.left("rm -f"))
        self.recover()
        code = removal.wait(40)
        if code == 0:
            assert identifier not in self.world.containers(), "removed, and still there"
        removal.close()
        self.world.clients.remove(removal)
        self.remove(identifier)
        return "removed at once" if code == 0 else "removed when asked again"

    def walk_boot(self, _, __, identifier, arguments):
        """The manager dies while it takes over one that runs and one that ended meanwhile."""
        other = os.urandom(32).hex()
        ended = self.world.directory / f"go-{other[:8]}"
        ended.mkdir()
        self.prepared(identifier)
        self.prepared(other)
        tasks = self.world.tasks()
        init = events.Pid(tasks[other]["pid"])
        self.world.kill9()
        (ended / "now").touch()
        init.wait()
        self.traps.clear()
        try:
            self.world.launch(prefix=("strace", "-D", "-f", "-b", "execve", "-o", str(self.traps.trace), *arguments))
            try:
                self.world.wait_ready()
                self.world.ctrctl("tasks", "wait", other, code=None, timeout=2)
            except (AssertionError, ProcessLookupError, OSError):
                pass
            except Exception as error:  # noqa: BLE001 - the client's own timeout
                if "timed out" not in str(error):
                    raise
            if self.world.running():
                self.world.kill9()
            self.recover()
            task = self.world.task(identifier)
            assert (task["pid"], task["start_time"]) == (tasks[identifier]["pid"], tasks[identifier]["start_time"]) and task["status"] == "running", task
            self.world.ctrctl("tasks", "wait", other, code=None)
            checks.reaped(self.world.task(other), CODE)
            self.world.ctrctl("rm", other)
            outcome = self.finish(identifier, strict=True)
            self.remove(identifier)
        finally:
            for path in ended.iterdir():
                path.unlink()
            ended.rmdir()
        return "adopted: " + outcome

    # The report

    def report(self, planned, started):
        total = sum(sum(c.values()) for c in self.kills.values())
        print("\nkills that landed, by program and stage:")
        for (program, stage), calls in sorted(self.kills.items()):
            print(f"  {program:15} {stage:7} {sum(calls.values()):4}  " + ", ".join(f"{name} {count}" for name, count in sorted(calls.items())))
        print("what came of it:")
        for outcome, count in self.outcomes.most_common():
            print(f"  {count:5}  {outcome}")
        print(f"{total} kills landed, {planned} planned, {self.number} walks, {time.monotonic() - started:.0f} s")
        return total


def full(walker, limit):
    for program, stage, kind in WALKS:
        for number in range(1, limit + 1):
            call = one(walker, program, stage, kind, number)
            if call is None:
                break


def bounded(walker, kills, seconds, seed):
    """A sample: which walks and which N the seed says; a kind that is not reached is asked for less."""
    chance, reach, landed, started = random.Random(seed), {}, 0, time.monotonic()
    order = WALKS[:]
    chance.shuffle(order)
    for walk in SURE:
        landed += one(walker, *walk, 1) is not None
    at = 0
    while landed < kills and time.monotonic() - started < seconds:
        walk = order[at % len(order)]
        at += 1
        highest = reach.get(walk, 6)
        if highest < 1:
            if all(reach.get(w, 1) < 1 for w in order):
                break
            continue
        number = chance.randint(1, highest)
        if one(walker, *walk, number) is None:
            reach[walk] = number - 1
        else:
            landed += 1
            reach[walk] = max(highest, number + 2)


def one(walker, program, stage, kind, number):
    try:
        return walker.walk(program, stage, kind, number)
    except Exception as error:
        print(f"\nBROKEN: {program} killed at its {number}. {kind} call ({CALLS[kind]}) during {stage}: {error}")
        print(f"  again: {sys.argv[0]} --only '{program},{stage},{kind},{number}'")
        print(f"  the manager said: {walker.world.log_text()[-1500:]}")
        walker.failed = getattr(walker, "failed", 0) + 1
        if walker.failed >= walker.stop_after:
            raise SystemExit(1) from error
        walker.kills["broken", f"{program} {stage}"][kind] += 1
        restore(walker)
        return kind


def restore(walker):
    """A broken walk must not break the next one."""
    kills, outcomes, failed, number, stop = walker.kills, walker.outcomes, walker.failed, walker.number, walker.stop_after
    walker.traps.release()
    walker.world.close()
    walker.__init__()
    walker.kills, walker.outcomes, walker.failed, walker.number, walker.stop_after = kills, outcomes, failed, number, stop


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bounded", action="store_true", help="a sample, for every run of the tests")
    parser.add_argument("--kills", type=int, default=60, help="kills of the sample")
    parser.add_argument("--seconds", type=float, default=200, help="time of the sample")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3)))
    parser.add_argument("--limit", type=int, default=60, help="highest N of the full walk")
    parser.add_argument("--least", type=int, default=None, help="fail below this number of kills")
    parser.add_argument("--only", help="PROGRAM,STAGE,KIND,N: that one kill")
    parser.add_argument("--stop-after", type=int, default=5, help="broken promises after which it stops")
    options = parser.parse_args()
    started = time.monotonic()
    walker = Walker()
    walker.stop_after, walker.failed = options.stop_after, 0
    try:
        if options.only:
            program, stage, kind, number = options.only.split(",")
            print(f"killed at {one(walker, program, stage, kind, int(number))}")
            planned = 0
        elif options.bounded:
            print(f"crashwalk: a sample of {options.kills} kills, seed {options.seed}")
            bounded(walker, options.kills, options.seconds, options.seed)
            planned = options.least if options.least is not None else options.kills // 2
        else:
            full(walker, options.limit)
            planned = options.least if options.least is not None else 200
        total = walker.report(planned, started)
        missing = set(STAGES) - {program for program, _ in walker.kills} if not options.only else set()
        if missing:
            print(f"never killed: {', '.join(sorted(missing))}")
        ok = total >= planned and not walker.failed and not missing
        print(f"crashwalk: {total - walker.failed} passed, {walker.failed + (0 if ok or walker.failed else 1)} failed")
        return 0 if ok else 1
    finally:
        walker.traps.release()
        walker.world.close()
        left = hostcheck.own_processes(walker.world.scope)
        if left:
            print(f"left behind: {[hostcheck.describe(p) for p in left]}")


if __name__ == "__main__":
    sys.exit(main())
