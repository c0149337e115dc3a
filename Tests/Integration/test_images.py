"""`images import`: every form, every digest, whiteouts, links, ownership, names; and hostile archives."""
import gzip
import json
import os
import re

import pytest

import imagemaker
from harness import one_line_error
from imagemaker import Image, Layer, sha256


@pytest.fixture
def place(world, tmp_path):
    """Imports made in a test are removed after it."""
    before = names(world)
    yield tmp_path
    for name in names(world) - before:
        world.ctrctl("rmi", "-f", name)


def fresh():
    """An image of which the store holds nothing yet: what it has under the same digest it need not read again."""
    token = os.urandom(8).hex()
    return Image([imagemaker.base_layers(1)[0], Layer().file(f"fresh-{token}", os.urandom(4 << 20)).bytes()], labels={"fresh": token})


def names(world):
    return {name for image in world.ctrctl("images", "list", "--output", "json").json() for name in image["names"]}


def small(*layers, **more):
    """Layers on top of the busybox."""
    return Image(imagemaker.base_layers(3) + [layer.bytes() for layer in layers], **more)


FORMS = {
    "docker-archive": lambda i, p: i.docker_archive(p / "a.tar", tags=("form:latest",)),
    "docker-archive gzip": lambda i, p: i.docker_archive(p / "a.tar.gz", tags=("form:latest",), compress=True),
    "oci layout": lambda i, p: i.oci_layout(p / "layout", names=("form:latest",)),
    "oci layout, plain layers": lambda i, p: i.oci_layout(p / "layout", names=("form:latest",), gzip_layers=False),
    "oci archive": lambda i, p: i.oci_archive(p / "a.tar", names=("form:latest",)),
    "oci archive, plain layers": lambda i, p: i.oci_archive(p / "a.tar", names=("form:latest",), gzip_layers=False),
    "oci archive gzip": lambda i, p: i.oci_archive(p / "a.tar.gz", names=("form:latest",), compress=True),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("layers", [1, 3])
def test_import_and_run(world, place, form, layers):
    out = world.ctrctl("images", "import", FORMS[form](Image(imagemaker.base_layers(layers), cmd=("/bin/echo", "from", form)), place)).out
    assert "form:latest" in out
    assert world.ctrctl("run", "--rm", "form").out == f"from {form}\n"
    image = world.ctrctl("images", "inspect", "form").json()
    image = image[0] if isinstance(image, list) else image
    assert image["names"] == ["docker.io/library/form:latest"] and len(image["diff_ids"]) == layers and image["os"] == "linux"


def test_importing_twice_changes_nothing(world, place):
    path = Image().docker_archive(place / "a.tar", tags=("twice:latest",))
    world.ctrctl("images", "import", path)
    first = world.ctrctl("images", "-q").out
    world.ctrctl("images", "import", path)
    assert world.ctrctl("images", "-q").out == first


@pytest.mark.parametrize("typed, shown", [
    ("bar/bb:latest", "docker.io/bar/bb:latest"), ("bb", "docker.io/library/bb:latest"), ("bb:1.0", "docker.io/library/bb:1.0"),
    ("localhost/bb", "localhost/bb:latest"), ("localhost:5000/bb:x", "localhost:5000/bb:x"), ("quay.io/a/b:c", "quay.io/a/b:c"),
    ("docker.io/library/bb:z", "docker.io/library/bb:z"), ("index.docker.io/bb:y", "docker.io/library/bb:y"),
])
def test_names_are_normalised_as_docker_does(world, place, typed, shown):
    world.ctrctl("images", "import", Image().docker_archive(place / "a.tar", tags=(typed,)))
    assert shown in names(world)
    assert world.ctrctl("run", "--rm", typed, "echo", "x").out == "x\n"
    world.ctrctl("rmi", typed)
    assert shown not in names(world)


@pytest.mark.parametrize("typed, shown", [("bar/bb:latest", "docker.io/bar/bb:latest"), ("latest", "docker.io/library/latest:latest"),
                                          ("quay.io/a/b:c", "quay.io/a/b:c")])
def test_names_of_a_layout(world, place, typed, shown):
    world.ctrctl("images", "import", Image().oci_layout(place / "layout", names=(typed,)))
    assert shown in names(world)


def test_name_given_replaces_the_archives(world, place):
    world.ctrctl("images", "import", "--name", "given/name:tag", Image().docker_archive(place / "a.tar", tags=("own:latest",)))
    assert "docker.io/given/name:tag" in names(world) and "docker.io/library/own:latest" not in names(world)


def test_several_names(world, place):
    world.ctrctl("images", "import", Image().docker_archive(place / "a.tar", tags=("one:1", "two:2")))
    assert {"docker.io/library/one:1", "docker.io/library/two:2"} <= names(world)
    world.ctrctl("rmi", "one:1")
    assert world.ctrctl("run", "--rm", "two:2", "true").code == 0


def test_an_archive_without_a_name_needs_one_or_goes_by_its_id(world, place):
    path = Image(cmd=("/bin/echo", "nameless")).docker_archive(place / "a.tar", tags=())
    result = world.ctrctl("images", "import", path, code=None)
    if result.code == 0:
        identifier = re.search(r"[0-9a-f]{12,64}", result.out).group(0)
        assert world.ctrctl("run", "--rm", identifier).out == "nameless\n"
        world.ctrctl("rmi", "-f", identifier)
    else:
        assert "--name" in one_line_error(result)


# What is in the tree after it was unpacked

def listing(world, image, *paths):
    out = world.ctrctl("run", "--rm", image, "/bin/sh", "-c", "for p in \"$@\"; do stat -c '%n %a %u:%g %F %h' $p 2>/dev/null || echo $p none; done", "sh", *paths).out
    return dict(line.split(" ", 1) for line in out.splitlines())


def load(world, place, image, name="tree:latest"):
    world.ctrctl("images", "import", image.docker_archive(place / "tree.tar", tags=(name,)))


def test_whiteouts(world, place):
    lower = Layer().directory("d").file("d/gone").file("d/stays").directory("whole").file("whole/a").directory("whole/sub").file("whole/sub/b").file("again")
    upper = Layer().whiteout("d/gone").whiteout("whole").whiteout("again").whiteout("never/was")
    top = Layer().file("again", "new")
    load(world, place, small(lower, upper, top))
    got = listing(world, "tree", "/d/gone", "/d/stays", "/whole", "/again", "/d/.wh.gone", "/.wh.whole")
    assert got["/d/gone"] == got["/whole"] == got["/d/.wh.gone"] == got["/.wh.whole"] == "none"
    assert got["/d/stays"] != "none" and got["/again"] != "none"
    assert world.ctrctl("run", "--rm", "tree", "cat", "/again").out == "new"


def test_opaque_directories(world, place):
    lower = Layer().directory("o").file("o/old").directory("o/sub").file("o/sub/old")
    upper = Layer().directory("o", 0o711).opaque("o").file("o/new")
    load(world, place, small(lower, upper))
    assert world.ctrctl("run", "--rm", "tree", "ls", "-A", "/o").out == "new\n"
    assert listing(world, "tree", "/o")["/o"].startswith("711 ")


def test_an_opaque_mark_behind_the_new_entries(world, place):
    load(world, place, small(Layer().directory("o").file("o/old"), Layer().directory("o").file("o/new").opaque("o")))
    assert world.ctrctl("run", "--rm", "tree", "ls", "-A", "/o").out == "new\n"


def test_ownership_modes_and_kinds(world, place):
    layer = (Layer().directory("own", 0o750, 1000, 50).file("own/file", "x", 0o640, 1234, 4321).file("own/suid", "", 0o4755).symlink("own/link", "file")
             .fifo("own/pipe", 0o600).device("own/null", 1, 3, 0o666).directory("own/sticky", 0o1777))
    load(world, place, small(layer))
    got = listing(world, "tree", "/own", "/own/file", "/own/suid", "/own/link", "/own/pipe", "/own/null", "/own/sticky")
    assert got["/own"].startswith("750 1000:50 directory") and got["/own/file"].startswith("640 1234:4321 regular file")
    assert got["/own/suid"].startswith("4755 0:0") and "symbolic link" in got["/own/link"] and "fifo" in got["/own/pipe"]
    assert "character special" in got["/own/null"] and got["/own/sticky"].startswith("1777 ")


def test_hard_links_share_one_file(world, place):
    load(world, place, small(Layer().file("first", "data", 0o644).hardlink("second", "first"), Layer().directory("x").hardlink("x/third", "second")))
    got = listing(world, "tree", "/first", "/second", "/x/third")
    assert got["/first"].endswith(" 2") or got["/first"].endswith(" 3")
    assert world.ctrctl("run", "--rm", "tree", "cat", "/first", "/second", "/x/third").out == "data" * 3


def test_times_of_files_are_kept(world, place):
    load(world, place, small(Layer().file("dated")))
    assert world.ctrctl("run", "--rm", "tree", "stat", "-c", "%Y", "/dated").out == "1700000000\n"


def test_extended_attributes(world, place):
    load(world, place, small(Layer().file("capable", "", 0o755, pax={"SCHILY.xattr.user.note": "kept"})))
    layers = list((world.root / "snapshots" / "layers").glob("*/fs/capable"))
    assert [os.getxattr(p, "user.note") for p in layers] == [b"kept"]


def test_long_names_and_sizes(world, place):
    long = "/".join(["d" * 90] * 3) + "/" + "f" * 200
    load(world, place, small(Layer().file(long, "deep")))
    assert world.ctrctl("run", "--rm", "tree", "cat", "/" + long).out == "deep"


def test_a_directory_replaced_by_a_file_and_back(world, place):
    load(world, place, small(Layer().directory("a").file("a/b").file("c"), Layer().file("a", "file now").directory("c").file("c/d", "dir now")))
    assert world.ctrctl("run", "--rm", "tree", "cat", "/a", "/c/d").out == "file nowdir now"


# Damaged and hostile archives: refused in one line, and nothing of them stays

def refuse(world, path, says=""):
    before, had = world.snapshot(), names(world)
    error = one_line_error(world.ctrctl("images", "import", path, code=1))
    assert says.lower() in error.lower(), error
    world.assert_no_leaks(before)
    assert names(world) == had
    return error


def test_garbage(world, place):
    (place / "x.tar").write_bytes(b"this is not an archive" * 100)
    refuse(world, place / "x.tar", "x.tar")


def test_empty_file_missing_file_and_empty_directory(world, place):
    (place / "empty.tar").touch()
    refuse(world, place / "empty.tar", "empty.tar")
    refuse(world, place / "missing.tar", "missing.tar")
    (place / "dir").mkdir()
    refuse(world, place / "dir", "dir")


@pytest.mark.parametrize("form", FORMS)
def test_truncated(world, place, form):
    path = FORMS[form](fresh(), place)
    if path.is_dir():
        victim = max((path / "blobs" / "sha256").iterdir(), key=lambda p: p.stat().st_size)
        victim.write_bytes(victim.read_bytes()[:-1000])
    else:
        path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])
    refuse(world, path)


