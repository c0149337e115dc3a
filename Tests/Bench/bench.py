#!/usr/bin/python3
"""The numbers, with containerd and podman beside them on the same machine in the same minutes.

CPU is what a private cgroup of the cpuacct hierarchy was charged: each side's daemon and clients live in it, its runtimes, guards and containers
below it, so nobody's work is left out. Runs of the sides are interleaved.
"""
import argparse
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "Integration"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import events  # noqa: E402
from harness import BIN  # noqa: E402
import shim_client  # noqa: E402
from sides import Containerd, Ctrd, Docker, Podman, on_tmpfs, remove_tree  # noqa: E402

WRITE_1MB = "dd if=/dev/zero bs=1024 count=1024 2>/dev/null; exec sleep 100000"


def median(values):
    return statistics.median(values) if values else float("nan")


def line(label, ours, theirs, unit, limit=None):
    """One figure of ours beside those of the peers; the limit is on the ratio to containerd, or on the figure itself."""
    parts = [f"ctrd {ours:.2f} {unit}"]
    parts += [f"{name} {value:.2f} {unit} ({ours / value:.2f})" for name, value in theirs.items() if value == value]
    verdict = ""
    if limit is not None:
        ok, text = limit
        verdict = f"   [{'ok' if ok else 'MISSED'}: {text}]"
    print(f"  {label:34} " + "   ".join(parts) + verdict, flush=True)
    return limit is None or limit[0]


def interleaved(sides, rounds, action, wanted, settles=False):
    """Median CPU and wall time of `action` of each side; `wanted`: the highest shares of the peers' CPU. `settles`: it ends guards, whose CPU counts too."""
    cpu, wall = {s.name: [] for s in sides}, {s.name: [] for s in sides}
    for side in sides:
        action(side)  # each once before it counts
    for _ in range(rounds):
        for side in sides:
            with side.measured():
                before, started = side.cpu(), time.monotonic()
                action(side)
                wall[side.name].append((time.monotonic() - started) * 1000)
            if settles:
                side.settle()
            cpu[side.name].append((side.cpu() - before) / 1e6)
    ours, peers = median(cpu.pop("ctrd")), {n: median(v) for n, v in cpu.items()}
    ok = line("CPU", ours, peers, "ms", limits(ours, peers, **wanted))
    line("wall", median(wall.pop("ctrd")), {n: median(v) for n, v in wall.items()}, "ms")
    return ok


def run_true(sides, rounds):
    print(f"run --rm --network none of true, 3-layer image, {rounds} interleaved rounds: median CPU of client, daemon, guards and runtime; wall")
    return interleaved(sides, rounds, lambda side: side.run_true(), {"containerd": 0.2}, settles=True)


def exec_true(sides, rounds):
    print(f"exec of true in a running container, {rounds} interleaved rounds: median CPU of client, daemon, guards and runtime; wall")
    for side in sides:
        side.start_many(1, "exec sleep 100000")
    return interleaved(sides, rounds, lambda side: side.exec_true(), {"containerd": 0.2, "docker": 0.15})


def limits(ours, peers, **wanted):
    """Of those peers that are there."""
    wanted = {name: share for name, share in wanted.items() if name in peers}
    if not wanted:
        return None
    return (all(ours <= share * peers[name] for name, share in wanted.items()),
            ", ".join(f"at most {share} of {name}'s" for name, share in wanted.items()))


def private_kb(pid):
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(v) for v in re.findall(r"^(?:Private_Clean|Private_Dirty|Swap):\s+(\d+)", text, re.M))


def shim_start(rounds):
    """The helper that makes the guards, from its exec until the shim on its socket has answered."""
    print(f"start of a shim, {rounds} rounds: from the exec of ctr-shim to the answered socket")
    base, times = on_tmpfs(), []
    shim_client.become_subreaper()
    with open(os.devnull, "r+b") as null:
        for _ in range(rounds):
            container = shim_client.Container(str(base), str(BIN), ["/bin/true"])
            try:
                os.chdir(container.bundle)
                command = [str(BIN / "ctr-shim"), "-namespace", container.namespace, "-id", container.id, "-address", f"{base}/none.sock", "-bundle",
                           container.bundle, "start"]
                started = time.monotonic()
                helper = os.posix_spawn(command[0], command, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, null.fileno(), n) for n in (0, 1)])
                if os.waitpid(helper, 0)[1]:
                    raise SystemExit("ctr-shim start failed")
                container.client().call("Info", service=shim_client.GUARD)
                times.append((time.monotonic() - started) * 1000)
            finally:
                os.chdir("/")
                container.clean_up()
    remove_tree(base)
    print(f"  lowest {min(times):.2f} ms, ninth tenth {sorted(times)[len(times) * 9 // 10]:.2f} ms")
    return line("time", median(times), {}, "ms", (median(times) <= 3, "at most 3 ms"))


