#!/bin/bash
# What `make check` does. Ends with "N passed, N failed, N skipped"; 1 if anything failed.
set -eu
cd "$(dirname "$0")/.."

logs=build/test-logs
step() { printf '==> %s (%ds)\n' "$*" "$SECONDS"; }

# What is made once is kept in the user's cache; where there is none to write to, in the build directory.
export HOME=${HOME:-$(getent passwd "$(id -u)" | cut -d: -f6)}
cache=${MSB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/msb}
if ! mkdir -p "$cache" 2>/dev/null || ! [ -w "$cache" ]; then
    export MSB_CACHE=$PWD/build/cache CCACHE_DIR=$PWD/build/cache/ccache
    mkdir -p "$MSB_CACHE"
fi

step "packages"
scripts/deps.sh build run test box
mkdir -p "$logs"

step "guest kernel (in the background)"
make --no-print-directory kernel >"$logs/kernel.log" 2>&1 &
kernel=$!
trap 'kill $kernel 2>/dev/null || true' EXIT

# configure DIR OPTION...: set up a build directory or change the options of one.
configure() {
    local dir=$1 setup=
    shift
    [ -e "$dir/build.ninja" ] && setup=configure
    meson ${setup:-setup} "$dir" "$@" >"$logs/${dir##*/}.setup.log" 2>&1 || {
        tail -5 "$logs/${dir##*/}.setup.log"
        echo "0 passed, 1 failed, 0 skipped"
        exit 1
    }
}

build() {
    step "build $1"
    ninja -C "$1" >"$logs/${1##*/}.build.log" 2>&1 || {
        grep -E 'error:|FAILED|undefined' "$logs/${1##*/}.build.log" | head -40
        return 1
    }
}

failed=0
configure build -Dwerror=true
build build || failed=$((failed + 1))
# clang's own warnings, and both sanitizers of memory and behaviour.
CC=clang configure build-asan -Dwerror=true -Db_sanitize=address,undefined -Db_lundef=false
build build-asan || failed=$((failed + 1))
configure build-tsan -Db_sanitize=thread -Db_lundef=false -Dprograms=false
build build-tsan || failed=$((failed + 1))
CC=clang configure build-fuzz -Dfuzzers=true -Db_sanitize=address,undefined -Db_lundef=false -Dprograms=false
build build-fuzz || failed=$((failed + 1))
if [ $failed != 0 ]; then
    echo "0 passed, $failed failed, 0 skipped"
    exit 1
fi

step "guest kernel"
wait $kernel || { tail -20 "$logs/kernel.log"; echo "0 passed, 1 failed, 0 skipped"; exit 1; }
cp -f --remove-destination build/vmlinux build-asan/vmlinux

step "tests"
exec tests/run.py --logs "$logs" run kvm scripts/check-kvm.sh -- \
    cmd layers scripts/check-layers -- cmd lint scripts/lint.sh -- cmd programs tests/programs.sh -- \
    cmd images python3 tests/image/oracle.py build/tests/imgtool -- \
    cmd disks python3 tests/virtio/disks.py build-asan/tests/disktool -- \
    unit build build-asan build-tsan -- fuzz build-fuzz -- e2e