def flip(data):
    return data[:len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1:]


@pytest.mark.parametrize("which", ["manifest", "config", "layer"])
def test_a_flipped_bit_of_a_layout_is_a_wrong_digest(world, place, which):
    image = fresh()

    def tamper(blobs):
        manifest_name = "blobs/sha256/" + json.loads(blobs["index.json"])["manifests"][0]["digest"][7:]
        manifest = json.loads(blobs[manifest_name])
        name = {"manifest": manifest_name, "config": "blobs/sha256/" + manifest["config"]["digest"][7:],
                "layer": "blobs/sha256/" + manifest["layers"][-1]["digest"][7:]}[which]
        return {**blobs, name: flip(blobs[name])}
    refuse(world, image.oci_layout(place / "layout", tamper=tamper), "digest")


def test_a_flipped_bit_of_a_docker_layer_is_a_wrong_diff_id(world, place):
    def tamper(entries):
        return [(n, flip(d) if n.endswith("layer.tar") else d) for n, d in entries]
    refuse(world, fresh().docker_archive(place / "a.tar", tamper=tamper))


def test_a_wrong_size_is_refused(world, place):
    def tamper(blobs):
        index = json.loads(blobs["index.json"])
        index["manifests"][0]["size"] += 1
        return {**blobs, "index.json": json.dumps(index).encode()}
    refuse(world, fresh().oci_layout(place / "layout", tamper=tamper), "size")


