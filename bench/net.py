#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The network stack beside passt and slirp4netns, each over a TAP device.

    bench/net.py [--runs N] [--ms N] [--only NAME,...] [-o FILE]

Each stack runs in the namespace of a "host" that has nothing but a loopback and a route, and has a
namespace of its own for the guest; the guest talks to the gateway, which all of them take to a
server on that host's loopback. passt is there as pasta, its form for namespaces: that one and
slirp4netns make the TAP device themselves, and neither asks the kernel for offloads on it, as neither
would from a machine's card. Ours does, as it does from ours ("ours"); without them it is what the
same stack does frame by frame ("no offload").

Rounds are taken in turn, so that what else the machine does hits all alike; what counts is the
ratio, and CPU time of the stack's process for what went through.
"""
import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time

import bench
from bench import BUILD, ROOT, Skip

TAPNET = os.path.join(BUILD, "tests", "tapnet")
SIDES = ["ours", "no offload", "pasta", "slirp4netns"]
GATEWAY = {"ours": "172.16.0.1", "no offload": "172.16.0.1", "pasta": "192.0.2.254", "slirp4netns": "10.0.2.2"}


def ip(*words):
    subprocess.run(["ip", *words], check=True, stdout=subprocess.DEVNULL)


def cpu(pid):
    """Seconds on a processor, of all threads."""
    tasks = f"/proc/{pid}/task"
    return sum(int(open(f"{tasks}/{t}/schedstat").read().split()[0]) for t in os.listdir(tasks)) / 1e9


def memory(pid):
    """KiB of its own."""
    return sum(int(line.split()[1]) for line in open(f"/proc/{pid}/smaps_rollup") if line.startswith("Private_"))


class Net:
    """A host, a server there, and for each side a stack and the namespace of its guest."""
    number = 0

    def __init__(self, work, mtu, sides):
        self.work, self.children, self.spaces, self.pid, self.guest = work, [], [], {}, {}
        Net.number += 1
        tag = f"msbnet{os.getpid()}-{Net.number}"
        self.host = self.space(tag)
        # A device that every kernel with TAP has; nobody ever reads from it.
        ip("-n", self.host, "tuntap", "add", "dev", "out0", "mode", "tap")
        ip("-n", self.host, "addr", "add", "192.0.2.1/24", "dev", "out0")
        ip("-n", self.host, "link", "set", "out0", "up")
        ip("-n", self.host, "route", "add", "default", "via", "192.0.2.254")
        server = self.start("ip", "netns", "exec", self.host, work + "/netload", "serve")
        self.port = server.stdout.readline().strip()
        for i, side in enumerate(sides):
            self.guest[side] = self.space(f"{tag}-{i}")
            getattr(self, side.replace(" ", "_"))(side, mtu)

    def space(self, name):
        ip("netns", "add", name)
        self.spaces.append(name)
        ip("-n", name, "link", "set", "lo", "up")
        return name

    def start(self, *argv, **how):
        child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **how)
        self.children.append(child)
        return child

    def ours(self, side, mtu, env=()):
        child = self.start("ip", "netns", "exec", self.host, TAPNET, f"/run/netns/{self.guest[side]}", "eth0", str(mtu),
                           "all,host", env=dict(os.environ, **dict(env)))
        assert child.stdout.readline() == "ready\n"
        self.pid[side] = child.pid
        n = ("-n", self.guest[side])
        ip(*n, "link", "set", "eth0", "address", "02:6d:73:00:00:02", "mtu", str(mtu), "up")
        ip(*n, "addr", "add", "172.16.0.2/30", "dev", "eth0")
        ip(*n, "route", "add", "default", "via", GATEWAY[side])

    def no_offload(self, side, mtu):
        self.ours(side, mtu, {"TAPNET_OFFLOAD": "0"})

    def pasta(self, side, mtu):
        child = self.start("ip", "netns", "exec", self.host, "pasta", "-q", "-f", "--config-net", "--netns-only", "--netns",
                           f"/run/netns/{self.guest[side]}", "--runas", "0", "-4", "-I", "eth0", "-m", str(mtu),
                           "-t", "none", "-u", "none", "-T", "none", "-U", "none", stderr=subprocess.DEVNULL)
        self.pid[side] = child.pid
        self.wait_for(side, "eth0", child)

    def slirp4netns(self, side, mtu):
        child = self.start("ip", "netns", "exec", self.host, "slirp4netns", "-c", "-m", str(mtu), "--netns-type=path",
                           f"/run/netns/{self.guest[side]}", "eth0", stderr=subprocess.DEVNULL)
        self.pid[side] = child.pid
        self.wait_for(side, "eth0", child)

    def wait_for(self, side, name, child):
        for _ in range(1000):
            done = subprocess.run(["ip", "-n", self.guest[side], "route", "show", "default"], stdout=subprocess.PIPE, text=True)
            if name in done.stdout:
                return
            assert child.poll() is None, side + " ended"
            time.sleep(0.01)
        raise AssertionError(side + " does not configure its namespace")

    def load_argv(self, side, what, flows, ms):
        return ["ip", "netns", "exec", self.guest[side], self.work + "/netload", GATEWAY[side], self.port, what, str(flows), str(ms)]

    def load(self, side, what, flows, ms):
        """What netload says, and the seconds of CPU of the stack. None when the load did not get through."""
        before = cpu(self.pid[side])
        done = subprocess.run(["timeout", "20"] + self.load_argv(side, what, flows, ms), stdout=subprocess.PIPE, text=True)
        return [int(x) for x in done.stdout.split()] + [cpu(self.pid[side]) - before] if done.returncode == 0 else None

    def close(self):
        for child in self.children:
            child.kill()
            child.wait()
        for name in self.spaces:
            ip("netns", "del", name)


class NetBench(bench.Bench):
    ms = 500
    sides = SIDES

    def prepare(self):
        missing = [p for p in ("ip", "cc") + tuple(s for s in self.sides if s in ("pasta", "slirp4netns")) if not shutil.which(p)]
        if os.geteuid() or missing:
            sys.exit(f"bench/net.py: needs root, and is without: {missing}")
        subprocess.run(["ninja", "-C", BUILD, "tests/tapnet"], check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["cc", "-O2", "-pthread", "-o", self.work + "/netload", os.path.join(ROOT, "bench", "netload.c")], check=True)

    def rounds(self, net, what, flows):
        got = {s: [] for s in self.sides}
        for turn in range(self.runs + 1):
            for side in self.sides:
                result = net.load(side, what, flows, self.ms if turn else 100)
                assert result or side not in ("ours", "no offload"), f"{side}: {what} with {flows} flows failed"
                if turn and result:
                    got[side].append(result)
        return got

    def median(self, results, fn):
        return statistics.median(fn(*r) for r in results) if results else None

    def table(self, text, values, form, better=1):
        """A row of one figure, and how many times better ours is than the others."""
        ratios = []
        for other in ("pasta", "slirp4netns"):
            if other in values and "ours" in values:
                ratio = values[other] and (values["ours"] / values[other] if better > 0 else values[other] / values["ours"])
                ratios.append(f"{ratio:.2f}" if ratio else "")
        self.row(text, *["failed" if values[s] is None else form.format(values[s]) for s in self.sides], *ratios)

    def columns(self, what):
        self.head(what, *self.sides, *[f"ours is better than {s} by" for s in self.sides if s in ("pasta", "slirp4netns")])

    def bulk(self, mtu):
        net = Net(self.work, mtu, self.sides)
        try:
            self.columns(f"MTU {mtu}")
            for what, text in (("up", "from"), ("down", "to")):
                for flows in (1, 4, 16):
                    got = self.rounds(net, what, flows)
                    self.table(f"{flows} flow{'s' * (flows > 1)} {text} the guest, Gbit/s",
                               {s: self.median(r, lambda b, ns, c: b * 8 / ns) for s, r in got.items()}, "{:.2f}")
                    self.table("... CPU of the stack, ms per Gbit",
                               {s: self.median(r, lambda b, ns, c: c * 1e12 / (b * 8)) for s, r in got.items()}, "{:.1f}", -1)
            self.table("memory of its own afterwards, KiB", {s: memory(net.pid[s]) for s in self.sides}, "{}", -1)
        finally:
            net.close()

    # ---- the parts ----

    def bulk_1500(self):
        """Bulk TCP at an MTU of 1500"""
        self.bulk(1500)

    def bulk_65520(self):
        """Bulk TCP at an MTU of 65520"""
        self.bulk(65520)

    def exchanges(self):
        """64 bytes there and back, on one connection and on a connection each"""
        net = Net(self.work, 65520, self.sides)
        try:
            self.columns("")
            for what, text in (("rr", "exchanges"), ("crr", "connections with an exchange")):
                got = self.rounds(net, what, 1)
                self.table(f"{text} in {self.ms} ms", {s: self.median(r, lambda n, *_: n) for s, r in got.items()}, "{:.0f}")
                self.table("... p50, us", {s: self.median(r, lambda n, p, *_: p / 1e3) for s, r in got.items()}, "{:.0f}", -1)
                self.table("... p99, us", {s: self.median(r, lambda n, p, q, first, c: q / 1e3) for s, r in got.items()}, "{:.0f}", -1)
                self.table("... CPU of the stack, us each", {s: self.median(r, lambda n, p, q, first, c: c * 1e6 / n) for s, r in got.items()},
                           "{:.1f}", -1)
        finally:
            net.close()

    def many(self):
        """10,000 connections at once through ours: memory, and none fails"""
        count = int(os.environ.get("BENCH_FLOWS", "10000"))
        net = Net(self.work, 1500, ["ours"])
        try:
            before = memory(net.pid["ours"])
            began, used = time.monotonic(), cpu(net.pid["ours"])
            child = subprocess.Popen(net.load_argv("ours", "hold", count, 0), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            said = [child.stdout.readline(), child.stdout.readline()]
            took, used = time.monotonic() - began, cpu(net.pid["ours"]) - used
            after = memory(net.pid["ours"])
            child.stdin.close()
            assert child.wait() == 0 and said == [f"{count}\n"] * 2, said
            self.head(f"{count} connections", "")
            self.row("opened and two exchanges on each, s", f"{took:.1f}")
            self.row("CPU of the stack, s", f"{used:.2f}")
            self.row("memory of the stack before / with them, KiB", f"{before} / {after}")
            self.row("bytes for each", f"{(after - before) * 1024 / count:.0f}")
        finally:
            net.close()


PARTS = ["bulk_1500", "bulk_65520", "exchanges", "many"]

if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--ms", type=int, default=NetBench.ms)
    parser.add_argument("--sides", default=",".join(SIDES))
    args, rest = parser.parse_known_args()
    NetBench.ms, NetBench.sides = args.ms, args.sides.split(",")
    sys.argv[1:] = rest
    sys.exit(bench.main(NetBench, PARTS, __doc__))
