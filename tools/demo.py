#!/usr/bin/python3
"""A container that outlives the SIGKILL of its manager, shown step by step with the programs in bin/. Fails loudly when a promise breaks."""
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "Tests" / "Integration"))

import checks  # noqa: E402
import events  # noqa: E402
import imagemaker  # noqa: E402
from harness import World  # noqa: E402

NAME = "demo"
SCRIPT = "i=0; while :; do i=$((i+1)); echo tick $i; usleep 10000; done"
number = 0


def step(text):
    global number
    number += 1
    print(f"\n{number:2}. {text}", flush=True)


def say(text):
    print(f"    {text}", flush=True)


def shown(command, result):
    say(f"$ {command}")
    for line in result.rstrip("\n").splitlines():
        say(f"  {line}")


def promise(kept, text):
    if not kept:
        raise AssertionError(text)
    say(f"kept: {text}")


def log_size(world, identifier):
    return (world.incarnation(identifier) / "log" / "stdout.000001").stat().st_size


def demo(world):
    step("An OCI image out of Debian's busybox-static, three gzip layers, as an OCI archive")
    archive = imagemaker.Image(imagemaker.base_layers(3)).oci_archive(world.directory / "busybox.tar", names=("demo/busybox:latest",))
    say(f"{archive} ({archive.stat().st_size >> 10} KB)")

    step(f"ctrd on private directories below {world.directory}")
    world.start()
    say(f"ctrd is pid {world.process.pid}, socket {world.address}")
    before = world.snapshot()

    step("The image is imported")
    shown(f"ctrctl images import {archive.name}", world.ctrctl("images", "import", archive).out)
    shown("ctrctl images list", world.ctrctl("images", "list").out)

    step("A container writes a line every 10 ms; a client is attached in the foreground")
    say(f"$ ctrctl run --name {NAME} demo/busybox /bin/sh -c '{SCRIPT}'")
    client = world.client("run", "--name", NAME, "demo/busybox", "/bin/sh", "-c", SCRIPT)
    client.out.until_line(50)
    say(f"the client has {client.out.data.count(10)} lines, the last: {client.out.data.splitlines()[-1].decode()}")
    task = world.task(NAME)
    identifier = task["container_id"]
    say(f"container {identifier[:12]}: pid {task['pid']}, start time {task['start_time']} (clock ticks after boot)")
    shim, keeper = world.guards(identifier)
    say(f"guarded by ctr-keeper {keeper.pid} → ctr-shim {shim.pid} → init {task['pid']}; none of them is a child of ctrd {world.process.pid}")

    step(f"SIGKILL to ctrd ({world.process.pid})")
    world.kill9()
    size = log_size(world, identifier)
    events.wait_file(world.incarnation(identifier) / "log" / "stdout.000001", lambda p: os.stat(p).st_size > size + 1000)
    grown = log_size(world, identifier) - size
    promise(grown > 0, f"with no manager the container went on writing: its log grew by {grown} bytes")
    promise(events.start_time(task["pid"]) == task["start_time"], f"pid {task['pid']} is the same process as before")
    lines = client.out.data.count(10)

    step("ctrd is started again")
    world.start()
    say(f"ctrd is pid {world.process.pid}")
    client.out.until_line(lines + 100)
    last = checks.numbered_lines(client.out.data[:client.out.data.rfind(b"\n") + 1], b"tick ")
    promise(last >= lines + 100, f"the foreground client goes on: {last} lines, no gap, none twice")
    shown("ctrctl ps", world.ctrctl("ps").out)
    again = world.task(NAME)
    promise((again["status"], again["pid"], again["start_time"]) == ("running", task["pid"], task["start_time"]),
            f"listed as running with the same pid {again['pid']} and start time {again['start_time']}")

    step("SIGKILL to the shim as well: the keeper starts another")
    shim.kill_and_wait()
    client.out.until_line(last + 100)
    checks.numbered_lines(client.out.data[:client.out.data.rfind(b"\n") + 1], b"tick ")
    promise(world.guards(identifier)[0].pid != shim.pid, f"ctr-shim is now {world.guards(identifier)[0].pid}, and no line is missing")

    step("The container is killed")
    shown(f"ctrctl kill {NAME}", world.ctrctl("kill", NAME).out)
    code = client.wait()
    promise(code == 137, f"the foreground client exits with {code}")
    shown(f"ctrctl tasks wait {NAME}", world.ctrctl("tasks", "wait", NAME, code=None).out)
    end = world.task(NAME)["exit"]
    promise((end["code"], end["source"]) == (137, "reaped"), f"exit {end['code']}, source {end['source']}")

    step("The container and its image are removed")
    shown(f"ctrctl rm {NAME}", world.ctrctl("rm", NAME).out)
    world.ctrctl("rmi", "demo/busybox")
    world.assert_no_leaks(before | {"process": {p for p in world.snapshot()["process"] if p.startswith(f"{world.process.pid}@")}})
    say("kept: no process, mount, cgroup, namespace, socket or file is left")
    promise(world.stop() == 0, "ctrd ends at SIGTERM")


def main():
    if os.geteuid() != 0:
        print("demo: containers need root", file=sys.stderr)
        return 1
    world = World()
    try:
        demo(world)
    except Exception as error:  # whatever broke, it is the demo that failed
        print(f"\nFAILED in step {number}: {error}\n\nctrd said:\n{world.log_text()[-3000:]}", file=sys.stderr)
        return 1
    finally:
        world.close()
    print("\nEvery promise was kept.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
