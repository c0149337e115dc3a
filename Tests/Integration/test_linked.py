"""What is linked into the programs that live beside every container, seen in the programs themselves and not in import lines."""
import json
import shutil
import subprocess

import pytest

import imagemaker
from events import threads
from harness import BIN, IMAGE

# Strings that each of these libraries carries into whatever it is linked into, also when symbols are stripped.
MARKERS = {
    "concurrency runtime": [b"swift_task_", b"Swift/Executor.swift", b"_Concurrency"],
    "Dispatch": [b"BUG IN LIBDISPATCH", b"com.apple.root.", b"libdispatch"],
    "Foundation": [b"FoundationEssentials", b"Foundation/", b"_foundation_"],
    "NIO": [b"NIOCore", b"NIOPosix"],
}


def found(program, library):
    data = (BIN / program).read_bytes()
    return [marker for marker in MARKERS[library] if marker in data]


@pytest.mark.parametrize("library", MARKERS)
@pytest.mark.parametrize("program", ["ctrun", "ctr-shim", "ctr-keeper"])
def test_the_lean_programs_do_not_hold(program, library):
    assert found(program, library) == []


@pytest.mark.parametrize("library", MARKERS)
def test_control_the_manager_holds_it(library):
    assert found("ctrd", library), "the markers no longer find what is surely there"


@pytest.mark.parametrize("program", ["ctrun", "ctr-shim", "ctr-keeper", "ctrctl"])
def test_nothing_is_loaded(program):
    out = subprocess.run(["readelf", "-dlW", str(BIN / program)], capture_output=True, text=True, check=True).stdout
    assert "NEEDED" not in out and "INTERP" not in out


def test_the_keeper_is_small():
    assert (BIN / "ctr-keeper").stat().st_size < 100 << 10


def test_ctrun_never_makes_a_thread(world):
    """Each clone of a whole run is a process: none shares memory as a thread does."""
    bundle, trace = world.directory / "bundle", world.directory / "threads"
    (bundle / "rootfs" / "bin").mkdir(parents=True)
    shutil.copy(imagemaker.BUSYBOX, bundle / "rootfs" / "bin" / "true")
    subprocess.run([BIN / "ctrun", "spec", "-b", bundle], check=True)
    config = json.loads((bundle / "config.json").read_text())
    config["process"].update(args=["/bin/true"], terminal=False)
    config["linux"]["cgroupsPath"] = f"/{world.cgroup_parent}/threads"
    (bundle / "config.json").write_text(json.dumps(config))
    subprocess.run(["strace", "-f", "-qq", "-e", "trace=clone,clone3,vfork,fork", "-o", trace,
                    BIN / "ctrun", "--root", world.directory / "runtime", "run", "-b", bundle, "threads"], check=True, timeout=60, stdin=subprocess.DEVNULL)
    text = trace.read_text()
    assert "clone" in text or "fork" in text
    assert "CLONE_THREAD" not in text
    shutil.rmtree(bundle)
    shutil.rmtree(world.directory / "runtime")


def test_the_shim_runs_one_thread_while_it_works(world):
    identifier = world.background("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); echo $i; done; exec sleep 600")
    shim, keeper = world.guards(identifier)
    follower = world.client("logs", "-f", identifier)
    while not b"\n20000\n" in follower.out.data:
        follower.out.pump(20)
        assert threads(shim.pid) == 1 and threads(keeper.pid) == 1
    world.ctrctl("rm", "-f", identifier)
