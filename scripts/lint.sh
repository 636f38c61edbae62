#!/bin/bash
# Formatting and static analysis of the C sources. Of clang-tidy's checks those are asked that find
# faults here and not habits; the analyser of clang 14 does not know the cleanup attribute and
# reports every scope-bound pointer as a leak, so it is not.
set -eu
cd "$(dirname "$0")/.."
status=0
mapfile -t sources < <(find src guest tests -name '*.[ch]' | sort)
log=$(mktemp)
trap 'rm -f "$log"' EXIT

if ! clang-format --dry-run --Werror "${sources[@]}" 2>"$log"; then
    sed -n 's/^\([^:]*\):[0-9]*:[0-9]*: error.*/\1/p' "$log" | sort | uniq -c
    echo "lint: not formatted as .clang-format says; run make format"
    status=1
fi

checks='-*,bugprone-*
,-bugprone-assignment-in-if-condition,-bugprone-branch-clone,-bugprone-easily-swappable-parameters
,-bugprone-implicit-widening-of-multiplication-result,-bugprone-macro-parentheses
,-bugprone-misplaced-widening-cast,-bugprone-narrowing-conversions
,-bugprone-not-null-terminated-result,-bugprone-reserved-identifier,-bugprone-sizeof-expression
,-bugprone-suspicious-string-compare'
# A source that was clean, with the headers that it had then, is clean.
known=${MSB_CACHE:-${XDG_CACHE_HOME:-${HOME:?is not set, nor MSB_CACHE}/.cache}/msb}/lint
stamps() {
    python3 - "$checks" <<'PYTHON'
import functools, glob, hashlib, os, re, sys

@functools.lru_cache(None)
def headers(path):
    """The file and all of ours that it includes, however deep."""
    found = {path}
    for name in re.findall(rb'^#include "(.*)"', open(path, "rb").read(), re.M):
        for folder in (os.path.dirname(path), "src"):
            header = os.path.normpath(os.path.join(folder, name.decode()))
            if header not in found and os.path.exists(header):
                found |= headers(header)
    return found

for path in sorted(glob.glob("src/**/*.c", recursive=True)):
    text = b"".join(open(h, "rb").read() for h in sorted(headers(path)))
    print(hashlib.sha256(sys.argv[1].encode() + path.encode() + text).hexdigest(), path)
PYTHON
}
if [ -e build-asan/compile_commands.json ]; then
    mkdir -p "$known"
    stamps | while read -r stamp path; do
        [ -e "$known/$stamp" ] || echo "$stamp $path"
    done >"$log.new"
    cut -d' ' -f2 "$log.new" | xargs -r -P "$(nproc)" -n 8 \
        clang-tidy -p build-asan --quiet --checks="${checks//$'\n'/}" >"$log" 2>/dev/null || true
    if grep -E '(warning|error): ' "$log"; then
        status=1
    else
        (cd "$known" && cut -d' ' -f1 "$log.new" | xargs -r touch)
    fi
    rm -f "$log.new"
fi
exit $status
