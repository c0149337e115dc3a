#!/bin/bash
# Builds the programs of the previous release, as that release built them, into .build/previous/bin; nothing when they are there.
set -euo pipefail
cd "$(dirname "$0")/.."
release=0.1.0
commit=84fe771e059eb357384402f9c4df12ebf2944819
place=${BUILD:-.build}/previous
[[ -f $place/stamp && $(<"$place/stamp") == "$commit" ]] && exit 0

fail() { echo "previous release: $*" >&2; exit 1; }
git rev-parse --git-dir >/dev/null 2>&1 || fail "this is no git clone, and release $release is built from commit $commit of its history: clone the repository"
git cat-file -e "$commit^{tree}" 2>/dev/null ||
    fail "commit $commit (release $release) is not in this clone, which is shallow or incomplete: run \`git fetch --unshallow\` (or \`git fetch origin $commit\`)"

echo "previous release: building $release (commit ${commit:0:12}) into $place, once"
rm -rf "$place"
mkdir -p "$place/src"
git archive "$commit" | tar -x -C "$place/src"
# Its own Makefile: static Swift libraries, stripped. A CC in the environment would be the compiler of SwiftPM too.
env -u MAKEFLAGS -u MAKEOVERRIDES -u BUILD -u CC make --no-print-directory -C "$place/src" build SWIFT="${SWIFT:-swift}"
mv "$place/src/bin" "$place/bin"
rm -rf "$place/src"
echo "$commit" >"$place/stamp"
