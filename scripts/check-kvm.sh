#!/bin/bash
# The end-to-end tests on the kvm engine, and the villain of a guest, in the box of tests/box: a
# nested machine with a real KVM. Without arguments it is the villain and those tests that see more of
# the engine than others, with one, two and four CPUs; "all" is every test in which a machine does
# something, which takes three quarters of an hour; other arguments choose tests by (part of a) name, or
# say from "e2e" on what tests/run.py shall do. Ends like tests/run.py; 77 when there cannot be a box.
set -euo pipefail
cd "$(dirname "$0")/.."
cache=${MSB_CACHE:-${XDG_CACHE_HOME:-${HOME:?is not set, nor MSB_CACHE}/.cache}/msb}
results=build/test-logs/kvm
# What is the same on both engines (what the agent makes of a command, what is read from archives and
# kept in a store, who is told what) the qemu engine's run has seen: a few of each kind are here. All
# is here of what the engine does itself: memory, CPUs, devices, their ends, the jail around them.
one='Surroundings\.test_(cpus|memory|more_mem|root_disk|the_clock|nothing_of)
    Streams\.test_(16_mib|a_reader|every|output_of|python|the_last) ExitCodes\.test_timeout$ test_run\.Together\.test_(noth|sev)
    Killed\.test_msb Signals\.test_they_reach Terminals\.test_(size|.*machine_dies)
    failures\.Ends Missing\.test_(a_kernel|more) test_without_privileges
    test_machine\. test_memory\. Resize\.test_memory Control\.test_(asked|metrics|modify|pause)
    Degraded\.test_no_(filters|namespaces$) test_walls\.(Doctor|Running) Load\.test_oci_layout_tar
    Exec\.test_(on_a|output|a_reader) Attach\.test_the_keys Run\.test_every_byte Copy\.test_trees
    Net\.test_(policy|rules|published$|datagrams|fetch) Background\.test_(a_named|run_det) Killed\.test_who_is
    Init\.test_any Restricted\.test_what Ssh\.test_a_shell Govern\.test_policy Vsock\.test_the_guest Reach\.test_no
    Guest\.test_both'
# With several CPUs only streams that are short. The box has one CPU, and a CPU of a sandbox that spins
# for another's lock there uses up its turn in full (the emulator takes a microsecond for each PAUSE,
# and does not tell KVM of it): 64 MiB take minutes.
two='Streams\.test_(hello|python|every|output_comes|the_last) test_run\.Together\.test_sev Together\.test_all_sorts
    Killed\.test_msb_vm Signals\.test_they_reach'
four='Streams\.test_(hello|python) Surroundings\.test_(cpus|memory) test_run\.Together\.test_(noth|sev)'

# Registries, the store, kinds of roots and what archives are refused (test_pull*, test_store, test_roots,
# test_patches, the rest of test_image) know nothing of engines.
all='test_run\. test_terminal\. test_failures\. test_machine\. test_control\. test_memory\. test_resize\. test_walls\. test_image\.Load
    Exec\.test_(what|output|on_a|a_reader) test_attach\. Logs\.test_what Net\.test_(policy|rules|published|datagrams|fetch|any)
    test_life\.(Background|Killed) Copy\.test_(trees|interrupted|between) Restricted\. Init\.test_(any|refusals)
    Ssh\.test_(files|a_shell) test_govern\. Vsock\.test_the_guest test_reach\. Proxy\.test_http test_dns\.Guest\.test_(options|both)
    test_clients\. Events\.test_an? Build\.test_steps Life\.test_three'
all_of_several='Streams\.test_hello Streams\.test_python Streams\.test_every Streams\.test_stdout Streams\.test_output
    Streams\.test_the_last Streams\.test_empty Streams\.test_no_trailing test_run\.ExitCodes Together Signals Killed Terminals'

skip() {
    echo "no tests of the kvm engine: $*"
    exit 77
}
[ "$(uname -m)" = x86_64 ] || skip "the box is an x86-64, this is $(uname -m)"
[ "$(id -u)" = 0 ] || skip "the box shares / with its machine, which takes root; try sudo make check-kvm"

rm -rf "$results"
mkdir -p "$results" "$cache/test-images"
# What needs the network, which the box has not, and what takes longer there: images loaded, Python compiled.
ready=$results/ready
trap 'rm -rf "$ready"' EXIT
python3 - "$ready" <<'PYTHON'
import shutil
import sys
sys.path.insert(0, "tests/e2e")
import harness
import test_clients
test_clients.clients_image()
with harness.prepared() as env:
    shutil.copytree(env["MSB_TEST_TOP"], sys.argv[1])
PYTHON
python3 -m compileall -q tests/e2e
limit=2400
# In pieces, so that what a stall costs is never all of it.
villain=
for part in 1 2 3 4; do
    villain+=" -- cmd villain-$part build/tests/test_villain $part/4"
done
if [ $# = 0 ]; then
    set -- $villain -- e2e $one -- e2e MSB_CPUS=2 $two -- e2e MSB_CPUS=4 $four
elif [ "$*" = all ]; then
    limit=7200
    set -- $villain -- e2e $all -- e2e MSB_CPUS=2 $all_of_several \
        -- e2e MSB_CPUS=4 $all_of_several test_run\\.Surroundings
elif [ "$1" != e2e ]; then
    set -- e2e "$@"
fi
in_box() {
    tests/box/box -m 8000 -t $((limit - SECONDS)) -r "$results" -- sh -c '
        mkdir -p /mnt/scratch/cache/test-images
        ln -s "$1"/test-images/*.tar /mnt/scratch/cache/test-images/
        export MSB_CACHE=/mnt/scratch/cache MSB_ENGINE=kvm MSB_TEST_READY="$PWD/$2"
        shift 2
        exec python3 tests/run.py --logs /mnt/results --after "$@"
    ' box "$cache" "$ready" "$results/told" "$@"
}
# What a box that stalls (tests/box/box says why) has not told, another one runs, while there is time
# for one to boot and do something. A test that fails gets no second chance.
: >"$results/told"
why="three boxes stalled"
for attempt in first second third; do
    if [ $((limit - SECONDS)) -lt 120 ]; then
        why="the time was over ($limit s)"
        break
    fi
    status=0
    in_box "$@" | tee "$results/out" || status=$?
    case $status in
    123) echo "         the $attempt box stalled" ;;
    124) ;;
    *) exit $status ;;
    esac
    cat "$results/out" >>"$results/told"
done
# On a machine too slow for all of them those that were run count; with none of them nothing was tested.
code=77
grep -q '^ok ' "$results/told" || code=1
tests/run.py --logs "$results" --after "$results/told" \
    cmd rest sh -c "echo 'not all tests were run: $why'; exit $code"