def switches(pid):
    """How often it was given a processor or gave it up."""
    return sum(int(v) for v in re.findall(r"^(?:non)?voluntary_ctxt_switches:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.M))


def quiet(sides, seconds):
    """The time passes; a daemon that dies meanwhile is noticed."""
    fds = [side.daemon.fd for side in sides if side.daemon]
    if fds and events.readable(fds, seconds):
        raise SystemExit("a daemon died while it should be idle")


def guard_memory(sides, count, peers_count, seconds):
    print(f"memory of one container's guards: Private_Clean + Private_Dirty + Swap, median, {seconds:g} s after each of {count} wrote 1 MB and had an exec")
    for side in sides:
        side.start_many(count if side.name == "ctrd" else peers_count, WRITE_1MB)
        for number in range(side.started):
            side.exec_true(f"bench-{number + 1}")
    quiet(sides, 5)
    before = {pid: switches(pid) for group in sides[0].guards() for pid in group}
    quiet(sides, seconds)
    wakeups = {pid: switches(pid) - count for pid, count in before.items()}
    figures, threads = {}, {}
    for side in sides:
        groups = side.guards()
        figures[side.name] = median([sum(private_kb(p) for p in group) for group in groups])
        threads[side.name] = max(events.threads(p) for group in groups for p in group)
        if side.name == "ctrd":
            for name in ("ctr-shim", "ctr-keeper"):
                each = [private_kb(p) for group in groups for p in group if events.comm(p) == name]
                print(f"  {name}: median {median(each):.0f} KB, highest {max(each)} KB")
    ours = figures.pop("ctrd")
    ok = line("private memory", ours, figures, "KB", (ours <= 220, "at most 220 KB"))
    awake = [count for count in wakeups.values() if count]
    print(f"  {'wakeups of ' + str(len(wakeups)) + ' guards':34} {sum(awake)} in {seconds:g} s   [{'MISSED' if awake else 'ok'}: none]", flush=True)
    ok &= not awake
    ok &= line("threads, highest", threads.pop("ctrd"), threads, "", (True, "one thread each")) and max(
        events.threads(p) for group in sides[0].guards() for p in group) == 1
    return ok


def list_cpu(sides, count, rounds):
    print(f"tasks list with {count} running, {rounds} interleaved rounds: median CPU of client and daemon")
    sides = [s for s in sides if s.name in ("ctrd", "containerd")]
    for side in sides:
        side.start_many(count, "exec sleep 100000")
        side.list_tasks()
    cpu, wall = {s.name: [] for s in sides}, {s.name: [] for s in sides}
    for _ in range(rounds):
        for side in sides:
            before, started = side.cpu(), time.monotonic()
            side.list_tasks()
            wall[side.name].append((time.monotonic() - started) * 1000)
            cpu[side.name].append((side.cpu() - before) / 1e6)
    ours, peers = median(cpu.pop("ctrd")), {n: median(v) for n, v in cpu.items()}
    limit = (ours <= 0.5 * peers["containerd"], "at most half of containerd's") if "containerd" in peers else None
    ok = line("CPU", ours, peers, "ms", limit)
    line("wall", median(wall.pop("ctrd")), {n: median(v) for n, v in wall.items()}, "ms")
    return ok


def restart(sides, count, rounds):
    print(f"SIGKILL and restart of the daemon with {count} running: from exec to a list that names all with true states, median of {rounds}")
    sides = [s for s in sides if s.name in ("ctrd", "containerd")]
    times = {s.name: [] for s in sides}
    for side in sides:
        side.start_many(count, "exec sleep 100000")
    for _ in range(rounds):
        for side in sides:
            side.kill_daemon()
            started = time.monotonic()
            side.start_daemon()
            deadline = events.Deadline(120)
            while side.true_running() < count:
                deadline.left(f"{side.name}: {side.true_running()} of {count}")
            times[side.name].append((time.monotonic() - started) * 1000)
    line("time", median(times.pop("ctrd")), {n: median(v) for n, v in times.items()}, "ms")
    return True


def logs(sides, rounds, size):
    """Output that a container writes as fast as it can: from its start until its last byte can be read."""
    program = Path(sides[0].world.directory) / "lines"
    subprocess.run(["cc", "-O2", "-static", "-o", program, Path(__file__).resolve().parent / "lines.c"], check=True)
    program.chmod(0o755)
    ok = True
    for chunk, total, limits in ((65520, size, True), (80, size // 16, False)):
        total -= total % 80
        print(f"{total >> 20} MiB of lines of 80 bytes, {chunk} bytes at a time, {rounds} interleaved rounds: until the last byte can be read")
        speeds = {name: [] for name in ["cat"] + [s.name for s in sides]}
        reading, lost = [], {s.name: 0 for s in sides}
        for turn in range(rounds):
            os.sync()  # what others wrote is on the disk, before each: else the second one pays for the first
            started = time.monotonic()
            subprocess.run(f"{program} {total} {chunk} | cat > {program}.out", shell=True, check=True)
            speeds["cat"].append(total / 1e6 / (time.monotonic() - started))
            Path(f"{program}.out").unlink()
            for side in sides:
                os.sync()
                started = time.monotonic()
                side.write_lines(program, total, chunk)
                speeds[side.name].append(total / 1e6 / (time.monotonic() - started))
                started = time.monotonic()
                if side.name == "ctrd" or turn == 0:
                    lost[side.name] += total - side.kept()
                side.forget()
                if side.name == "ctrd":
                    reading.append(total / 1e6 / (time.monotonic() - started))
        medians = {name: median(values) for name, values in speeds.items()}
        ours = medians["ctrd"]
        for name, wanted in (("cat", 0.8), ("containerd", 1.5), ("podman", 3.0), ("docker", 20.0)):
            if name not in medians:
                continue
            held = ours >= wanted * medians[name]
            verdict = f"   [{'ok' if held else 'MISSED'}: at least {wanted} of it]" if limits else ""
            ok &= held or not limits
            label = "producer | cat > file" if name == "cat" else name
            print(f"  {label:34} ctrd {ours:.0f} MB/s   {name} {medians[name]:.0f} MB/s ({ours / medians[name]:.2f}){verdict}", flush=True)
        print(f"  {'all of it by ctrctl logs':34} {median(reading):.0f} MB/s")
        dropped = {name: count for name, count in lost.items() if count}
        ok &= "ctrd" not in dropped
        print(f"  {'dropped':34} " + (", ".join(f"{name} {count} bytes" for name, count in dropped.items()) or "nothing"), flush=True)
    return ok


def versions(sides):
    def first(*command):
        try:
            out = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip().splitlines()
            return out[0] if out else "?"
        except (OSError, subprocess.CalledProcessError):
            return "not installed"
    print(f"kernel {os.uname().release}, {os.cpu_count()} CPUs; " + "; ".join(first(*c) for c in (
        (str(BIN / "ctrd"), "--version"), ("containerd", "--version"), ("runc", "--version"), ("podman", "--version"), ("conmon", "--version"),
        (str(Docker.programs / "sbin/dockerd"), "--version"))))
    print("sides: " + ", ".join(s.name for s in sides))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30, help="rounds of run --rm")
    parser.add_argument("--running", type=int, default=50, help="containers of the memory and list figures")
    parser.add_argument("--peers-running", type=int, default=10, help="containers of the peers in the memory figure")
    parser.add_argument("--settle", type=float, default=60, help="seconds between the output and the memory figure")
    parser.add_argument("--restart", type=int, default=200, help="containers of the restart figure")
    parser.add_argument("--restarts", type=int, default=3, help="restarts")
    parser.add_argument("--log-rounds", type=int, default=5, help="rounds of the log figure")
    parser.add_argument("--log-bytes", type=int, default=1 << 30, help="bytes of output of the log figure")
    parser.add_argument("--only", choices=["run", "exec", "start", "memory", "list", "restart", "logs"], action="append")
    parser.add_argument("--without", choices=["containerd", "podman", "docker"], action="append", default=[])
    parser.add_argument("--json", help="also write the arguments and the verdict there")
    options = parser.parse_args()
    chosen = options.only or ["run", "exec", "start", "memory", "list", "restart", "logs"]
    sides = [Ctrd()]
    for name, kind in (("containerd", Containerd), ("podman", Podman)):
        if name not in options.without and shutil.which(name):
            sides.append(kind())
    if "docker" not in options.without and (Docker.programs / "sbin/dockerd").exists():
        sides.append(Docker())
    verdicts = {}
    try:
        for side in sides:
            side.prepare()
        versions(sides)
        if "run" in chosen:
            verdicts["run"] = run_true(sides, options.rounds)
        if "exec" in chosen:
            verdicts["exec"] = exec_true(sides, options.rounds)
            for side in sides:
                side.remove_all()
        if "start" in chosen:
            verdicts["start"] = shim_start(options.rounds)
        if "memory" in chosen:
            verdicts["memory"] = guard_memory(sides, options.running, options.peers_running, options.settle)
            for side in sides:
                side.remove_all()
        if "list" in chosen:
            verdicts["list"] = list_cpu(sides, options.running, 20)
        if "restart" in chosen:
            verdicts["restart"] = restart(sides, options.restart, options.restarts)
            for side in sides:
                side.remove_all()
        if "logs" in chosen:
            verdicts["logs"] = logs(sides, options.log_rounds, options.log_bytes)
    finally:
        for side in sides:
            side.close()
    if options.json:
        Path(options.json).write_text(json.dumps({"options": vars(options), "verdicts": verdicts}))
    missed = [name for name, ok in verdicts.items() if not ok]
    print(f"bench: {len(verdicts) - len(missed)} held, {len(missed)} missed" + (f": {', '.join(missed)}" if missed else ""))
    return 1 if missed else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
