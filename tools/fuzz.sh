#!/bin/sh
# Builds each fuzz target of Tests/Fuzz with the address sanitizer and libFuzzer and runs it for SECONDS (first argument, default 20).
# A target is one file; its second argument below names the sources of the module under test.
set -eu
cd "$(dirname "$0")/.."
seconds=${1:-20}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

run() {
    target=$1
    shift
    mkdir -p "$work/$target"
    # One module of all files: imports among our own modules are of no meaning then.
    for file in "Tests/Fuzz/$target.swift" "$@"; do
        sed -E '/^import (Linux|OCI|TTRPC|Records|Logs|Content|Images)$/d' "$file" >"$work/$target/$(basename "$file")"
    done
    # The gold linker warns of each helper of the sanitizer that it keeps local.
    swiftc -O -swift-version 6 -parse-as-library -module-name Fuzz -sanitize=fuzzer,address \
        -I Sources/CLinux/include -I Sources/CCrypto -Xcc "-fmodule-map-file=$PWD/tools/fuzz.modulemap" \
        "$work/$target"/*.swift "$work/linux.o" "$work/spawn.o" -o "$work/$target/run" 2>&1 | sed '/Cannot export local symbol/d'
    mkdir "$work/$target/corpus"
    if ASAN_OPTIONS=detect_leaks=0 SWIFT_BACKTRACE=enable=no "$work/$target/run" -max_total_time="$seconds" -max_len=65536 \
        -rss_limit_mb=1024 -print_final_stats=1 -verbosity=0 -artifact_prefix="$work/$target/" "$work/$target/corpus" >"$work/$target/log" 2>&1; then
        echo "fuzz $target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$work/$target/log") inputs in $seconds s, nothing found"
        return
    fi
    tail -n 40 "$work/$target/log" >&2
    # libFuzzer leaves an artifact exactly when it found something.
    for found in "$work/$target"/crash-* "$work/$target"/oom-* "$work/$target"/timeout-*; do
        [ -e "$found" ] || continue
        cp "$found" "/tmp/ctrd-fuzz-$target-$(basename "$found")"
        echo "fuzz $target: found $(basename "$found"), kept as /tmp/ctrd-fuzz-$target-$(basename "$found")" >&2
    done
    exit 1
}

cc -O1 -g -c Sources/CLinux/linux.c -ISources/CLinux/include -o "$work/linux.o"
cc -O1 -g -c Sources/CLinux/spawn.c -ISources/CLinux/include -o "$work/spawn.o"
run JSONFuzz Sources/OCI/JSON*.swift
run FrameFuzz Sources/TTRPC/*.swift
run TarFuzz Sources/Content/Tar*.swift Sources/Content/ByteSource.swift Sources/Content/ContentError.swift Sources/Content/SHA256.swift Sources/OCI/Digest.swift \
    Sources/Linux/SysError.swift
run DocumentFuzz Sources/OCI/*.swift
