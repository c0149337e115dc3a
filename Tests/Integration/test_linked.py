"""What is linked into the programs that live beside every container, seen in the programs themselves and not in import lines."""
import subprocess

import pytest

import events
import hostcheck
from events import threads
from harness import BIN, IMAGE

# Strings that each of these libraries carries into whatever it is linked into, also when symbols are stripped.
MARKERS = {
    "concurrency runtime": [b"swift_job", b"SWIFT TASK CONTINUATION", b"_Concurrency", b"Executor.swift"],
    "Dispatch": [b"com.apple.root", b"LIBDISPATCH", b"libdispatch"],
    "Foundation": [b"FoundationEssentials", b"NSPOSIXErrorDomain"],
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
    assert found("ctrd", library) == MARKERS[library], "the markers no longer find what is surely there"


@pytest.mark.parametrize("program", ["ctrun", "ctr-shim", "ctr-keeper", "ctrctl"])
def test_nothing_is_loaded(program):
    out = subprocess.run(["readelf", "-dlW", str(BIN / program)], capture_output=True, text=True, check=True).stdout
    assert "NEEDED" not in out and "INTERP" not in out


def test_the_keeper_is_small():
    assert (BIN / "ctr-keeper").stat().st_size < 100 << 10


def test_ctrun_never_makes_a_thread(world):
    """Each clone of a run is a process: none shares memory as a thread does."""
    trace = world.directory / "threads"
    wrapper = world.directory / "traced-ctrun"
    wrapper.write_text(f"#!/bin/sh\nexec strace -D -f -b execve -A -e trace=clone,clone3,vfork,fork -o {trace}.$$ {BIN}/ctrun \"$@\"\n")
    wrapper.chmod(0o755)
    world.ctrctl("run", "--rm", "--runtime", wrapper, IMAGE, "/bin/true")
    for pid in hostcheck.own_processes(world.scope):
        if events.comm(pid) == "strace":  # what it saw is in the file once it ended
            events.Pid(pid).wait()
    text = "".join(part.read_text() for part in world.directory.glob("threads.*"))
    assert "clone" in text or "fork" in text
    assert "CLONE_THREAD" not in text
    wrapper.unlink()


def test_the_shim_runs_one_thread_while_it_works(world):
    identifier = world.background("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); echo $i; done; exec sleep 600")
    shim, keeper = world.guards(identifier)
    follower = world.client("logs", "-f", identifier)
    while not b"\n20000\n" in follower.out.data:
        follower.out.pump(20)
        assert threads(shim.pid) == 1 and threads(keeper.pid) == 1
    world.ctrctl("rm", "-f", identifier)
