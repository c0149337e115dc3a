#!/bin/bash
# Fetches what tests and bench compare with and what is not to be installed, unpacked below .build/peers: newer containerds from Debian's later
# suites (trixie has 1.7, sid has 2.x), and the Docker of this suite, whose package would start an engine.
# apt verifies them as it verifies everything, with lists and sources of its own below .build/peers; the mirror is the one that this host's apt uses.
set -euo pipefail
cd "$(dirname "$0")/.."
peers=$PWD/.build/peers
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
mirror=$(apt-get indextargets --format '$(CODENAME) $(REPO_URI)' 'Created-By: Packages' | awk '$1 !~ /-/ && $2 ~ /\/debian\/$/ {print $2; exit}')
[[ -n $mirror ]] || { echo "peers: apt's sources name no Debian mirror" >&2; exit 1; }
if [[ ! -x $peers/docker/usr/sbin/dockerd ]]; then
    work=$peers/docker.apt
    rm -rf "$work" "$peers/docker.new"
    mkdir -p "$work" "$peers/docker.new"
    (cd "$work" && apt-get -qq -o APT::Sandbox::User=root download docker.io)
    dpkg -x "$work"/docker.io_*.deb "$peers/docker.new"
    rm -rf "$work" "${peers:?}/docker"
    mv "$peers/docker.new" "$peers/docker"
    echo "peers: $("$peers/docker/usr/sbin/dockerd" --version)"
fi
for suite in trixie sid; do
    [[ -x $peers/$suite/usr/bin/containerd ]] && continue
    work=$peers/$suite.apt
    rm -rf "$work" "$peers/$suite.new"
    mkdir -p "$work"/{lists/partial,archives/partial,sources} "$peers/$suite.new"
    printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n' "$mirror" "$suite" "$keyring" >"$work/sources/peer.sources"
    options=(-qq -o Dir::Etc::SourceList=/dev/null -o "Dir::Etc::SourceParts=$work/sources" -o "Dir::State::Lists=$work/lists"
        -o "Dir::Cache=$work" -o "Dir::Cache::Archives=$work/archives" -o Dir::State::Status=/dev/null -o Acquire::Languages=none
        -o APT::Sandbox::User=root)
    apt-get "${options[@]}" update
    (cd "$work" && apt-get "${options[@]}" download containerd)
    dpkg -x "$work"/containerd_*.deb "$peers/$suite.new"
    rm -rf "$work" "${peers:?}/$suite"
    mv "$peers/$suite.new" "$peers/$suite"
    echo "peers: $suite has $("$peers/$suite/usr/bin/containerd" --version)"
done
