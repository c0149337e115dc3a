#!/usr/bin/python3
"""busybox-image.py FILE: a docker-archive named busybox:latest, made of Debian's busybox-static."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "Tests" / "Integration"))
import imagemaker  # noqa: E402

if len(sys.argv) != 2:
    sys.exit(__doc__)
imagemaker.Image(imagemaker.base_layers(3)).docker_archive(Path(sys.argv[1]), tags=("busybox:latest",))