def test_a_missing_blob_is_refused(world, place):
    def tamper(blobs):
        largest = max((n for n in blobs if n.startswith("blobs/")), key=lambda n: len(blobs[n]))
        return {n: d for n, d in blobs.items() if n != largest}
    refuse(world, fresh().oci_layout(place / "layout", tamper=tamper))


@pytest.mark.parametrize("digest", ["sha256:../../../../etc/passwd", "sha256:short", "md5:" + "0" * 32, "sha256:" + "Z" * 64])
def test_a_digest_that_is_none_is_refused(world, place, digest):
    def tamper(blobs):
        index = json.loads(blobs["index.json"])
        index["manifests"][0]["digest"] = digest
        return {**blobs, "index.json": json.dumps(index).encode()}
    refuse(world, fresh().oci_layout(place / "layout", tamper=tamper), "digest")


def test_another_architecture_is_refused(world, place):
    image = Image()
    config = image.config(architecture="s390x")
    refuse(world, image.docker_archive(place / "a.tar", config=config), "s390x")


@pytest.mark.parametrize("entry", ["../../../../escaped", "/../../escaped", "a/../../../escaped"])
def test_a_layers_path_does_not_leave_the_layer(world, place, entry):
    """Refused, or held inside the tree; never a file outside."""
    path = small(Layer().file(entry, "x")).docker_archive(place / "a.tar", tags=("path:latest",))
    world.ctrctl("images", "import", path, code=None)
    for directory in [world.directory, *world.directory.parents]:
        assert not (directory / "escaped").exists()
    for outside in (world.root, world.root / "snapshots", world.root / "snapshots" / "layers"):
        assert not (outside / "escaped").exists()


