# The fixed entry points; meson and ninja do the building.
#
#   make               build/msb, build/msb-vm, build/guest/agentd, build/vmlinux
#   make quickstart    install what is missing, build, make an image, run Python in a virtual machine
#   make check         everything that CI checks
#   make check-kvm     the tests on the kvm engine, in a nested machine with one, two and four CPUs (slow)
#   make bench         the figures of docs/benchmarks.md on this machine
#   make fuzz          every fuzz target for FUZZ_SECONDS
#   make install       PREFIX=/usr/local DESTDIR=

PREFIX ?= /usr/local
DESTDIR ?=
SHARE = $(DESTDIR)$(PREFIX)/share
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
	scripts/check-kvm.sh

quickstart:
	scripts/quickstart.sh

bench: all
	scripts/deps.sh build run bench
	bench/bench.py

fuzz:
	scripts/deps.sh build test
	scripts/fuzz.sh $(FUZZ_SECONDS)

install: all
	install -D -m 0755 -s build/msb $(DESTDIR)$(PREFIX)/bin/msb
	install -D -m 0755 -s build/msb-vm $(DESTDIR)$(PREFIX)/lib/microsandbox/msb-vm
	install -D -m 0755 -s build/msb-fetch $(DESTDIR)$(PREFIX)/lib/microsandbox/msb-fetch
	install -D -m 0755 -s build/msb-convert $(DESTDIR)$(PREFIX)/lib/microsandbox/msb-convert
	install -D -m 0755 -s build/msb-ssh $(DESTDIR)$(PREFIX)/lib/microsandbox/msb-ssh
	install -D -m 0755 build/guest/agentd $(DESTDIR)$(PREFIX)/lib/microsandbox/guest/agentd
	build/msb schema | install -D -m 0644 /dev/stdin $(SHARE)/microsandbox/sandbox.schema.json
	build/msb completion bash | install -D -m 0644 /dev/stdin $(SHARE)/bash-completion/completions/msb
	build/msb completion zsh | install -D -m 0644 /dev/stdin $(SHARE)/zsh/site-functions/_msb
	build/msb completion fish | install -D -m 0644 /dev/stdin $(SHARE)/fish/vendor_completions.d/msb.fish
	for page in $$(build/msb __man); do \
		build/msb __man $$page | install -D -m 0644 /dev/stdin $(SHARE)/man/man$${page##*.}/$$page || exit; \
	done
	install -D -m 0644 build/vmlinux $(DESTDIR)$(PREFIX)/lib/microsandbox/vmlinux

format:
	git ls-files -co --exclude-standard '*.[ch]' | xargs clang-format -i

lint:
	scripts/lint.sh

clean:
	rm -rf build build-*
