"""A newer shim takes the place of the one that runs: nothing of the container notices, and nothing changes when it cannot."""
import shutil

import pytest

import checks
from exec_api import Aside, read, run, start, wait, write
from harness import BIN
from ttrpc_client import Client, RPCError, decode, one, text

NOT_FOUND, FAILED_PRECONDITION = 5, 9


def upgrade(client, container=""):
    answer = client.call("ctr.v1.Shims", "Upgrade", (1, "default"), *([(2, container)] if container else []))
    return {text(each, 1): each for each in map(decode, answer.get(1, []))}


def test_everything_goes_on_in_the_new_program(alone):
    program = alone.directory / "ctr-shim-next"
    box = alone.background("i=0; while [ $i -lt 300000 ]; do i=$((i+1)); echo line $i; done; exec sleep 600")
    other = alone.background("exec sleep 600")
    shim, keeper = alone.guards(box)
    before = alone.task(box)
    shutil.copy(BIN / "ctr-shim", program)
    alone.kill9()
    alone.write_config(shim=str(program))
    alone.start()
    with Client(alone.address) as client:
        patient = text(start(client, box, "/bin/sh", "-c", "cat; exit 6", stdin=True), 1)
        write(client, box, patient, b"before ")
        reader = Aside(read, alone, box, patient)
        waiting = Aside(lambda: wait(Client(alone.address), box, patient))
        for round in (1, 2):
            done = upgrade(client)
            assert set(done) == {box, other} and not any(text(each, 11) for each in done.values()), done
            assert [one(each, 9, 0) for each in done.values()] == [round, round]
        again, same_keeper = alone.guards(box)
        assert (again.pid, again.start_time, same_keeper.pid) == (shim.pid, shim.start_time, keeper.pid)
        with open(f"/proc/{shim.pid}/maps") as maps:
            assert str(program) in maps.read()
        write(client, box, patient, b"after", offset=7, close=True)
        assert reader.join()[0] == b"before after" and waiting.join() == (6, "reaped")
        assert run(alone, client, box, "/bin/echo", "new")[1] == b"new\n"
    assert alone.task(box)["pid"] == before["pid"] and alone.task(box)["shim_version"]
    output = b""
    with Client(alone.address) as client:
        for message in client.stream("ctr.v1.Logs", "Read", (1, "default"), (2, box), (4, True)):
            output += one(message, 4)
            if output.endswith(b"line 300000\n"):
                break
    checks.numbered_lines(output, prefix=b"line ", last=300000)
    alone.ctrctl("kill", box)
    assert alone.wait(box) == 137
    alone.ctrctl("rm", "-f", box, other)


def test_what_is_no_shim_is_refused_and_nothing_has_changed(alone):
    box = alone.background("exec sleep 600")
    shim, _ = alone.guards(box)
    alone.kill9()
    alone.write_config(shim="/bin/false")
    alone.start()
    with Client(alone.address) as client:
        error = text(upgrade(client, box)[box], 11)
        assert error and "\n" not in error
        assert run(alone, client, box, "/bin/echo", "well")[1] == b"well\n"
    assert alone.guards(box)[0].pid == shim.pid
    alone.ctrctl("rm", "-f", box)


def test_one_that_has_no_shim(alone):
    box = alone.background("exit 0")
    alone.wait(box)
    alone.ctrctl("tasks", "delete", box)
    with Client(alone.address) as client:
        with pytest.raises(RPCError) as error:
            upgrade(client, box)
        assert error.value.code == FAILED_PRECONDITION and "no shim" in error.value.message
        with pytest.raises(RPCError) as error:
            upgrade(client, "nosuch")
        assert error.value.code == NOT_FOUND
        assert upgrade(client) == {}
    alone.ctrctl("rm", box)


def test_the_list_says_which_shims_are_of_another_release(alone):
    box = alone.background("exec sleep 600")
    assert [shim["outdated"] for shim in alone.ctrctl("shims", "list", "--output", "json").json()] == [False]
    program = alone.directory / "ctr-shim-next"
    program.write_text(f'#!/bin/sh\n[ "$1" = -v ] && echo "ctr-shim 9.9.9" || exec {BIN}/ctr-shim "$@"\n')
    program.chmod(0o755)
    alone.kill9()
    alone.write_config(shim=str(program))
    alone.start()
    alone.tasks()
    assert [shim["outdated"] for shim in alone.ctrctl("shims", "list", "--output", "json").json()] == [True]
    alone.ctrctl("rm", "-f", box)
