#!/bin/sh
# Build the guest kernel once per input and share the result.
#
#   kernel/build.sh        print the path of the cached vmlinux, building it if needed
#   kernel/build.sh OUT    the same, and place it at OUT
#
# Inputs: Debian's linux-source-6.12, kernel/config, kernel/patches/*.patch. The result is
# $MSB_CACHE/kernel/KEY/vmlinux (MSB_CACHE defaults to ${XDG_CACHE_HOME:-~/.cache}/msb), where KEY is a
# hash of the inputs. Beside it lie the full configuration (config) and the symbols (System.map).
# MSB_LINUX_TARBALL=FILE builds from another tarball. Progress goes to stderr.
set -eu
export LC_ALL=C

abi=1 # raise it when this script changes what it builds

package=linux-source-6.12
tarball=${MSB_LINUX_TARBALL:-/usr/src/$package.tar.xz}
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
root=${MSB_CACHE:-${XDG_CACHE_HOME:-${HOME:?is not set, nor MSB_CACHE}/.cache}/msb}/kernel
out=${1:-}

say() { printf 'kernel: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# Name every missing package in one line.
require() {
	missing=
	[ -r "$tarball" ] || missing="$missing $package"
	for t in flex bison bc gcc make; do
		command -v "$t" >/dev/null || missing="$missing $t"
	done
	command -v xz >/dev/null || missing="$missing xz-utils"
	command -v patch >/dev/null || missing="$missing patch"
	[ -e /usr/include/gelf.h ] || missing="$missing libelf-dev"
	[ -z "$missing" ] || die "missing; run: apt-get install$missing"
}

# Hash every input; a packaged tarball is named by its version, which is quicker than hashing it.
key() {
	if [ -n "${MSB_LINUX_TARBALL:-}" ]; then
		source=$(sha256sum <"$tarball")
	else
		source=$(dpkg-query -W -f '${Package} ${Version}' "$package" 2>/dev/null) || require
	fi
	{
		echo "abi $abi" "$source"
		for f in "$here/config" "$here"/patches/*.patch; do
			[ -e "$f" ] && cat "$f"
		done
	} | sha256sum | cut -d' ' -f1
}

# check_config FRAGMENT DOTCONFIG: every line of the fragment must hold in the result.
check_config() {
	awk '
		/^CONFIG_/ {
			i = index($0, "="); name = substr($0, 1, i - 1); value = substr($0, i + 1)
			if (NR == FNR) { got[name] = value; next }
			have = name in got ? got[name] : "n"
			if (have != value) { print "kernel: " name ": wanted " value ", got " have; bad = 1 }
		}
		END { exit bad }' "$2" "$1" >&2 || die "kernel/config did not take effect"
}

# build DIR: unpack, patch, configure and compile under DIR; leave the products in DIR/new.
build() {
	src=$1/src obj=$1/obj new=$1/new
	mkdir -p "$src" "$obj" "$new"
	say "unpacking $tarball"
	# The largest drivers are not compiled; only their Kconfig files are read.
	tar -xf "$tarball" -C "$src" --strip-components=1 --exclude='*/drivers/gpu/*.[ch]' --exclude='*/sound/*.[ch]'
	for p in "$here"/patches/*.patch; do
		[ -e "$p" ] || continue
		say "applying ${p##*/}"
		patch -d "$src" -p1 -s --no-backup-if-mismatch <"$p" >&2
	done
	export ARCH=x86_64 KBUILD_BUILD_TIMESTAMP='1970-01-01 00:00:00 UTC' KBUILD_BUILD_USER=msb KBUILD_BUILD_HOST=msb
	unset MAKEFLAGS MAKELEVEL MFLAGS
	make -s -C "$src" O="$obj" KCONFIG_ALLCONFIG="$here/config" allnoconfig >&2
	check_config "$here/config" "$obj/.config"
	say "compiling (some minutes)"
	make -s -C "$obj" -j"$(nproc)" vmlinux >&2
	# No symbol table: loaders such as QEMU's read and sort it at every start. The PVH note stays.
	strip --strip-all -o "$new/vmlinux" "$obj/vmlinux"
	readelf -n "$new/vmlinux" 2>/dev/null | grep -q 0x00000012 || die "vmlinux has no PVH entry note"
	chmod 0444 "$new/vmlinux"
	cp "$obj/.config" "$new/config"
	cp "$obj/System.map" "$new/System.map"
}

k=$(key)
result=$root/$k
if [ ! -e "$result/vmlinux" ]; then
	require
	mkdir -p "$root"
	exec 9>"$root/$k.lock"
	flock -n 9 || { say "waiting for another build of the same kernel"; flock 9; }
	if [ ! -e "$result/vmlinux" ]; then
		work=$root/$k.build
		trap 'rm -rf "$work"' EXIT
		trap 'exit 1' HUP INT TERM
		rm -rf "$work" "$result"
		build "$work"
		mv "$work/new" "$result"
	fi
	exec 9>&-
fi

if [ -n "$out" ] && ! [ "$result/vmlinux" -ef "$out" ]; then
	tmp=$out.$$
	ln -f "$result/vmlinux" "$tmp" 2>/dev/null || cp "$result/vmlinux" "$tmp"
	mv -f "$tmp" "$out"
fi
echo "$result/vmlinux"
