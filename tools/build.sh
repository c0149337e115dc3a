#!/bin/bash
# Runs a build and passes its output on, without the linker's known remarks about static programs: each use of dlopen or of the name service
# is named with its place, and the mktemp of Foundation. None of them is reached (names are read from the container's own files).
# Everything else, and the status, is kept.
set -euo pipefail
"$@" 2>&1 | awk '
    /warning: Using .(dlopen|getpwnam|getpwnam_r|getpwuid|getpwuid_r|getgrnam|getgrnam_r|getgrgid|getgrgid_r|getaddrinfo|gethostbyname|gethostbyname_r|getservbyname|getservbyname_r|getservbyport|getservbyport_r). in statically linked applications requires at runtime the shared libraries from the glibc version used for linking/ { next }
    /libFoundationEssentials\.a\(.*warning: the use of `mktemp. is dangerous, better use `mkstemp. or `mkdtemp.$/ { next }
    { print; fflush() }'
