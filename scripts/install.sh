#!/bin/bash
# What `make install` does: everything below $DESTDIR$PREFIX, and a list of it there, by which
# `msb self uninstall` finds it again.
set -euo pipefail
cd "$(dirname "$0")/.."
build=${BUILD:-build}
top=${DESTDIR:-}${PREFIX:-/usr/local}
lib=lib/microsandbox
list=$(mktemp)
trap 'rm -f "$list"' EXIT

# put MODE SOURCE PLACE [-s]: "-" is standard input.
put() {
    install -D -m "$1" ${4:+"$4"} "${2/#-//dev/stdin}" "$top/$3"
    echo "$3" >>"$list"
}

put 0755 $build/msb bin/msb -s
for program in msb-vm msb-fetch msb-convert msb-ssh msb-dot; do
    put 0755 $build/$program $lib/$program -s
done
# msr is `msb run --sandbox`, msx `msb exe`, msi `msb install`.
for name in msr msx msi; do
    ln -sf msb "$top/bin/$name"
    echo bin/$name >>"$list"
done
put 0755 $build/guest/agentd $lib/guest/agentd
put 0644 $build/vmlinux $lib/vmlinux
$build/msb schema | put 0644 - share/microsandbox/sandbox.schema.json
$build/msb schema sandboxfile | put 0644 - share/microsandbox/sandboxfile.schema.json
put 0644 CHANGELOG.md share/doc/microsandbox/CHANGELOG.md
$build/msb completion bash | put 0644 - share/bash-completion/completions/msb
$build/msb completion zsh | put 0644 - share/zsh/site-functions/_msb
$build/msb completion fish | put 0644 - share/fish/vendor_completions.d/msb.fish
for page in $($build/msb __man); do
    $build/msb __man "$page" | put 0644 - "share/man/man${page##*.}/$page"
done
echo $lib/installed >>"$list"
put 0644 "$list" $lib/installed
