#!/bin/bash
# The end-to-end tests on the kvm engine, and the villain of a guest, in the box of tests/box: a
# nested machine with a real KVM. Arguments choose end-to-end tests by (part of a) name; without any
# it is all of them with the product's one CPU, with two and four those in which a machine does
# something, and the villain. Ends like tests/run.py; 77 when there cannot be a box.
set -eu
cd "$(dirname "$0")/.."
cache=${MSB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/msb}
results=build/test-logs/kvm
# Machines with several CPUs: streams and signals are all interrupts and wake-ups among them, and
# the rest begins or ends machines in every way there is. Images are the same whoever runs them.
machines='Streams ExitCodes Together Terminals Signals Killed'

skip() {
    echo "no tests of the kvm engine: $*"
    exit 77
}
[ "$(uname -m)" = x86_64 ] || skip "the box is an x86-64, this is $(uname -m)"
[ "$(id -u)" = 0 ] || skip "the box shares / with its machine, which takes root; try sudo make check-kvm"

rm -rf "$results"
mkdir -p "$results" "$cache/test-images"
# What needs the network, which the box has not.
python3 - <<'PYTHON'
import sys
sys.path.insert(0, "tests/e2e")
import harness
harness.python_image()
PYTHON
if [ $# = 0 ]; then
    set -- e2e -- e2e MSB_CPUS=2 $machines -- e2e MSB_CPUS=4 $machines
else
    set -- e2e "$@"
fi
tests/box/box -m 8000 -t 2700 -r "$results" -- sh -c '
    mkdir -p /mnt/scratch/cache/test-images
    cp "$1"/test-images/* /mnt/scratch/cache/test-images/
    shift
    MSB_CACHE=/mnt/scratch/cache MSB_ENGINE=kvm exec python3 tests/run.py --logs /mnt/results "$@"
' box "$cache" "$@"
