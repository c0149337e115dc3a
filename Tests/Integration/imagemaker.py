"""Images made by hand from Debian's busybox-static: docker-archives, OCI layouts and archives, plain and gzip."""
import gzip
import hashlib
import io
import json
import os
import subprocess
import tarfile
from functools import lru_cache
from pathlib import Path

BUSYBOX = "/bin/busybox"
PASSWD = "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000:Alice:/home/alice:/bin/sh\nbob:x:1001:1001::/:/bin/sh\n"
GROUP = "root:x:0:\nalice:x:1000:\nbob:x:1001:\nstaff:x:50:alice\nwheel:x:10:alice,bob\n"


def sha256(data):
    return hashlib.sha256(data).hexdigest()


class Layer:
    """A tar under construction. Times are fixed, so the same content has the same digest."""

    def __init__(self):
        self.buffer = io.BytesIO()
        self.tar = tarfile.open(fileobj=self.buffer, mode="w", format=tarfile.PAX_FORMAT)

    def _add(self, name, kind, data=b"", mode=0o644, uid=0, gid=0, target="", pax=None, device=None):
        info = tarfile.TarInfo(name)
        info.type, info.mode, info.uid, info.gid, info.linkname, info.size, info.mtime = kind, mode, uid, gid, target, len(data), 1700000000
        info.pax_headers = pax or {}
        if device:
            info.devmajor, info.devminor = device
        self.tar.addfile(info, io.BytesIO(data))
        return self

    def file(self, name, data=b"", mode=0o644, uid=0, gid=0, pax=None):
        return self._add(name, tarfile.REGTYPE, data.encode() if isinstance(data, str) else data, mode, uid, gid, pax=pax)

    def directory(self, name, mode=0o755, uid=0, gid=0):
        return self._add(name, tarfile.DIRTYPE, mode=mode, uid=uid, gid=gid)

    def symlink(self, name, target):
        return self._add(name, tarfile.SYMTYPE, mode=0o777, target=target)

    def hardlink(self, name, target):
        return self._add(name, tarfile.LNKTYPE, target=target)

    def fifo(self, name, mode=0o644):
        return self._add(name, tarfile.FIFOTYPE, mode=mode)

    def device(self, name, major, minor, mode=0o600):
        return self._add(name, tarfile.CHRTYPE, mode=mode, device=(major, minor))

    def whiteout(self, name):
        head, _, tail = name.rpartition("/")
        return self.file(f"{head}/.wh.{tail}" if head else f".wh.{tail}")

    def opaque(self, directory):
        return self.file(f"{directory}/.wh..wh..opq")

    def bytes(self):
        self.tar.close()
        return self.buffer.getvalue()


@lru_cache(maxsize=None)
def applets():
    names = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split()
    return [name for name in names if name != "busybox"]


@lru_cache(maxsize=None)
def base_layers(count=1):
    """One layer, or the same content in three: the program, the files of /etc, the applets' links."""
    program, etc, links = Layer(), Layer(), Layer()
    one = count == 1
    program.directory("bin").file("bin/busybox", Path(BUSYBOX).read_bytes(), 0o755)
    target = program if one else etc
    for name, mode in (("etc", 0o755), ("tmp", 0o1777), ("root", 0o700), ("proc", 0o555), ("sys", 0o555), ("dev", 0o755), ("var", 0o755), ("home", 0o755)):
        target.directory(name, mode)
    target.directory("home/alice", 0o750, 1000, 1000)
    target.file("etc/passwd", PASSWD).file("etc/group", GROUP)
    target = program if one else links
    for name in applets():
        target.symlink(f"bin/{name}", "busybox")
    return [program.bytes()] if one else [program.bytes(), etc.bytes(), links.bytes()]


class Image:
    """Layers (tar bytes) and a configuration, written in the form asked for."""

    def __init__(self, layers=None, cmd=("/bin/sh",), entrypoint=(), env=("PATH=/bin:/usr/bin",), user="", workdir="", labels=None, volumes=None):
        self.layers = list(layers) if layers is not None else base_layers(1)
        self.settings = {"Cmd": list(cmd), "Env": list(env)}
        for key, value in (("Entrypoint", list(entrypoint)), ("User", user), ("WorkingDir", workdir), ("Labels", labels), ("Volumes", volumes)):
            if value:
                self.settings[key] = value

    def config(self, **changes):
        value = {"architecture": "amd64", "os": "linux", "created": "2024-01-02T03:04:05Z", "config": self.settings,
                 "rootfs": {"type": "layers", "diff_ids": ["sha256:" + sha256(layer) for layer in self.layers]},
                 "history": [{"created_by": "by hand"} for _ in self.layers]}
        value.update(changes)
        return json.dumps(value).encode()

    def docker_archive(self, path, tags=("test:latest",), compress=False, config=None, tamper=None):
        config = config or self.config()
        entries = [(sha256(config) + ".json", config)]
        names = []
        for index, layer in enumerate(self.layers):
            names.append(f"{index:02d}{sha256(layer)[2:]}/layer.tar")
            entries.append((names[-1], layer))
        entries.append(("manifest.json", json.dumps([{"Config": entries[0][0], "RepoTags": list(tags) or None, "Layers": names}]).encode()))
        return write_tar(path, tamper(entries) if tamper else entries, compress)

    def oci_blobs(self, names=("test:latest",), gzip_layers=True):
        """Path to bytes of an OCI layout."""
        blobs, descriptors = {}, []

        def put(data, media_type, **extra):
            blobs["blobs/sha256/" + sha256(data)] = data
            return {"mediaType": media_type, "digest": "sha256:" + sha256(data), "size": len(data), **extra}

        kind = "application/vnd.oci.image.layer.v1.tar" + ("+gzip" if gzip_layers else "")
        for layer in self.layers:
            descriptors.append(put(gzip.compress(layer, 1, mtime=0) if gzip_layers else layer, kind))
        config = put(self.config(), "application/vnd.oci.image.config.v1+json")
        manifest = json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config,
                               "layers": descriptors}).encode()
        entry = put(manifest, "application/vnd.oci.image.manifest.v1+json", platform={"os": "linux", "architecture": "amd64"})
        index = [dict(entry, annotations={"org.opencontainers.image.ref.name": name}) for name in names] or [entry]
        blobs["index.json"] = json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": index}).encode()
        blobs["oci-layout"] = b'{"imageLayoutVersion":"1.0.0"}'
        return blobs

    def oci_layout(self, directory, names=("test:latest",), gzip_layers=True, tamper=None):
        blobs = self.oci_blobs(names, gzip_layers)
        for name, data in (tamper(blobs) if tamper else blobs).items():
            path = Path(directory, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return Path(directory)

    def oci_archive(self, path, names=("test:latest",), gzip_layers=True, compress=False, tamper=None):
        blobs = self.oci_blobs(names, gzip_layers)
        return write_tar(path, list((tamper(blobs) if tamper else blobs).items()), compress)


def write_tar(path, entries, compress=False):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        made = set()
        for name, data in entries:
            folder = os.path.dirname(name)
            if folder and folder not in made:
                made.add(folder)
                info = tarfile.TarInfo(folder)
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(info)
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o644
            tar.addfile(info, io.BytesIO(data))
    data = raw.getvalue()
    Path(path).write_bytes(gzip.compress(data, 1, mtime=0) if compress else data)
    return Path(path)
