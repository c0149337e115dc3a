#!/usr/bin/python3
"""busybox-image.py FILE [NAME]: a docker-archive of three layers made of Debian's busybox-static, to try things with."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "Tests" / "Integration"))

import imagemaker  # noqa: E402

if len(sys.argv) not in (2, 3):
    sys.exit(__doc__)
imagemaker.Image(imagemaker.base_layers(3)).docker_archive(sys.argv[1], tags=(sys.argv[2] if len(sys.argv) == 3 else "busybox:latest",))