def test_a_link_of_a_layer_is_not_followed_out(world, place):
    canary = place / "canary"
    canary.mkdir()
    for target in (str(canary), "../" * 20 + str(canary).lstrip("/")):
        world.ctrctl("images", "import", small(Layer().symlink("out", target), Layer().file("out/planted", "x")).docker_archive(place / "a.tar", tags=("out:1",)),
                     code=None)
        world.ctrctl("images", "import", small(Layer().symlink("out", target).file("out/planted", "x")).docker_archive(place / "b.tar", tags=("out:2",)), code=None)
    assert not list(canary.iterdir())


def test_a_hard_link_to_the_outside_is_refused(world, place):
    secret = place / "secret"
    secret.write_text("secret")
    secret.chmod(0o600)
    image = small(Layer().hardlink("stolen", str(secret)))
    refuse(world, image.docker_archive(place / "a.tar"))
    assert secret.stat().st_nlink == 1 and secret.stat().st_mode & 0o777 == 0o600


def test_the_mode_of_a_linked_file_outside_is_not_changed(world, place):
    canary = place / "canary"
    canary.write_text("x")
    canary.chmod(0o600)
    image = small(Layer().symlink("e", str(canary)), Layer().file("e", "replaced", 0o777))
    world.ctrctl("images", "import", image.docker_archive(place / "a.tar"), code=None)
    assert canary.stat().st_mode & 0o777 == 0o600 and canary.read_text() == "x"


@pytest.mark.parametrize("kind", ["symlink", "file"])
def test_the_root_of_a_layer_must_be_a_directory(world, place, kind):
    layer = Layer().symlink("./", "/tmp") if kind == "symlink" else Layer().file(".", "x")
    world.ctrctl("images", "import", small(layer).docker_archive(place / "a.tar", tags=("rootless:latest",)), code=None)
    for directory in (world.root / "snapshots" / "layers").iterdir():
        assert (directory / "fs").is_dir() and not (directory / "fs").is_symlink()


