#!/bin/bash
# Fetches newer containerds from Debian's later suites for the tests, unpacked below .build/peers and not installed: trixie has 1.7, sid has 2.x.
# apt verifies them as it verifies everything, with lists and sources of its own below .build/peers; the mirror is the one that this host's apt uses.
set -euo pipefail
cd "$(dirname "$0")/.."
peers=$PWD/.build/peers
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
mirror=$(apt-get indextargets --format '$(CODENAME) $(REPO_URI)' 'Created-By: Packages' | awk '$1 !~ /-/ && $2 ~ /\/debian\/$/ {print $2; exit}')
[[ -n $mirror ]] || { echo "containerd-peers: apt's sources name no Debian mirror" >&2; exit 1; }
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
    echo "containerd-peers: $suite has $("$peers/$suite/usr/bin/containerd" --version)"
done
