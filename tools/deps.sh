#!/bin/bash
# Installs Debian packages that are missing. Asks dpkg first, so that it is quick and needs no network when all is there.
set -euo pipefail
case "${1:-build}" in
build) want=(gcc libc6-dev make pkg-config binutils libseccomp-dev libcap-dev libprotobuf-c-dev libsqlite3-dev zlib1g-dev libssl-dev
    busybox-static strace procps python3 python3-pytest runc crun skopeo containerd) ;;
peers) want=(containerd runc crun podman skopeo umoci) ;;
vm) want=(qemu-system-x86 cpio e2fsprogs python3) ;;
proto) want=(protobuf-compiler protobuf-c-compiler libprotobuf-dev) ;;
*) echo "deps: unknown set '$1' (build, peers, proto, vm)" >&2; exit 2 ;;
esac
missing=()
for package in "${want[@]}"; do
    [[ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" == installed ]] || missing+=("$package")
done
if ((${#missing[@]})); then
    [[ $(id -u) == 0 ]] || { echo "deps: not root, and these packages are missing: ${missing[*]}" >&2; exit 1; }
    echo "deps: installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get install -y --no-install-recommends "${missing[@]}" >/dev/null 2>&1 ||
        { apt-get update && apt-get install -y --no-install-recommends "${missing[@]}"; }
fi
if [[ "${1:-build}" == build ]] && ! command -v "${SWIFT:-swift}" >/dev/null; then
    echo "deps: no Swift toolchain on PATH (6.1 or later, see swift.org/install)" >&2
    exit 1
fi
