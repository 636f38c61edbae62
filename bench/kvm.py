#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The figures of the kvm engine, on a host (or in the box of tests/box) with a real /dev/kvm.

    bench/kvm.py [--runs N] [--only NAME,...] [-o FILE]     here
    bench/bench.py --only box                               in the box

In the box everything is emulated, the processor and its virtualisation too, so a second there is
many of a real machine's: only ratios of what ran in turn mean something.
"""
import base64
import os
import re
import statistics
import subprocess
import sys
import threading
import time

import bench
import harness
from bench import COMMAND, MSB, QEMU, VMLINUX, Skip

KVM_MACHINE = [QEMU, "-M", "microvm,acpi=off,pic=off,pit=off,rtc=off", "-accel", "kvm", "-cpu", "host",
               "-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio",
               "-global", "virtio-mmio.force-legacy=false", "-kernel", VMLINUX]
QUIET = "console=ttyS0 quiet no_timer_check panic=-1 reboot=t"
# What a guest does with the server of netload on the machine's loopback, which its gateway stands for;
# netload comes along, as a program in Python would measure Python.
TALK = r"""
import base64, os, socket, struct, subprocess, sys
port, ms, program = sys.argv[1:]
route = next(l.split() for l in open("/proc/net/route") if l.split()[1] == "00000000")
host = socket.inet_ntoa(struct.pack("<I", int(route[2], 16)))
with open("/tmp/netload", "wb") as f:
    f.write(base64.b64decode(program))
