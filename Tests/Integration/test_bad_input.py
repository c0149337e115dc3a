"""Bad input: a clear error of one line, the right exit code, and nothing left behind."""
import os
import subprocess

import pytest

import imagemaker
from harness import BIN, IMAGE, World, one_line_error, run_program
from ttrpc_client import Client, encode


@pytest.fixture(autouse=True)
def nothing_left(request):
    """Each refusal leaves the host as it was."""
    if "world" not in request.fixturenames:
        yield
        return
    world = request.getfixturevalue("world")
    if not world.running():
        world.start()
    before, containers, images = world.snapshot(), world.containers(), world.ctrctl("images", "-q").out
    yield
    world.assert_no_leaks(before)
    assert (world.containers(), world.ctrctl("images", "-q").out) == (containers, images)


def refused(world, *args, code, says):
    error = one_line_error(world.ctrctl(*args, code=code))
    for word in [says] if isinstance(says, str) else says:
        assert word.lower() in error.lower(), error
    return error


def test_missing_image(world):
    refused(world, "run", "nosuchimage:latest", "true", code=125, says="nosuchimage")


@pytest.mark.parametrize("reference", ["UPPER:latest", "a b", "box@sha256:zz", "box:", ":latest", "", "/x", "a" * 300])
def test_a_reference_that_is_none(world, reference):
    refused(world, "run", reference, "true", code=125, says=reference[:20])


@pytest.mark.parametrize("command", [("rm",), ("rm", "-f"), ("kill",), ("stop",), ("inspect",), ("logs",), ("tasks", "start"), ("tasks", "kill"), ("tasks", "wait"),
                                     ("tasks", "delete"), ("tasks", "pause"), ("tasks", "resume"), ("containers", "inspect"), ("containers", "delete"),
                                     ("images", "inspect"), ("images", "delete"), ("rmi",)], ids=" ".join)
def test_unknown_id(world, command):
    refused(world, *command, "nosuchthing", code=1, says="nosuchthing")


@pytest.fixture
def twins(world):
    prefix = os.urandom(4).hex()  # an id that was used once is taken for ever
    made = [prefix + digit * 56 for digit in "12"]
    with Client(world.address) as client:
        for identifier in made:
            client.call("ctr.v1.Containers", "Create", (1, "default"), (2, identifier), (4, IMAGE), (5, encode((1, "/bin/true"))))
        yield prefix
        for identifier in made:
            client.call("ctr.v1.Containers", "Delete", (1, "default"), (2, identifier), (3, True))


@pytest.mark.parametrize("command", [("rm",), ("inspect",), ("tasks", "start"), ("logs",), ("kill",)], ids=" ".join)
def test_ambiguous_prefix(world, twins, command):
    refused(world, *command, twins, code=1, says=[twins, "ambiguous"])


def test_executable_not_found_is_127(world):
    refused(world, "run", "--rm", IMAGE, "/no/such/program", code=127, says="/no/such/program")
    refused(world, "run", "--rm", IMAGE, "nosuchprogram", code=127, says="nosuchprogram")


@pytest.mark.parametrize("path", ["/etc/passwd", "/etc"])
def test_not_executable_is_126(world, path):
    refused(world, "run", "--rm", IMAGE, path, code=126, says=path)


@pytest.mark.parametrize("name", ["a/b", "../x", "x" * 300, "-x", "a b", "ä", ".hidden", "a\nb", "a:b"])
def test_bad_name(world, name):
    refused(world, "run", f"--name={name}", IMAGE, "true", code=125, says="name")


@pytest.mark.parametrize("namespace", ["a/b", "..", "x" * 300, ""])
def test_bad_namespace(world, namespace):
    assert one_line_error(world.ctrctl("--namespace", namespace, "run", IMAGE, "true", code=125))


@pytest.mark.parametrize("flags", [
    ("--memory", "lots"), ("--memory", "-5"), ("--memory", "1k"), ("--memory", "99999999999999999999g"), ("--cpus", "many"), ("--cpus", "-1"), ("--cpus", "nan"),
    ("--pids-limit", "few"), ("--network", "moon"), ("--runtime", "/no/such/runtime"), ("--runtime", "relative"), ("-v", "relative:/x"), ("-v", "/tmp"),
    ("-v", "/tmp:relative"), ("-v", "/tmp:/x:rx"), ("-v", "/tmp:/"), ("-e", "=x"), ("-w", "relative"), ("--hostname", "a/b"), ("--hostname", "x" * 70),
    ("-u", "4294967296"), ("-v", "/tmp:/proc"), ("-v", "/tmp:/proc/self"),
], ids=lambda f: " ".join(f)[:30])
def test_bad_flag(world, flags):
    refused(world, "run", "--rm", *flags, IMAGE, "true", code=125, says=[])


@pytest.mark.parametrize("signal", ["NOSUCH", "0", "99", "-1", "SIG"])
def test_bad_signal(world, signal):
    assert one_line_error(world.ctrctl("kill", f"--signal={signal}", "whatever", code=1))


