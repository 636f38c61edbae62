#!/bin/bash
# The end-to-end tests on the kvm engine, and the villain of a guest, in the box of tests/box: a
# nested machine with a real KVM. Without arguments it is the villain and those tests in which a machine
# does something; "cpus" is those again with two and four CPUs; other arguments choose tests by (part
# of a) name, or say from "e2e" on what tests/run.py shall do. Ends like tests/run.py; 77 when there
# cannot be a box.
set -eu
cd "$(dirname "$0")/.."
cache=${MSB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/msb}
results=build/test-logs/kvm
# Registries, the store and kinds of roots (test_pull*, test_store, test_roots, test_patches) know
# nothing of engines.
one='test_run. test_terminal test_failures test_machine test_memory test_walls test_image'
# With several CPUs: all that runs in a machine, but only streams that are short. The box has one CPU,
# and a CPU of a sandbox that spins for another's lock there uses up its turn in full (the emulator
# takes a microsecond for each PAUSE, and does not tell KVM of it): 64 MiB take minutes.
short='Streams.test_hello Streams.test_python Streams.test_every Streams.test_stdout Streams.test_output
    Streams.test_the_last Streams.test_empty Streams.test_no_trailing'
four="$short ExitCodes Together Signals test_run.Surroundings"
two="$four Killed Terminals"

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
    set -- cmd villain build/tests/test_villain -- e2e $one
elif [ "$1" = cpus ]; then
    set -- e2e MSB_CPUS=2 $two -- e2e MSB_CPUS=4 $four
elif [ "$1" != e2e ]; then
    set -- e2e "$@"
fi
in_box() {
    tests/box/box -m 8000 -t 2000 --stall 600 -r "$results" -- sh -c '
        mkdir -p /mnt/scratch/cache/test-images
        cp "$1"/test-images/* /mnt/scratch/cache/test-images/
        shift
        MSB_CACHE=/mnt/scratch/cache MSB_ENGINE=kvm exec python3 tests/run.py --logs /mnt/results "$@"
    ' box "$cache" "$@"
}
# A box that stalls (tests/box/box says why) gets one more chance. A test that fails gets none.
for attempt in first second; do
    status=0
    in_box "$@" >"$results/out" || status=$?
    [ $status = 124 ] || break
    echo "the $attempt box stalled after:" >&2
    tail -n 3 "$results/out" >&2
done
[ $status != 124 ] || skip "the box stalled twice"
cat "$results/out"
exit $status
