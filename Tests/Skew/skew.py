"""Two releases beside each other: the programs of the previous one, which tools/previous.sh builds, and those in bin/."""
import os
import shutil
from pathlib import Path

from harness import BIN, REPOSITORY, World

PREVIOUS = Path(os.environ.get("PREVIOUS", REPOSITORY / ".build" / "previous" / "bin"))
PROGRAMS = ("ctrd", "ctrctl", "ctr-shim", "ctr-keeper", "ctrun")
COUNTING = "i=0; trap 'exit 3' TERM; while :; do i=$((i+1)); echo line $i; usleep 2000; done"
PATIENT = "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 1000 & wait $!; done"


class SkewWorld(World):
    """One in which the previous release is installed at first, and this one over it later."""

    def __init__(self):
        super().__init__()
        self.bin = self.directory / "programs"
        shutil.copytree(PREVIOUS, self.bin)

    def install(self, *names):
        """Puts programs of this release in the place of the previous one's, as a package does; what runs goes on running."""
        for name in names or PROGRAMS:
            shutil.copy(BIN / name, self.bin / f".{name}.new")
            os.rename(self.bin / f".{name}.new", self.bin / name)
        return self

    def take_over(self):
        """The manager of the previous release is killed, and this release's, installed elsewhere, comes after it."""
        self.kill9()
        self.bin = BIN
        return self.start()

    def patient(self):
        """A container of PATIENT that runs its loop."""
        identifier = self.background(PATIENT)
        follower = self.client("logs", "-f", identifier)
        follower.out.until(b"ready\n")
        follower.close()
        return identifier

    def is_as(self, identifier, before):
        """Nobody has touched its processes since `before`, a task of it."""
        task = self.task(identifier)
        return all(task[key] == before[key] for key in ("pid", "start_time", "shim_pid", "keeper_pid", "status"))

    def shims(self):
        return {shim["container_id"]: shim for shim in self.ctrctl("shims", "list", "--output", "json").json()}
