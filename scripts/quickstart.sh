#!/bin/sh
# From a fresh Debian 12 to a program running in a virtual machine: what `make quickstart` does.
set -eu
cd "$(dirname "$0")/.."
image=debian-python

step() { printf '\n==> %s\n' "$*" >&2; }

step "Packages"
scripts/deps.sh build run
step "Programs"
make --no-print-directory programs
step "Guest kernel (some minutes the first time, then cached)"
make --no-print-directory kernel
step "Image $image: Debian 12 with Python, from Debian's own packages"
if build/msb image inspect "$image" >/dev/null 2>&1; then
    echo "already there" >&2
else
    build/msb image bootstrap debian:bookworm --include python3-minimal -t "$image"
fi
set -- build/msb run "$image" -- python3 -c \
    'import platform; print("hello from a microVM: Linux", platform.release(), "Python", platform.python_version())'
step "$(printf '%s ' "$@" | sed "s/-c \(.*\) $/-c '\1'/")"
"$@"
