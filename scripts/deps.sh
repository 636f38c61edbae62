#!/bin/sh
# Install the Debian packages that the named groups need: scripts/deps.sh GROUP...
#
#   build   compile the programs, the guest agent and the guest kernel
#   run     boot sandboxes and make images from the distribution's packages
#   test    unit tests with both compilers, fuzzing, end-to-end tests
#   box     the nested machine with a KVM of its own, tests/box (it fetches its kernel itself)
#   bench   what the benchmarks compare with
#
# As root it installs what is missing; otherwise it prints the one line to run and fails.
set -eu

build='gcc libc6-dev make meson ninja-build pkg-config musl-tools linux-libc-dev
    libjansson-dev libyaml-dev libssl-dev libssh-dev libisal-dev libzstd-dev zlib1g-dev libsqlite3-dev libcurl4-openssl-dev
    libcmocka-dev linux-source-6.12 flex bison bc libelf-dev xz-utils patch binutils'
run='qemu-system-x86 e2fsprogs mmdebstrap uidmap ca-certificates'
test='clang libclang-rt-14-dev clang-format clang-tidy python3 erofs-utils busybox-static skopeo umoci
    mount groff-base zsh fish docker-registry openssl apache2-utils qemu-utils fdisk iproute2 tshark
    openssh-client git microsocks tinyproxy-bin dante-server ndisc6 isc-dhcp-client unbound bind9-dnsutils'
box='qemu-system-x86 qemu-system-common zstd xz-utils e2fsprogs busybox-static python3 perl-base'
bench='openssh-server python3 e2fsprogs binutils erofs-utils umoci skopeo docker-registry iproute2 passt slirp4netns'

want=
for group in "$@"; do
    case $group in
    build) want="$want $build" ;;
    run) want="$want $run" ;;
    test) want="$want $test" ;;
    box) want="$want $box" ;;
    bench) want="$want $bench" ;;
    *) echo "deps: unknown group \"$group\"; groups: build run test box bench" >&2; exit 2 ;;
    esac
done

missing=
for package in $want; do
    case $(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null || true) in
    ?i*) ;;
    *) case " $missing " in *" $package "*) ;; *) missing="$missing $package" ;; esac ;;
    esac
done
[ -n "$missing" ] || exit 0

install="apt-get install -y --no-install-recommends$missing"
if [ "$(id -u)" != 0 ]; then
    echo "deps: packages are missing; run this once, then try again:" >&2
    echo "    sudo $install" >&2
    exit 1
fi
echo "deps: installing$missing" >&2
export DEBIAN_FRONTEND=noninteractive
# Another apt may be at work on the machine: wait for it. A mirror may fail once.
apt='apt-get -o DPkg::Lock::Timeout=1800 -o Acquire::Retries=5 -o Dpkg::Use-Pty=0 -qq'
try() { $apt install -y --no-install-recommends $missing </dev/null >&2; }
# Lists that are absent or too old make the first attempt fail.
if ! { ls /var/lib/apt/lists/*Packages* >/dev/null 2>&1 && try; }; then
    # For the lists there is no such option.
    for wait in 10 30 60 120 240 0; do
        $apt update </dev/null >&2 && break
        [ $wait != 0 ] || exit 1
        echo "deps: once more in $wait s" >&2
        sleep $wait
    done
    try
fi
