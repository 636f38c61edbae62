#!/bin/bash
# The end-to-end tests on the kvm engine, and the villain of a guest, in the box of tests/box: a
# nested machine with a real KVM. Without arguments it is the villain and those tests in which a machine
# does something, with one, two and four CPUs; arguments choose tests by (part of a) name, or say from
# "e2e" on what tests/run.py shall do. Ends like tests/run.py; 77 when there cannot be a box.
set -euo pipefail
cd "$(dirname "$0")/.."
cache=${MSB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/msb}
results=build/test-logs/kvm
# Registries, the store, kinds of roots and what archives are refused (test_pull*, test_store, test_roots,
# test_patches, the rest of test_image) know nothing of engines.
# What has many tests beside each other is here with some of each kind.
one='test_run\. test_terminal\. test_failures\. test_machine\. test_control\. test_memory\. test_resize\. test_walls\. test_image\.Load
    Exec\.test_(what|output|on_a|a_reader) test_attach\. Logs\.test_what Net\.test_(policy|rules|published|datagrams|fetch|any)
    test_life\.(Background|Killed) Copy\.test_(trees|interrupted|between) Restricted\. Init\.test_(any|refusals)
    Ssh\.test_(files|a_shell) test_govern\. Vsock\.test_the_guest test_reach\. Proxy\.test_http test_dns\.Guest\.test_(options|both)
    test_clients\. Events\.test_an? Build\.test_steps Life\.test_three'
# With several CPUs: all that runs in a machine, but only streams that are short. The box has one CPU,
# and a CPU of a sandbox that spins for another's lock there uses up its turn in full (the emulator
# takes a microsecond for each PAUSE, and does not tell KVM of it): 64 MiB take minutes. What a command
# finds around it is looked at with four, terminals and murder with two.
several='Streams\.test_hello Streams\.test_python Streams\.test_every Streams\.test_stdout Streams\.test_output
    Streams\.test_the_last Streams\.test_empty Streams\.test_no_trailing test_run\.ExitCodes Together Signals'
two="$several Killed Terminals"
four="$several test_run\.Surroundings"

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
import test_clients
harness.python_image()
test_clients.clients_image()
PYTHON
if [ $# = 0 ]; then
    set -- cmd villain build/tests/test_villain -- e2e $one -- e2e MSB_CPUS=2 $two -- e2e MSB_CPUS=4 $four
elif [ "$1" != e2e ]; then
    set -- e2e "$@"
fi
in_box() {
    tests/box/box -m 8000 -t $((3000 - SECONDS)) -r "$results" -- sh -c '
        mkdir -p /mnt/scratch/cache/test-images
        cp "$1"/test-images/* /mnt/scratch/cache/test-images/
        shift
        MSB_CACHE=/mnt/scratch/cache MSB_ENGINE=kvm exec python3 tests/run.py --logs /mnt/results --after "$@"
    ' box "$cache" "$results/told" "$@"
}
# What a box that stalls (tests/box/box says why) has not told, another one runs. A test that fails
# gets no second chance.
: >"$results/told"
for attempt in first second third; do
    status=0
    in_box "$@" | tee "$results/out" || status=$?
    [ $status = 123 ] || exit $status
    echo "         the $attempt box stalled"
    cat "$results/out" >>"$results/told"
done
exec tests/run.py --logs "$results" --after "$results/told" cmd rest sh -c 'echo "three boxes stalled"; exit 77'
