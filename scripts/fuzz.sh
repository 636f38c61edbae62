#!/bin/bash
# Run every fuzz target for $1 seconds; inputs that break one end up in build-fuzz/found/.
set -eu
cd "$(dirname "$0")/.."
[ -e build-fuzz/build.ninja ] || CC=clang meson setup build-fuzz -Dfuzzers=true \
    -Db_sanitize=address,undefined -Db_lundef=false -Dprograms=false
ninja -C build-fuzz
exec tests/run.py --logs build-fuzz/logs --seconds "${1:-60}" fuzz build-fuzz
