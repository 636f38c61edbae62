#!/bin/bash
# What the programs are made of: libraries, hardening, size. $1: the build directory.
set -eu
cd "${1:-build}"
status=0
bad() { echo "programs: $*"; status=1; }
needed() { readelf -dW "$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p'; }

for lib in $(needed msb-vm); do
    case $lib in
    libc.so.6 | ld-linux-* | libjansson.so.4 | libz.so.1 | libzstd.so.1) ;;
    *) bad "msb-vm links $lib; besides libc it may link jansson (for QMP), zlib and zstd (for qcow2)" ;;
    esac
done
# TLS and HTTP of strangers stay out of the program that holds the store.
for lib in $(needed msb); do
    case $lib in
    libcurl* | libssl* | libgnutls* | libnghttp2* | libssh*) bad "msb links $lib; msb-fetch and msb-ssh are for that" ;;
    esac
done
[ -z "$(needed guest/agentd)" ] || bad "agentd is not static"
size=$(stat -c %s guest/agentd)
[ "$size" -le 204800 ] || bad "agentd has $size bytes; the limit is 204800"
for program in msb msb-vm msb-fetch msb-convert msb-ssh msb-dot; do
    readelf -hW $program | grep -q 'Type:.*DYN' || bad "$program is not position independent"
    readelf -lW $program | grep -q GNU_RELRO || bad "$program has no RELRO"
    readelf -dW $program | grep -q 'BIND_NOW\|Flags:.*NOW' || bad "$program binds lazily"
    readelf -lW $program | grep 'GNU_STACK' | grep -q 'RWE' && bad "$program has an executable stack"
done
exit $status
