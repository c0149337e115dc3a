#!/bin/sh
# Regenerates the committed protobuf code from proto/: Swift for the manager and the clients, C for the shim.
# Wants protoc and protoc-c from Debian and protoc-gen-swift of the pinned swift-protobuf, whose path is the argument.
set -eu
cd "$(dirname "$0")/.."
plugin=$1
swift_out=Sources/CtrProto
c_out=Sources/CShimProto/include
find "$swift_out" -name '*.pb.swift' -delete
find "$c_out" -name '*.pb-c.h' -delete
find Sources/CShimProto -name '*.pb-c.c' -delete

# shellcheck disable=SC2046
protoc -Iproto --plugin=protoc-gen-swift="$plugin" --swift_out="$swift_out" \
    --swift_opt=Visibility=Public --swift_opt=FileNaming=PathToUnderscores $(cd proto && find . -name '*.proto' | sed 's|^\./||' | sort)

protoc-c -Iproto -I/usr/include --c_out="$c_out" \
    containerd/types/mount.proto containerd/types/task.proto containerd/task/v2/shim.proto containerd/runc/v1/options.proto \
    containerd/types/event.proto containerd/types/introspection.proto containerd/events/task.proto \
    containerd/services/events/ttrpc/v1/events.proto containerd/runtime/bootstrap/v1/bootstrap.proto containerd/runtimeoptions/v1/api.proto \
    containerd/cgroups/v1/metrics.proto containerd/cgroups/v2/metrics.proto \
    ctr/shim/v1/guard.proto google/protobuf/any.proto google/protobuf/empty.proto google/protobuf/timestamp.proto
find "$c_out" -name '*.pb-c.c' | while read -r file; do
    mv "$file" "Sources/CShimProto/$(printf '%s' "${file#"$c_out"/}" | tr / _)"
done