os.chmod("/tmp/netload", 0o755)
said = [subprocess.run(["/tmp/netload", host, port, what, "1", ms], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
        for what in ("crr", "down", "up")]
print("net", *said)
"""
# Comes up and asks for a reset, with which the machine ends.
INIT = r"""
#include <sys/reboot.h>
#include <unistd.h>
int main(void) { write(1, "up\n", 3); reboot(RB_AUTOBOOT); return 1; }
"""


class KvmBench(bench.Bench):
    def prepare(self):
        super().prepare()
        self.peer_env = None

    def run_ours(self, *options):
        out = self.msb("run", "-q", "--engine", "kvm", *options, "python", "--", *COMMAND).stdout
        assert out == b"42\n", out

    def ready_peer(self):
        """The peer's program with the image loaded; its home needs extended attributes."""
        peer = self.peer()
        if not peer:
            raise Skip("the peer: " + self.no_peer)
        if not self.peer_env:
            home = os.path.join(self.work, "peer")
            os.makedirs(home)
            self.peer_env = dict(os.environ, HOME=home, MSB_HOME=home, TMPDIR=home)
            done = subprocess.run([peer, "load", "-i", self.image], env=self.peer_env, stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            listed = subprocess.run([peer, "image", "ls"], env=self.peer_env, stdout=subprocess.PIPE, text=True).stdout
            if done.returncode or "python" not in listed:
                raise Skip(f"the peer did not load the image: {done.stdout[-300:]} {listed[-300:]}")
        return peer

    # ---- the parts ----

    def peer_run(self):
        """msb run -q IMG -- python3 -c 'print(6*7)' against the peer's, whole command"""
        peer = self.ready_peer()

        def theirs():
            out = subprocess.run([peer, "run", "-q", "--no-tty", "--pull", "never", "python", "--", *COMMAND],
                                 env=self.peer_env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                 stderr=subprocess.STDOUT, timeout=300).stdout
            assert b"42" in out, out
        self.compare(self.in_turn({"msb run": self.run_ours, "peer's msb run": theirs}), "msb run", "peer's msb run")

    def peer_exec(self):
        """msb exec box -- /bin/true in a sandbox that runs, against the peer's"""
        peer = self.ready_peer()

        def call(*words):
            done = subprocess.run([peer, *words], env=self.peer_env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, text=True, timeout=300)
            if done.returncode:
                raise Skip(f"the peer's {words[0]}: {done.stdout[-300:]}")
        self.msb("create", "-q", "--engine", "kvm", "--name", "box", "python")
        try:
            call("create", "-q", "--pull", "never", "--name", "box", "python")
            self.compare(self.in_turn({"msb exec": lambda: self.msb("exec", "box", "--", "/bin/true"),
                                       "peer's msb exec": lambda: call("exec", "-q", "--no-tty", "box", "--", "/bin/true")}, 10 * self.runs),
                         "msb exec", "peer's msb exec")
            call("stop", "-q", "box")
        finally:
            self.msb("rm", "-q", "-f", "box")

    def net(self):
        """A guest's network to a server of the machine it runs on, against the peer's"""
        peer = self.ready_peer()
        load = self.work + "/netload"
        subprocess.run(["musl-gcc", "-static", "-O2", "-s", "-pthread", "-o", load, os.path.join(bench.ROOT, "bench", "netload.c")],
                       check=True)
        program = base64.b64encode(open(load, "rb").read()).decode()
        # Who has no route to anywhere gives the guest no network.
        if not subprocess.run(["ip", "route", "show", "default"], stdout=subprocess.PIPE).stdout:
            for words in ("link set lo up", "addr add 10.9.9.1/24 dev lo", "route add default dev lo"):
                subprocess.run(["ip"] + words.split(), check=False)
        server = subprocess.Popen([load, "serve"], stdout=subprocess.PIPE, text=True)
        port = server.stdout.readline().strip()
        argv = ["python", "--", "python3", "-c", TALK, port, os.environ.get("BENCH_MS", "3000"), program]
        sides = {
            "ours": lambda: self.msb("run", "-q", "--engine", "kvm", "--net", "host", *argv).stdout,
            "the peer's": lambda: subprocess.run([peer, "run", "-q", "--no-tty", "--pull", "never", "--net", "host", *argv],
                                                 env=self.peer_env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                                 stderr=subprocess.STDOUT, timeout=600).stdout,
        }
        got = {side: [] for side in sides}
        try:
            for _ in range(self.runs):
                for side, run in sides.items():
                    out = run().decode(errors="replace")
                    said = re.search(r"^net (.*)$", out, re.M)
                    assert said, f"{side}: {out[-500:]}"
                    n, p50, _, first, got_down, ns_down, got_up, ns_up = (int(x) for x in said.group(1).split())
                    got[side].append([first / 1e6, p50 / 1e6, got_down / ns_down * 1e3, got_up / ns_up * 1e3])
        finally:
            server.kill()
            server.wait()
        ours, theirs = ([statistics.median(r) for r in zip(*got[side])] for side in sides)
        self.head("", *sides, "ours is better by")
        for i, (text, better) in enumerate((("first connection with an exchange, ms", -1), ("each of those after it, median ms", -1),
                                            ("bulk to the guest, MB/s", 1), ("bulk from the guest, MB/s", 1))):
            self.row(text, f"{ours[i]:.1f}", f"{theirs[i]:.1f}", f"{(ours[i] / theirs[i]) ** better:.2f}")

    def qemu_run(self):
        """The same against QEMU microvm with -accel kvm, our kernel and the same files on ext4"""
        disk = self.rootfs()

        def theirs():
            out = subprocess.run(KVM_MACHINE + ["-m", "512", "-append", QUIET + " root=/dev/vda ro init=/plain-init",
                                                "-drive", f"if=none,id=d,file={disk},format=raw,snapshot=on",
                                                "-device", "virtio-blk-device,drive=d"],
                                 stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                 timeout=300).stdout
            assert b"42" in out, out
        self.compare(self.in_turn({"msb run": self.run_ours, "QEMU -accel kvm": theirs}), "msb run", "QEMU -accel kvm")

    def bare(self):
        """The monitor alone: boot to the first program of an initramfs and off again"""
        demo = os.path.join(bench.BUILD, "tests", "boot_demo")
        if not os.path.exists(demo):
            raise Skip(f"{demo} is not built")
        source, init, archive = (os.path.join(self.work, n) for n in ("init.c", "init", "bare.cpio"))
        with open(source, "w") as f:
            f.write(INIT)
        subprocess.run(["musl-gcc", "-static", "-Os", "-s", "-o", init, source], check=True)
        with open(archive, "wb") as f:
            subprocess.run(["busybox", "cpio", "-o", "-H", "newc"], cwd=self.work, input=b"init\n", stdout=f,
                           stderr=subprocess.DEVNULL, check=True)

        def ours():
            subprocess.run([demo, VMLINUX, archive, "1", "512", QUIET], check=True, stdin=subprocess.DEVNULL,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=300)

        def theirs():
            subprocess.run(KVM_MACHINE + ["-m", "512", "-initrd", archive, "-append", QUIET], check=True,
                           stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=300)
        self.compare(self.in_turn({"kvm engine": ours, "QEMU -accel kvm": theirs}), "kvm engine", "QEMU -accel kvm")

    def idle(self):
        """Memory of an idle sandbox of 512 MiB"""
        child = subprocess.Popen([MSB, "run", "--engine", "kvm", "python", "--", "sh", "-c", "echo up; read x"],
                                 env=self.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            child.stdout.readline()
            pid = next(p for p, line in harness.machines_of(self.home).items() if "msb-vm" in line.split()[0])
            guest, shared, own = memory_of(pid)
            self.head("msb-vm of an idle sandbox of 512 MiB", "MiB")
            self.row("guest memory of its own", f"{guest / 1024:.1f}")
            self.row("pages of the kernel, shared with other sandboxes", f"{shared / 1024:.1f}")
            self.row("private to msb-vm besides", f"{own / 1024:.1f}")
        finally:
            child.stdin.close()
            child.wait()

    def fifty(self):
        """50 sandboxes started at once, each runs the program and stays until all have"""
        count = int(os.environ.get("BENCH_SANDBOXES", "50"))
        program = "import sys;print(6*7,flush=True);sys.stdin.read()"
        children = []
        answers = [None] * count
        began = time.monotonic()

        def wait_for(i):
            answers[i] = (children[i].stdout.readline(), time.monotonic() - began)
        threads = []
        for i in range(count):
            children.append(subprocess.Popen(
                [MSB, "run", "-q", "--engine", "kvm", "-m", "256M", "python", "--", "python3", "-c", program],
                env=self.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
            threads.append(threading.Thread(target=wait_for, args=(i,)))
            threads[-1].start()
        for thread in threads:
            thread.join()
        machines = [p for p, line in harness.machines_of(self.home).items() if "msb-vm" in line.split()[0]]
        memory = [memory_of(p) for p in machines]
        for child in children:
            child.stdin.close()
        failed = sum(child.wait() != 0 for child in children)
        good = sum(a[0] == b"42\n" for a in answers)
        assert good == count and not failed, f"{good} of {count} answered, {failed} ended badly"
        times = sorted(a[1] for a in answers)
        self.head(f"{count} sandboxes of 256 MiB", "")
        self.row("first / median / last answer, s", f"{times[0]:.1f} / {statistics.median(times):.1f} / {times[-1]:.1f}")
        self.row("seconds per sandbox", f"{times[-1] / count:.2f}")
        self.row("guest memory of its own, each, MiB", f"{statistics.mean(m[0] for m in memory) / 1024:.1f}")
        self.row("private to msb-vm besides, each, MiB", f"{statistics.mean(m[2] for m in memory) / 1024:.2f}")


def memory_of(pid):
    """KiB of an msb-vm: guest memory of its own, the kernel's pages it shares, private memory besides."""
    maps = []
    for block in re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", open(f"/proc/{pid}/smaps").read()):
        start, end = (int(x, 16) for x in block.split(" ", 1)[0].split("-"))
        value = {k: int(v) for k, v in re.findall(r"^(\w+):\s+(\d+) kB", block, re.M)}
        maps.append((start, end, value))
    # The kernel's file is mapped into guest memory, which is therefore several mappings side by side.
    largest = max(range(len(maps)), key=lambda i: maps[i][1] - maps[i][0])
    first = last = largest
    while first and maps[first - 1][1] == maps[first][0]:
        first -= 1
    while last + 1 < len(maps) and maps[last + 1][0] == maps[last][1]:
        last += 1
    guest = [m[2] for m in maps[first:last + 1]]
    rest = [m[2] for m in maps[:first] + maps[last + 1:]]
    own = sum(v["Anonymous"] for v in guest)
    return own, sum(v["Rss"] for v in guest) - own, sum(v["Private_Clean"] + v["Private_Dirty"] for v in rest)


PARTS = ["peer_run", "peer_exec", "net", "qemu_run", "bare", "idle", "fifty"]

if __name__ == "__main__":
    sys.exit(bench.main(KvmBench, PARTS, __doc__))
