"""Who a container runs as: names from the image's own files, numbers as numbers, and nothing that falls through to root."""
import pytest

import imagemaker
from harness import one_line_error

PASSWD = imagemaker.PASSWD + ("1000:x:0:0:digits for a name:/:/bin/sh\n99999999999:x:0:0::/:/bin/sh\n4294967296:x:0:0::/:/bin/sh\n"
                              "-1:x:0:0::/:/bin/sh\nbroken:x:notanumber:0::/:/bin/sh\nhuge:x:4294967296:0::/:/bin/sh\nnine:x:9:9::/:/bin/sh\n")
GROUP = imagemaker.GROUP + "50:x:0:\ndenied:x:77:alice\n"


@pytest.fixture(scope="module")
def users(world):
    layer = imagemaker.Layer().file("etc/passwd", PASSWD).file("etc/group", GROUP).directory("denied", 0o705, 0, 77)
    for user in ("", "alice", "1000", "99999999999"):
        image = imagemaker.Image(imagemaker.base_layers(1) + [layer.bytes()], user=user)
        path = image.docker_archive(world.directory / "users.tar", tags=(f"users:{user or 'none'}",))
        world.ctrctl("images", "import", path)
        path.unlink()
    yield world
    for user in ("none", "alice", "1000", "99999999999"):
        world.ctrctl("rmi", f"users:{user}")


SCRIPT = "id -u; id -g; sed -n 's/^Groups:[ \t]*//p' /proc/self/status"


def identity(world, *flags, image="users:none"):
    result = world.ctrctl("run", "--rm", *flags, image, "/bin/sh", "-c", SCRIPT, code=None)
    if result.code != 0:
        assert result.code in (125, 126) and one_line_error(result), result
        return None
    uid, gid, groups = (result.out.split("\n") + ["", "", ""])[:3]
    return int(uid), int(gid), {int(g) for g in groups.split()}


@pytest.mark.parametrize("user, expected", [
    ("root", (0, 0, {0})),
    ("0", (0, 0, {0})),
    ("alice", (1000, 1000, {1000, 50, 10, 77})),
    ("bob", (1001, 1001, {1001, 10})),
    ("1000", (1000, 1000, {1000, 50, 10, 77})),  # a number is a uid, though a user is *named* 1000
    ("1", (1, 0, {0})),
    ("1:2", (1, 2, {2})),
    ("alice:2", (1000, 2, {2})),
    ("alice:staff", (1000, 50, {50})),
    ("1000:50", (1000, 50, {50})),  # a number is a gid, though a group is named 50
    ("2147483647", (2147483647, 0, {0})),
])
def test_user(users, user, expected):
    assert identity(users, "-u", user) == expected


@pytest.mark.parametrize("user", ["4294967296", "2147483648", "-1", "18446744073709551616", "99999999999", "0:4294967296", "0:-1", "nosuchuser",
                                  "alice:nosuchgroup", "broken", "huge", "ali ce", "alice:staff:x"])
def test_refused_and_never_root(users, user):
    assert identity(users, "-u", user) is None


@pytest.mark.parametrize("user, docker", [(":2", (0, 2)), ("1:", (1, 0)), (":", (0, 0)), ("alice:", (1000, 1000))])
def test_half_a_user_is_dockers_meaning_or_refused(users, user, docker):
    got = identity(users, "-u", user)
    assert got is None or got[:2] == docker


@pytest.mark.parametrize("tag, expected", [("none", (0, 0, {0})), ("alice", (1000, 1000, {1000, 50, 10, 77})), ("1000", (1000, 1000, {1000, 50, 10, 77})),
                                           ("99999999999", None)])
def test_user_of_the_image(users, tag, expected):
    assert identity(users, image=f"users:{tag}") == expected


def test_the_flag_wins_over_the_image(users):
    assert identity(users, "-u", "0", image="users:alice") == (0, 0, {0})


def test_a_group_that_is_denied_is_denied(users):
    """Group 77 may not enter /denied though others may: whoever drops the supplementary groups gets in."""
    assert users.ctrctl("run", "--rm", "-u", "alice", "users:none", "/bin/ls", "/denied", code=1).err
    users.ctrctl("run", "--rm", "-u", "bob", "users:none", "/bin/ls", "/denied")


def test_home_is_the_users(users):
    assert users.ctrctl("run", "--rm", "-u", "alice", "users:none", "/bin/sh", "-c", "echo $HOME").out == "/home/alice\n"


def test_a_passwd_that_is_a_link_to_the_host_is_not_followed(users):
    layer = imagemaker.Layer().symlink("etc/passwd", "/../../../../../../../../etc/passwd")
    image = imagemaker.Image(imagemaker.base_layers(1) + [layer.bytes()])
    path = image.docker_archive(users.directory / "evil.tar", tags=("evil:latest",))
    users.ctrctl("images", "import", path)
    assert identity(users, "-u", "www-data", image="evil") is None
    users.ctrctl("rmi", "evil")


def test_a_passwd_that_is_a_pipe_does_not_hang(users):
    image = imagemaker.Image([imagemaker.base_layers(3)[0], imagemaker.base_layers(3)[2], imagemaker.Layer().directory("etc").fifo("etc/passwd").bytes()])
    path = image.docker_archive(users.directory / "pipe.tar", tags=("pipe:latest",))
    users.ctrctl("images", "import", path)
    users.ctrctl("run", "--rm", "-u", "alice", "pipe", "/bin/true", code=None, timeout=20)
    users.ctrctl("rmi", "pipe")