def test_json_that_is_manifest_and_index_is_refused(world, place):
    def tamper(blobs):
        index = json.loads(blobs["index.json"])
        name = "blobs/sha256/" + index["manifests"][0]["digest"][7:]
        both = json.dumps({**json.loads(blobs[name]), "manifests": []}).encode()
        index["manifests"][0].update(digest="sha256:" + sha256(both), size=len(both))
        return {**blobs, "blobs/sha256/" + sha256(both): both, "index.json": json.dumps(index).encode()}
    refuse(world, fresh().oci_layout(place / "layout", tamper=tamper))


def test_a_docker_archive_whose_names_climb_is_refused(world, place):
    def tamper(entries):
        return [("../../" + n if n.endswith("layer.tar") else n, d) for n, d in entries[:-1]] + \
            [(entries[-1][0], entries[-1][1].replace(b'"Layers": ["', b'"Layers": ["../../'))]
    world.ctrctl("images", "import", Image().docker_archive(place / "a.tar", tags=("climb:latest",), tamper=tamper), code=None)
    assert not list(world.directory.parent.glob("*/layer.tar"))


def test_a_small_layer_that_grows_without_end_is_stopped(world, place):
    """300 MB of zeros in 300 KB: the ratio is refused, or the size taken as said; the store stays usable."""
    layer = Layer().file("zeros", b"\0" * (300 << 20)).bytes()
    image = Image(imagemaker.base_layers(3) + [layer])
    blobs = image.oci_blobs(names=("bomb:latest",))
    assert max(len(d) for n, d in blobs.items() if len(d) < 1 << 20) < 1 << 20
    image.oci_layout(place / "layout", names=("bomb:latest",))
    world.ctrctl("images", "import", place / "layout", code=None, timeout=120)
    world.sh("true")


def test_trailing_garbage_behind_gzip_is_not_swallowed(world, place):
    path = fresh().docker_archive(place / "a.tar.gz", tags=("tail:latest",), compress=True)
    path.write_bytes(path.read_bytes()[:-8] + b"\0" * 8)  # the checksum is wrong
    refuse(world, path)
    gzip.decompress(Image().docker_archive(place / "b.tar.gz", compress=True).read_bytes())


# Removal

def test_rmi_of_a_used_image_is_refused_unless_forced(world, place):
    load(world, place, small(cmd=("/bin/sleep", "600")), "used:latest")
    identifier = world.run("-d", "used")
    assert "used" in one_line_error(world.ctrctl("rmi", "used", code=1))
    world.ctrctl("rm", "-f", identifier)
    world.ctrctl("rmi", "used")
    assert "docker.io/library/used:latest" not in names(world)


def test_layers_shared_by_images_stay_until_the_last_goes(world, place):
    shared = Layer().file("shared", "x")
    for name, content in (("left:latest", "1"), ("right:latest", "2")):
        load(world, place, small(shared, Layer().file("own", content)), name)
    world.ctrctl("rmi", "left")
    assert world.ctrctl("run", "--rm", "right", "cat", "/shared", "/own").out == "x2"


def test_removing_an_image_gives_its_space_back(world, place):
    before = world.snapshot()
    load(world, place, small(Layer().file("only-here", "x" * 100000)), "space:latest")
    world.ctrctl("rmi", "space")
    world.assert_no_leaks(before)


def test_peers_images_are_read(world, place):
    """What skopeo writes of an image of ours is an image of ours."""
    import shutil
    import subprocess
    assert shutil.which("skopeo"), "skopeo is not installed: make deps"
    source = Image(imagemaker.base_layers(3), cmd=("/bin/echo", "copied")).oci_layout(place / "layout", names=("peer:latest",))
    for transport, target in (("oci-archive", "oci.tar"), ("docker-archive", "docker.tar")):
        subprocess.run(["skopeo", "--insecure-policy", "copy", f"oci:{source}:peer:latest", f"{transport}:{place / target}:peer:{transport}"], check=True,
                       capture_output=True)
        world.ctrctl("images", "import", "--name", f"peer:{transport}", place / target)
        assert world.ctrctl("run", "--rm", f"peer:{transport}").out == "copied\n"
