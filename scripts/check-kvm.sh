#!/bin/bash
# The end-to-end tests on the kvm engine, and the villain of a guest, in the box of tests/box: a
# nested machine with a real KVM. Arguments choose end-to-end tests by (part of a) name, and then the
# villain stays out. Everything there is emulated twice, so this is slow.
set -eu
cd "$(dirname "$0")/.."
cache=${MSB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/msb}
results=build/test-logs/kvm
mkdir -p "$results" "$cache/test-images"
# Making the Debian image needs the network, which the box has not.
python3 - <<'PYTHON'
import sys, tempfile
sys.path.insert(0, "tests/e2e")
import harness
harness.python_image(tempfile.mkdtemp())
PYTHON
# One CPU: with several, the software CPU now and then trips over code that the kernel patches.
tests/box/box -c 1 -m 8000 -t 3000 -r "$results" -- sh -c '
    mkdir -p /mnt/scratch/cache/test-images
    cp "$1"/test-images/* /mnt/scratch/cache/test-images/
    shift
    villain=
    [ $# != 0 ] || villain="cmd villain build/tests/test_villain --"
    MSB_CACHE=/mnt/scratch/cache MSB_ENGINE=kvm exec python3 tests/run.py --logs /mnt/results/logs $villain e2e "$@"
' box "$cache" "$@"
