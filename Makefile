# The fixed entry points; meson and ninja do the building.
#
#   make               build/msb, build/msb-vm, build/guest/agentd, build/vmlinux
#   make quickstart    install what is missing, build, make an image, run Python in a virtual machine
#   make check         everything that CI checks
#   make check-kvm     all tests on the kvm engine, in a nested machine with one, two and four CPUs (an hour)
#   make bench         the figures of docs/benchmarks.md on this machine
#   make fuzz          every fuzz target for FUZZ_SECONDS
#   make install       PREFIX=/usr/local DESTDIR=

PREFIX ?= /usr/local
DESTDIR ?=
FUZZ_SECONDS ?= 60
MESON_ARGS ?=

.DEFAULT_GOAL := all
.PHONY: all programs kernel check check-kvm quickstart bench fuzz install format lint clean

all: programs kernel

build/build.ninja:
	meson setup build $(MESON_ARGS)

programs: build/build.ninja
	ninja -C build

# Cached outside the tree by the hash of its inputs; building it takes some minutes, once.
kernel:
	@mkdir -p build
	@kernel/build.sh build/vmlinux >/dev/null

check:
	scripts/check.sh

check-kvm: all
	scripts/deps.sh run test box
	scripts/check-kvm.sh all

quickstart:
	scripts/quickstart.sh

bench: all
	scripts/deps.sh build run bench
	bench/bench.py

fuzz:
	scripts/deps.sh build test
	scripts/fuzz.sh $(FUZZ_SECONDS)

install: all
	PREFIX=$(PREFIX) DESTDIR=$(DESTDIR) scripts/install.sh

format:
	git ls-files -co --exclude-standard '*.[ch]' | xargs clang-format -i

lint:
	scripts/lint.sh

clean:
	rm -rf build build-*