def test_a_proc_that_is_a_link_is_refused(world):
    image = imagemaker.Image([imagemaker.Layer().directory("bin").file("bin/busybox", open(imagemaker.BUSYBOX, "rb").read(), 0o755)
                             .symlink("proc", "/tmp").directory("tmp").bytes()])
    path = image.docker_archive(world.directory / "proc.tar", tags=("proclink:latest",))
    world.ctrctl("images", "import", path)
    try:
        assert one_line_error(world.ctrctl("run", "--rm", "proclink", "/bin/busybox", "true", code=125))
    finally:
        world.ctrctl("rmi", "proclink")


# The manager's own start

def refused_start(world, *args, says, code=1, prefix=(), env=None):
    result = run_program(world, *prefix, BIN / "ctrd", *args, env=env)
    assert result.code == code, result
    error = one_line_error(result)
    for word in [says] if isinstance(says, str) else says:
        assert word in error, error


@pytest.mark.parametrize("content, says", [("root = [", "config.toml"), ("root = 5\n", "root"), ("log_level = \"loud\"\n", "loud"),
                                           ("nosuchkey = 1\n", "nosuchkey"), ("cgroup_parent = \"a/b\"\n", "a/b"), ("\x00\x01\x02", "config.toml")])
def test_malformed_configuration(nobody, content, says):
    nobody.config.write_text(content)
    refused_start(nobody, "--config", nobody.config, "--root", nobody.root, "--state", nobody.state, "--address", nobody.address, says=[says, str(nobody.config)])
    assert not nobody.root.exists() and not nobody.state.exists()


def test_missing_configuration_file(nobody):
    refused_start(nobody, "--config", nobody.directory / "none.toml", says="none.toml")


def test_address_in_use(world):
    other = World(address=world.address)
    try:
        refused_start(other, "--config", other.config, says=world.address)
        world.ctrctl("version")
    finally:
        other.close()


def test_a_stale_socket_file_is_replaced(nobody):
    import socket
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(nobody.address)
    nobody.start()
    nobody.ctrctl("version")


def test_a_file_at_the_address_that_is_no_socket_is_left_alone(nobody):
    precious = nobody.directory / "ctrd.sock"
    precious.write_text("precious")
    refused_start(nobody, "--config", nobody.config, says=nobody.address)
    assert precious.read_text() == "precious"


@pytest.mark.parametrize("shared", ["root", "state"])
def test_a_second_manager_on_the_same_directory(world, shared):
    other = World()
    other.write_config(**{shared: str(getattr(world, shared))})
    try:
        refused_start(other, "--config", other.config, says=str(getattr(world, shared)))
        world.ctrctl("version")
    finally:
        other.close()


def test_not_root(nobody):
    nobody.directory.chmod(0o755)
    refused_start(nobody, "--config", nobody.config, says="root", prefix=("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all",
                                                                         "--bounding-set=-all"))


def test_not_root_at_the_command_line(world):
    world.directory.chmod(0o755)
    result = run_program(world, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", BIN / "ctrctl", "ps")
    assert result.code == 1 and world.address in one_line_error(result) and "ermission" in result.err


@pytest.mark.skipif(not os.path.exists("/sys/fs/cgroup/memory/memory.limit_in_bytes"), reason="no cgroup v1 memory controller on this host")
def test_missing_cgroup_controller(nobody):
    """On a host without the memory controller --memory is refused by name, and all else works."""
    nobody.start(prefix=("unshare", "-m", "sh", "-c", 'umount /sys/fs/cgroup/memory && exec "$0" "$@"')).import_box()
    nobody.sh("true")
    before = nobody.snapshot()
    refused(nobody, "run", "--rm", "--memory", "64m", IMAGE, "true", code=125, says="memory")
    nobody.assert_no_leaks(before)
    assert nobody.containers() == {}


def test_manager_not_there(nobody):
    error = one_line_error(nobody.ctrctl("ps", code=1))
    assert nobody.address in error
    assert one_line_error(nobody.ctrctl("run", IMAGE, "true", code=125))


def test_too_long_an_address(nobody):
    long = "/tmp/" + "x" * 120
    refused_start(nobody, "--config", nobody.config, "--address", long, says="xxx")


def test_a_failed_start_is_not_remembered_as_a_container_with_rm(world):
    before = world.containers()
    world.ctrctl("run", "--rm", IMAGE, "/no/such", code=127)
    assert world.containers() == before


def test_a_failed_start_leaves_a_container_to_look_at_and_remove(world):
    """As Docker does: created, with the reason."""
    world.ctrctl("run", "--name", "failed", IMAGE, "/no/such", code=127)
    names = {c["name"]: c for c in world.containers().values()}
    if "failed" in names:
        assert "/no/such" in subprocess.run([str(BIN / "ctrctl"), "inspect", "failed"], capture_output=True, text=True, env=world.env).stdout
        world.ctrctl("rm", "failed")
